//! The log of what has changed in large values: whoever knows an earlier one needs no more than
//! that.
//!
//! An entry says how to make one value of another one, which are named by stamp and length. What
//! somebody else has stored is in no entry: then the last entry names something else than what is
//! there.

use bytes::Bytes;
use rusqlite::{Connection, Error, Row, params};

use super::statements::{self, execute};
use super::tables::{bytes_of, text_or_blob};
use crate::backend::commit::ValueId;
use crate::base::clock::Stamp;
use crate::value::document::{ByteEdit, Document};

/// How many entries a key has at most. Together they have at most a quarter of the value's bytes.
const ENTRIES: i64 = 64;

/// How many are dropped at a time when there are as many.
const DROPPED: i64 = 8;

/// A change of a value in chunks.
#[derive(Debug)]
pub(super) struct LoggedChange {
    before: ValueId,
    after: ValueId,
    /// For each range that is replaced its start, its length, and the length of what it becomes, as
    /// numbers with spaces between them; and behind a line feed what each of them becomes.
    edits: Bytes,
}

impl LoggedChange {
    pub(super) fn new(before: ValueId, after: ValueId, edits: &[&ByteEdit]) -> Self {
        let numbers = edits.iter().flat_map(|edit| {
            [edit.start, edit.old_len, edit.new.len()].map(|number| number.to_string())
        });
        let mut text = numbers.collect::<Vec<_>>().join(" ").into_bytes();
        text.push(b'\n');
        for edit in edits {
            text.extend_from_slice(&edit.new);
        }
        Self {
            before,
            after,
            edits: text.into(),
        }
    }

    /// Adds it to the log of a key.
    pub(super) fn store(&self, connection: &Connection, key: &str) -> Result<(), Error> {
        let (most, own) = (number(self.after.length / 4), number(self.edits.len()));
        if own > most {
            return remove(connection, key);
        }
        let mut last = connection.prepare_cached(statements::LAST_CHANGE)?;
        let mut last = last.query([key])?;
        let (at, total, first) = match last.next()? {
            Some(row) => {
                let (at, total, bytes): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                (at + 1, total + bytes, row.get(3)?)
            }
            None => (0, 0, 0),
        };
        let Self {
            before,
            after,
            edits,
        } = self;
        let (before, after) = (columns_of(*before), columns_of(*after));
        execute(
            connection,
            statements::LOG_CHANGE,
            params![
                key,
                at,
                total,
                own,
                before.0,
                before.1,
                after.0,
                after.1,
                text_or_blob(edits)
            ],
        )?;
        // To look for what is too old takes longer than the rest: some are dropped together.
        if at % DROPPED != 0 && total + own - first <= most {
            return Ok(());
        }
        let too_old = params![key, at - (ENTRIES - DROPPED), total + own - most];
        execute(connection, statements::DROP_CHANGES, too_old)
    }

    fn of_row(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            before: id_of(row, 0)?,
            after: id_of(row, 2)?,
            edits: bytes_of(row, 4)?.unwrap_or_default(),
        })
    }

    /// What it makes of the value before it; `None` if it is no change of that.
    fn made_of(&self, document: &Document) -> Option<Document> {
        document.edited(&self.edits()?, self.after.stamp, self.after.length)
    }

    fn edits(&self) -> Option<Vec<ByteEdit>> {
        let end = self.edits.iter().position(|byte| *byte == b'\n')?;
        let numbers = std::str::from_utf8(&self.edits[..end]).ok()?;
        let numbers: Vec<usize> = numbers
            .split(' ')
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        let mut texts = self.edits.slice(end + 1..);
        let mut edits = Vec::with_capacity(numbers.len() / 3);
        for range in numbers.chunks(3) {
            let [start, old_len, length] = *range else {
                return None;
            };
            if length > texts.len() {
                return None;
            }
            edits.push(ByteEdit {
                start,
                old_len,
                new: texts.split_to(length),
            });
        }
        Some(edits)
    }
}

/// What has become of a value that somebody knows, by the log; `None` if the log does not say.
/// `current`: what is there.
pub(super) fn since(
    connection: &Connection,
    key: &str,
    current: ValueId,
    known: &Document,
) -> Result<Option<Document>, Error> {
    let mut statement = connection.prepare_cached(statements::CHANGES)?;
    let mut rows = statement.query([key])?;
    let mut changes = Vec::new();
    let mut reached = current;
    while reached != ValueId::of(known) {
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let change = LoggedChange::of_row(row)?;
        if change.after != reached || change.before.stamp < known.stamp() {
            return Ok(None);
        }
        reached = change.before;
        changes.push(change);
    }
    let made = changes
        .iter()
        .rev()
        .try_fold(known.clone(), |document, change| change.made_of(&document));
    Ok(made)
}

/// Empties the log of a key.
pub(super) fn remove(connection: &Connection, key: &str) -> Result<(), Error> {
    execute(connection, statements::REMOVE_CHANGES, [key])
}

/// A value as two columns name it.
pub(super) fn columns_of(id: ValueId) -> (i64, i64) {
    (id.stamp.get().cast_signed(), number(id.length))
}

pub(super) fn id_of(row: &Row<'_>, stamp: usize) -> Result<ValueId, Error> {
    let length: i64 = row.get(stamp + 1)?;
    Ok(ValueId {
        stamp: Stamp::new(row.get::<_, i64>(stamp)?.cast_unsigned()),
        length: usize::try_from(length).unwrap_or_default(),
    })
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
