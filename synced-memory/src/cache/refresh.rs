//! Near slots: which may be read locally, which are stale, and which are to be read again.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::mem::{replace, take};
use std::sync::Arc;
use std::time::Duration;

use super::near::{Generation, SlotFreshness};
use super::tracking::TrackingState;
use super::{Cache, Cell, ShardReads, Ticket, Tracking};
use crate::backend::shards::{Shard, ShardMap};
use crate::base::clock::Monotonic;
use crate::base::error::Error;
use crate::base::waiting::Signal;

/// A transition of [`SlotFreshness`] after which a slot is not current.
type Invalidate = fn(&mut SlotFreshness, Generation, Monotonic);

impl Cache {
    /// Keeps the slot of `key` current from its next read on, for one more of its holders.
    pub(crate) fn keep_near(&mut self, key: &Arc<str>) {
        let Some(cell) = self.cells.get_mut(key) else {
            return;
        };
        cell.near_holders += 1;
        if cell.near_holders == 1 {
            cell.freshness.became_near(self.generation.next());
            cell.bump(&mut self.raised);
        }
    }

    /// Records that one of the holders that wanted the slot kept current does not want it any more.
    pub(crate) fn stop_near(&mut self, key: &str) {
        let Some(cell) = self.cells.get_mut(key) else {
            return;
        };
        cell.near_holders -= 1;
        if !cell.is_near() {
            cell.freshness.ceased_to_be_near();
            cell.refusal = None;
        }
    }

    /// Whether the slot of `key` is to be kept current, and the backend notifies of changes: a read
    /// of it is to be a tracked one.
    pub(crate) fn is_to_be_tracked(&self, key: &str) -> bool {
        self.is_tracking(key) && self.is_near(key)
    }

    /// Whether the shard of `key` notifies of changes.
    fn is_tracking(&self, key: &str) -> bool {
        self.shards[self.map.shard_of(key)].tracking.is_on()
    }

    /// Whether the backend notifies of changes: all of its shards that have keys, or what is wrong
    /// with one of them.
    pub(crate) fn tracking(&self, mono: Monotonic) -> Tracking {
        let shards = self.shards.iter();
        // In a cluster no key is served by the first one.
        let is_used = |(shard, reads): &(Shard, &ShardReads)| {
            !self.map.is_cluster() || *shard != Shard::FIRST && reads.is_used
        };
        let trackings = shards.filter(is_used);
        trackings
            .map(|(_, reads)| reads.tracking.at(mono))
            .max_by_key(|tracking| tracking.severity())
            .unwrap_or_default()
    }

    /// Whether a shard notifies of changes.
    pub(crate) fn tracking_of(&self, shard: Shard, mono: Monotonic) -> Tracking {
        self.shards[shard].tracking.at(mono)
    }

    /// Whether it is to be said that a server's table of tracked keys is too small.
    pub(crate) fn take_overflow_alarm(&mut self, key: &str) -> bool {
        self.shards[self.map.shard_of(key)].tracking.take_alarm()
    }

    /// The keys are shared out as `map` says from now on, before any slot is used.
    pub(crate) fn set_map(&mut self, map: ShardMap) {
        self.map = map;
    }

    /// Makes room for a shard, which is not connected. What is in line there stays: a slot that is
    /// in line is not put there again.
    pub(crate) fn add_shard(&mut self, shard: Shard) {
        let reads = &mut self.shards[shard];
        reads.tracking = TrackingState::default();
        reads.asked.clear();
        reads.is_used = true;
    }

    /// The shard is not used any more.
    pub(crate) fn remove_shard(&mut self, shard: Shard) {
        self.shards[shard].is_used = false;
    }

    /// Records that these keys are at other shards from now on: those notify of what changes after
    /// the next read there, and of nothing before.
    pub(crate) fn slots_moved(&mut self, has_moved: &impl Fn(&str) -> bool, mono: Monotonic) {
        let shards = take(&mut self.shards);
        for (shard, reads) in shards.into_all() {
            // For a shard without slots, too: whoever looks finds its own.
            self.shards[shard].tracking = reads.tracking;
            self.shards[shard].asked = reads.asked;
            self.shards[shard].is_used = reads.is_used;
            for key in reads.rereads {
                self.shards[self.map.shard_of(&key)].rereads.push_back(key);
            }
            for Reverse((due, key)) in reads.paced {
                let now = self.map.shard_of(&key);
                self.shards[now].paced.push(Reverse((due, key)));
            }
            for key in reads.deferred {
                self.shards[self.map.shard_of(&key)].deferred.push(key);
            }
            for key in reads.unchecked {
                self.shards[self.map.shard_of(&key)].unchecked.push(key);
            }
            for key in reads.refused {
                self.shards[self.map.shard_of(&key)].refused.push(key);
            }
        }
        let moved = |_: &ShardMap, key: &str| has_moved(key);
        self.invalidate_near(moved, SlotFreshness::reconnected, mono);
    }

    /// Puts `key` in line at a shard that is to answer although it does not have the slot yet.
    pub(crate) fn ask_at(&mut self, shard: Shard, key: &Arc<str>) {
        let asked = &mut self.shards[shard].asked;
        if !asked.contains(key) {
            asked.push(Arc::clone(key));
        }
    }

    /// Removes and returns the keys that are in line by [`ask_at`](Self::ask_at).
    pub(crate) fn take_asked(&mut self, shard: Shard) -> Vec<Arc<str>> {
        take(&mut self.shards[shard].asked)
    }

    /// Whether a slot turned out to be in line at another shard, since the last call.
    pub(crate) fn take_strayed(&mut self) -> bool {
        take(&mut self.has_strayed)
    }

    /// Whether the slot of `key` is kept current.
    pub(crate) fn is_near(&self, key: &str) -> bool {
        self.cells.get(key).is_some_and(Cell::is_near)
    }

    /// Whether a read of `key` need not ask the backend: the slot is kept current, or nobody can be
    /// asked.
    pub(crate) fn is_local(&self, key: &str, is_connected: bool) -> bool {
        self.cells.get(key).is_some_and(|cell| {
            let is_kept_current = self.is_tracking(key) && cell.freshness.is_kept_current();
            cell.base.is_known() && cell.is_near() && (is_kept_current || !is_connected)
        })
    }

    /// Whether the slot of `key` was read since it became near, or nobody can be asked.
    pub(crate) fn is_cell_visible(&self, key: &str, is_connected: bool) -> bool {
        self.cells.get(key).is_some_and(|cell| {
            cell.base.is_known() && (cell.freshness.is_visible() || !is_connected)
        })
    }

    /// How old what `key` shows may be: zero if it is current, `None` if it never was.
    pub(crate) fn staleness(&self, key: &str, mono: Monotonic) -> Option<Duration> {
        self.cells.get(key)?.freshness.staleness(mono)
    }

    /// How many near slots are not known to be current. While changes are tracked, those that were
    /// left to their readers do not count.
    pub(crate) fn stale(&self) -> usize {
        let is_stale = |(key, cell): &(&Arc<str>, &Cell)| {
            let is_left = || cell.freshness.is_left_to_readers() && self.is_tracking(key);
            cell.is_near() && !cell.freshness.is_current() && !is_left()
        };
        self.cells.iter().filter(is_stale).count()
    }

    /// Why the backend refuses to let `key` be read.
    pub(crate) fn refusal(&self, key: &str) -> Option<&Error> {
        let (_, error) = self.cells.get(key)?.refusal.as_ref()?;
        Some(error)
    }

    /// The generation under which a read of `key` is sent now.
    pub(crate) fn generation(&self, key: &str) -> Generation {
        self.cells
            .get(key)
            .map(|cell| cell.freshness.generation())
            .unwrap_or_default()
    }

    /// Records that a read of `key` that was sent under `generation` was answered, and its answer
    /// stored at `mono`. `has_changed`: the slot shows something else since.
    pub(crate) fn was_read(
        &mut self,
        key: &str,
        generation: Generation,
        has_changed: bool,
        mono: Monotonic,
    ) {
        let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.is_near()) else {
            return;
        };
        let tracking = &mut self.shards[self.map.shard_of(key)].tracking;
        let is_reported_in_vain = cell.pace.answered(mono);
        if is_reported_in_vain {
            tracking.overflowed(mono);
        }
        let is_more = cell.freshness.answered(generation, tracking.is_on());
        // Whoever reads a slot that is reported in vain shows it by looking at it again.
        if is_more || is_reported_in_vain {
            cell.bump(&mut self.raised);
        }
        if has_changed || is_more || is_reported_in_vain {
            cell.freshness.changed(mono);
        }
    }

    /// Records that somebody looks at what the slot of `key` shows.
    pub(crate) fn used(&mut self, key: &str) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.freshness.used();
        }
    }

    /// Records that the backend refused to let `key` be read: its readers ask, and get the error.
    /// Whether the key is tracked is not known then, and a watch does not ask: it is read again at
    /// the next poll.
    pub(crate) fn was_refused(
        &mut self,
        key: &Arc<str>,
        ticket: Ticket,
        error: Error,
        mono: Monotonic,
    ) {
        let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.is_near()) else {
            return;
        };
        if cell.base.ticket <= ticket {
            cell.refusal = Some((ticket, error));
        }
        cell.freshness.refused(mono);
        cell.bump(&mut self.raised);
        if !cell.watches.is_empty() && !replace(&mut cell.is_refused, true) {
            let shard = self.map.shard_of(key);
            self.shards[shard].refused.push(Arc::clone(key));
        }
    }

    /// Records that `key` could not be read just now: it is to be read again a little later.
    pub(crate) fn was_not_read(&mut self, key: &Arc<str>) {
        let reads = &mut self.shards[self.map.shard_of(key)];
        if let Some(cell) = self.cells.get_mut(key)
            && cell.is_near()
            && reads.tracking.is_on()
            && cell.freshness.queued()
        {
            reads.deferred.push(Arc::clone(key));
        }
    }

    /// Whether there are slots of a shard that could not be read just now.
    pub(crate) fn has_deferred(&self, shard: Shard) -> bool {
        !self.shards[shard].deferred.is_empty()
    }

    /// Queues the slots that could not be read before.
    pub(crate) fn queue_deferred(&mut self, shard: Shard) {
        let reads = &mut self.shards[shard];
        reads.rereads.extend(take(&mut reads.deferred));
    }

    /// Records that a shard notifies us of changes from now on, or no longer does. What was read
    /// before may have changed.
    pub(crate) fn tracked(&mut self, shard: Shard, tracking: Tracking, mono: Monotonic) {
        let of_shard = &mut self.shards[shard].tracking;
        of_shard.set(tracking);
        let invalidate: Invalidate = if of_shard.is_on() {
            SlotFreshness::reconnected
        } else {
            SlotFreshness::disconnected
        };
        let is_of_shard = |map: &ShardMap, key: &str| map.shard_of(key) == shard;
        self.invalidate_near(is_of_shard, invalidate, mono);
        self.touch_those(is_of_shard);
    }

    /// Records that everything at a shard may have changed.
    pub(crate) fn all_changed(&mut self, shard: Shard, mono: Monotonic) {
        let is_of_shard = |map: &ShardMap, key: &str| map.shard_of(key) == shard;
        self.invalidate_near(is_of_shard, SlotFreshness::invalidated, mono);
    }

    fn invalidate_near(
        &mut self,
        is_concerned: impl Fn(&ShardMap, &str) -> bool,
        invalidate: Invalidate,
        mono: Monotonic,
    ) {
        for (key, cell) in &mut self.cells {
            if !cell.is_near() || !is_concerned(&self.map, key) {
                continue;
            }
            invalidate(&mut cell.freshness, self.generation.next(), mono);
            let reads = &mut self.shards[self.map.shard_of(key)];
            if reads.tracking.is_on() && cell.is_to_be_read_again(&mut self.raised, mono) {
                reads.rereads.push_back(Arc::clone(key));
            }
        }
    }

    /// Records that `key` may have changed.
    pub(crate) fn invalidated(&mut self, key: &Arc<str>, mono: Monotonic) {
        let Some(cell) = self.cells.get_mut(key) else {
            return;
        };
        cell.freshness.invalidated(self.generation.next(), mono);
        cell.pace.reported(mono);
        let reads = &mut self.shards[self.map.shard_of(key)];
        if cell.is_near()
            && reads.tracking.is_on()
            && cell.is_to_be_read_again(&mut self.raised, mono)
        {
            reads.rereads.push_back(Arc::clone(key));
        }
    }

    /// Queues the slots of a shard that are watched and that no invalidation may be sent for: those
    /// that it refused to let be read, and while changes are not tracked, all near ones.
    pub(crate) fn queue_polls(&mut self, shard: Shard) {
        let reads = &mut self.shards[shard];
        for key in take(&mut reads.refused) {
            let Some(cell) = self.cells.get_mut(&key) else {
                continue;
            };
            cell.is_refused = false;
            let is_stale = cell.is_near() && !cell.freshness.is_current();
            if is_stale && !cell.watches.is_empty() && cell.freshness.queued() {
                reads.rereads.push_back(key);
            }
        }
        if reads.tracking.is_on() {
            return;
        }
        for (key, cell) in &mut self.cells {
            let is_watched = cell.is_near() && !cell.watches.is_empty();
            if is_watched && self.map.shard_of(key) == shard && cell.freshness.queued() {
                reads.rereads.push_back(Arc::clone(key));
            }
        }
    }

    /// How many slots of a shard are queued to be read again.
    pub(crate) fn queued_reads(&self, shard: Shard) -> usize {
        self.shards[shard].rereads.len()
    }

    /// When the next slot of a shard may be read again that has to wait.
    pub(crate) fn next_paced(&self, shard: Shard) -> Option<Monotonic> {
        let next = self.shards[shard].paced.peek();
        next.map(|Reverse((due, _))| *due)
    }

    /// Puts the slot of `key` in line, which was not in line before. The line has entries of slots
    /// that are gone, and while there is no connection nobody takes them out: they are removed here
    /// before they are more than those of the slots that exist.
    pub(super) fn put_in_line(&mut self, key: &Arc<str>) {
        const FEW: usize = 64;
        let rereads = &mut self.shards[self.map.shard_of(key)].rereads;
        if rereads.len() > 2 * self.cells.len() + FEW {
            let mut seen = HashSet::new();
            let cells = &self.cells;
            rereads.retain(|key| {
                let is_queued = cells
                    .get(key)
                    .is_some_and(|cell| cell.freshness.is_queued());
                is_queued && seen.insert(Arc::clone(key))
            });
        }
        rereads.push_back(Arc::clone(key));
    }

    /// Removes and returns the keys of a shard that are to be read again at `mono`, at most `most`,
    /// each once.
    pub(crate) fn take_stale(
        &mut self,
        shard: Shard,
        most: usize,
        mono: Monotonic,
    ) -> Vec<Arc<str>> {
        while self.next_paced(shard).is_some_and(|due| due <= mono) {
            let reads = &mut self.shards[shard];
            let due = reads.paced.pop().map(|Reverse((_, key))| key);
            reads.rereads.extend(due);
        }
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(key) = self.shards[shard].rereads.pop_front()
        {
            let now = self.map.shard_of(&key);
            if now != shard {
                self.shards[now].rereads.push_back(key);
                self.has_strayed = true;
                continue;
            }
            // An entry of a slot that is gone, and was made anew since, may come before its own.
            let cell = self.cells.get_mut(&key);
            let Some(cell) = cell.filter(|cell| cell.freshness.is_queued()) else {
                continue;
            };
            let due = cell.pace.due();
            if cell.is_near() && due > mono {
                self.shards[shard].paced.push(Reverse((due, key)));
                continue;
            }
            cell.freshness.dequeued();
            if cell.is_near() {
                cell.pace.read_began(mono);
                keys.push(key);
            }
        }
        let reads = &mut self.shards[shard];
        if reads.rereads.is_empty() {
            take(&mut reads.rereads);
        }
        if reads.paced.is_empty() {
            take(&mut reads.paced);
        }
        keys
    }

    /// Records that the read of the keys which [`take_stale`](Self::take_stale) returned is over.
    pub(crate) fn stale_were_read(&mut self, keys: &[Arc<str>], mono: Monotonic) {
        for key in keys {
            if let Some(cell) = self.cells.get_mut(key) {
                cell.pace.read_ended(mono);
            }
        }
    }

    /// Records that the way in which near or watched slots are to be read may have changed.
    pub(crate) fn touch_near(&mut self) {
        self.touch_those(|_, _| true);
    }

    fn touch_those(&mut self, is_concerned: impl Fn(&ShardMap, &str) -> bool) {
        for (key, cell) in &mut self.cells {
            let is_looked_at = cell.is_near() || !cell.watches.is_empty();
            if is_looked_at && is_concerned(&self.map, key) {
                cell.bump(&mut self.raised);
            }
        }
    }
}

impl Cell {
    /// A near slot whose key may have changed: whether it is to be put in line, to be read again.
    /// If nobody has looked at it for long, it is left to its next reader.
    fn is_to_be_read_again(&mut self, raised: &mut Vec<Arc<Signal>>, mono: Monotonic) -> bool {
        if self.watches.is_empty() && self.freshness.is_unused(mono) {
            if self.freshness.left_to_readers() {
                self.bump(raised);
            }
            return false;
        }
        self.freshness.queued()
    }
}
