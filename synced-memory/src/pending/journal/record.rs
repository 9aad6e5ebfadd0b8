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

use super::EntryName;
use crate::backend::commit::{KeyChange, Sequence, TimeToLive, Writer};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Base, Ticket};
use crate::pending::outbox::{
    Entry, LetterRecord, Outbox, QueuedWrite, Take, Tried, Write, WriteKind,
};
use crate::value::envelope::Unsealed;
use crate::value::mutation::{Json, Mutation, Operation};

/// The form of the records. The first one knew no comparisons, no takes and no letters that are
/// retried; what it says is read as before.
const VERSION: u32 = 2;
const FIRST: u32 = 1;

/// What happened to a write.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JournalRecord<'a> {
    /// It was queued: behind the earlier ones to its key, or made part of the last of them.
    Wrote {
        after: Sequence,
        writer: Writer,
        write: JournalledWrite<'a>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        ends: Option<Ends>,
    },
    /// So it stands now.
    Stands(EntryState<'a>),
    /// It is about to be sent for the first time.
    Sent(EntryName),
    /// It was answered for, or became a dead letter.
    Done(EntryName),
    /// A dead letter.
    Aside(JournalledLetter<'a>),
    /// The dead letter with this id was retried or forgotten.
    Ended(u64),
    /// All dead letters until now were forgotten.
    HandedOut,
}

/// What is over once a write is in the journal.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ends {
    /// A taken element: the write brings it back.
    Take(EntryName),
    /// A dead letter: the write is its retry.
    Letter(u64),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JournalledWrite<'a> {
    key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    assign: Option<JournalledAssignment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mutate: Option<Cow<'a, Mutation>>,
    /// What it takes, or brings back.
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

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EntryState<'a> {
    name: EntryName,
    refused_retries: u64,
    write: JournalledWrite<'a>,
    /// It is asked for, and never made again.
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
    /// What the first form knew of it.
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

    /// Whether a journal that begins so can be read, and is for this target.
    pub(super) fn is_header(frame: &[u8], target: &str) -> bool {
        serde_json::from_slice::<JournalHeader<'_>>(frame).is_ok_and(|header| {
            (FIRST..=VERSION).contains(&header.synced_memory_journal) && header.target == target
        })
    }

    /// That `write` is queued behind what the outbox has.
    pub(crate) fn wrote(
        outbox: &Outbox,
        key: &'a str,
        write: &'a Write,
        ends: Option<Ends>,
        origin: ClockOrigin,
    ) -> Self {
        let (assign, mutate) = match &write.what {
            WriteKind::Assign(change) => (Some(JournalledAssignment::of(change)), None),
            WriteKind::Mutate(mutation) => (None, Some(Cow::Borrowed(mutation))),
        };
        let (expires, at) = (
            write.expires.map(|expires| origin.wall(expires)),
            origin.wall(write.written),
        );
        let take = write.take.as_ref().map(Cow::Borrowed);
        let write = JournalledWrite {
            key: key.into(),
            assign,
            mutate,
            take,
            stamp: write.stamp,
            expires,
            at,
        };
        Self::Wrote {
            after: outbox.last_sequence(),
            writer: outbox.writer(),
            write,
            ends,
        }
    }

    /// How a write stands.
    pub(crate) fn of_state(key: &'a str, entry: &'a Entry, origin: ClockOrigin) -> Self {
        Self::Stands(EntryState {
            name: entry.name(),
            refused_retries: entry.refused_retries(),
            write: JournalledWrite {
                key: key.into(),
                assign: entry.assignment.as_ref().map(JournalledAssignment::of),
                mutate: entry.mutation.as_ref().map(Cow::Borrowed),
                take: entry.take.as_ref().map(Cow::Borrowed),
                stamp: entry.stamp,
                expires: entry.expires.map(|expires| origin.wall(expires)),
                at: origin.wall(entry.written),
            },
            confirmed: entry.is_confirmed,
            retry: entry.is_retry,
            latest: entry.latest,
            replaces_nothing: entry.replaces_nothing,
            since: origin.wall(entry.since),
            first_tried: entry.first_tried.map(|tried| origin.wall(tried)),
        })
    }

    pub(crate) fn letter(letter: &'a LetterRecord) -> Self {
        Self::Aside(JournalledLetter {
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

    /// Whether something is promised that has to survive.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self, Self::Wrote { .. } | Self::Stands(_) | Self::Aside(_))
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

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// What is left to be sent, in order.
    pub(super) kept: Vec<LeftBehind>,
    /// The dead letters that were neither retried nor forgotten.
    pub(super) letters: Vec<LetterRecord>,
    /// How many of its records could not be read.
    pub(super) unread: usize,
}

/// What is left after these records.
pub(super) fn replay(records: &[Vec<u8>], origin: ClockOrigin) -> Replayed {
    let mut outbox = Outbox::new(usize::MAX, 0);
    let mut keys = HashMap::new();
    let mut replayed = Replayed::default();
    for (place, record) in (1..).zip(records) {
        match serde_json::from_slice::<JournalRecord<'_>>(record) {
            Ok(JournalRecord::Aside(aside)) => replayed.letters.push(aside.into()),
            Ok(JournalRecord::HandedOut) => replayed.letters.clear(),
            Ok(JournalRecord::Ended(id)) => replayed.letters.retain(|letter| letter.id != id),
            Ok(record) => {
                if let JournalRecord::Wrote {
                    ends: Some(Ends::Letter(id)),
                    ..
                } = &record
                {
                    replayed.letters.retain(|letter| letter.id != *id);
                }
                replay_frame(&mut outbox, &mut keys, record, place, origin);
            }
            Err(_) => replayed.unread += 1,
        }
    }
    replayed.kept = outbox
        .into_entries()
        .map(|(key, entry)| LeftBehind { key, entry })
        .collect();
    replayed
}

impl From<JournalledLetter<'_>> for LetterRecord {
    fn from(aside: JournalledLetter<'_>) -> Self {
        let kind = if aside.rejected {
            ErrorKind::Rejected
        } else {
            ErrorKind::Conflict
        };
        let stamp = Stamp::new(aside.stamp);
        let first_value = aside.value.map(|value| KeyChange::Put {
            envelope: Unsealed::of_text(value.get()).seal(stamp),
            ttl: TimeToLive::Keep,
        });
        let mut first_changes = aside
            .changes
            .into_iter()
            .map(|operations| Mutation::new(None, operations));
        let first_mutation = first_changes.next().map(|mut first| {
            first_changes.for_each(|more| first.join(more));
            first
        });
        Self {
            id: if aside.id == 0 {
                fastrand::u64(..)
            } else {
                aside.id
            },
            key: Arc::from(&*aside.key),
            assignment: aside
                .assign
                .map(JournalledAssignment::change)
                .or(first_value),
            mutation: aside.mutate.map(Cow::into_owned).or(first_mutation),
            taken: aside.taken.map(Cow::into_owned),
            stamp,
            ttl: aside.ttl,
            may_have_been_made: aside.may_have_been_made,
            reason: Error::new(kind, aside.reason),
        }
    }
}

/// `keys`: where each write is. `place`: that of the record.
fn replay_frame(
    outbox: &mut Outbox,
    keys: &mut HashMap<EntryName, Arc<str>>,
    record: JournalRecord<'_>,
    place: Ticket,
    origin: ClockOrigin,
) {
    match record {
        JournalRecord::Wrote {
            after,
            writer,
            write,
            ends,
        } => {
            if let Some(Ends::Take(name)) = ends
                && let Some(key) = keys.remove(&name)
            {
                outbox.drop_named(&key, name);
            }
            outbox.go_on_after(writer, after);
            let key: Arc<str> = Arc::from(&*write.key);
            let is_retry = matches!(ends, Some(Ends::Letter(_)));
            if let Some(write) = written(write, is_retry, origin) {
                // On what it was recorded is not in the journal: nothing says that it was the same
                // for any two.
                let _ = outbox.push(&key, write, &Base::new(None, place, None));
                if let Some(name) = outbox.last(&key).map(Entry::name) {
                    keys.insert(name, key);
                }
            }
        }
        JournalRecord::Stands(standing) => {
            let EntryState {
                name,
                refused_retries,
                write,
                confirmed,
                retry,
                latest,
                replaces_nothing,
                since,
                first_tried,
            } = standing;
            let key: Arc<str> = Arc::from(&*write.key);
            let (assign, mutate, take) = (write.assign, write.mutate, write.take);
            let (since, first_tried) = (
                origin.mono(since),
                first_tried.map(|tried| origin.mono(tried)),
            );
            let entry = QueuedWrite {
                name,
                refused_retries,
                assignment: assign.map(JournalledAssignment::change),
                mutation: mutate.map(Cow::into_owned),
                is_confirmed: confirmed,
                take: take.map(Cow::into_owned),
                is_retry: retry,
                stamp: write.stamp,
                latest,
                expires: write.expires.map(|expires| origin.mono(expires)),
                replaces_nothing,
                written: origin.mono(write.at),
                since,
                first_tried,
            };
            outbox.put_in_place(&key, entry.into());
            keys.insert(name, key);
        }
        JournalRecord::Sent(name) => {
            if let Some(entry) = keys.get(&name).and_then(|key| outbox.named(key, name)) {
                entry.tried = Tried::Sent;
                // Not before its last change.
                entry.first_tried.get_or_insert(entry.written);
            }
        }
        JournalRecord::Done(name) => {
            if let Some(key) = keys.remove(&name) {
                outbox.drop_named(&key, name);
            }
        }
        JournalRecord::Aside(_) | JournalRecord::Ended(_) | JournalRecord::HandedOut => {}
    }
}

fn written(write: JournalledWrite<'_>, is_retry: bool, origin: ClockOrigin) -> Option<Write> {
    let what = match (write.assign, write.mutate) {
        (Some(assigned), _) => WriteKind::Assign(assigned.change()),
        (None, Some(mutation)) => WriteKind::Mutate(mutation.into_owned()),
        (None, None) => return None,
    };
    Some(Write {
        what,
        stamp: write.stamp,
        exact: None,
        is_confirmed: false,
        take: write.take.map(Cow::into_owned),
        is_retry,
        expires: write.expires.map(|expires| origin.mono(expires)),
        written: origin.mono(write.at),
        fresh: false,
        existed: false,
        waiter: None,
    })
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
        let Replayed { kept, unread, .. } = replay(&records, ORIGIN);
        assert_eq!(unread, 0);

        let written =
            |left: &LeftBehind| JournalRecord::of_state(&left.key, &left.entry, ORIGIN).encoded();
        kept.iter()
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
        outbox.go_on_after(7, 1024);
        let write = Write {
            what: WriteKind::Mutate(Mutation::new(None, Vec::new())),
            stamp: Stamp::new(9),
            exact: None,
            is_confirmed: false,
            take: Some(Take {
                item: Json::encode(&1).unwrap(),
                back: None,
            }),
            is_retry: false,
            expires: Some(Duration::from_millis(2)),
            written: Duration::from_millis(1),
            fresh: false,
            existed: true,
            waiter: None,
        };
        let ends = Some(Ends::Take((8, 2048)));
        let record = JournalRecord::wrote(&outbox, "k", &write, ends, ORIGIN);
        let expected = r#"{"wrote":{"after":1024,"writer":7,"write":{"key":"k","mutate":{"calls":[{"stamp":0,"operations":[]}]},"take":{"item":1},"stamp":9,"expires":3000000,"at":2000000},"ends":{"take":[8,2048]}}}"#;
        assert_eq!(String::from_utf8(record.encoded()).unwrap(), expected);
    }
}
