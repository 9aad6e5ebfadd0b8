//! What attempts do to values in chunks. The rule is the same as for others (`backend/commit.rs`), but
//! of a value no more is looked at than a change needs.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Row, params};

use super::chunks;
use super::commit::{FileEffects, Made};
use super::statements::{self, execute};
use super::tables::text_or_blob;
use crate::backend::commit::{
    Attempt, KeyChange, KeyState, Outcome, ValueId, Verdict, blind_stamp,
};
use crate::backend::effects::{RecordContext, rule_on};
use crate::base::clock::{Monotonic, Stamp};
use crate::value::addition::{self, Addition};
use crate::value::document::{ByteEdit, Document, Guard, GuardedEdit, sealed_tail};

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
    let Some(length) = row.get::<_, Option<i64>>(stamp + 1)? else {
        return Ok(None);
    };
    let is_empty = match row.get_ref(envelope)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.is_empty(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => false,
    };
    let stamp = row.get::<_, Option<i64>>(stamp)?.unwrap_or_default();
    Ok(is_empty.then(|| ValueId {
        stamp: Stamp::new(stamp.cast_unsigned()),
        length: usize::try_from(length).unwrap_or_default(),
    }))
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
    Made(Made),
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
            (Verdict::Apply, Some(Made::Edited { value, .. })) if attempt.change.is_blind() => {
                Outcome::Added {
                    before: self.id,
                    stamp: value.id.stamp,
                    sum: None,
                    contended,
                }
            }
            (Verdict::Apply, _) => Outcome::Applied {
                existed: true,
                contended,
            },
            (verdict, _) => {
                let stored = load()?;
                if is_unfit || ValueId::of(&stored) != self.id {
                    rewrite(connection, key, &stored)?;
                }
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

    fn made_by(&self, connection: &Connection, attempt: &Attempt) -> Result<MadeOfChunks, Error> {
        let key = &*attempt.key;
        let edited = |ranges: &[GuardedEdit], value: Self| {
            let edits = chunks::edits_of(connection, key, self.id.length, ranges)?;
            let edits = edits.filter(|edits| edits.length == value.id.length);
            Ok(edits.map_or(MadeOfChunks::Unfit, |edits| {
                MadeOfChunks::Made(Made::Edited { edits, value })
            }))
        };
        if let KeyChange::Blind { addition, step, .. } = &attempt.change {
            let stamp = blind_stamp(attempt.stamp, self.id.stamp, *step);
            let (Some(stamp), Some(true)) = (stamp, self.is_list) else {
                return Ok(MadeOfChunks::Refused);
            };
            let Addition::Items(items) = addition else {
                return Ok(MadeOfChunks::Refused);
            };
            let end = sealed_tail(self.id.stamp);
            let there = chunks::end(connection, key, self.id.length, end.len() + 1)?;
            let Some(there) = there.filter(|there| there[1..] == *end.as_bytes()) else {
                return Ok(MadeOfChunks::Unfit);
            };
            if matches!(there[0], b'[' | b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(MadeOfChunks::Refused);
            }
            let new = format!(",{}{}", addition::joined(items), sealed_tail(stamp));
            let value = Self {
                id: ValueId {
                    stamp,
                    length: self.id.length - end.len() + new.len(),
                },
                ..*self
            };
            let edit = ByteEdit {
                start: self.id.length - end.len(),
                old_len: end.len(),
                new: new.into(),
            };
            let guard = Guard {
                found: there,
                beside: [1, 0],
            };
            return edited(&[GuardedEdit { edit, guard }], value);
        }

        let is_met = attempt.expects.is_met_by_value(self.id);
        if !is_met || attempt.stamp <= self.id.stamp {
            return Ok(MadeOfChunks::Refused);
        }
        Ok(match &attempt.change {
            KeyChange::Edit { ranges, made, .. } if made.len() >= chunks::SMALL => {
                let value = Self {
                    id: ValueId::of(made),
                    is_list: Some(made.is_own_list()),
                };
                return edited(ranges, value);
            }
            KeyChange::Edit { made, .. } => MadeOfChunks::Made(Made::Stored {
                document: made.clone(),
                is_list: None,
            }),
            KeyChange::Put { envelope, .. } => MadeOfChunks::Made(Made::Stored {
                document: Document::of(envelope.clone()),
                is_list: None,
            }),
            KeyChange::Delete | KeyChange::Blind { .. } => MadeOfChunks::Made(Made::Removed),
        })
    }

    /// Writes it into the row of its key.
    pub(super) fn describe(&self, connection: &Connection, key: &str) -> Result<(), Error> {
        let stamp = self.id.stamp.get().cast_signed();
        let length = i64::try_from(self.id.length).unwrap_or(i64::MAX);
        execute(
            connection,
            statements::SET_CHUNKED,
            params![key, stamp, length, self.is_list],
        )
    }
}

/// Stores a value in chunks anew, after somebody has changed them by hand, so that its key says of it
/// what is there.
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
            chunks::remove(connection, key)
        }
    }
}
