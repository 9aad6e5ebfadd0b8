//! A write that waits, from the call until the backend has answered for it.

use super::answer::{Answer, Waiter, Written};
use crate::cache::Ticket;
use crate::clock::{Mono, Stamp};
use crate::commit::{Change, Sequence, Writer};
use crate::envelope;
use crate::error::Result;
use crate::mutation::Mutation;
use bytes::Bytes;
use tokio::sync::oneshot;

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

/// What a write was recorded on, whose caller waits to record it anew where something else is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exact {
    /// The whole of what is stored.
    Whole(Option<Bytes>),
    /// What its operations have seen at their places.
    Places,
}

/// So many sequence numbers each entry has: from a retry that was refused on, it goes on under the next one.
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
    pub(crate) assignment: Option<Change>,
    /// What changes the value that was assigned; where none was, the one that is there.
    pub(crate) mutation: Option<Mutation>,
    /// The stamp that it competes with.
    pub(crate) stamp: Stamp,
    /// The stamp of the newest write in it.
    pub(crate) latest: Stamp,
    /// What its caller recorded it on, and waits to record it anew where something else is there.
    pub(crate) exact: Option<Exact>,
    /// What is there was told by a refusal, over the connection that is in use.
    pub(crate) is_confirmed: bool,
    /// What the backend had answered last when its mutation was recorded.
    pub(super) recorded_at: Ticket,
    /// When its time to live is over.
    pub(crate) expires: Option<Mono>,
    /// It took the place of a delete that was not sent, or of a value whose time was over: the key keeps no
    /// time to live of before, and when its own is over the key is gone.
    pub(crate) replaces_nothing: bool,
    /// When the newest write in it was made.
    pub(crate) written: Mono,
    /// When the oldest write in it was made.
    pub(crate) since: Mono,
    /// No outage since it was written: where it meets a newer stamp it is stamped anew (rule 4).
    pub(crate) fresh: bool,
    pub(crate) tried: Tried,
    /// When it was first sent.
    pub(crate) first_tried: Option<Mono>,
    /// An attempt with an unknown outcome was sent, and may yet arrive.
    pub(crate) was_in_doubt: bool,
    /// The attempt that is under way.
    pub(crate) in_flight: Option<Ticket>,
    /// So many of the calls in the attempt that is under way are superseded.
    pub(crate) superseded: u64,
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

    /// Takes in that a retry was refused for certain: no attempt is in doubt any more, and the backend will
    /// refuse this number for ever.
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
        self.assignment.as_ref().map_or(0, Change::size) + self.mutation.as_ref().map_or(0, Mutation::size)
    }

    /// Tells everybody who waits; from then on nobody does.
    pub(crate) fn tell(&mut self, answer: &Result<Answer>) {
        for waiter in self.waiters.drain(..) {
            // Whoever no longer listens has been told otherwise.
            let _ = waiter.send(answer.clone());
        }
    }

    /// Ready when the attempt that is under way was answered for, or is lost.
    pub(crate) fn when_answered(&mut self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        self.followers.push(tell);
        told
    }

    /// Takes in that the attempt that was under way is not any more.
    pub(crate) fn landed(&mut self) -> Option<Ticket> {
        self.followers.clear();
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
        if let Some(Change::Put { envelope, .. }) = &mut self.assignment {
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
    pub(super) fn promise(&mut self) {
        self.exact = None;
        self.tell(&Ok(Answer::new(Written::Queued, self.existed)));
    }
}

/// A write that was promised, as a journal holds it.
#[derive(Debug)]
pub(crate) struct Promised {
    pub(crate) name: (Writer, Sequence),
    pub(crate) refused_retries: u64,
    pub(crate) assignment: Option<Change>,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) stamp: Stamp,
    pub(crate) latest: Stamp,
    pub(crate) expires: Option<Mono>,
    pub(crate) replaces_nothing: bool,
    pub(crate) written: Mono,
    pub(crate) since: Mono,
    pub(crate) first_tried: Option<Mono>,
}

impl From<Promised> for Entry {
    fn from(promised: Promised) -> Self {
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
            is_confirmed: false,
            recorded_at: 0,
            expires: promised.expires,
            replaces_nothing: promised.replaces_nothing,
            written: promised.written,
            since: promised.since,
            fresh: false,
            tried: if promised.first_tried.is_some() { Tried::Sent } else { Tried::Never },
            first_tried: promised.first_tried,
            was_in_doubt: false,
            in_flight: None,
            superseded: 0,
            existed: false,
            waiters: Vec::new(),
            followers: Vec::new(),
        }
    }
}
