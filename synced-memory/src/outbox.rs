//! The writes that the backend has not answered for yet: coalescing, order per key, the bound. No I/O.
//!
//! Each key has a queue. Its head is the entry that is sent next, or is being sent. From its first
//! attempt an entry is frozen: later writes form a new entry behind it (DESIGN, rule 3).

use crate::cache::Ticket;
use crate::clock::{Mono, Stamp};
use crate::commit::{Change, Sequence};
use crate::envelope;
use crate::error::{Error, ErrorKind, Result};
use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What became of a write.
///
/// It is not `#[must_use]`: each of the three is a success, and the write is never lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Written {
    /// Somebody else's write is newer, and was kept instead; a read shows it.
    Superseded,
    /// It waits for the backend, and will be sent.
    Queued,
    /// The backend has it, as safely as its own persistence makes it.
    Stored,
}

/// What a writer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) written: Written,
    /// Whether the key was there before, as far as known.
    pub(crate) existed: bool,
}

/// Somebody who waits for the answer to a write.
pub(crate) type Waiter = oneshot::Sender<Result<Answer>>;

/// Whether an entry was sent. From its first attempt on it is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    Never,
    /// Every attempt that is not under way was answered for.
    Sent,
    /// An attempt with an unknown outcome was sent over a connection that is gone.
    InDoubt,
}

/// A write that the backend has not answered for.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) sequence: Sequence,
    pub(crate) change: Change,
    pub(crate) stamp: Stamp,
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
    /// The attempt that is under way.
    pub(crate) in_flight: Option<Ticket>,
    /// Whether the key was there before, as far as this process knew.
    pub(crate) existed: bool,
    /// Those who wait for the answer; they share its fate. With nobody waiting it was promised.
    waiters: Vec<Waiter>,
}

impl Entry {
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiters.is_empty()
    }

    fn cost(&self, key: &str) -> usize {
        cost(key, &self.change)
    }

    /// How many bytes it sends.
    pub(crate) fn size(&self) -> usize {
        self.change.size()
    }

    /// Tells everybody who waits; from then on nobody does.
    pub(crate) fn tell(&mut self, answer: &Result<Answer>) {
        for waiter in self.waiters.drain(..) {
            // Whoever no longer listens has been told otherwise.
            let _ = waiter.send(answer.clone());
        }
    }

    /// Gives the entry a newer stamp, after a definite refusal of the one that it had.
    pub(crate) fn restamp(&mut self, stamp: Stamp) {
        self.stamp = stamp;
        if let Change::Put { envelope, .. } = &mut self.change {
            *envelope = envelope::restamped(envelope, stamp);
        }
    }

    /// Tells everybody who waits that the write stays queued.
    fn promise(&mut self) {
        let answer = Answer { written: Written::Queued, existed: self.existed };
        self.tell(&Ok(answer));
    }
}

/// What an entry takes of `outbox_limit`, in bytes: the key, the value and the bookkeeping.
fn cost(key: &str, change: &Change) -> usize {
    const BOOKKEEPING: usize = 256;
    BOOKKEEPING + key.len() + change.size()
}

/// A write on its way into the outbox.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) change: Change,
    pub(crate) stamp: Stamp,
    pub(crate) expires: Option<Mono>,
    pub(crate) written: Mono,
    pub(crate) fresh: bool,
    pub(crate) existed: bool,
    pub(crate) waiter: Option<Waiter>,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    queues: HashMap<Arc<str>, VecDeque<Entry>>,
    /// The keys whose head waits to be sent, each once.
    ready: VecDeque<Arc<str>>,
    last_sequence: Sequence,
    bytes: usize,
    limit: usize,
}

impl Outbox {
    /// An outbox that holds at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { queues: HashMap::new(), ready: VecDeque::new(), last_sequence: 0, bytes: 0, limit }
    }

    /// Queues a write behind the earlier ones to its key, or merges it into the last of them where
    /// that was not sent yet and has the same promise to keep. Returns the entry's sequence number.
    pub(crate) fn push(&mut self, key: &Arc<str>, write: Write) -> Result<Sequence> {
        let queue = self.queues.get_mut(key);
        let merges = queue
            .and_then(|queue| queue.back_mut())
            .filter(|last| last.tried == Tried::Never && last.is_awaited() == write.waiter.is_some());
        let freed = merges.as_ref().map_or(0, |last| last.cost(key));
        let bytes = self.bytes - freed + cost(key, &write.change);
        if bytes > self.limit && bytes > self.bytes {
            let what = format_args!("refused, since the outbox holds {} of {} bytes", self.bytes, self.limit);
            return Err(Error::of_key(ErrorKind::OutboxFull, key, what));
        }
        self.bytes = bytes;
        if let Some(last) = merges {
            let over = last.expires.is_some_and(|expires| expires <= write.written);
            last.replaces_nothing |= over || matches!(last.change, Change::Delete);
            last.expires = write.expires.or(inherited_expiry(last, &write));
            last.change = write.change;
            last.stamp = write.stamp;
            last.written = write.written;
            last.fresh = write.fresh;
            last.waiters.extend(write.waiter);
            return Ok(last.sequence);
        }
        self.last_sequence += 1;
        let entry = Entry {
            sequence: self.last_sequence,
            change: write.change,
            stamp: write.stamp,
            expires: write.expires,
            replaces_nothing: false,
            written: write.written,
            since: write.written,
            fresh: write.fresh,
            tried: Tried::Never,
            in_flight: None,
            existed: write.existed,
            waiters: write.waiter.into_iter().collect(),
        };
        match self.queues.entry(Arc::clone(key)) {
            Place::Occupied(mut queue) => queue.get_mut().push_back(entry),
            Place::Vacant(place) => {
                if entry.is_awaited() {
                    self.ready.push_front(Arc::clone(key));
                } else {
                    self.ready.push_back(Arc::clone(key));
                }
                place.insert(VecDeque::from([entry]));
            }
        }
        Ok(self.last_sequence)
    }

    /// The next key whose head waits to be sent. It is the caller's to send, drop or put back.
    pub(crate) fn next_ready(&mut self) -> Option<Arc<str>> {
        self.ready.pop_front()
    }

    /// Takes `key` where it is the next one whose head waits to be sent.
    pub(crate) fn take_first(&mut self, key: &str) -> bool {
        let first = self.ready.front().is_some_and(|first| **first == *key);
        if first {
            self.ready.pop_front();
        }
        first
    }

    /// Whether anything waits to be sent.
    pub(crate) fn is_anything_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Puts a key back: its head is to be sent before those of other keys.
    pub(crate) fn put_back(&mut self, key: Arc<str>) {
        self.ready.push_front(key);
    }

    /// The entry of `key` that is sent next, or is being sent.
    pub(crate) fn head(&mut self, key: &str) -> Option<&mut Entry> {
        self.queues.get_mut(key)?.front_mut()
    }

    /// The last write to `key`: what a read shows.
    pub(crate) fn last(&self, key: &str) -> Option<&Entry> {
        self.queues.get(key)?.back()
    }

    /// The writes to `key` that wait, in their order.
    pub(crate) fn of(&self, key: &str) -> impl DoubleEndedIterator<Item = &Entry> {
        self.queues.get(key).into_iter().flatten()
    }

    /// Takes in that the time to live of the head of `key` is over: it removes the key.
    pub(crate) fn end(&mut self, key: &str) {
        if let Some(entry) = self.queues.get_mut(key).and_then(VecDeque::front_mut) {
            self.bytes -= entry.cost(key);
            entry.change = Change::Delete;
            entry.expires = None;
            self.bytes += entry.cost(key);
        }
    }

    /// Takes the head of `key` out; the one behind it is to be sent.
    pub(crate) fn remove(&mut self, key: &Arc<str>) -> Option<Entry> {
        let queue = self.queues.get_mut(key)?;
        let entry = queue.pop_front()?;
        self.bytes -= entry.cost(key);
        match queue.front() {
            None => _ = self.queues.remove(key),
            Some(next) if next.is_awaited() => self.ready.push_front(Arc::clone(key)),
            Some(_) => self.ready.push_back(Arc::clone(key)),
        }
        Some(entry)
    }

    /// Takes in that the connection is gone: whatever is under way has an unknown outcome, and goes first
    /// over the next one.
    pub(crate) fn lose(&mut self) {
        for (key, queue) in &mut self.queues {
            if let Some(head) = queue.front_mut()
                && head.in_flight.take().is_some()
            {
                head.tried = Tried::InDoubt;
                self.ready.push_front(Arc::clone(key));
            }
        }
        self.hold_back();
    }

    /// Takes in that the writes wait. Everybody who waits is told that the write is queued.
    pub(crate) fn hold_back(&mut self) {
        for queue in self.queues.values_mut() {
            for entry in queue.iter_mut() {
                entry.fresh = false;
                entry.promise();
            }
        }
    }

    /// Tells those who wait for the entry of `key` with this sequence number that it stays queued.
    pub(crate) fn promise(&mut self, key: &str, sequence: Sequence) {
        let queue = self.queues.get_mut(key);
        if let Some(entry) = queue.and_then(|queue| queue.iter_mut().find(|entry| entry.sequence == sequence)) {
            entry.promise();
        }
    }

    /// Moves the stamps of what was never sent, since the clock that issued them was `by` ns behind.
    pub(crate) fn shift(&mut self, by: i64) {
        for (key, queue) in &mut self.queues {
            for entry in queue.iter_mut().filter(|entry| entry.tried == Tried::Never) {
                self.bytes -= entry.cost(key);
                entry.restamp(entry.stamp.shifted(by));
                self.bytes += entry.cost(key);
            }
        }
    }

    /// Stamps the head of `key` anew, just above `found`, and those behind it above that: a later write
    /// is never older than an earlier one. Returns the last stamp.
    pub(crate) fn restamp_above(&mut self, key: &str, found: Stamp, random: &mut fastrand::Rng) -> Stamp {
        let mut last = found;
        for entry in self.queues.get_mut(key).into_iter().flatten() {
            if entry.stamp <= last {
                self.bytes -= entry.cost(key);
                entry.restamp(last.just_above(random));
                self.bytes += entry.cost(key);
            }
            last = entry.stamp;
        }
        last
    }

    /// How many keys have writes that wait.
    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    /// The sequence number that was given last.
    pub(crate) fn last_sequence(&self) -> Sequence {
        self.last_sequence
    }

    /// The writes that wait, with their keys, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.queues.iter().flat_map(|(key, queue)| queue.iter().map(move |entry| (key, entry)))
    }
}

/// A write without a time to live keeps the one of the write that it replaces.
fn inherited_expiry(replaced: &Entry, write: &Write) -> Option<Mono> {
    let keeps = matches!(write.change, Change::Put { .. });
    replaced.expires.filter(|expires| keeps && *expires > write.written)
}
