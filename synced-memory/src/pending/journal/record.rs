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

use super::Name;
use crate::backend::commit::{Change, Sequence, TimeToLive, Writer};
use crate::base::clock::{Mono, Stamp};
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Base, Ticket};
use crate::pending::outbox::{Entry, Letter, Outbox, Promised, Take, Tried, What, Write};
use crate::value::envelope::Unsealed;
use crate::value::mutation::{Json, Mutation, Operation};

/// The form of the records. The first one knew no comparisons, no takes and no letters that are
/// retried; what it says is read as before.
const VERSION: u32 = 2;
const FIRST: u32 = 1;

/// What happened to a write.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record<'a> {
    /// It was queued: behind the earlier ones to its key, or made part of the last of them.
    Wrote {
        after: Sequence,
        writer: Writer,
        write: Written<'a>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        ends: Option<Ends>,
    },
    /// So it stands now.
    Stands(Standing<'a>),
    /// It is about to be sent for the first time.
    Sent(Name),
    /// It was answered for, or became a dead letter.
    Done(Name),
    /// A dead letter.
    Aside(Aside<'a>),
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
    Take(Name),
    /// A dead letter: the write is its retry.
    Letter(u64),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Written<'a> {
    key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    assign: Option<Assigned<'a>>,
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
enum Assigned<'a> {
    Envelope(Cow<'a, str>),
    Delete,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Standing<'a> {
    name: Name,
    refused_retries: u64,
    write: Written<'a>,
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
pub(crate) struct Aside<'a> {
    key: Cow<'a, str>,
    /// What the first form knew of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    changes: Vec<Vec<Operation>>,
    #[serde(default)]
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    assign: Option<Assigned<'a>>,
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
struct Header<'a> {
    synced_memory_journal: u32,
    target: Cow<'a, str>,
}

/// When this process's monotonic clock was at zero, in ns since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin(pub(crate) u64);

impl Origin {
    fn wall(self, mono: Mono) -> u64 {
        self.0
            .saturating_add(u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX))
    }

    fn mono(self, wall: u64) -> Mono {
        Duration::from_nanos(wall.saturating_sub(self.0))
    }
}

/// A write that a process has left behind.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) key: Arc<str>,
    pub(crate) entry: Entry,
}

impl<'a> Record<'a> {
    pub(super) fn header(target: &str) -> Vec<u8> {
        encoded(&Header {
            synced_memory_journal: VERSION,
            target: target.into(),
        })
    }

    /// Whether a journal that begins so can be read, and is for this target.
    pub(super) fn is_header(frame: &[u8], target: &str) -> bool {
        serde_json::from_slice::<Header<'_>>(frame).is_ok_and(|header| {
            (FIRST..=VERSION).contains(&header.synced_memory_journal) && header.target == target
        })
    }

    /// That `write` is queued behind what the outbox has.
    pub(crate) fn wrote(
        outbox: &Outbox,
        key: &'a str,
        write: &'a Write,
        ends: Option<Ends>,
        origin: Origin,
    ) -> Self {
        let (assign, mutate) = match &write.what {
            What::Assign(change) => (Some(Assigned::of(change)), None),
            What::Mutate(mutation) => (None, Some(Cow::Borrowed(mutation))),
        };
        let (expires, at) = (
            write.expires.map(|expires| origin.wall(expires)),
            origin.wall(write.written),
        );
        let take = write.take.as_ref().map(Cow::Borrowed);
        let write = Written {
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
    pub(crate) fn stands(key: &'a str, entry: &'a Entry, origin: Origin) -> Self {
        Self::Stands(Standing {
            name: entry.name(),
            refused_retries: entry.refused_retries(),
            write: Written {
                key: key.into(),
                assign: entry.assignment.as_ref().map(Assigned::of),
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

    pub(crate) fn letter(letter: &'a Letter) -> Self {
        Self::Aside(Aside {
            key: Cow::Borrowed(&letter.key),
            value: None,
            changes: Vec::new(),
            id: letter.id,
            assign: letter.assignment.as_ref().map(Assigned::of),
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
    pub(super) fn is_promise(&self) -> bool {
        matches!(self, Self::Wrote { .. } | Self::Stands(_) | Self::Aside(_))
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        encoded(self)
    }
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys and finite numbers")
}

impl<'a> Assigned<'a> {
    fn of(change: &'a Change) -> Self {
        match change {
            Change::Put { envelope, .. } => Self::Envelope(String::from_utf8_lossy(envelope)),
            Change::Delete => Self::Delete,
        }
    }

    fn change(self) -> Change {
        match self {
            Self::Envelope(envelope) => Change::Put {
                envelope: Bytes::from(envelope.into_owned()),
                ttl: TimeToLive::Keep,
            },
            Self::Delete => Change::Delete,
        }
    }
}

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// What is left to be sent, in order.
    pub(super) kept: Vec<Kept>,
    /// The dead letters that were neither retried nor forgotten.
    pub(super) letters: Vec<Letter>,
    /// How many of its records could not be read.
    pub(super) unread: usize,
}

/// What is left after these records.
pub(super) fn replay(records: &[Vec<u8>], origin: Origin) -> Replayed {
    let mut outbox = Outbox::new(usize::MAX, 0);
    let mut keys = HashMap::new();
    let mut replayed = Replayed::default();
    for (place, record) in (1..).zip(records) {
        match serde_json::from_slice::<Record<'_>>(record) {
            Ok(Record::Aside(aside)) => replayed.letters.push(aside.into()),
            Ok(Record::HandedOut) => replayed.letters.clear(),
            Ok(Record::Ended(id)) => replayed.letters.retain(|letter| letter.id != id),
            Ok(record) => {
                if let Record::Wrote {
                    ends: Some(Ends::Letter(id)),
                    ..
                } = &record
                {
                    replayed.letters.retain(|letter| letter.id != *id);
                }
                take_in(&mut outbox, &mut keys, record, place, origin);
            }
            Err(_) => replayed.unread += 1,
        }
    }
    replayed.kept = outbox
        .into_entries()
        .map(|(key, entry)| Kept { key, entry })
        .collect();
    replayed
}

impl From<Aside<'_>> for Letter {
    fn from(aside: Aside<'_>) -> Self {
        let kind = if aside.rejected {
            ErrorKind::Rejected
        } else {
            ErrorKind::Conflict
        };
        let stamp = Stamp::new(aside.stamp);
        let first_value = aside.value.map(|value| Change::Put {
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
            assignment: aside.assign.map(Assigned::change).or(first_value),
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
fn take_in(
    outbox: &mut Outbox,
    keys: &mut HashMap<Name, Arc<str>>,
    record: Record<'_>,
    place: Ticket,
    origin: Origin,
) {
    match record {
        Record::Wrote {
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
        Record::Stands(standing) => {
            let Standing {
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
            let entry = Promised {
                name,
                refused_retries,
                assignment: assign.map(Assigned::change),
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
        Record::Sent(name) => {
            if let Some(entry) = keys.get(&name).and_then(|key| outbox.named(key, name)) {
                entry.tried = Tried::Sent;
                // Not before its last change.
                entry.first_tried.get_or_insert(entry.written);
            }
        }
        Record::Done(name) => {
            if let Some(key) = keys.remove(&name) {
                outbox.drop_named(&key, name);
            }
        }
        Record::Aside(_) | Record::Ended(_) | Record::HandedOut => {}
    }
}

fn written(write: Written<'_>, is_retry: bool, origin: Origin) -> Option<Write> {
    let what = match (write.assign, write.mutate) {
        (Some(assigned), _) => What::Assign(assigned.change()),
        (None, Some(mutation)) => What::Mutate(mutation.into_owned()),
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
