//! What attempts do to values in chunks. The rule is the same as for others (`backend/commit.rs`),
//! but of a value no more is looked at than a change needs.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Row, params};

use super::changes::{self, LoggedChange, columns_of, id_of};
use super::chunks::{self, ChunkEdits};
use super::commit::{FileChange, FileEffects};
use super::statements::{self, execute};
use super::tables::text_or_blob;
use crate::backend::commit::{
    Attempt, KeyChange, KeyState, Outcome, ValueId, Verdict, blind_stamp,
};
use crate::backend::effects::{RecordContext, rule_on};
use crate::base::clock::{Monotonic, Stamp};
use crate::value::addition::{self, Addition};
use crate::value::document::{ByteEdit, Document, GuardedEdit, sealed_tail};
use crate::value::mutation::Json;

/// A value in chunks, as the row of its key describes it.
#[derive(Clone, Copy)]
pub(super) struct ChunkedValue {
    pub(super) id: ValueId,
    /// Whether it is an envelope of ours whose value is a list, if that is known.
    pub(super) is_list: Option<bool>,
}

/// Which value is in chunks, if it is. A program that stores an envelope by other means leaves the
/// columns of the chunks as they were.
pub(super) fn chunked_of(
    row: &Row<'_>,
    envelope: usize,
    stamp: usize,
) -> Result<Option<ValueId>, Error> {
    let is_empty = match row.get_ref(envelope)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.is_empty(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => false,
    };
    let is_chunked = is_empty && row.get_ref(stamp + 1)? != ValueRef::Null;
    is_chunked.then(|| id_of(row, stamp)).transpose()
}

/// How a document is described if it is stored in chunks; `None` if it is not. One without a stamp
/// is not, since it is compared as a whole.
pub(super) fn chunked(document: &Document, is_list: Option<bool>) -> Option<ChunkedValue> {
    let is_chunked = document.len() >= chunks::LARGE && document.stamp() > Stamp::ZERO;
    is_chunked.then(|| ChunkedValue {
        id: ValueId::of(document),
        is_list,
    })
}

/// What a change makes of a value in chunks.
enum MadeOfChunks {
    Made(FileChange),
    /// It is not to be made.
    Refused,
    /// It would be, but the chunks are not what their key says: they were changed by hand.
    Unfit,
}

impl ChunkedValue {
    pub(super) fn effects(
        mut self,
        connection: &Connection,
        attempt: &Attempt,
        (tombstone, records): (Stamp, RecordContext),
        now: Monotonic,
    ) -> Result<FileEffects, Error> {
        let key = &*attempt.key;
        let load = || chunks::read(connection, key).map(Document::of);
        if self.is_list.is_none() && attempt.change.adds_items() {
            self.is_list = Some(load()?.is_own_list());
            self.describe(connection, key)?;
        }
        let made = self.made_by(connection, attempt)?;
        let is_unfit = matches!(made, MadeOfChunks::Unfit);
        let ruling = rule_on(attempt, records, now, || match made {
            MadeOfChunks::Made(made) => Some(made),
            MadeOfChunks::Refused | MadeOfChunks::Unfit => None,
        });
        let contended = ruling.contended;
        let outcome = match (ruling.verdict, &ruling.made) {
            (Verdict::Apply, Some(FileChange::Edited { after, .. }))
                if attempt.change.is_blind() =>
            {
                Outcome::Added {
                    before: self.id,
                    stamp: after.id.stamp,
                    sum: None,
                    contended,
                }
            }
            (Verdict::Apply, _) => Outcome::Applied {
                existed: true,
                contended,
            },
            (verdict, _) => {
                let stored = if let Some(stored) = self.since_base(connection, attempt)? {
                    stored
                } else {
                    let stored = load()?;
                    if is_unfit || ValueId::of(&stored) != self.id {
                        rewrite(connection, key, &stored)?;
                    }
                    stored
                };
                verdict.finding(KeyState {
                    stored: Some(stored),
                    tombstone,
                })
            }
        };
        Ok(FileEffects {
            made: ruling.made,
            record: ruling.record,
            starved: ruling.starved,
            outcome,
        })
    }

    /// What the base of an edit has become, if the log says.
    fn since_base(
        &self,
        connection: &Connection,
        attempt: &Attempt,
    ) -> Result<Option<Document>, Error> {
        match &attempt.change {
            KeyChange::Edit { base, .. } if ValueId::of(base) != self.id => {
                changes::since(connection, &attempt.key, self.id, base)
            }
            _ => Ok(None),
        }
    }

    fn made_by(&self, connection: &Connection, attempt: &Attempt) -> Result<MadeOfChunks, Error> {
        let key = &*attempt.key;
        if let KeyChange::Blind { addition, step, .. } = &attempt.change {
            let stamp = blind_stamp(attempt.stamp, self.id.stamp, *step);
            return match (stamp, addition) {
                (Some(stamp), Addition::Items(items)) if self.is_list == Some(true) => {
                    self.appended(connection, key, items, stamp)
                }
                _ => Ok(MadeOfChunks::Refused),
            };
        }
        let is_met = attempt.expects.is_met_by_value(self.id);
        if !is_met || attempt.stamp <= self.id.stamp {
            return Ok(MadeOfChunks::Refused);
        }
        Ok(MadeOfChunks::Made(match &attempt.change {
            KeyChange::Edit { ranges, made, .. } if made.len() >= chunks::SMALL => {
                let after = Self {
                    id: ValueId::of(made),
                    is_list: Some(made.is_own_list()),
                };
                return self.edited(connection, key, ranges, after);
            }
            KeyChange::Edit { made, .. } => FileChange::Stored {
                document: made.clone(),
                is_list: None,
            },
            KeyChange::Put { envelope, .. } => FileChange::Stored {
                document: Document::of(envelope.clone()),
                is_list: None,
            },
            KeyChange::Delete | KeyChange::Blind { .. } => FileChange::Removed,
        }))
    }

    fn appended(
        &self,
        connection: &Connection,
        key: &str,
        items: &[Json],
        stamp: Stamp,
    ) -> Result<MadeOfChunks, Error> {
        let tail = sealed_tail(self.id.stamp);
        // With the byte before it.
        let found = chunks::end(connection, key, self.id.length, tail.len() + 1)?;
        let list = found
            .as_ref()
            .and_then(|found| found.text().strip_suffix(tail.as_bytes()));
        let before = list.and_then(|list| list.last()).copied();
        // As for values that are not large: the list may be empty, or laid out by others.
        if let Some(b'[' | b' ' | b'\t' | b'\n' | b'\r') = before {
            return Ok(MadeOfChunks::Refused);
        }
        let new = format!(",{}{}", addition::joined(items), sealed_tail(stamp));
        let start = self.id.length - tail.len();
        let edits = found
            .filter(|_| before.is_some())
            .and_then(|found| found.replaced(tail.len(), &new));
        let edit = ByteEdit {
            start,
            old_len: tail.len(),
            new: new.into(),
        };
        let after = Self {
            id: ValueId {
                stamp,
                length: start + edit.new.len(),
            },
            ..*self
        };
        Ok(self.made_with(edits, &[&edit], after))
    }

    fn edited(
        &self,
        connection: &Connection,
        key: &str,
        ranges: &[GuardedEdit],
        after: Self,
    ) -> Result<MadeOfChunks, Error> {
        let edits = chunks::edits_of(connection, key, self.id.length, ranges)?;
        let ranges: Vec<_> = ranges.iter().map(|guarded| &guarded.edit).collect();
        Ok(self.made_with(edits, &ranges, after))
    }

    /// `edits`: as they fit what is there, if they do.
    fn made_with(
        &self,
        edits: Option<ChunkEdits>,
        ranges: &[&ByteEdit],
        after: Self,
    ) -> MadeOfChunks {
        match edits {
            Some(edits) if edits.length == after.id.length => {
                MadeOfChunks::Made(FileChange::Edited {
                    edits,
                    logged: LoggedChange::new(self.id, after.id, ranges),
                    after,
                })
            }
            _ => MadeOfChunks::Unfit,
        }
    }

    /// Writes it into the row of its key.
    pub(super) fn describe(&self, connection: &Connection, key: &str) -> Result<(), Error> {
        let (stamp, length) = columns_of(self.id);
        execute(
            connection,
            statements::SET_CHUNKED,
            params![key, stamp, length, self.is_list],
        )
    }
}

/// Stores a value in chunks anew, after somebody has changed them by hand, so that its key says of
/// it what is there.
fn rewrite(connection: &Connection, key: &str, stored: &Document) -> Result<(), Error> {
    let text = stored.to_bytes();
    match std::str::from_utf8(&text) {
        Ok(text) if stored.stamp() > Stamp::ZERO => {
            let value = ChunkedValue {
                id: ValueId::of(stored),
                is_list: None,
            };
            value.describe(connection, key)?;
            chunks::write(connection, key, text)
        }
        _ => {
            let envelope = text_or_blob(&text);
            execute(connection, statements::SET_ENVELOPE, params![key, envelope])?;
            remove(connection, key)
        }
    }
}

/// Removes all that is kept of a large value besides the row of its key.
pub(super) fn remove(connection: &Connection, key: &str) -> Result<(), Error> {
    chunks::remove(connection, key)?;
    changes::remove(connection, key)
}
