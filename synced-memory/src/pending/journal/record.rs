//! What is written into a journal, and how it is read back.
//!
//! A record is JSON. Times are ns since 1970 by this host's clock: only hosts that share the disk
//! read them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::EntryName;
use crate::backend::commit::{KeyChange, Sequence, TimeToLive, Writer};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{CauseText, Error, ErrorKind, Reason};
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
    /// Whether `kind` is `Rejected`, for versions that know no other kind than that and `Conflict`.
    #[serde(default)]
    rejected: bool,
    /// The kind of the reason by name. Journals of earlier versions have `rejected` alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    kind: Option<Cow<'a, str>>,
    reason: String,
    /// What the reason was caused by, in its words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    cause: Option<String>,
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
            kind: Some(letter.reason.kind().as_str().into()),
            reason: letter.reason.to_string(),
            cause: letter.reason.source().map(ToString::to_string),
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

impl JournalledLetter<'_> {
    fn reason(&self) -> Error {
        let kind = match &self.kind {
            // A kind of a later version: nothing says that the write could apply by now, as it
            // might after a `Conflict`.
            Some(kind) => kind.parse().unwrap_or(ErrorKind::Rejected),
            None if self.rejected => ErrorKind::Rejected,
            None => ErrorKind::Conflict,
        };
        let message = self.reason.as_str();
        match &self.cause {
            Some(cause) => Error::new(kind, Reason::caused_by(message, CauseText(cause.clone()))),
            None => Error::new(kind, message),
        }
    }
}

impl From<JournalledLetter<'_>> for LetterRecord {
    fn from(aside: JournalledLetter<'_>) -> Self {
        let reason = aside.reason();
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
            reason,
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

    fn letter(record: &str) -> LetterRecord {
        let records = [format!(r#"{{"aside":{record}}}"#).into_bytes()];
        let mut replayed = replay(&records, ClockOrigin(0));
        assert_eq!(replayed.unread, 0, "{record}");
        replayed.letters.remove(0)
    }

    #[test]
    fn a_letter_keeps_the_kind_of_its_reason_by_name() {
        let before = letter(r#"{"key":"k","id":1,"stamp":1,"rejected":false,"reason":"r"}"#);
        for kind in ErrorKind::ALL {
            let reason = Reason::caused_by("why", CauseText("because".to_owned()));
            let reason = Error::of_key(*kind, "k", reason);
            let letter = LetterRecord {
                reason,
                ..before.clone()
            };
            let record = JournalRecord::letter(&letter).encoded();
            let read = replay(&[record], ClockOrigin(0)).letters.remove(0).reason;
            assert_eq!(
                (read.kind(), read.to_string()),
                (*kind, "`k`: why".to_owned())
            );
            assert_eq!(
                read.source().map(ToString::to_string).as_deref(),
                Some("because")
            );
        }
    }

    #[test]
    fn a_letter_of_an_earlier_or_later_version_has_a_kind_too() {
        for (kind, expected) in [
            (r#""rejected":true"#, ErrorKind::Rejected),
            (r#""rejected":false"#, ErrorKind::Conflict),
            (r#""rejected":false,"kind":"InDoubt""#, ErrorKind::InDoubt),
            (r#""rejected":false,"kind":"Retired""#, ErrorKind::Rejected),
            (r#""kind":"Conflict""#, ErrorKind::Conflict),
        ] {
            let record = format!(r#"{{"key":"k","id":1,"stamp":1,{kind},"reason":"r"}}"#);
            assert_eq!(letter(&record).reason.kind(), expected, "{record}");
        }
    }
}
