//! An entry of the outbox: a write, from the call until the backend has answered for it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::answer::{Answer, EntryName, Waiter, Written};
use crate::backend::commit::{KeyChange, Sequence, TimeToLive, Writer};
use crate::backend::shards::Shard;
use crate::base::clock::{Monotonic, Stamp, has_expired};
use crate::base::error::Result;
use crate::cache::Ticket;
use crate::value::document::Document;
use crate::value::envelope::{self, Text};
use crate::value::mutation::{Json, Mutation};

/// What an entry takes of `outbox_limit` in addition to its key and value, in bytes.
pub(super) const BOOKKEEPING: usize = 256;

/// How many sequence numbers each entry has: after a refused retry it uses the next one.
pub(crate) const NUMBERS: Sequence = 1 << 10;

/// What replaces the value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Assignment {
    /// This envelope.
    Put(Bytes),
    /// Nothing: the key is removed.
    Delete,
}

impl Assignment {
    /// How many bytes it holds.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Put(envelope) => envelope.len(),
            Self::Delete => 0,
        }
    }

    /// The value, as text.
    pub(crate) fn own_value(&self) -> Option<Text> {
        match self {
            Self::Put(envelope) => Some(envelope::own_value_of(envelope)),
            Self::Delete => None,
        }
    }

    /// What is sent of it.
    pub(crate) fn change(&self) -> KeyChange {
        match self {
            Self::Put(envelope) => KeyChange::Put {
                envelope: envelope.clone(),
                ttl: TimeToLive::Keep,
            },
            Self::Delete => KeyChange::Delete,
        }
    }
}

/// Whether an entry was sent. From its first attempt on it is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tried {
    #[default]
    Never,
    /// Every attempt that is not under way was answered.
    Sent,
    /// An attempt with an unknown outcome was sent over a connection that is gone.
    InDoubt,
}

/// What a write was recorded on. If something else is stored, its caller records it anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// The whole of what is stored.
    Whole(Option<Document>),
    /// What its operations have observed at their paths.
    Paths,
}

/// An element that a call takes out of a collection and hands to its caller, who has not named it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Take {
    /// The element, or the elements in a list, or the entry in an object.
    pub(crate) item: Json,
    /// What returns it; nothing if there is no path to return it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) back: Option<Mutation>,
}

impl Take {
    fn size(&self) -> usize {
        size_of::<Self>() + self.item.as_str().len() + self.back.as_ref().map_or(0, Mutation::size)
    }
}

/// A write that is not acknowledged yet.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) identity: EntryIdentity,
    pub(crate) write: Write,
    pub(crate) attempt: AttemptState,
    pub(super) listeners: Listeners,
    /// It is in the journal.
    pub(crate) journalled: bool,
    /// What the backend had answered last when the entry was queued.
    pub(super) recorded_at: Ticket,
}

/// Which entry it is, here and in the backend's records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryIdentity {
    /// Its position among all that were ever queued in this outbox.
    pub(crate) id: Sequence,
    /// Who made it: this memory, or one that is gone and has left it in its journal.
    pub(crate) writer: Writer,
    /// The first of its sequence numbers.
    pub(crate) sequence: Sequence,
    /// How many of its retries were refused.
    pub(crate) refused_retries: u64,
}

/// What is to be written: the same from the call through the outbox to the journal.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Write {
    /// What replaces the value.
    pub(crate) assignment: Option<Assignment>,
    /// What changes the assigned value or, without an assignment, the stored one.
    pub(crate) mutation: Option<Mutation>,
    /// The stamp that it competes with.
    pub(crate) stamp: Stamp,
    /// The stamp of the newest call in it.
    pub(crate) latest: Stamp,
    /// What its caller recorded it on, as long as the caller waits and can record it anew. Not in
    /// the journal, which holds what nobody waits for.
    pub(crate) precondition: Option<Precondition>,
    /// Its caller gets a fact: it is never reported as queued, and it is visible once it was made.
    pub(crate) is_confirmed: bool,
    /// The element that it hands to its caller; if it is not confirmed, the one that it returns.
    pub(crate) take: Option<Take>,
    /// It is the retry of a dead letter, and is never merged with other writes: whether it can be
    /// depends on who waits, which a journal does not know.
    pub(crate) is_retry: bool,
    /// When its time to live ends.
    pub(crate) expires: Option<Monotonic>,
    /// It replaced a delete that was not sent, or a value that had expired: the key keeps no
    /// earlier time to live, and when its own time to live ends the key is deleted.
    pub(crate) replaces_nothing: bool,
    /// When the newest call in it was made.
    pub(crate) written: Monotonic,
    /// When the oldest call in it was made.
    pub(crate) since: Monotonic,
    /// No outage since it was written: if it meets a newer stamp, it gets a new one (rule 4).
    pub(crate) fresh: bool,
    /// Whether the key was there before, as far as this process knew.
    pub(crate) existed: bool,
    /// Its stamps are by a host's own clock: the process that issued them had never been connected.
    pub(crate) is_by_host_clock: bool,
}

/// How far the attempts to send an entry have got.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct AttemptState {
    pub(crate) tried: Tried,
    /// When it was first sent.
    pub(crate) first_tried: Option<Monotonic>,
    /// An attempt with an unknown outcome was sent, and may still arrive.
    pub(crate) was_in_doubt: bool,
    /// An attempt carried the write, and did not only ask what is stored.
    pub(crate) was_sent: bool,
    /// The shard to which it was chosen to be sent, if it was not answered since.
    pub(crate) drawn_to: Option<Shard>,
    /// The shard to which it was chosen to be sent last.
    pub(crate) last_drawn_to: Shard,
    /// The shard that it is sent to next, instead of its own: another one sent it there.
    pub(crate) asks: Option<Shard>,
    /// When another shard sent it elsewhere.
    pub(crate) moved_at: Option<Monotonic>,
    /// A refusal over the current connection has brought what is stored.
    pub(crate) base_is_current: bool,
    /// It was refused as an addition to whatever is stored: what it makes of that is sent next.
    pub(crate) is_to_be_based: bool,
    /// The server refuses to change a part of what is stored: it is sent as a whole.
    pub(crate) was_refused_as_part: bool,
    /// How often it was refused, since others wrote first.
    pub(crate) refusals: u32,
    /// The attempt that is under way.
    pub(crate) in_flight: Option<Ticket>,
    /// The calls in the attempt under way that are superseded, by index.
    pub(crate) superseded: Vec<usize>,
}

/// Who is notified of what becomes of an entry.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// The callers that wait for the answer; they get the same one. Without any, the write was
    /// reported as queued.
    pub(super) waiters: Vec<Waiter>,
    /// Those who have a later answer for the key, and wait until this attempt is over.
    followers: Vec<oneshot::Sender<()>>,
}

impl EntryIdentity {
    /// What stays the same when another process adopts the entry.
    pub(crate) fn name(&self) -> EntryName {
        (self.writer, self.sequence)
    }

    /// The number that its next attempt is sent under.
    pub(crate) fn number(&self) -> Sequence {
        self.sequence + self.refused_retries.min(NUMBERS - 1)
    }

    /// Whether the backend refuses all of its numbers for ever.
    pub(crate) fn is_used_up(&self) -> bool {
        self.refused_retries >= NUMBERS
    }
}

impl Write {
    /// A write of one call that does nothing yet.
    pub(crate) fn new(stamp: Stamp, written: Monotonic) -> Self {
        Self {
            assignment: None,
            mutation: None,
            stamp,
            latest: stamp,
            precondition: None,
            is_confirmed: false,
            take: None,
            is_retry: false,
            expires: None,
            replaces_nothing: false,
            written,
            since: written,
            fresh: false,
            existed: false,
            is_by_host_clock: false,
        }
    }

    /// How many bytes it holds.
    pub(crate) fn size(&self) -> usize {
        self.assignment.as_ref().map_or(0, Assignment::size)
            + self.mutation.as_ref().map_or(0, Mutation::size)
            + self.take.as_ref().map_or(0, Take::size)
    }

    /// How long what it stores is to live, from its newest call on.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.expires
            .map(|expires| expires.saturating_sub(self.written))
    }

    /// Whether its time to live has ended.
    pub(crate) fn has_expired(&self, mono: Monotonic) -> bool {
        has_expired(self.expires, mono)
    }

    /// Whether all of it was withdrawn.
    pub(crate) fn is_empty(&self) -> bool {
        self.assignment.is_none() && self.mutation.is_none()
    }

    /// Whether it has to survive the process: it may be reported as queued, or has taken something.
    pub(crate) fn must_survive(&self) -> bool {
        !self.is_confirmed || self.take.is_some()
    }

    /// Continues with the changes alone.
    pub(crate) fn drop_assignment(&mut self) {
        self.assignment = None;
        self.stamp = self.latest;
        self.replaces_nothing = false;
    }

    /// Deletes the key from now on: the time to live is over.
    pub(crate) fn expire(&mut self) {
        self.assignment = Some(Assignment::Delete);
        self.mutation = None;
        self.expires = None;
    }

    /// Removes the mutation if no call is left in it.
    pub(crate) fn drop_empty_mutation(&mut self) {
        self.mutation
            .take_if(|mutation| mutation.calls().is_empty());
    }

    /// Gives it a newer stamp, after a definite refusal of the one that it had.
    pub(super) fn restamp(&mut self, stamp: Stamp) {
        self.stamp = stamp;
        self.latest = self.latest.max(stamp);
        if let Some(Assignment::Put(envelope)) = &mut self.assignment {
            *envelope = envelope::restamped(envelope, stamp);
        }
    }

    /// Moves its stamps to the server's clock, since the clock that issued them was `by` ns behind.
    pub(super) fn shift(&mut self, by: i64) {
        self.is_by_host_clock = false;
        self.latest = self.latest.shifted(by);
        self.restamp(self.stamp.shifted(by));
        if let Some(mutation) = &mut self.mutation {
            mutation.shift(by);
        }
    }
}

impl Entry {
    /// A write that is not sent yet.
    pub(super) fn queued(
        identity: EntryIdentity,
        write: Write,
        waiter: Option<Waiter>,
        recorded_at: Ticket,
    ) -> Self {
        Self {
            identity,
            write,
            attempt: AttemptState::default(),
            listeners: Listeners {
                waiters: waiter.into_iter().collect(),
                followers: Vec::new(),
            },
            journalled: false,
            recorded_at,
        }
    }

    /// As a journal has it.
    pub(crate) fn journalled(
        identity: EntryIdentity,
        write: Write,
        first_tried: Option<Monotonic>,
    ) -> Self {
        let tried = if first_tried.is_some() {
            Tried::Sent
        } else {
            Tried::Never
        };
        Self {
            identity,
            write,
            attempt: AttemptState {
                tried,
                first_tried,
                ..AttemptState::default()
            },
            listeners: Listeners::default(),
            journalled: true,
            recorded_at: 0,
        }
    }

    pub(crate) fn name(&self) -> EntryName {
        self.identity.name()
    }

    /// It was left behind, and is found at `mono`. Nothing was written or sent later than that: the
    /// clock may have been set back since.
    pub(crate) fn was_left_until(&mut self, mono: Monotonic) {
        let (write, attempt) = (&mut self.write, &mut self.attempt);
        write.written = write.written.min(mono);
        write.since = write.since.min(mono);
        // It counts as attempted from here on at the latest, also for whoever adopts it next.
        let tried = attempt.first_tried.map_or(mono, |tried| tried.min(mono));
        attempt.first_tried = Some(tried);
    }

    pub(crate) fn is_awaited(&self) -> bool {
        !self.listeners.waiters.is_empty()
    }

    /// How many bytes it takes of `outbox_limit`.
    pub(super) fn cost(&self, key: &str) -> usize {
        BOOKKEEPING + key.len() + self.write.size()
    }

    /// A retry was definitely refused: no attempt is in doubt any more, and the backend will refuse
    /// this number for ever.
    pub(crate) fn retry_refused(&mut self) {
        self.identity.refused_retries += 1;
        self.attempt.tried = Tried::Sent;
        self.attempt.was_in_doubt = true;
    }

    /// The backend made it, and it may be lost again: it is sent once more under the same number.
    pub(crate) fn is_to_be_confirmed(&mut self) {
        self.attempt.tried = Tried::InDoubt;
        self.attempt.was_in_doubt = true;
        self.attempt.base_is_current = false;
    }

    /// Whether it can be withdrawn: no attempt is under way, and none is in doubt except such that
    /// only asked what is stored. What another process sent is not known, and nobody waits for it.
    pub(super) fn is_withdrawable(&self) -> bool {
        let has_only_asked = !self.attempt.was_sent && self.is_awaited();
        self.attempt.drawn_to.is_none() && (self.attempt.tried != Tried::InDoubt || has_only_asked)
    }

    /// The attempt that was under way is over. Returns which one it was.
    pub(crate) fn acknowledged(&mut self) -> Option<Ticket> {
        self.listeners.followers.clear();
        self.attempt.drawn_to = None;
        self.attempt.in_flight.take()
    }

    /// Ready when the attempt under way was answered, or is lost.
    pub(crate) fn when_acknowledged(&mut self) -> oneshot::Receiver<()> {
        let (follower, acknowledged) = oneshot::channel();
        self.listeners.followers.push(follower);
        acknowledged
    }

    /// Notifies all waiters, and removes them. Returns whether any of them still waited: those that
    /// do not have given up.
    pub(crate) fn notify_waiters(&mut self, answer: &Result<Answer>) -> bool {
        self.listeners
            .waiters
            .drain(..)
            .filter_map(|waiter| waiter.send(answer.clone()).ok())
            .count()
            > 0
    }

    /// Notifies all waiters that the write stays queued, unless it is confirmed.
    pub(super) fn notify_queued(&mut self) {
        if !self.write.is_confirmed {
            self.write.precondition = None;
            self.notify_waiters(&Ok(Answer::new(Written::Queued, self.write.existed)));
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn drop_waiters(&mut self) {
        self.listeners.waiters.clear();
    }
}
