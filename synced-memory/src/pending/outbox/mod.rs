//! The writes that the backend has not answered for yet: coalescing, order per key, the bound. No
//! I/O.
//!
//! Each key has a queue. Its head is the entry that is sent next, or is being sent. From its first
//! attempt an entry is frozen: later writes form a new entry behind it (rule 3).
//!
//! - `answer.rs`: what a writer is told
//! - `entry.rs`: one write that waits; `letter.rs`: one that does no longer
//! - `merge.rs`: when a later write is made part of it
//! - `journalled.rs`: what a journal asks of the outbox

mod answer;
mod dead_letter;
mod entry;
mod journalled;
mod merge;

pub use answer::Written;
pub(crate) use answer::{Again, Answer, Waiter};
pub(crate) use dead_letter::LetterRecord;
use entry::BOOKKEEPING;
pub(crate) use entry::{Entry, NUMBERS, Precondition, QueuedWrite, Take, Tried};
use merge::merge;
pub(crate) use merge::{Write, WriteKind};

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::commit::{KeyChange, Sequence, Writer};
use crate::base::clock::Stamp;
use crate::base::error::{Error, ErrorKind, Result};
use crate::cache::Base;
use crate::value::mutation::{Mutation, NotMade};

/// What has become of a write that is to be withdrawn.
#[derive(Debug)]
pub(crate) enum Withdrawal {
    /// It will never be made.
    Withdrawn(Box<Entry>),
    /// It was made, or never will be.
    InDoubt,
    /// It was answered for before.
    Settled,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    queues: HashMap<Arc<str>, VecDeque<Entry>>,
    /// The keys whose head waits to be sent, each once.
    ready: VecDeque<Arc<str>>,
    last_sequence: Sequence,
    writer: Writer,
    bytes: usize,
    limit: usize,
}

impl Outbox {
    /// An outbox of this writer that holds at most `limit` bytes.
    pub(crate) fn new(limit: usize, writer: Writer) -> Self {
        Self {
            queues: HashMap::new(),
            ready: VecDeque::new(),
            last_sequence: 0,
            writer,
            bytes: 0,
            limit,
        }
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for a write.
    ///
    /// # Errors
    ///
    /// `OutboxFull`.
    pub(crate) fn check(&self, key: &Arc<str>, write: &Write) -> Result<()> {
        let replaced = matches!(write.what, WriteKind::Assign(_))
            .then(|| self.last(key).filter(|last| last.takes(write)))
            .flatten()
            .map_or(0, Entry::size);
        let bytes = self.bytes - replaced + write.size();
        let with_entry = bytes
            + if replaced == 0 {
                BOOKKEEPING + key.len()
            } else {
                0
            };
        if with_entry > self.limit && with_entry > self.bytes {
            let what = format!(
                "refused, since the outbox holds {} of {} bytes",
                self.bytes, self.limit
            );
            return Err(Error::of_key(ErrorKind::OutboxFull, key, what));
        }
        Ok(())
    }

    /// Queues a write behind the earlier ones to its key, or merges it into the last of them where
    /// that was not sent yet and has the same promise to keep. `base` is what the backend last
    /// answered. Returns the entry's sequence number.
    pub(crate) fn push(
        &mut self,
        key: &Arc<str>,
        mut write: Write,
        base: &Base,
    ) -> Result<Sequence> {
        self.check(key, &write)?;
        if let Some(queue) = self.queues.get_mut(key) {
            let is_only = queue.len() == 1;
            if let Some(last) = queue.back_mut().filter(|last| last.takes(&write)) {
                let before = last.cost(key);
                match merge(last, Box::new(write), base, is_only) {
                    Ok(()) => {
                        self.bytes = self.bytes - before + last.cost(key);
                        return Ok(last.id);
                    }
                    Err(apart) => write = *apart,
                }
            }
        }
        self.last_sequence += NUMBERS;
        let (assignment, mutation) = match write.what {
            WriteKind::Assign(change) => (Some(change), None),
            WriteKind::Mutate(mutation) => (None, Some(mutation)),
        };
        let entry = Entry {
            id: self.last_sequence,
            writer: self.writer,
            sequence: self.last_sequence,
            journalled: false,
            refused_retries: 0,
            assignment,
            mutation,
            stamp: write.stamp,
            latest: write.stamp,
            exact: write.exact,
            is_confirmed: write.is_confirmed,
            take: write.take,
            is_retry: write.is_retry,
            was_sent: false,
            is_drawn: false,
            base_is_current: false,
            recorded_at: base.ticket,
            expires: write.expires,
            replaces_nothing: false,
            written: write.written,
            since: write.written,
            fresh: write.fresh,
            tried: Tried::Never,
            first_tried: None,
            was_in_doubt: false,
            in_flight: None,
            superseded: Vec::new(),
            existed: write.existed,
            waiters: write.waiter.into_iter().collect(),
            followers: Vec::new(),
        };
        self.bytes += entry.cost(key);
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
    pub(crate) fn requeue(&mut self, key: Arc<str>) {
        if let Some(head) = self.head(&key) {
            head.is_drawn = false;
        }
        self.ready.push_front(key);
    }

    /// Puts a key back: its head is to be sent after those of other keys.
    pub(crate) fn put_behind(&mut self, key: Arc<str>) {
        self.ready.push_back(key);
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
            entry.assignment = Some(KeyChange::Delete);
            entry.mutation = None;
            entry.expires = None;
            self.bytes += entry.cost(key);
        }
    }

    /// Changes the head of `key`.
    pub(crate) fn change<R>(
        &mut self,
        key: &str,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> Option<R> {
        let entry = self.queues.get_mut(key)?.front_mut()?;
        let before = entry.cost(key);
        let changed = change(entry);
        self.bytes = self.bytes - before + entry.cost(key);
        Some(changed)
    }

    /// Takes the calls out that were made on what is `gone`, of the entries for `key` from the one
    /// at `first` on. Whoever waits for such an entry records it anew.
    pub(crate) fn take_resting_on(
        &mut self,
        key: &str,
        first: usize,
        gone: &mut NotMade,
    ) -> Vec<(Mutation, Stamp, Option<Duration>)> {
        let mut taken = Vec::new();
        for entry in self.queues.get_mut(key).into_iter().flatten().skip(first) {
            if entry.assignment.is_some() {
                // What is behind it was made on that.
                break;
            }
            let (before, ttl) = (entry.cost(key), entry.ttl());
            let mutation = entry.mutation.as_mut().filter(|_| entry.waiters.is_empty());
            taken.extend(
                mutation
                    .and_then(|mutation| mutation.take_resting_on(gone))
                    .map(|calls| (calls, entry.latest, ttl)),
            );
            entry
                .mutation
                .take_if(|mutation| mutation.calls().is_empty());
            self.bytes = self.bytes - before + entry.cost(key);
        }
        taken
    }

    /// Whether anything waits to be sent for `key`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.queues.contains_key(key)
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

    /// Takes in that the connection is gone: whatever is under way has an unknown outcome, and goes
    /// first over the next one.
    pub(crate) fn disconnected(&mut self) {
        for (key, queue) in &mut self.queues {
            if let Some(head) = queue.front_mut()
                && head.acknowledged().is_some()
            {
                head.tried = Tried::InDoubt;
                head.was_in_doubt = true;
                head.base_is_current = false;
                self.ready.push_front(Arc::clone(key));
            }
        }
        self.pause();
    }

    /// Takes in that the writes wait. Everybody who waits is told that the write is queued.
    pub(crate) fn pause(&mut self) {
        for queue in self.queues.values_mut() {
            for entry in queue.iter_mut().filter(|entry| !entry.is_confirmed) {
                entry.fresh = false;
                entry.set_reported();
            }
        }
    }

    /// Takes the entry of `key` out that has this id, from whatever place, where nothing of it is
    /// under way or in doubt. What is in doubt stays, and nobody waits for it any more.
    pub(crate) fn withdraw(&mut self, key: &Arc<str>, id: Sequence) -> Withdrawal {
        let Some(queue) = self.queues.get_mut(key) else {
            return Withdrawal::Settled;
        };
        let Some(at) = queue.iter().position(|entry| entry.id == id) else {
            return Withdrawal::Settled;
        };
        if !queue[at].is_withdrawable() {
            queue[at].leave_alone();
            return Withdrawal::InDoubt;
        }
        let Some(entry) = queue.remove(at) else {
            return Withdrawal::Settled;
        };
        self.bytes -= entry.cost(key);
        if queue.is_empty() {
            self.queues.remove(key);
            self.ready.retain(|ready| ready != key);
        }
        Withdrawal::Withdrawn(Box::new(entry))
    }

    /// The confirmed writes of which nothing is under way or in doubt.
    pub(crate) fn withdrawable(&self) -> Vec<(Arc<str>, Sequence)> {
        let entries = self
            .entries()
            .filter(|(_, entry)| entry.is_confirmed && entry.is_withdrawable());
        entries
            .map(|(key, entry)| (Arc::clone(key), entry.id))
            .collect()
    }

    /// Tells those who wait for the entry of `key` with this sequence number that it stays queued.
    pub(crate) fn report_queued(&mut self, key: &str, sequence: Sequence) {
        let queue = self.queues.get_mut(key);
        if let Some(entry) =
            queue.and_then(|queue| queue.iter_mut().find(|entry| entry.id == sequence))
        {
            entry.set_reported();
        }
    }

    /// Moves the stamps of what was never sent, since the clock that issued them was `by` ns
    /// behind.
    pub(crate) fn shift(&mut self, by: i64) {
        for (key, queue) in &mut self.queues {
            for entry in queue.iter_mut().filter(|entry| entry.tried == Tried::Never) {
                self.bytes -= entry.cost(key);
                entry.shift(by);
                self.bytes += entry.cost(key);
            }
        }
    }

    /// Stamps the head of `key` anew, just above `found`, and those behind it above that: a later
    /// write is never older than an earlier one. Returns the last stamp.
    pub(crate) fn restamp_above(
        &mut self,
        key: &str,
        found: Stamp,
        random: &mut fastrand::Rng,
    ) -> Stamp {
        let mut last = found;
        for entry in self.queues.get_mut(key).into_iter().flatten() {
            if entry.stamp <= last {
                self.bytes -= entry.cost(key);
                entry.restamp(last.just_above(random));
                self.bytes += entry.cost(key);
            }
            last = entry.latest;
        }
        last
    }

    /// The writes to `key`, to be changed in what does not count for the bound.
    pub(crate) fn of_mut(&mut self, key: &str) -> impl Iterator<Item = &mut Entry> {
        self.queues.get_mut(key).into_iter().flatten()
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
        self.queues
            .iter()
            .flat_map(|(key, queue)| queue.iter().map(move |entry| (key, entry)))
    }
}
