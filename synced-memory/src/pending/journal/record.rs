//! What is written into a journal.
//!
//! A record is JSON. Times are ns since 1970 by this host's clock: only hosts that share the disk
//! read them.

use std::borrow::Cow;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backend::commit::{Sequence, Writer};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{CauseText, Error, ErrorKind, Reason};
use crate::base::random;
use crate::pending::outbox::{
    Assignment, Entry, EntryIdentity, EntryName, LetterRecord, NUMBERS, Outbox, Take, Write,
};
use crate::value::envelope::Unsealed;
use crate::value::mutation::{Json, Mutation, Operation};

/// The version of the records. The first one knew no comparisons, no takes and no retries of dead
/// letters; its records are read as before.
const VERSION: u32 = 2;
const FIRST: u32 = 1;

/// No outbox gets as far, and there is room above it.
const LAST_SEQUENCE: Sequence = 1 << 62;

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
    pub(super) key: Cow<'a, str>,
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
    /// Its stamps are by this host's clock, and not yet by the server's.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    by_host_clock: bool,
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
    pub(super) name: EntryName,
    refused_retries: u64,
    pub(super) write: JournalledWrite<'a>,
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

    /// Whether it is the first frame of a journal, for whatever target and of whatever version.
    pub(super) fn is_any_header(frame: &[u8]) -> bool {
        serde_json::from_slice::<JournalHeader<'_>>(frame).is_ok()
    }

    /// Whether an outbox assigns such numbers. Others are no less damage than a wrong checksum.
    pub(super) fn is_plausible(&self) -> bool {
        match self {
            Self::Wrote { after, .. } => is_sequence(*after),
            Self::State(state) => {
                let (_, sequence) = state.name;
                sequence > 0 && is_sequence(sequence) && state.refused_retries < NUMBERS
            }
            // The numbers of the others name something, and if there is no such thing, nothing
            // happens.
            _ => true,
        }
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
            kind: Some(letter.reason.kind().as_str().into()),
            reason: letter.reason.to_string(),
            cause: letter.reason.source().map(ToString::to_string),
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

/// Whether an entry may have this sequence number, or none has one yet.
fn is_sequence(number: Sequence) -> bool {
    number.is_multiple_of(NUMBERS) && number <= LAST_SEQUENCE
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys and finite numbers")
}

impl<'a> JournalledAssignment<'a> {
    fn of(change: &'a Assignment) -> Self {
        match change {
            Assignment::Put(envelope) => Self::Envelope(String::from_utf8_lossy(envelope)),
            Assignment::Delete => Self::Delete,
        }
    }

    fn change(self) -> Assignment {
        match self {
            Self::Envelope(envelope) => Assignment::Put(Bytes::from(envelope.into_owned())),
            Self::Delete => Assignment::Delete,
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
            by_host_clock: write.is_by_host_clock,
        }
    }

    pub(super) fn write(self, origin: ClockOrigin) -> Write {
        Write {
            assignment: self.assign.map(JournalledAssignment::change),
            mutation: self.mutate.map(Cow::into_owned),
            take: self.take.map(Cow::into_owned),
            expires: self.expires.map(|expires| origin.mono(expires)),
            is_by_host_clock: self.by_host_clock,
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

    pub(super) fn entry(self, origin: ClockOrigin) -> Entry {
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
    fn from(letter: JournalledLetter<'_>) -> Self {
        let reason = letter.reason();
        let stamp = Stamp::new(letter.stamp);
        let first_value = letter
            .value
            .map(|value| Assignment::Put(Unsealed::of_text(value.get()).seal(stamp)));
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
                random::rng().u64(..)
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
            reason,
        }
    }
}
