//! The entries of a root as a sequence of chunks of text: cheap to clone, to count in, and to
//! change in the middle.
//!
//! An entry is an element of the root list or a member of the root object: with the white space
//! around it and, but for the first, the comma before it. A chunk holds whole entries. Chunks are
//! in groups with sums, so that neither a clone nor a lookup looks at all chunks of a long text.

use std::iter;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::looked_at;
use super::names::value_in;
use crate::value::mutation::Content;

/// How large chunks and groups become.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkSizes {
    /// How many bytes a chunk has at most when it is cut, unless one entry alone has more.
    pub(super) chunk: usize,
    /// How many chunks a group has at most.
    pub(super) group: usize,
}

impl ChunkSizes {
    pub(super) const USUAL: Self = Self {
        chunk: 16 * 1024,
        group: 64,
    };

    /// How many bytes a chunk that was changed may have before it is cut.
    const fn room(self) -> usize {
        self.chunk + self.chunk / 2
    }
}

const _: () = assert!(ChunkSizes::USUAL.room() <= u16::MAX as usize);

#[cfg(not(test))]
pub(super) fn sizes() -> ChunkSizes {
    ChunkSizes::USUAL
}

#[cfg(test)]
pub(super) fn sizes() -> ChunkSizes {
    SIZES.get()
}

// Tests have chunks and groups of a few bytes too.
#[cfg(test)]
thread_local! {
    pub(super) static SIZES: std::cell::Cell<ChunkSizes> =
        const { std::cell::Cell::new(ChunkSizes::USUAL) };
}

/// What the index of names calls a chunk. A chunk that is changed keeps its number.
pub(super) type ChunkId = u32;

#[derive(Debug)]
pub(super) struct Chunk {
    text: Bytes,
    /// Where each entry but the first begins. A chunk of several entries is short enough for it.
    starts: Box<[u16]>,
    /// What each element says; made at first need. It is the same for all threads.
    contents: ArcSwapOption<Vec<Content>>,
}

impl Chunk {
    fn new(text: Bytes, starts: &[usize]) -> Self {
        let short = |start: &usize| u16::try_from(*start).expect("a chunk is cut before that");
        Self {
            text,
            starts: starts.iter().map(short).collect(),
            contents: ArcSwapOption::empty(),
        }
    }

    /// What each of its elements says.
    pub(super) fn contents(&self) -> Arc<Vec<Content>> {
        if let Some(contents) = self.contents.load_full() {
            return contents;
        }
        looked_at(self.text.len());
        let content = |at| {
            let element = self.entry_bytes(at);
            let text = std::str::from_utf8(&element[value_in(element, false)]);
            Content::of(text.unwrap_or_default())
        };
        let contents = Arc::new((0..self.count()).map(content).collect());
        self.contents.store(Some(Arc::clone(&contents)));
        contents
    }

    /// How many entries it has.
    pub(super) fn count(&self) -> usize {
        self.starts.len() + 1
    }

    /// Where an entry of it begins; for the number of entries, where the text ends.
    pub(super) fn start(&self, at: usize) -> usize {
        match at.checked_sub(1) {
            None => 0,
            Some(before) => self
                .starts
                .get(before)
                .map_or(self.text.len(), |start| usize::from(*start)),
        }
    }

    /// The entry that has the byte at this offset.
    fn entry_at(&self, offset: usize) -> usize {
        self.starts
            .partition_point(|start| usize::from(*start) <= offset)
    }

    pub(super) fn entry(&self, at: usize) -> Bytes {
        self.text.slice(self.start(at)..self.start(at + 1))
    }

    pub(super) fn entry_bytes(&self, at: usize) -> &[u8] {
        &self.text[self.start(at)..self.start(at + 1)]
    }

    pub(super) fn text(&self) -> &Bytes {
        &self.text
    }
}

/// How many contents chunks have had.
static CONTENTS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) id: ChunkId,
    /// Its text is a slice of a longer one, which it keeps in memory.
    is_slice: bool,
    bytes: usize,
    count: usize,
    /// The same for chunks with the same entries, wherever their text is, and for no others.
    pub(super) content: u64,
    pub(super) chunk: Arc<Chunk>,
}

impl Piece {
    fn new(id: ChunkId, is_slice: bool, text: Bytes, starts: &[usize]) -> Self {
        let chunk = Chunk::new(text, starts);
        Self {
            id,
            is_slice,
            bytes: chunk.text.len(),
            count: chunk.count(),
            content: CONTENTS.fetch_add(1, Ordering::Relaxed),
            chunk: Arc::new(chunk),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The same entries, as a part of another text.
    fn with_text(&self, text: Bytes, is_slice: bool) -> Self {
        Self {
            is_slice,
            chunk: Arc::new(Chunk {
                text,
                starts: self.chunk.starts.clone(),
                contents: ArcSwapOption::new(self.chunk.contents.load_full()),
            }),
            ..*self
        }
    }
}

#[derive(Debug, Clone)]
struct Group {
    bytes: usize,
    count: usize,
    pieces: Arc<Vec<Piece>>,
}

impl Group {
    fn new(pieces: Vec<Piece>) -> Self {
        Self {
            bytes: pieces.iter().map(|piece| piece.bytes).sum(),
            count: pieces.iter().map(|piece| piece.count).sum(),
            pieces: Arc::new(pieces),
        }
    }
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkPlace {
    group: usize,
    piece: usize,
    /// How many bytes and entries are before it.
    pub(super) offset: usize,
    pub(super) first: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ChunkList {
    groups: Vec<Group>,
    bytes: usize,
    count: usize,
    next_id: ChunkId,
    /// How many bytes the text has that slices keep in memory, and how many of them are in use.
    shared: usize,
    sliced: usize,
}

/// What a change of entries did to the chunks.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) pieces: Vec<Piece>,
    /// The entries that were not changed are in the chunk with the same number as before.
    pub(super) keeps_chunk: bool,
}

impl ChunkList {
    /// Cuts a text into chunks, which are slices of it. `starts` has where each entry but the first
    /// begins; an empty text has no entry.
    pub(super) fn cut(text: &Bytes, starts: &[usize]) -> Self {
        let mut list = Self::default();
        if text.is_empty() {
            return list;
        }
        let pieces = list.pieces(text, starts, None, true);
        list.shared = text.len();
        list.sliced = text.len();
        list.bytes = text.len();
        list.count = starts.len() + 1;
        list.groups = groups(pieces);
        list
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries it has.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.groups.iter().map(|group| group.pieces.len()).sum()
    }

    pub(super) fn all_pieces(&self) -> impl Iterator<Item = &Piece> {
        self.groups.iter().flat_map(|group| &*group.pieces)
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &Bytes> {
        self.all_pieces().map(|piece| &piece.chunk.text)
    }

    /// The chunks, from the last to the first.
    pub(super) fn in_reverse(&self) -> impl Iterator<Item = (ChunkPlace, &Piece)> {
        let (mut offset, mut first) = (self.bytes, self.count);
        let groups = self.groups.iter().enumerate().rev();
        let pieces = groups.flat_map(|(group, found)| {
            let pieces = found.pieces.iter().enumerate().rev();
            pieces.map(move |(piece, found)| (group, piece, found))
        });
        pieces.map(move |(group, piece, found)| {
            offset -= found.bytes;
            first -= found.count;
            let place = ChunkPlace {
                group,
                piece,
                offset,
                first,
            };
            (place, found)
        })
    }

    /// The indexes of the entries that `found` finds in each chunk, in order.
    pub(super) fn all_positions(&self, found: impl Fn(&Chunk) -> Vec<usize>) -> Vec<usize> {
        let mut positions = Vec::new();
        let mut first = 0;
        for piece in self.all_pieces() {
            let found = found(&piece.chunk).into_iter();
            positions.extend(found.map(|at| first + at));
            first += piece.count;
        }
        positions
    }

    /// The bytes from this offset on.
    pub(super) fn texts_from(&self, offset: usize) -> impl Iterator<Item = &[u8]> {
        let place = self.place_of_byte(offset);
        let rest = place.map(|place| {
            let groups = self.groups[place.group..].iter().enumerate();
            let mut skipped = offset - place.offset;
            let pieces = groups.flat_map(move |(group, found)| {
                let first = if group == 0 { place.piece } else { 0 };
                &found.pieces[first..]
            });
            pieces.map(move |piece| &piece.chunk.text[std::mem::take(&mut skipped)..])
        });
        rest.into_iter().flatten()
    }

    pub(super) fn chunk(&self, place: ChunkPlace) -> &Arc<Chunk> {
        &self.groups[place.group].pieces[place.piece].chunk
    }

    /// The chunk of an entry, and which entry of the chunk it is.
    pub(super) fn find(&self, at: usize) -> Option<(ChunkPlace, usize)> {
        let place = self.walk(|place, _, count| at < place.first + count)?;
        Some((place, at - place.first))
    }

    fn place_of_byte(&self, offset: usize) -> Option<ChunkPlace> {
        self.walk(|place, bytes, _| offset < place.offset + bytes)
    }

    /// The entry that has this byte.
    pub(super) fn entry_at(&self, offset: usize) -> Option<usize> {
        let place = self.place_of_byte(offset)?;
        Some(place.first + self.chunk(place).entry_at(offset - place.offset))
    }

    /// Where an entry begins; for the number of entries, where the text ends.
    pub(super) fn start(&self, at: usize) -> usize {
        self.find(at).map_or(self.bytes, |(place, at)| {
            place.offset + self.chunk(place).start(at)
        })
    }

    /// The first chunk of which this is true; it is given the place, the bytes and the entries of a
    /// group, and then of a chunk.
    fn walk(&self, is_in: impl Fn(&ChunkPlace, usize, usize) -> bool) -> Option<ChunkPlace> {
        let mut place = ChunkPlace {
            group: 0,
            piece: 0,
            offset: 0,
            first: 0,
        };
        for group in &self.groups {
            if is_in(&place, group.bytes, group.count) {
                break;
            }
            place.group += 1;
            place.offset += group.bytes;
            place.first += group.count;
        }
        for piece in &*self.groups.get(place.group)?.pieces {
            if is_in(&place, piece.bytes, piece.count) {
                return Some(place);
            }
            place.piece += 1;
            place.offset += piece.bytes;
            place.first += piece.count;
        }
        None
    }

    /// The places of chunks with these numbers, in order.
    pub(super) fn places_of(&self, ids: &[ChunkId]) -> Vec<ChunkPlace> {
        let (mut offset, mut first) = (0, 0);
        let mut places = Vec::with_capacity(ids.len());
        for (group, found) in self.groups.iter().enumerate() {
            let (mut offset_in_group, mut first_in_group) = (offset, first);
            for (piece, found) in found.pieces.iter().enumerate() {
                if ids.contains(&found.id) {
                    places.push(ChunkPlace {
                        group,
                        piece,
                        offset: offset_in_group,
                        first: first_in_group,
                    });
                    if places.len() == ids.len() {
                        return places;
                    }
                }
                offset_in_group += found.bytes;
                first_in_group += found.count;
            }
            offset += found.bytes;
            first += found.count;
        }
        places
    }

    /// Puts other entries in the place of these; `starts` has where each of them begins in `text`.
    pub(super) fn replace(
        &mut self,
        entries: Range<usize>,
        text: &[u8],
        starts: &[usize],
    ) -> Rewritten {
        let run = self.run_around(&entries, text.len());
        let length = run.length() + text.len();
        looked_at(length);
        let mut written = Vec::with_capacity(length);
        let mut all_starts = Vec::with_capacity(run.count() + starts.len());
        for part in &run.before {
            part.write(&mut written, &mut all_starts);
        }
        all_starts.extend(starts.iter().map(|start| written.len() + start));
        written.extend_from_slice(text);
        for part in &run.after {
            part.write(&mut written, &mut all_starts);
        }

        let id = run.places.first().map(|place| self.piece(*place).id);
        let pieces = match all_starts.split_first() {
            Some((_, starts)) => self.pieces(&Bytes::from(written), starts, id, false),
            None => Vec::new(),
        };
        let keeps_chunk = run.places.len() == 1 && pieces.len() == 1;
        self.splice(&run, &pieces);
        if 2 * self.sliced < self.shared {
            self.copy_slices();
        }
        Rewritten {
            pieces,
            keeps_chunk,
        }
    }

    fn piece(&self, place: ChunkPlace) -> &Piece {
        &self.groups[place.group].pieces[place.piece]
    }

    /// The chunks that are to be written anew for a change of these entries.
    fn run_around(&self, entries: &Range<usize>, added: usize) -> Run {
        let last = if entries.is_empty() {
            entries.start.checked_sub(1)
        } else {
            Some(entries.end - 1)
        };
        let Some((to, last)) = last.and_then(|last| self.find(last)) else {
            return Run::default();
        };
        let (from, first) = match self.find(entries.start) {
            Some(found) if !entries.is_empty() => found,
            _ => (to, last + 1),
        };
        let (from_chunk, to_chunk) = (self.chunk(from), self.chunk(to));
        let is_behind = entries.is_empty() && first == to_chunk.count();
        if is_behind && entries.start == self.count {
            return self.run_at_end(to, added);
        }
        // What is added behind a full chunk begins another one.
        if is_behind && to_chunk.text.len() >= sizes().chunk {
            return self.run_behind(to);
        }

        let mut run = Run {
            group: from.group,
            piece: from.piece,
            places: self.places_between(from, to),
            before: vec![RunPart::new(from_chunk, 0..first)],
            after: vec![RunPart::new(to_chunk, last + 1..to_chunk.count())],
        };
        let length = run.length() + added;
        // A chunk that has become small is put together with the next one or the one before.
        if (1..sizes().chunk / 4).contains(&length) {
            let fits = |place: &ChunkPlace| self.piece(*place).bytes + length <= sizes().chunk;
            if let Some(next) = self.next(to).filter(fits) {
                run.places.push(next);
                run.after.push(RunPart::whole(self.chunk(next)));
            } else if let Some(previous) = self.previous(from).filter(fits) {
                (run.group, run.piece) = (previous.group, previous.piece);
                run.places.insert(0, previous);
                run.before.insert(0, RunPart::whole(self.chunk(previous)));
            }
        }
        run
    }

    /// What is added at the end goes into a short chunk, so that little is copied each time. Once
    /// that is not short any more, it is put together with the one before.
    fn run_at_end(&self, last: ChunkPlace, added: usize) -> Run {
        let short = sizes().chunk / 8;
        let length = self.piece(last).bytes + added;
        let before = self
            .previous(last)
            .filter(|before| length > short && self.piece(*before).bytes + length <= sizes().chunk);
        let from = before.unwrap_or(last);
        if before.is_none() && self.piece(last).bytes > short {
            return self.run_behind(last);
        }
        let places: Vec<ChunkPlace> = before.into_iter().chain([last]).collect();
        let whole = |place: &ChunkPlace| RunPart::whole(self.chunk(*place));
        Run {
            group: from.group,
            piece: from.piece,
            before: places.iter().map(whole).collect(),
            places,
            after: Vec::new(),
        }
    }

    /// What is added goes into the next chunk if there is room, else into one of its own.
    fn run_behind(&self, place: ChunkPlace) -> Run {
        let has_room = |next: &ChunkPlace| self.piece(*next).bytes < sizes().chunk;
        match self.next(place).filter(has_room) {
            Some(next) => Run {
                group: next.group,
                piece: next.piece,
                places: vec![next],
                before: Vec::new(),
                after: vec![RunPart::whole(self.chunk(next))],
            },
            None => Run {
                group: place.group,
                piece: place.piece + 1,
                ..Run::default()
            },
        }
    }

    fn next(&self, place: ChunkPlace) -> Option<ChunkPlace> {
        let piece = self.piece(place);
        self.find(place.first + piece.count).map(|(place, _)| place)
    }

    fn previous(&self, place: ChunkPlace) -> Option<ChunkPlace> {
        let (place, _) = self.find(place.first.checked_sub(1)?)?;
        Some(place)
    }

    fn places_between(&self, from: ChunkPlace, to: ChunkPlace) -> Vec<ChunkPlace> {
        let next = |place: &ChunkPlace| (*place != to).then(|| self.next(*place)).flatten();
        iter::successors(Some(from), next).collect()
    }

    /// Makes chunks of a text with entries. The first one has this number, if there is one.
    fn pieces(
        &mut self,
        text: &Bytes,
        starts: &[usize],
        id: Option<ChunkId>,
        is_slice: bool,
    ) -> Vec<Piece> {
        let size = sizes().chunk;
        let mut id = id;
        let mut pieces = Vec::new();
        if text.len() <= sizes().room() && !is_slice {
            let id = id.unwrap_or_else(|| self.draw_id());
            return vec![Piece::new(id, false, text.clone(), starts)];
        }
        let (mut begin, mut from) = (0, 0);
        let mut relative = Vec::new();
        let ends = starts.iter().copied().chain([text.len()]);
        let mut end_before = 0;
        for (at, end) in ends.enumerate() {
            if end - begin > size && end_before > begin {
                relative.clear();
                relative.extend(starts[from..at - 1].iter().map(|start| start - begin));
                let id = id.take().unwrap_or_else(|| self.draw_id());
                let part = part_of(text, begin..end_before, is_slice);
                pieces.push(Piece::new(id, is_slice, part, &relative));
                begin = end_before;
                from = at;
            }
            end_before = end;
        }
        relative.clear();
        relative.extend(starts[from..].iter().map(|start| start - begin));
        let id = id.take().unwrap_or_else(|| self.draw_id());
        let part = part_of(text, begin..text.len(), is_slice);
        pieces.push(Piece::new(id, is_slice, part, &relative));
        pieces
    }

    fn draw_id(&mut self) -> ChunkId {
        // Numbers are drawn once for each 16 KiB that are read or added: they do not run out.
        self.next_id += 1;
        self.next_id
    }

    /// Puts these chunks in the place of those of a run.
    fn splice(&mut self, run: &Run, pieces: &[Piece]) {
        if self.groups.is_empty() {
            self.count_in(&[], pieces);
            self.groups = groups(pieces.to_vec());
            return;
        }
        let (group, last_group) = (
            run.group,
            run.places.last().map_or(run.group, |to| to.group),
        );
        let end = run.places.last().map_or(run.piece, |to| to.piece + 1);
        let removed: Vec<Piece>;
        if group == last_group {
            let group = &mut self.groups[group];
            let members = Arc::make_mut(&mut group.pieces);
            let added = pieces.iter().cloned();
            removed = members.splice(run.piece..end, added).collect();
            let ((less_bytes, less), (bytes, count)) = (sums(&removed), sums(pieces));
            group.bytes = group.bytes - less_bytes + bytes;
            group.count = group.count - less + count;
        } else {
            let mut all = Vec::new();
            for group in &self.groups[group..=last_group] {
                all.extend_from_slice(&group.pieces);
            }
            let end = all.len() - (self.groups[last_group].pieces.len() - end);
            removed = all.splice(run.piece..end, pieces.iter().cloned()).collect();
            self.groups.splice(group..=last_group, [Group::new(all)]);
        }
        self.count_in(&removed, pieces);
        self.balance(group);
    }

    fn count_in(&mut self, removed: &[Piece], added: &[Piece]) {
        let ((less_bytes, less), (bytes, count)) = (sums(removed), sums(added));
        self.bytes = self.bytes - less_bytes + bytes;
        self.count = self.count - less + count;
        let slices = removed.iter().filter(|piece| piece.is_slice);
        self.sliced -= slices.map(|piece| piece.bytes).sum::<usize>();
    }

    /// Divides a group that has become too large, and drops or joins one that has become small.
    fn balance(&mut self, at: usize) {
        let length = self.groups[at].pieces.len();
        let most = sizes().group;
        if length > most {
            let pieces = self.groups[at].pieces.to_vec();
            let is_last = at + 1 == self.groups.len();
            // Groups to which is only added are full; others get room.
            let part = if is_last {
                most
            } else {
                length.div_ceil(2).min(most)
            };
            let parts = pieces.chunks(part).map(|part| Group::new(part.to_vec()));
            let parts: Vec<Group> = parts.collect();
            self.groups.splice(at..=at, parts);
        } else if length == 0 {
            self.groups.remove(at);
        } else if at > 0 && length + self.groups[at - 1].pieces.len() <= most / 2 {
            let group = self.groups.remove(at);
            let before = &self.groups[at - 1].pieces;
            let joined = before.iter().chain(&*group.pieces).cloned().collect();
            self.groups[at - 1] = Group::new(joined);
        }
    }

    /// Copies what is still in use of a text that is kept in memory as a whole.
    fn copy_slices(&mut self) {
        for group in &mut self.groups {
            if !group.pieces.iter().any(|piece| piece.is_slice) {
                continue;
            }
            for piece in Arc::make_mut(&mut group.pieces) {
                if piece.is_slice {
                    let copy = Bytes::copy_from_slice(&piece.chunk.text);
                    *piece = piece.with_text(copy, false);
                }
            }
        }
        (self.shared, self.sliced) = (0, 0);
    }

    /// The same, as slices of a text that is the same.
    pub(super) fn of_text(&self, text: &Bytes) -> Self {
        let mut offset = 0;
        let groups = self.groups.iter().map(|group| {
            let pieces = group.pieces.iter().map(|piece| {
                let part = text.slice(offset..offset + piece.bytes);
                offset += piece.bytes;
                piece.with_text(part, true)
            });
            Group {
                pieces: Arc::new(pieces.collect()),
                ..*group
            }
        });
        Self {
            groups: groups.collect(),
            shared: text.len(),
            sliced: text.len(),
            ..*self
        }
    }
}

/// Chunks that are written anew, and what stays of them before and after what is changed.
#[derive(Default)]
struct Run {
    /// Where its first chunk is, or will be if it has none yet.
    group: usize,
    piece: usize,
    places: Vec<ChunkPlace>,
    before: Vec<RunPart>,
    after: Vec<RunPart>,
}

impl Run {
    fn length(&self) -> usize {
        let parts = self.before.iter().chain(&self.after);
        parts.map(RunPart::length).sum()
    }

    fn count(&self) -> usize {
        let parts = self.before.iter().chain(&self.after);
        parts.map(|part| part.entries.len()).sum()
    }
}

/// Entries of a chunk that stay.
struct RunPart {
    chunk: Arc<Chunk>,
    entries: Range<usize>,
}

impl RunPart {
    fn new(chunk: &Arc<Chunk>, entries: Range<usize>) -> Self {
        Self {
            chunk: Arc::clone(chunk),
            entries,
        }
    }

    fn whole(chunk: &Arc<Chunk>) -> Self {
        Self::new(chunk, 0..chunk.count())
    }

    fn range(&self) -> Range<usize> {
        self.chunk.start(self.entries.start)..self.chunk.start(self.entries.end)
    }

    fn length(&self) -> usize {
        self.range().len()
    }

    fn write(&self, out: &mut Vec<u8>, starts: &mut Vec<usize>) {
        let range = self.range();
        let begin = out.len();
        let entries = self.entries.clone();
        starts.extend(entries.map(|at| begin + self.chunk.start(at) - range.start));
        out.extend_from_slice(&self.chunk.text[range]);
    }
}

fn groups(pieces: Vec<Piece>) -> Vec<Group> {
    if pieces.is_empty() {
        return Vec::new();
    }
    if pieces.len() <= sizes().group {
        return vec![Group::new(pieces)];
    }
    let groups = pieces.chunks(sizes().group);
    groups.map(|group| Group::new(group.to_vec())).collect()
}

fn sums(pieces: &[Piece]) -> (usize, usize) {
    let bytes = pieces.iter().map(|piece| piece.bytes).sum();
    (bytes, pieces.iter().map(|piece| piece.count).sum())
}

fn part_of(text: &Bytes, range: Range<usize>, is_slice: bool) -> Bytes {
    if is_slice {
        text.slice(range)
    } else {
        Bytes::copy_from_slice(&text[range])
    }
}
