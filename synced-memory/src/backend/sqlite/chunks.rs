//! Large values, which are stored in chunks: a change rewrites the chunks that it touches, and
//! costs no more however long the value is.
//!
//! A chunk may end anywhere but inside a letter, since it is text. The positions of chunks have
//! gaps between them, so that one can be put between two others.

use std::ops::Range;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Row, params};

use super::statements::{self, execute};
use crate::value::document::{ByteEdit, GuardedEdit};

/// A value of at least so many bytes is stored in chunks.
pub(super) const LARGE: usize = 64 << 10;

/// A value in chunks that has become shorter than this is stored like others again. Between the two
/// lengths it stays as it is: a value around one of them is not moved to and fro.
pub(super) const SMALL: usize = LARGE / 2;

/// How many bytes a chunk has when it is cut.
const CHUNK: usize = 8 << 10;

/// How many bytes a chunk has at most after a change.
const ROOM: usize = CHUNK + CHUNK / 2;

/// The same of a chunk at the end, to which is added: it is in one page of the file with its row,
/// so that adding to it rewrites no more.
const END: usize = 3_800;

/// A chunk that is shorter is put together with one beside it.
const SHORT: usize = CHUNK / 4;

/// Between two positions, so that there is room for forty halvings.
const GAP: i64 = 1 << 40;

/// The whole text of a value.
pub(super) fn read(connection: &Connection, key: &str) -> Result<Bytes, Error> {
    let mut statement = connection.prepare_cached(statements::CHUNKS)?;
    let mut rows = statement.query([key])?;
    let mut text = Vec::new();
    while let Some(row) = rows.next()? {
        text.extend_from_slice(text_of(row, 0)?);
    }
    Ok(text.into())
}

/// Stores a text in chunks, in place of those that are there.
pub(super) fn write(connection: &Connection, key: &str, text: &str) -> Result<(), Error> {
    remove(connection, key)?;
    let cut = cut(text, CHUNK).into_iter();
    cut.zip(0_i64..).try_for_each(|(text, number)| {
        execute(
            connection,
            statements::INSERT_CHUNK,
            params![key, number * GAP, byte_count(text), text],
        )
    })
}

pub(super) fn remove(connection: &Connection, key: &str) -> Result<(), Error> {
    execute(connection, statements::REMOVE_CHUNKS, [key])
}

/// The chunks at the end of a value.
pub(super) struct ValueEnd {
    chunks: Vec<StoredChunk>,
    text: Bytes,
}

/// The end of a value of `length` bytes, at least `count` of them; `None` if it has another length.
pub(super) fn end(
    connection: &Connection,
    key: &str,
    length: usize,
    count: usize,
) -> Result<Option<ValueEnd>, Error> {
    let rows = ChunkRows { connection, key };
    let Some(chunks) = rows.last_chunks(length.saturating_sub(count), length)? else {
        return Ok(None);
    };
    let mut text = Vec::new();
    for chunk in &chunks {
        if !rows.read(chunk, &mut text)? {
            return Ok(None);
        }
    }
    let text = text.into();
    Ok(Some(ValueEnd { chunks, text }))
}

impl ValueEnd {
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The edit that puts something in the place of the last `count` bytes; `None` if that makes no
    /// text.
    pub(super) fn replaced(self, count: usize, new: &str) -> Option<ChunkEdits> {
        let mut text = self.text.to_vec();
        text.truncate(self.text.len().checked_sub(count)?);
        text.extend_from_slice(new.as_bytes());
        let end = self.chunks.last()?.range.end;
        Some(ChunkEdits {
            replaced: vec![(0..self.chunks.len(), String::from_utf8(text).ok()?)],
            length: end - count + new.len(),
            chunks: self.chunks,
        })
    }
}

/// Edits of a value in chunks that were looked at, and fit what is there.
#[derive(Debug)]
pub(super) struct ChunkEdits {
    chunks: Vec<StoredChunk>,
    /// The chunks that are replaced, by index, and with what.
    replaced: Vec<(Range<usize>, String)>,
    /// How long the value is after them.
    pub(super) length: usize,
}

/// Looks at what edits, which are in order, change in a value of `length` bytes. `None` if other
/// bytes are there than they name, or the chunks have another length: then somebody has changed
/// them by hand.
pub(super) fn edits_of(
    connection: &Connection,
    key: &str,
    length: usize,
    edits: &[GuardedEdit],
) -> Result<Option<ChunkEdits>, Error> {
    let rows = ChunkRows { connection, key };
    let first = edits.first().map_or(length, |first| guarded(first).start);
    let Some(chunks) = rows.last_chunks(first, length)? else {
        return Ok(None);
    };
    let Some(runs) = runs(&chunks, edits) else {
        return Ok(None);
    };
    let mut replaced = Vec::with_capacity(runs.len());
    for run in runs {
        let Some(text) = run.edited(&rows, &chunks)? else {
            return Ok(None);
        };
        replaced.push((run.chunks, text));
    }
    let (less, more) = edits.iter().fold((0, 0), |(less, more), edit| {
        (less + edit.edit.old_len, more + edit.edit.new.len())
    });
    Ok(Some(ChunkEdits {
        chunks,
        replaced,
        length: length - less + more,
    }))
}

impl ChunkEdits {
    /// Makes them.
    pub(super) fn store(self, connection: &Connection, key: &str) -> Result<(), Error> {
        let rows = ChunkRows { connection, key };
        let next_runs = self.replaced.iter().skip(1).map(|(next, _)| next.start);
        let ends: Vec<usize> = next_runs.chain([self.chunks.len()]).collect();
        let mut has_room = true;
        for ((replaced, text), end) in self.replaced.into_iter().zip(ends) {
            let chunks = &self.chunks[..end];
            has_room &= rows.replace(chunks, replaced, self.chunks.get(end), text)?;
        }
        if !has_room {
            let whole = text(read(connection, key)?.into())?;
            write(connection, key, &whole)?;
        }
        Ok(())
    }
}

/// A chunk that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredChunk {
    position: i64,
    /// Where its bytes are in the value.
    range: Range<usize>,
}

/// The chunks of a key.
struct ChunkRows<'a> {
    connection: &'a Connection,
    key: &'a str,
}

impl ChunkRows<'_> {
    /// The chunks from the one that has the byte at `offset` to the last. `None` if all of them are
    /// not as long as the value.
    fn last_chunks(&self, offset: usize, length: usize) -> Result<Option<Vec<StoredChunk>>, Error> {
        let mut statement = self
            .connection
            .prepare_cached(statements::POSITIONS_FROM_LAST)?;
        let mut rows = statement.query([self.key])?;
        let mut chunks = Vec::new();
        let mut end = length;
        while let Some(row) = rows.next()? {
            let bytes = usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
            let Some(start) = end.checked_sub(bytes) else {
                return Ok(None);
            };
            chunks.push(StoredChunk {
                position: row.get(0)?,
                range: start..end,
            });
            if start <= offset {
                chunks.reverse();
                return Ok(Some(chunks));
            }
            end = start;
        }
        Ok(None)
    }

    /// Adds the text of a chunk; whether it is as long as its row says.
    fn read(&self, chunk: &StoredChunk, text: &mut Vec<u8>) -> Result<bool, Error> {
        let mut statement = self.connection.prepare_cached(statements::CHUNK)?;
        let before = text.len();
        statement.query_row(params![self.key, chunk.position], |row| {
            text.extend_from_slice(text_of(row, 0)?);
            Ok(())
        })?;
        Ok(text.len() - before == chunk.range.len())
    }

    /// Stores a text in the place of some of these chunks, which are followed by `next`; whether
    /// there was room for its positions.
    fn replace(
        &self,
        chunks: &[StoredChunk],
        replaced: Range<usize>,
        next: Option<&StoredChunk>,
        new: String,
    ) -> Result<bool, Error> {
        let (mut replaced, mut new) = (replaced, new);
        let beside = chunks.get(replaced.end);
        let fits = |beside: &&StoredChunk| beside.range.len() + new.len() <= CHUNK;
        if let Some(beside) = beside.filter(|_| new.len() < SHORT).filter(fits) {
            let mut joined = new.into_bytes();
            self.read(beside, &mut joined)?;
            new = text(joined)?;
            replaced.end += 1;
        }

        let next = chunks.get(replaced.end).or(next);
        let old = &chunks[replaced];
        let pieces = cut_changed(&new, next.is_none());
        let added = pieces.len().saturating_sub(old.len());
        let last = old.last().map_or(0, |chunk| chunk.position);
        match positions_behind(last, next.map(|next| next.position), added) {
            Some(positions) => self.put(old, &positions, &pieces).map(|()| true),
            // One chunk that is too long, until all of them are written anew.
            None => self.put(old, &[], &[&new]).map(|()| false),
        }
    }

    /// Stores texts in the place of these chunks, and at further positions.
    fn put(&self, old: &[StoredChunk], further: &[i64], texts: &[&str]) -> Result<(), Error> {
        let Self { connection, key } = *self;
        for (chunk, text) in old.iter().zip(texts) {
            let changed = params![key, chunk.position, byte_count(text), text];
            execute(connection, statements::UPDATE_CHUNK, changed)?;
        }
        for chunk in old.iter().skip(texts.len()) {
            let removed = params![key, chunk.position];
            execute(connection, statements::REMOVE_CHUNK, removed)?;
        }
        for (position, text) in further.iter().zip(texts.iter().skip(old.len())) {
            let added = params![key, position, byte_count(text), text];
            execute(connection, statements::INSERT_CHUNK, added)?;
        }
        Ok(())
    }
}

/// Chunks one behind the other, by index, and the edits of their bytes.
#[derive(Debug, PartialEq, Eq)]
struct EditedChunks<'e> {
    chunks: Range<usize>,
    edits: &'e [GuardedEdit],
}

/// Which chunks the edits touch, with the bytes beside them that they name. `None` if they are out
/// of range or not in order.
fn runs<'e>(chunks: &[StoredChunk], edits: &'e [GuardedEdit]) -> Option<Vec<EditedChunks<'e>>> {
    let end = chunks.last()?.range.end;
    let mut runs: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    let mut done = 0;
    for (at, edit) in edits.iter().enumerate() {
        let guarded = guarded(edit);
        if edit.edit.start < done || guarded.end > end {
            return None;
        }
        done = replaced(&edit.edit).end;
        let first = chunks.partition_point(|chunk| chunk.range.end <= guarded.start);
        let first = first.min(chunks.len() - 1);
        let behind = chunks.partition_point(|chunk| chunk.range.start < guarded.end);
        match runs.last_mut() {
            Some((touched, edits)) if first < touched.end => {
                touched.end = touched.end.max(behind);
                edits.end = at + 1;
            }
            _ => runs.push((first..behind.max(first + 1), at..at + 1)),
        }
    }
    let runs = runs.into_iter().map(|(chunks, of_run)| EditedChunks {
        chunks,
        edits: &edits[of_run],
    });
    Some(runs.collect())
}

impl EditedChunks<'_> {
    /// What the edits make of the text of the chunks; `None` if other bytes are there than they
    /// name.
    fn edited(
        &self,
        rows: &ChunkRows<'_>,
        chunks: &[StoredChunk],
    ) -> Result<Option<String>, Error> {
        let chunks = &chunks[self.chunks.clone()];
        let mut old = Vec::new();
        for chunk in chunks {
            if !rows.read(chunk, &mut old)? {
                return Ok(None);
            }
        }

        let begin = chunks.first().map_or(0, |chunk| chunk.range.start);
        let in_run = |range: Range<usize>| range.start - begin..range.end - begin;
        let mut new = Vec::with_capacity(old.len());
        let mut done = 0;
        for edit in self.edits {
            if old.get(in_run(guarded(edit))) != Some(&edit.guard.found[..]) {
                return Ok(None);
            }
            let replaced = in_run(replaced(&edit.edit));
            new.extend_from_slice(&old[done..replaced.start]);
            new.extend_from_slice(&edit.edit.new);
            done = replaced.end;
        }
        new.extend_from_slice(&old[done..]);
        // What an edit replaces may begin or end inside a letter; what all of them make is text.
        Ok(String::from_utf8(new).ok())
    }
}

/// The bytes that an edit replaces.
fn replaced(edit: &ByteEdit) -> Range<usize> {
    edit.start..edit.start.saturating_add(edit.old_len)
}

/// The same with those beside them that it names.
fn guarded(edit: &GuardedEdit) -> Range<usize> {
    let [before, after] = edit.guard.beside;
    let replaced = replaced(&edit.edit);
    replaced.start.saturating_sub(before)..replaced.end.saturating_add(after)
}

/// Cuts what chunks have become. Behind the last chunk of a value more is likely to be added: what
/// is before that is full. Elsewhere all get room.
fn cut_changed(text: &str, is_end: bool) -> Vec<&str> {
    let most = if is_end { END } else { ROOM };
    if text.is_empty() {
        return Vec::new();
    }
    if text.len() <= most {
        return vec![text];
    }
    let size = if is_end {
        END
    } else {
        text.len().div_ceil(text.len().div_ceil(CHUNK))
    };
    cut(text, size)
}

/// Cuts a text into pieces of at most `size` bytes.
fn cut(text: &str, size: usize) -> Vec<&str> {
    let mut pieces = Vec::with_capacity(text.len() / size + 1);
    let mut rest = text;
    while rest.len() > size {
        let (piece, more) = rest.split_at(boundary_before(rest, size));
        pieces.push(piece);
        rest = more;
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// The last place at or before this byte that is not inside a letter.
fn boundary_before(text: &str, byte: usize) -> usize {
    let is_boundary = |byte: &usize| text.is_char_boundary(*byte);
    (0..=byte).rev().find(is_boundary).unwrap_or_default()
}

/// So many positions behind `last`, and before `next`; `None` if there is no room for them.
fn positions_behind(last: i64, next: Option<i64>, count: usize) -> Option<Vec<i64>> {
    let count = i64::try_from(count).ok()?;
    let step = match next {
        None => GAP,
        Some(next) => next.checked_sub(last)? / (count + 1),
    };
    let position = |number| last.checked_add(step.checked_mul(number)?);
    if step == 0 && count > 0 {
        return None;
    }
    (1..=count).map(position).collect()
}

fn byte_count(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// Chunks are text, unless another program has written into them.
fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn text_of<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8], Error> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        // Numbers were turned into text when they were stored.
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    })
}
