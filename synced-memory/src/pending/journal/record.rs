//! What is written into a journal, and how it is read back.
//!
//! A record is JSON. Times are ns since 1970 by this host's clock: only hosts that share the disk
//! read them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backend::commit::{KeyChange, Sequence, TimeToLive, Writer};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Base, Ticket};
use crate::pending::outbox::{
    Entry, EntryIdentity, EntryName, LetterRecord, Outbox, Selector, Take, Tried, Write,
};
use crate::value::envelope::Unsealed;
use crate::value::mutation::{Json, Mutation, Operation};

/// The version of the records. The first one knew no comparisons, no takes and no retries of dead
/// letters; its records are read as before.
const VERSION: u32 = 2;
const FIRST: u32 = 1;

/// What happened to a write.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JournalRecord<'a> {
    /// It was queued: behind the earlier ones to its key, or merged into the last of them.
    Wrote {
        after: Sequence,
        writer: Writer,
        write: JournalledWrite<'a>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        ends: Option<Ends>,
    },
    /// An entry as it is now.
    #[serde(rename = "stands")]
    State(EntryState<'a>),
    /// It is about to be sent for the first time.
    Sent(EntryName),
    /// It was answered, or became a dead letter.
    Done(EntryName),
    /// A dead letter.
    #[serde(rename = "aside")]
    Letter(JournalledLetter<'a>),
    /// The dead letter with this id was retried or forgotten.
    #[serde(rename = "ended")]
    LetterEnded(u64),
    /// All dead letters until now were forgotten.
    #[serde(rename = "handed_out")]
    LettersForgotten,
}

/// What ends once a write is in the journal.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ends {
    /// A take: the write returns the taken element.
    Take(EntryName),
    /// A dead letter: the write is its retry.
    Letter(u64),
}

/// What is in the journal of a [`Write`] of one call; of others in [`EntryState`] too.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JournalledWrite<'a> {
    key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    assign: Option<JournalledAssignment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mutate: Option<Cow<'a, Mutation>>,
    /// What it takes, or returns.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    take: Option<Cow<'a, Take>>,
    stamp: Stamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    expires: Option<u64>,
    at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JournalledAssignment<'a> {
    Envelope(Cow<'a, str>),
    Delete,
}

/// The identity and the write of an [`Entry`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EntryState<'a> {
    name: EntryName,
    refused_retries: u64,
    write: JournalledWrite<'a>,
    /// Its outcome is asked for, and it is never made again.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    confirmed: bool,
    /// It is the retry of a dead letter.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    retry: bool,
    latest: Stamp,
    replaces_nothing: bool,
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    first_tried: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JournalledLetter<'a> {
    key: Cow<'a, str>,
    /// What the first version had of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    changes: Vec<Vec<Operation>>,
    #[serde(default)]
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    assign: Option<JournalledAssignment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mutate: Option<Cow<'a, Mutation>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    taken: Option<Cow<'a, Json>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ttl: Option<Duration>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    may_have_been_made: bool,
    stamp: u64,
    /// The server refused it; otherwise it was in conflict with what others wrote.
    rejected: bool,
    reason: String,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct JournalHeader<'a> {
    synced_memory_journal: u32,
    target: Cow<'a, str>,
}

/// When this process's monotonic clock was at zero, in ns since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockOrigin(pub(crate) u64);

impl ClockOrigin {
    fn wall(self, mono: Monotonic) -> u64 {
        self.0
            .saturating_add(u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX))
    }

    fn mono(self, wall: u64) -> Monotonic {
        Duration::from_nanos(wall.saturating_sub(self.0))
    }
}

/// A write that a process has left behind.
#[derive(Debug)]
pub(crate) struct LeftBehind {
    pub(crate) key: Arc<str>,
    pub(crate) entry: Entry,
}

impl<'a> JournalRecord<'a> {
    pub(super) fn header(target: &str) -> Vec<u8> {
        encoded(&JournalHeader {
            synced_memory_journal: VERSION,
            target: target.into(),
        })
    }

    /// Whether a journal that begins with this frame can be read, and is for this target.
    pub(super) fn is_header(frame: &[u8], target: &str) -> bool {
        serde_json::from_slice::<JournalHeader<'_>>(frame).is_ok_and(|header| {
            (FIRST..=VERSION).contains(&header.synced_memory_journal) && header.target == target
        })
    }

    /// `write`, of one call, is queued behind what the outbox has.
    pub(crate) fn wrote(
        outbox: &Outbox,
        key: &'a str,
        write: &'a Write,
        ends: Option<Ends>,
        origin: ClockOrigin,
    ) -> Self {
        Self::Wrote {
            after: outbox.last_sequence(),
            writer: outbox.writer(),
            write: JournalledWrite::of(key, write, origin),
            ends,
        }
    }

    pub(crate) fn of_state(key: &'a str, entry: &'a Entry, origin: ClockOrigin) -> Self {
        Self::State(EntryState::of(key, entry, origin))
    }

    pub(crate) fn letter(letter: &'a LetterRecord) -> Self {
        Self::Letter(JournalledLetter {
            key: Cow::Borrowed(&letter.key),
            value: None,
            changes: Vec::new(),
            id: letter.id,
            assign: letter.assignment.as_ref().map(JournalledAssignment::of),
            mutate: letter.mutation.as_ref().map(Cow::Borrowed),
            taken: letter.taken.as_ref().map(Cow::Borrowed),
            ttl: letter.ttl,
            may_have_been_made: letter.may_have_been_made,
            stamp: letter.stamp.get(),
            rejected: letter.reason.kind() == ErrorKind::Rejected,
            reason: letter.reason.to_string(),
        })
    }

    /// Whether somebody relies on it: without the other records more is tried again, and found to
    /// be done.
    pub(super) fn is_relied_on(&self) -> bool {
        matches!(self, Self::Wrote { .. } | Self::State(_) | Self::Letter(_))
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        encoded(self)
    }
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys and finite numbers")
}

impl<'a> JournalledAssignment<'a> {
    fn of(change: &'a KeyChange) -> Self {
        match change {
            KeyChange::Put { envelope, .. } => Self::Envelope(String::from_utf8_lossy(envelope)),
            KeyChange::Delete => Self::Delete,
        }
    }

    fn change(self) -> KeyChange {
        match self {
            Self::Envelope(envelope) => KeyChange::Put {
                envelope: Bytes::from(envelope.into_owned()),
                ttl: TimeToLive::Keep,
            },
            Self::Delete => KeyChange::Delete,
        }
    }
}

impl<'a> JournalledWrite<'a> {
    fn of(key: &'a str, write: &'a Write, origin: ClockOrigin) -> Self {
        Self {
            key: key.into(),
            assign: write.assignment.as_ref().map(JournalledAssignment::of),
            mutate: write.mutation.as_ref().map(Cow::Borrowed),
            take: write.take.as_ref().map(Cow::Borrowed),
            stamp: write.stamp,
            expires: write.expires.map(|expires| origin.wall(expires)),
            at: origin.wall(write.written),
        }
    }

    fn write(self, origin: ClockOrigin) -> Write {
        Write {
            assignment: self.assign.map(JournalledAssignment::change),
            mutation: self.mutate.map(Cow::into_owned),
            take: self.take.map(Cow::into_owned),
            expires: self.expires.map(|expires| origin.mono(expires)),
            ..Write::new(self.stamp, origin.mono(self.at))
        }
    }
}

impl<'a> EntryState<'a> {
    fn of(key: &'a str, entry: &'a Entry, origin: ClockOrigin) -> Self {
        let first_tried = entry.attempt.first_tried;
        let (identity, write) = (&entry.identity, &entry.write);
        Self {
            name: identity.name(),
            refused_retries: identity.refused_retries,
            write: JournalledWrite::of(key, write, origin),
            confirmed: write.is_confirmed,
            retry: write.is_retry,
            latest: write.latest,
            replaces_nothing: write.replaces_nothing,
            since: origin.wall(write.since),
            first_tried: first_tried.map(|tried| origin.wall(tried)),
        }
    }

    fn entry(self, origin: ClockOrigin) -> Entry {
        let (writer, sequence) = self.name;
        let identity = EntryIdentity {
            id: sequence,
            writer,
            sequence,
            refused_retries: self.refused_retries,
        };
        let write = Write {
            is_confirmed: self.confirmed,
            is_retry: self.retry,
            latest: self.latest,
            replaces_nothing: self.replaces_nothing,
            since: origin.mono(self.since),
            ..self.write.write(origin)
        };
        let first_tried = self.first_tried.map(|tried| origin.mono(tried));
        Entry::journalled(identity, write, first_tried)
    }
}

impl From<JournalledLetter<'_>> for LetterRecord {
    fn from(letter: JournalledLetter<'_>) -> Self {
        let kind = if letter.rejected {
            ErrorKind::Rejected
        } else {
            ErrorKind::Conflict
        };
        let stamp = Stamp::new(letter.stamp);
        let first_value = letter.value.map(|value| KeyChange::Put {
            envelope: Unsealed::of_text(value.get()).seal(stamp),
            ttl: TimeToLive::Keep,
        });
        let mut first_changes = letter
            .changes
            .into_iter()
            .map(|operations| Mutation::new(None, operations));
        let first_mutation = first_changes.next().map(|mut first| {
            first_changes.for_each(|more| first.join(more));
            first
        });

        Self {
            id: if letter.id == 0 {
                fastrand::u64(..)
            } else {
                letter.id
            },
            key: Arc::from(&*letter.key),
            assignment: letter
                .assign
                .map(JournalledAssignment::change)
                .or(first_value),
            mutation: letter.mutate.map(Cow::into_owned).or(first_mutation),
            taken: letter.taken.map(Cow::into_owned),
            stamp,
            ttl: letter.ttl,
            may_have_been_made: letter.may_have_been_made,
            reason: Error::new(kind, letter.reason),
        }
    }
}

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// The writes that are still to be sent, in order.
    pub(super) pending: Vec<LeftBehind>,
    /// The dead letters that were neither retried nor forgotten.
    pub(super) letters: Vec<LetterRecord>,
    /// How many of its records could not be read.
    pub(super) unread: usize,
}

/// What is left after these records.
pub(super) fn replay(records: &[Vec<u8>], origin: ClockOrigin) -> Replayed {
    let mut replay = Replay {
        outbox: Outbox::new(usize::MAX, 0),
        keys: HashMap::new(),
        letters: Vec::new(),
        origin,
    };
    let mut unread = 0;
    for (position, record) in (1..).zip(records) {
        match serde_json::from_slice(record) {
            Ok(record) => replay.add(record, position),
            Err(_) => unread += 1,
        }
    }

    let pending = replay.outbox.into_entries();
    Replayed {
        pending: pending
            .map(|(key, entry)| LeftBehind { key, entry })
            .collect(),
        letters: replay.letters,
        unread,
    }
}

/// What the records up to here say.
struct Replay {
    outbox: Outbox,
    /// The key of each write in the outbox.
    keys: HashMap<EntryName, Arc<str>>,
    letters: Vec<LetterRecord>,
    origin: ClockOrigin,
}

impl Replay {
    /// `position`: the place of the record in the journal.
    fn add(&mut self, record: JournalRecord<'_>, position: Ticket) {
        match record {
            JournalRecord::Wrote {
                after,
                writer,
                write,
                ends,
            } => {
                self.end(ends);
                self.outbox.continue_after(writer, after);
                self.push(write, ends, position);
            }
            JournalRecord::State(state) => {
                let (key, name) = (Arc::from(&*state.write.key), state.name);
                self.outbox.replace_named(&key, state.entry(self.origin));
                self.keys.insert(name, key);
            }
            JournalRecord::Sent(name) => {
                if let Some(key) = self.keys.get(&name) {
                    self.outbox.edit(key, Selector::Name(name), |entry| {
                        entry.attempt.tried = Tried::Sent;
                        // Not before its last change.
                        let written = entry.write.written;
                        entry.attempt.first_tried.get_or_insert(written);
                    });
                }
            }
            JournalRecord::Done(name) => self.remove(name),
            JournalRecord::Letter(letter) => self.letters.push(letter.into()),
            JournalRecord::LetterEnded(id) => self.letters.retain(|letter| letter.id != id),
            JournalRecord::LettersForgotten => self.letters.clear(),
        }
    }

    fn end(&mut self, ends: Option<Ends>) {
        match ends {
            Some(Ends::Take(name)) => self.remove(name),
            Some(Ends::Letter(id)) => self.letters.retain(|letter| letter.id != id),
            None => {}
        }
    }

    fn push(&mut self, write: JournalledWrite<'_>, ends: Option<Ends>, position: Ticket) {
        let key: Arc<str> = Arc::from(&*write.key);
        let write = Write {
            is_retry: matches!(ends, Some(Ends::Letter(_))),
            ..write.write(self.origin)
        };
        if write.is_empty() {
            return;
        }

        // What it was recorded on is not in the journal: no two writes are known to have been
        // recorded on the same.
        let base = Base::new(None, position, None);
        let _ = self.outbox.push(&key, write, None, &base);
        if let Some(name) = self.outbox.last(&key).map(Entry::name) {
            self.keys.insert(name, key);
        }
    }

    fn remove(&mut self, name: EntryName) {
        if let Some(key) = self.keys.remove(&name) {
            self.outbox.remove_named(&key, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: ClockOrigin = ClockOrigin(1_000_000);

    /// As an earlier version wrote them.
    const STATES: [&str; 3] = [
        r#"{"stands":{"name":[7,1024],"refused_retries":2,"write":{"key":"k","assign":{"envelope":"{\"value\":1,\"last_modified\":9}"},"mutate":{"calls":[{"stamp":11,"operations":[{"path":[],"do":{"add":{"amount":{"integer":{"by":1,"min":0,"max":9}}}}}]}]},"stamp":9,"expires":3000000,"at":2000000},"latest":11,"replaces_nothing":true,"since":1500000,"first_tried":1600000}}"#,
        r#"{"stands":{"name":[7,2048],"refused_retries":0,"write":{"key":"k","assign":"delete","stamp":12,"at":2000000},"retry":true,"latest":12,"replaces_nothing":false,"since":2000000}}"#,
        r#"{"stands":{"name":[7,3072],"refused_retries":0,"write":{"key":"k","mutate":{"calls":[{"stamp":13,"operations":[]}]},"take":{"item":"x","back":{"calls":[{"stamp":13,"operations":[]}]}},"stamp":13,"at":2000000},"confirmed":true,"latest":13,"replaces_nothing":false,"since":2000000}}"#,
    ];

    fn replayed(records: &[&str]) -> Vec<String> {
        let records: Vec<_> = records
            .iter()
            .map(|record| record.as_bytes().to_vec())
            .collect();
        let Replayed {
            pending, unread, ..
        } = replay(&records, ORIGIN);
        assert_eq!(unread, 0);

        let written =
            |left: &LeftBehind| JournalRecord::of_state(&left.key, &left.entry, ORIGIN).encoded();
        pending
            .iter()
            .map(|left| String::from_utf8(written(left)).unwrap())
            .collect()
    }

    #[test]
    fn a_stored_journal_is_written_again_in_the_same_form() {
        assert_eq!(replayed(&STATES), STATES);
    }

    #[test]
    fn writes_sends_and_ends_of_a_stored_journal_are_replayed() {
        let records = [
            r#"{"wrote":{"after":1024,"writer":7,"write":{"key":"k","assign":"delete","stamp":9,"at":2000000}}}"#,
            r#"{"sent":[7,2048]}"#,
            r#"{"wrote":{"after":2048,"writer":7,"write":{"key":"k","assign":{"envelope":"{}"},"stamp":10,"expires":5000000,"at":3000000}}}"#,
            r#"{"wrote":{"after":3072,"writer":7,"write":{"key":"k","mutate":{"calls":[{"stamp":11,"operations":[]}]},"stamp":11,"at":3500000}}}"#,
            r#"{"wrote":{"after":3072,"writer":7,"write":{"key":"k","assign":"delete","stamp":12,"at":4000000},"ends":{"letter":3}}}"#,
            r#"{"wrote":{"after":4096,"writer":7,"write":{"key":"gone","assign":"delete","stamp":13,"at":4000000}}}"#,
            r#"{"done":[7,5120]}"#,
        ];
        assert_eq!(
            replayed(&records),
            [
                r#"{"stands":{"name":[7,2048],"refused_retries":0,"write":{"key":"k","assign":"delete","stamp":9,"at":2000000},"latest":9,"replaces_nothing":false,"since":2000000,"first_tried":2000000}}"#,
                r#"{"stands":{"name":[7,3072],"refused_retries":0,"write":{"key":"k","assign":{"envelope":"{}"},"mutate":{"calls":[{"stamp":11,"operations":[]}]},"stamp":10,"expires":5000000,"at":3500000},"latest":11,"replaces_nothing":false,"since":3000000}}"#,
                r#"{"stands":{"name":[7,4096],"refused_retries":0,"write":{"key":"k","assign":"delete","stamp":12,"at":4000000},"retry":true,"latest":12,"replaces_nothing":false,"since":4000000}}"#,
            ]
        );
    }

    #[test]
    fn a_write_is_journalled_in_the_form_of_before() {
        let mut outbox = Outbox::new(usize::MAX, 7);
        outbox.continue_after(7, 1024);
        let take = Take {
            item: Json::encode(&1).unwrap(),
            back: None,
        };
        let write = Write {
            mutation: Some(Mutation::new(None, Vec::new())),
            take: Some(take),
            expires: Some(Duration::from_millis(2)),
            ..Write::new(Stamp::new(9), Duration::from_millis(1))
        };
        let ends = Some(Ends::Take((8, 2048)));
        let record = JournalRecord::wrote(&outbox, "k", &write, ends, ORIGIN);
        let expected = r#"{"wrote":{"after":1024,"writer":7,"write":{"key":"k","mutate":{"calls":[{"stamp":0,"operations":[]}]},"take":{"item":1},"stamp":9,"expires":3000000,"at":2000000},"ends":{"take":[8,2048]}}}"#;
        assert_eq!(String::from_utf8(record.encoded()).unwrap(), expected);
    }
}
