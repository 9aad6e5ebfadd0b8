//! Which chunk has the member with a name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;

use foldhash::fast::RandomState;

use super::chunks::{Chunk, ChunkId, ChunkList, Rewritten};
use super::looked_at;
use super::outline::{Fragment, spaces};
use crate::value::mutation::read_name;

/// A text with at most so many chunks is searched without an index.
const FEW_CHUNKS: usize = 2;

/// For each name the chunks that may have a member with it; made at its first use.
///
/// The versions of a document share one. So it has the chunks of all of them: what it says is
/// looked up in the chunks of the version that asks. It lacks no name of any version: what a change
/// adds is entered before the changed document is there, and a version that is changed before its
/// index was made shares none.
#[derive(Debug, Clone, Default)]
pub(super) struct NameIndex(Arc<Mutex<Option<ChunksByName>>>);

#[derive(Debug, Default)]
struct ChunksByName {
    hasher: RandomState,
    /// By hash of the name.
    first: HashMap<u32, ChunkId, RandomState>,
    /// Further ones: of names that several members share, of names with the same hash, and of
    /// chunks that have the name no more.
    others: HashMap<u32, Vec<ChunkId>, RandomState>,
    /// How many entries were made since it was made.
    added: usize,
}

impl NameIndex {
    /// The indexes of all members with this name, in order.
    pub(super) fn positions(&self, body: &ChunkList, name: &str) -> Vec<usize> {
        if body.chunk_count() <= FEW_CHUNKS {
            return body.all_positions(|chunk| found_in(chunk, name).collect());
        }

        let Some(ids) = self.chunks_with(body, name) else {
            return body.all_positions(|chunk| found_in(chunk, name).collect());
        };
        let mut positions = Vec::new();
        for place in body.places_of(&ids) {
            let found = found_in(body.chunk(place), name).map(|at| place.first + at);
            positions.extend(found);
        }
        positions
    }

    /// `None` in the child of a fork if its parent held the lock at the fork: then nobody will
    /// release it.
    fn lock(&self) -> Option<MutexGuard<'_, Option<ChunksByName>>> {
        /// Another thread holds it for a shorter time than so many yields.
        const TRIES: usize = 1_000;
        for _ in 0..TRIES {
            match self.0.try_lock() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        None
    }

    /// The chunks that may have a member with this name, if the index can be used.
    fn chunks_with(&self, body: &ChunkList, name: &str) -> Option<Vec<ChunkId>> {
        if let Some(index) = &*self.lock()? {
            return Some(index.chunks(name));
        }
        // Whoever changes a version meanwhile shares no index with it.
        let made = ChunksByName::of(body);
        let mut guard = self.lock()?;
        Some(guard.get_or_insert(made).chunks(name))
    }

    /// The index for a version in which entries were changed: this was written anew, of it the
    /// fragment is what was changed.
    pub(super) fn after(
        &self,
        body: &ChunkList,
        rewritten: &Rewritten,
        fragment: &Fragment,
    ) -> Self {
        let mut guard = self.lock();
        let Some(index) = guard.as_deref_mut().and_then(Option::as_mut) else {
            return Self::default();
        };
        // Most entries are of chunks that have the name no more.
        if index.added > 2 * body.count() + 1024 {
            return Self::default();
        }
        if rewritten.keeps_chunk {
            let id = rewritten.pieces[0].id;
            let ends = fragment.starts.iter().skip(1).copied();
            let ends = ends.chain([fragment.text.len()]);
            for (start, end) in fragment.starts.iter().zip(ends) {
                index.add(name_of(&fragment.text[*start..end]), id);
            }
        } else {
            for piece in &rewritten.pieces {
                index.add_chunk(piece.id, &piece.chunk);
            }
        }
        self.clone()
    }
}

impl ChunksByName {
    fn of(body: &ChunkList) -> Self {
        let mut index = Self::default();
        index.first.reserve(body.count());
        for (_, piece) in body.in_reverse() {
            index.add_chunk(piece.id, &piece.chunk);
        }
        index.added = 0;
        index
    }

    fn add_chunk(&mut self, id: ChunkId, chunk: &Chunk) {
        looked_at(chunk.text().len());
        for at in 0..chunk.count() {
            self.add(name_of(chunk.entry_bytes(at)), id);
        }
    }

    fn add(&mut self, quoted: &[u8], id: ChunkId) {
        let name = read_name(std::str::from_utf8(quoted).unwrap_or_default());
        let hash = self.hash(&name);
        let first = *self.first.entry(hash).or_insert(id);
        if first != id {
            let others = self.others.entry(hash).or_default();
            if others.contains(&id) {
                return;
            }
            others.push(id);
        }
        self.added += 1;
    }

    fn chunks(&self, name: &str) -> Vec<ChunkId> {
        let hash = self.hash(name);
        let first = self.first.get(&hash).copied();
        let others = self.others.get(&hash).into_iter().flatten();
        first.into_iter().chain(others.copied()).collect()
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "half of a hash is one too, and takes half the room"
    )]
    fn hash(&self, name: &str) -> u32 {
        self.hasher.hash_one(name) as u32
    }
}

/// Which members of a chunk have this name.
fn found_in<'a>(chunk: &'a Chunk, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    (0..chunk.count()).filter(move |at| has_name(chunk.entry_bytes(*at), name))
}

/// Whether a member has this name. The value is not looked at.
fn has_name(entry: &[u8], name: &str) -> bool {
    let quoted = &entry[name_start(entry)..];
    let inner = quoted.get(1..).unwrap_or_default();
    // A quote ends what is stored, also where the other name goes on with one.
    let is_other = |(stored, asked): (&u8, &u8)| stored != asked || matches!(*stored, b'\\' | b'"');
    let mut pairs = inner.iter().zip(name.as_bytes());
    let same = pairs.position(is_other).unwrap_or(name.len());
    looked_at(same + 1);
    match inner.get(same) {
        // Something is escaped: only the whole name shows what it reads as.
        Some(b'\\') => read_quoted(&quoted[..name_length(quoted)]) == name,
        Some(b'"') => same == name.len(),
        _ => false,
    }
}

fn read_quoted(quoted: &[u8]) -> Cow<'_, str> {
    looked_at(quoted.len());
    read_name(std::str::from_utf8(quoted).unwrap_or_default())
}

/// The name of a member, with its quotes.
fn name_of(entry: &[u8]) -> &[u8] {
    let quoted = &entry[name_start(entry)..];
    &quoted[..name_length(quoted)]
}

/// Where the name begins in a member, which may have a comma and white space before it.
fn name_start(entry: &[u8]) -> usize {
    let start = usize::from(entry.first() == Some(&b','));
    start + spaces(&entry[start..])
}

/// How long a quoted name is that a text begins with.
fn name_length(quoted: &[u8]) -> usize {
    let mut is_escaped = true;
    let end = quoted.iter().position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        // The first quote begins the name.
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(quoted.len(), |end| end + 1)
}

/// Where the value is in an entry: behind the comma, the name if it is a member, and white space.
pub(super) fn value_in(entry: &[u8], is_member: bool) -> Range<usize> {
    let mut start = name_start(entry);
    if is_member {
        start += name_length(&entry[start..]);
        start += spaces(&entry[start..]);
        start += usize::from(entry.get(start) == Some(&b':'));
        start += spaces(&entry[start..]);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let trailing = entry.iter().rev().take_while(|byte| is_space(byte)).count();
    start..(entry.len() - trailing).max(start)
}
