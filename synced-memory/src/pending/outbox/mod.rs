//! The writes that are not acknowledged yet: coalescing, order per key, the limit. No I/O.
//!
//! Each key has a queue. Its head is the entry that is sent next, or is being sent. From its first
//! attempt on an entry is frozen: later writes form a new entry behind it (rule 3).
//!
//! - `answer.rs`: what a caller gets
//! - `entry.rs`: one pending write; `dead_letter.rs`: one that is not pending any more
//! - `ready.rs`: which keys are sent next
//! - `merge.rs`: when a later write is made part of it
//! - `journalled.rs`: what the journal needs from the outbox

mod answer;
mod dead_letter;
mod entry;
mod journalled;
mod merge;
mod ready;

pub use answer::Written;
pub(crate) use answer::{Answer, EntryName, Outdated, Waiter};
pub(crate) use dead_letter::LetterRecord;
use entry::BOOKKEEPING;
pub(crate) use entry::{
    Assignment, Entry, EntryIdentity, NUMBERS, Precondition, Take, Tried, Write,
};

use std::collections::VecDeque;
use std::collections::hash_map::Entry as KeyQueue;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::commit::{Sequence, Writer};
use crate::backend::shards::{Shard, ShardMap};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::hash::KeyMap;
use crate::cache::Base;
use crate::value::mutation::{Mutation, NotMade};
use ready::ReadyKeys;

/// What has become of a write that was to be withdrawn.
#[derive(Debug)]
pub(crate) enum Withdrawal {
    /// It will never be made.
    Withdrawn(Box<Entry>),
    /// It was made, or never will be.
    InDoubt,
    /// It was answered before.
    Settled,
}

/// Which entry of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Selector {
    /// The one that is sent next, or is being sent.
    Head,
    /// The newest.
    Last,
    Id(Sequence),
    Name(EntryName),
}

#[derive(Debug)]
pub(crate) struct Outbox {
    queues: KeyMap<VecDeque<Entry>>,
    ready: ReadyKeys,
    last_sequence: Sequence,
    writer: Writer,
    bytes: usize,
    /// What must stay known of attempts that are over, and takes room as well.
    reserved: usize,
    limit: usize,
}

impl Outbox {
    /// An outbox of this writer that holds at most `limit` bytes.
    pub(crate) fn new(limit: usize, writer: Writer) -> Self {
        Self {
            queues: KeyMap::default(),
            ready: ReadyKeys::default(),
            last_sequence: 0,
            writer,
            bytes: 0,
            reserved: 0,
            limit,
        }
    }

    /// The keys are shared out as `map` says from now on, before any is queued.
    pub(crate) fn set_map(&mut self, map: ShardMap) {
        self.ready.map = map;
        self.share_out();
    }

    /// Makes room for the keys of a shard.
    pub(crate) fn add_shard(&mut self, shard: Shard) {
        self.ready.add(shard);
    }

    /// The map has changed: every key is put where it belongs now.
    pub(crate) fn share_out(&mut self) {
        let queues = &self.queues;
        self.ready.share_out(|key| asks(queues, key));
    }

    /// The shard that the head of `key` is sent to.
    pub(crate) fn shard_of_head(&self, key: &str) -> Shard {
        asks(&self.queues, key).unwrap_or_else(|| self.ready.map.shard_of(key))
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer
    }

    /// Takes so many bytes of the limit, for good.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.reserved += bytes;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for a write.
    ///
    /// # Errors
    ///
    /// `OutboxFull`.
    pub(crate) fn check(&self, key: &str, write: &Write, is_awaited: bool) -> Result<()> {
        let replaced = self
            .last(key)
            .filter(|last| write.assignment.is_some() && last.may_merge(write, is_awaited))
            .map_or(0, |last| last.write.size());
        let of_entry = if replaced == 0 {
            BOOKKEEPING + key.len()
        } else {
            0
        };

        let before = self.bytes + self.reserved;
        let bytes = before - replaced + write.size() + of_entry;
        if bytes > self.limit && bytes > before {
            let what = format!(
                "refused, since the outbox holds {before} of {} bytes",
                self.limit
            );
            return Err(Error::of_key(ErrorKind::OutboxFull, key, what));
        }
        Ok(())
    }

    /// Queues a write behind the earlier ones to its key, or merges it into the last of them if
    /// possible. `base` is what the backend last answered. Returns the entry's sequence number.
    ///
    /// # Errors
    ///
    /// `OutboxFull`.
    pub(crate) fn push(
        &mut self,
        key: &Arc<str>,
        mut write: Write,
        mut waiter: Option<Waiter>,
        base: &Base,
    ) -> Result<Sequence> {
        self.check(key, &write, waiter.is_some())?;

        if let Some(queue) = self.queues.get(key) {
            let is_only = queue.len() == 1;
            let merged = self.edit(key, Selector::Last, |last| {
                let is_merged = last.may_merge(&write, waiter.is_some())
                    && last.merge(&mut write, base, is_only);
                if is_merged {
                    last.listeners.waiters.extend(waiter.take());
                }
                is_merged.then_some(last.identity.id)
            });
            if let Some(id) = merged.flatten() {
                return Ok(id);
            }
        }

        self.last_sequence += NUMBERS;
        let identity = EntryIdentity {
            id: self.last_sequence,
            writer: self.writer,
            sequence: self.last_sequence,
            refused_retries: 0,
        };
        let entry = Entry::queued(identity, write, waiter, base.ticket);
        self.bytes += entry.cost(key);
        match self.queues.entry(Arc::clone(key)) {
            KeyQueue::Occupied(mut queue) => queue.get_mut().push_back(entry),
            KeyQueue::Vacant(vacant) => {
                if entry.is_awaited() {
                    self.ready.push_front(Arc::clone(key), None);
                } else {
                    self.ready.push_back(Arc::clone(key), None);
                }
                vacant.insert(VecDeque::from([entry]));
            }
        }
        Ok(self.last_sequence)
    }

    /// Changes an entry. Every change goes through here, so that the bytes are always recounted.
    pub(crate) fn edit<R>(
        &mut self,
        key: &str,
        selector: Selector,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> Option<R> {
        let queue = self.queues.get_mut(key)?;
        let entry = match selector {
            Selector::Head => queue.front_mut(),
            Selector::Last => queue.back_mut(),
            Selector::Id(id) => queue.iter_mut().find(|entry| entry.identity.id == id),
            Selector::Name(name) => queue.iter_mut().find(|entry| entry.name() == name),
        };
        Some(recounted(&mut self.bytes, key, entry?, change))
    }

    /// The next key of this shard whose head is ready. The caller sends it, settles it, or requeues
    /// the key.
    pub(crate) fn next_ready(&mut self, shard: Shard) -> Option<Arc<str>> {
        let queues = &self.queues;
        self.ready.pop(shard, |key| asks(queues, key))
    }

    /// Removes `key` from the ready keys if it is the first of its shard.
    pub(crate) fn take_first(&mut self, key: &str) -> bool {
        let asks = asks(&self.queues, key);
        self.ready.take_first(key, asks)
    }

    /// Removes `key` from the ready keys, wherever it is; whether it was there.
    pub(crate) fn take_ready(&mut self, key: &str) -> bool {
        self.ready.remove(key)
    }

    /// The keys that have pending writes to this shard. It looks at all of them.
    pub(crate) fn keys_of(&self, shard: Shard) -> impl Iterator<Item = &Arc<str>> {
        let keys = self.queues.keys();
        keys.filter(move |key| self.shard_of_head(key) == shard)
    }

    /// How many pending writes are to this shard. It looks at all of them.
    pub(crate) fn writes_to(&self, shard: Shard) -> usize {
        let of_shard = self.keys_of(shard);
        of_shard.map(|key| self.of(key).count()).sum()
    }

    /// Whether anything was chosen to be sent to this shard and is not answered yet.
    pub(crate) fn is_any_drawn(&self, shard: Shard) -> bool {
        let mut heads = self.queues.values().filter_map(VecDeque::front);
        heads.any(|head| head.attempt.drawn_to == Some(shard))
    }

    /// The keys of this shard whose heads are ready, in the order in which they are sent.
    pub(crate) fn ready(&self, shard: Shard) -> impl Iterator<Item = &Arc<str>> {
        self.ready.of(shard)
    }

    /// The shards for which anything is ready to be sent.
    pub(crate) fn ready_shards(&self) -> impl Iterator<Item = Shard> {
        self.ready.shards()
    }

    /// The head of `key` was sent to this shard, or was in line there. If what is sent next of the
    /// key is in line at another one, whoever sends there has something to do.
    pub(crate) fn note_strayed(&mut self, key: &str, shard: Shard) {
        if !self.ready.map.is_cluster() {
            return;
        }
        let is_in_line = |head: &Entry| head.attempt.drawn_to.is_none();
        if self.head(key).is_some_and(is_in_line) && self.shard_of_head(key) != shard {
            self.ready.note_strayed();
        }
    }

    /// Whether a key turned out to be ready at another shard, since the last call.
    pub(crate) fn take_strayed(&mut self) -> bool {
        self.ready.take_strayed()
    }

    /// The head of `key`, which was to be sent now, is to be sent at `due`.
    pub(crate) fn park(&mut self, key: Arc<str>, due: Monotonic) {
        let asks = asks(&self.queues, &key);
        self.ready.park(key, asks, due);
    }

    /// If `key` is parked, it is ready now.
    pub(crate) fn end_parking(&mut self, key: &str) {
        let asks = asks(&self.queues, key);
        self.ready.end_parking(key, asks);
    }

    /// What was parked until `mono` or earlier is ready.
    pub(crate) fn unpark(&mut self, shard: Shard, mono: Monotonic) {
        let queues = &self.queues;
        self.ready.unpark(shard, mono, |key| asks(queues, key));
    }

    /// When the first of what is parked is ready.
    pub(crate) fn next_due(&mut self, shard: Shard) -> Option<Monotonic> {
        self.ready.next_due(shard)
    }

    /// The head of `key` is to be sent before those of other keys.
    pub(crate) fn requeue(&mut self, key: Arc<str>) {
        let requeued = |head: &mut Entry| {
            head.attempt.drawn_to = None;
            (head.attempt.last_drawn_to, head.attempt.asks)
        };
        let (from, asks) = self
            .edit(&key, Selector::Head, requeued)
            .unwrap_or_default();
        self.ready.push_front_from(from, key, asks);
    }

    /// The head of `key` is to be sent after those of other keys.
    pub(crate) fn requeue_last(&mut self, key: Arc<str>) {
        let asks = asks(&self.queues, &key);
        self.ready.push_back(key, asks);
    }

    /// The entry of `key` that is sent next, or is being sent.
    pub(crate) fn head(&self, key: &str) -> Option<&Entry> {
        self.queues.get(key)?.front()
    }

    /// The last write to `key`: what a read shows.
    pub(crate) fn last(&self, key: &str) -> Option<&Entry> {
        self.queues.get(key)?.back()
    }

    /// The pending writes to `key`, in their order.
    pub(crate) fn of(&self, key: &str) -> impl DoubleEndedIterator<Item = &Entry> {
        self.queues.get(key).into_iter().flatten()
    }

    /// Withdraws the calls that were made on what is `gone`, of the entries of `key` from the one
    /// at `first` on. Whoever waits for such an entry records it anew.
    pub(crate) fn withdraw_dependent(
        &mut self,
        key: &str,
        first: usize,
        gone: &mut NotMade,
    ) -> Vec<(Mutation, Stamp, Option<Duration>)> {
        let mut withdrawn = Vec::new();
        for entry in self.queues.get_mut(key).into_iter().flatten().skip(first) {
            if entry.write.assignment.is_some() {
                // Whatever is behind it was made on that.
                break;
            }
            recounted(&mut self.bytes, key, entry, |entry| {
                let (latest, ttl) = (entry.write.latest, entry.write.ttl());
                let is_awaited = entry.is_awaited();
                let mutation = entry.write.mutation.as_mut().filter(|_| !is_awaited);
                let calls = mutation.and_then(|mutation| mutation.withdraw_dependent(gone));
                withdrawn.extend(calls.map(|calls| (calls, latest, ttl)));
                entry.write.drop_empty_mutation();
            });
        }
        withdrawn
    }

    /// Whether any write to `key` is pending.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.queues.contains_key(key)
    }

    /// Removes the head of `key`; the one behind it is ready to be sent.
    pub(crate) fn remove(&mut self, key: &Arc<str>) -> Option<Entry> {
        let queue = self.queues.get_mut(key)?;
        let entry = queue.pop_front()?;
        self.bytes -= entry.cost(key);
        match queue.front() {
            None => _ = self.queues.remove(key),
            Some(next) if next.is_awaited() => self.ready.push_front(Arc::clone(key), None),
            Some(_) => self.ready.push_back(Arc::clone(key), None),
        }
        Some(entry)
    }

    /// The connection to a shard is gone: whatever is under way there has an unknown outcome, and
    /// is sent first over the next one. What was to be sent there because another shard said so,
    /// asks its own again. Returns the keys of what was under way.
    pub(crate) fn disconnected(&mut self, shard: Shard) -> Vec<Arc<str>> {
        let mut under_way = Vec::new();
        for (key, queue) in &mut self.queues {
            let head = queue.front_mut();
            let is_lost = |head: &&mut Entry| head.attempt.drawn_to == Some(shard);
            if let Some(head) = head.filter(is_lost)
                && head.acknowledged().is_some()
            {
                head.attempt.tried = Tried::InDoubt;
                head.attempt.was_in_doubt = true;
                head.attempt.base_is_current = false;
                self.ready.push_front_from(shard, Arc::clone(key), None);
                under_way.push(Arc::clone(key));
            }
        }
        self.pause(shard);
        for key in &under_way {
            // It may have been on its way to another shard than its own.
            self.interrupt(key);
        }
        self.ask_no_more(shard);
        under_way
    }

    /// What was to be sent to this shard although it is another one's goes by the map again, and
    /// everything is put where it belongs: nobody takes anything out of the line of this shard.
    fn ask_no_more(&mut self, shard: Shard) {
        if !self.ready.map.is_cluster() {
            return;
        }
        for head in self.queues.values_mut().filter_map(VecDeque::front_mut) {
            head.attempt.asks.take_if(|asks| *asks == shard);
        }
        self.share_out();
        self.ready.note_strayed();
    }

    /// Everybody who waits for the pending writes to `key` is notified that they are queued.
    pub(crate) fn interrupt(&mut self, key: &str) {
        self.queues.get_mut(key).into_iter().for_each(interrupted);
    }

    /// Nothing can be sent to a shard for now. Everybody who waits is notified that the write is
    /// queued.
    pub(crate) fn pause(&mut self, shard: Shard) {
        for (key, queue) in &mut self.queues {
            let asks = queue.front().and_then(|head| head.attempt.asks);
            if asks.unwrap_or_else(|| self.ready.map.shard_of(key)) != shard {
                continue;
            }
            interrupted(queue);
        }
    }

    /// Removes the entry of `key` with this id, wherever it is in the queue, unless something of it
    /// is under way or in doubt. In that case it stays, and nobody waits for it any more.
    pub(crate) fn withdraw(&mut self, key: &Arc<str>, id: Sequence) -> Withdrawal {
        let Some(queue) = self.queues.get_mut(key) else {
            return Withdrawal::Settled;
        };
        let Some(at) = queue.iter().position(|entry| entry.identity.id == id) else {
            return Withdrawal::Settled;
        };
        if !queue[at].is_withdrawable() {
            queue[at].drop_waiters();
            return Withdrawal::InDoubt;
        }

        let Some(entry) = queue.remove(at) else {
            return Withdrawal::Settled;
        };
        self.bytes -= entry.cost(key);
        if queue.is_empty() {
            self.queues.remove(key);
            self.ready.remove(key);
        }
        Withdrawal::Withdrawn(Box::new(entry))
    }

    /// The confirmed writes to this shard of which nothing is under way or in doubt.
    pub(crate) fn withdrawable(&self, shard: Shard) -> Vec<(Arc<str>, Sequence)> {
        self.entries()
            .filter(|(_, entry)| entry.write.is_confirmed && entry.is_withdrawable())
            .filter(|(key, _)| self.shard_of_head(key) == shard)
            .map(|(key, entry)| (Arc::clone(key), entry.identity.id))
            .collect()
    }

    /// Notifies those who wait for the entry of `key` with this id that it stays queued.
    pub(crate) fn report_queued(&mut self, key: &str, id: Sequence) {
        self.edit(key, Selector::Id(id), Entry::notify_queued);
    }

    /// Moves the stamps that were issued by this host's own clock, which is `by` ns behind: those
    /// of this process, and those that a process left behind which had never been connected.
    pub(crate) fn shift(&mut self, by: i64) {
        for (key, queue) in &mut self.queues {
            let is_by_host_clock = |entry: &&mut Entry| entry.write.is_by_host_clock;
            for entry in queue.iter_mut().filter(is_by_host_clock) {
                recounted(&mut self.bytes, key, entry, |entry| entry.write.shift(by));
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
            if entry.write.stamp <= last {
                recounted(&mut self.bytes, key, entry, |entry| {
                    entry.write.restamp(last.just_above(random));
                });
            }
            last = entry.write.latest;
        }
        last
    }

    /// The head of `key` was made of what had the stamp `found`, and has got the stamp `made`. What
    /// is behind it and newer than `found` is newer than that, too. Returns the last stamp if any
    /// was changed.
    pub(crate) fn restamp_passed(
        &mut self,
        key: &str,
        (found, made): (Stamp, Stamp),
        random: &mut fastrand::Rng,
    ) -> Option<Stamp> {
        let (mut last, mut is_any_changed) = (made, false);
        for entry in self.queues.get_mut(key).into_iter().flatten().skip(1) {
            if found < entry.write.stamp && entry.write.stamp <= last {
                recounted(&mut self.bytes, key, entry, |entry| {
                    entry.write.restamp(last.just_above(random));
                });
                last = entry.write.latest;
                is_any_changed = true;
            }
            if let Some(mutation) = &mut entry.write.mutation {
                is_any_changed |= mutation.raise(found, made);
            }
        }
        is_any_changed.then_some(last)
    }

    /// How many keys have pending writes.
    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    /// The sequence number that was assigned last.
    pub(crate) fn last_sequence(&self) -> Sequence {
        self.last_sequence
    }

    /// The pending writes with their keys, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.queues
            .iter()
            .flat_map(|(key, queue)| queue.iter().map(move |entry| (key, entry)))
    }
}

/// There is an outage: these writes are reported as queued.
fn interrupted(queue: &mut VecDeque<Entry>) {
    for entry in queue.iter_mut().filter(|entry| !entry.write.is_confirmed) {
        entry.write.fresh = false;
        entry.notify_queued();
    }
}

/// The shard that the head of `key` is sent to next, if not to its own.
fn asks(queues: &KeyMap<VecDeque<Entry>>, key: &str) -> Option<Shard> {
    queues.get(key)?.front()?.attempt.asks
}

/// Changes an entry, and counts in `bytes` what it takes after that.
fn recounted<R>(
    bytes: &mut usize,
    key: &str,
    entry: &mut Entry,
    change: impl FnOnce(&mut Entry) -> R,
) -> R {
    let before = entry.cost(key);
    let changed = change(entry);
    *bytes = *bytes - before + entry.cost(key);
    changed
}
