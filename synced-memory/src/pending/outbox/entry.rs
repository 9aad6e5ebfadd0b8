//! A write that waits, from the call until the backend has answered for it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::answer::{Answer, Waiter, Written};
use crate::backend::commit::{KeyChange, Sequence, Writer};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::Result;
use crate::cache::Ticket;
use crate::value::envelope;
use crate::value::mutation::{Json, Mutation};

/// What an entry takes of `outbox_limit` beside its key and value, in bytes.
pub(super) const BOOKKEEPING: usize = 256;

/// Whether an entry was sent. From its first attempt on it is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    Never,
    /// Every attempt that is not under way was answered for.
    Sent,
    /// An attempt with an unknown outcome was sent over a connection that is gone.
    InDoubt,
}

/// What a write was recorded on, whose caller waits to record it anew where something else is
/// there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// The whole of what is stored.
    Whole(Option<Bytes>),
    /// What its operations have seen at their places.
    Places,
}

/// An element that a call takes out of a collection and hands to its caller, who has not named it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Take {
    /// The element, or the elements in a list, or the entry in an object.
    pub(crate) item: Json,
    /// What brings it back; nothing where it has no place to go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) back: Option<Mutation>,
}

impl Take {
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.item.as_str().len() + self.back.as_ref().map_or(0, Mutation::size)
    }
}

/// So many sequence numbers each entry has: from a retry that was refused on, it goes on under the
/// next one.
pub(crate) const NUMBERS: Sequence = 1 << 10;

/// A write that the backend has not answered for.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Entry {
    /// Its place among all that were ever queued here.
    pub(crate) id: Sequence,
    /// Who made it: this memory, or one that is gone and has left it in its journal.
    pub(crate) writer: Writer,
    /// The first of its sequence numbers.
    pub(crate) sequence: Sequence,
    /// It is in the journal.
    pub(crate) journalled: bool,
    /// So many of its retries were refused.
    pub(super) refused_retries: u64,
    /// What replaces the value.
    pub(crate) assignment: Option<KeyChange>,
    /// What changes the value that was assigned; where none was, the one that is there.
    pub(crate) mutation: Option<Mutation>,
    /// The stamp that it competes with.
    pub(crate) stamp: Stamp,
    /// The stamp of the newest write in it.
    pub(crate) latest: Stamp,
    /// What its caller recorded it on, and waits to record it anew where something else is there.
    pub(crate) exact: Option<Precondition>,
    /// Its caller is told what has come of it, or that it was not made: it is never promised, and
    /// others see it once it was made.
    pub(crate) is_confirmed: bool,
    /// The element that it hands to its caller; of what is not confirmed, the one that it brings
    /// back.
    pub(crate) take: Option<Take>,
    /// It is the retry of a dead letter.
    pub(crate) is_retry: bool,
    /// It was sent as itself, and did not only ask what is there.
    pub(crate) was_sent: bool,
    /// It was chosen to be sent, and was not answered for since.
    pub(crate) is_drawn: bool,
    /// What is there was told by a refusal, over the connection that is in use.
    pub(crate) base_is_current: bool,
    /// What the backend had answered last when its mutation was recorded.
    pub(super) recorded_at: Ticket,
    /// When its time to live is over.
    pub(crate) expires: Option<Monotonic>,
    /// It took the place of a delete that was not sent, or of a value whose time was over: the key
    /// keeps no time to live of before, and when its own is over the key is gone.
    pub(crate) replaces_nothing: bool,
    /// When the newest write in it was made.
    pub(crate) written: Monotonic,
    /// When the oldest write in it was made.
    pub(crate) since: Monotonic,
    /// No outage since it was written: where it meets a newer stamp it is stamped anew (rule 4).
    pub(crate) fresh: bool,
    pub(crate) tried: Tried,
    /// When it was first sent.
    pub(crate) first_tried: Option<Monotonic>,
    /// An attempt with an unknown outcome was sent, and may yet arrive.
    pub(crate) was_in_doubt: bool,
    /// The attempt that is under way.
    pub(crate) in_flight: Option<Ticket>,
    /// The calls in the attempt that is under way that are superseded, by index.
    pub(crate) superseded: Vec<usize>,
    /// Whether the key was there before, as far as this process knew.
    pub(crate) existed: bool,
    /// Those who wait for the answer; they share its fate. With nobody waiting it was promised.
    pub(super) waiters: Vec<Waiter>,
    /// Those who have a later answer of the key in hand, and wait for this one.
    pub(super) followers: Vec<oneshot::Sender<()>>,
}

impl Entry {
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// How long what it stores is to live, from its newest write.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.expires
            .map(|expires| expires.saturating_sub(self.written))
    }

    /// What stays the same when another process takes it over.
    pub(crate) fn name(&self) -> (Writer, Sequence) {
        (self.writer, self.sequence)
    }

    pub(crate) fn refused_retries(&self) -> u64 {
        self.refused_retries
    }

    /// The number that its next attempt goes under.
    pub(crate) fn number(&self) -> Sequence {
        self.sequence + self.refused_retries.min(NUMBERS - 1)
    }

    /// Takes in that a retry was refused for certain: no attempt is in doubt any more, and the
    /// backend will refuse this number for ever.
    pub(crate) fn retry_refused(&mut self) {
        self.refused_retries += 1;
        self.tried = Tried::Sent;
        self.was_in_doubt = true;
    }

    pub(super) fn cost(&self, key: &str) -> usize {
        BOOKKEEPING + key.len() + self.size()
    }

    /// How many bytes it holds.
    pub(crate) fn size(&self) -> usize {
        let take = self.take.as_ref().map_or(0, Take::size);
        self.assignment.as_ref().map_or(0, KeyChange::size)
            + self.mutation.as_ref().map_or(0, Mutation::size)
            + take
    }

    /// Whether it has to survive the process: it is promised, or has taken something.
    pub(crate) fn is_to_survive(&self) -> bool {
        !self.is_confirmed || self.take.is_some()
    }

    /// Tells everybody who waits; from then on nobody does. Returns whether anybody still listened:
    /// whoever does not has been told otherwise.
    pub(crate) fn tell(&mut self, answer: &Result<Answer>) -> bool {
        self.waiters
            .drain(..)
            .filter_map(|waiter| waiter.send(answer.clone()).ok())
            .count()
            > 0
    }

    /// Takes in that nobody waits for it any more.
    pub(crate) fn leave_alone(&mut self) {
        self.waiters.clear();
    }

    /// Whether it can be withdrawn: no attempt is under way, or in doubt but for such that only
    /// asked what is there. What was sent by another process is not known, and nobody waits for it.
    pub(crate) fn is_withdrawable(&self) -> bool {
        let has_only_asked = !self.was_sent && self.is_awaited();
        !self.is_drawn && (self.tried != Tried::InDoubt || has_only_asked)
    }

    /// Ready when the attempt that is under way was answered for, or is lost.
    pub(crate) fn when_answered(&mut self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        self.followers.push(tell);
        told
    }

    /// Takes in that the attempt that was under way is not any more.
    pub(crate) fn acknowledged(&mut self) -> Option<Ticket> {
        self.followers.clear();
        self.is_drawn = false;
        self.in_flight.take()
    }

    /// Goes on with the changes alone.
    pub(crate) fn drop_assignment(&mut self) {
        self.assignment = None;
        self.stamp = self.latest;
        self.replaces_nothing = false;
    }

    /// Gives the entry a newer stamp, after a definite refusal of the one that it had.
    pub(crate) fn restamp(&mut self, stamp: Stamp) {
        self.stamp = stamp;
        self.latest = self.latest.max(stamp);
        if let Some(KeyChange::Put { envelope, .. }) = &mut self.assignment {
            *envelope = envelope::restamped(envelope, stamp);
        }
    }

    pub(super) fn shift(&mut self, by: i64) {
        self.latest = self.latest.shifted(by);
        self.restamp(self.stamp.shifted(by));
        if let Some(mutation) = &mut self.mutation {
            mutation.shift(by);
        }
    }

    /// Tells everybody who waits that the write stays queued.
    pub(super) fn set_reported(&mut self) {
        if !self.is_confirmed {
            self.exact = None;
            self.tell(&Ok(Answer::new(Written::Queued, self.existed)));
        }
    }
}

/// A write that was promised, as a journal holds it.
#[derive(Debug)]
pub(crate) struct QueuedWrite {
    pub(crate) name: (Writer, Sequence),
    pub(crate) refused_retries: u64,
    pub(crate) assignment: Option<KeyChange>,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) is_confirmed: bool,
    pub(crate) take: Option<Take>,
    pub(crate) is_retry: bool,
    pub(crate) stamp: Stamp,
    pub(crate) latest: Stamp,
    pub(crate) expires: Option<Monotonic>,
    pub(crate) replaces_nothing: bool,
    pub(crate) written: Monotonic,
    pub(crate) since: Monotonic,
    pub(crate) first_tried: Option<Monotonic>,
}

impl From<QueuedWrite> for Entry {
    fn from(promised: QueuedWrite) -> Self {
        let (writer, sequence) = promised.name;
        Self {
            id: sequence,
            writer,
            sequence,
            journalled: true,
            refused_retries: promised.refused_retries,
            assignment: promised.assignment,
            mutation: promised.mutation,
            stamp: promised.stamp,
            latest: promised.latest,
            exact: None,
            is_confirmed: promised.is_confirmed,
            take: promised.take,
            is_retry: promised.is_retry,
            was_sent: false,
            is_drawn: false,
            base_is_current: false,
            recorded_at: 0,
            expires: promised.expires,
            replaces_nothing: promised.replaces_nothing,
            written: promised.written,
            since: promised.since,
            fresh: false,
            tried: if promised.first_tried.is_some() {
                Tried::Sent
            } else {
                Tried::Never
            },
            first_tried: promised.first_tried,
            was_in_doubt: false,
            in_flight: None,
            superseded: Vec::new(),
            existed: false,
            waiters: Vec::new(),
            followers: Vec::new(),
        }
    }
}
