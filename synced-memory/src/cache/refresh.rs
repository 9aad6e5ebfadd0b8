//! Near slots: which may be read locally, which are stale, and which are to be read again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::near::{Generation, SlotFreshness};
use super::{Cache, Cell, Ticket};
use crate::base::clock::Monotonic;
use crate::base::error::Error;

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

    /// Whether the slot of `key` is kept current.
    pub(crate) fn is_near(&self, key: &str) -> bool {
        self.cells.get(key).is_some_and(Cell::is_near)
    }

    /// Whether a read of `key` need not ask the backend: the slot is kept current, or nobody can be
    /// asked.
    pub(crate) fn is_local(&self, key: &str, is_connected: bool) -> bool {
        self.cells.get(key).is_some_and(|cell| {
            let is_kept_current = self.is_tracked && cell.freshness.is_kept_current();
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

    /// How many near slots are not known to be current.
    pub(crate) fn stale(&self) -> usize {
        self.cells
            .values()
            .filter(|cell| cell.is_near() && !cell.freshness.is_current())
            .count()
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
    /// stored.
    pub(crate) fn was_read(&mut self, key: &str, generation: Generation) {
        let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.is_near()) else {
            return;
        };
        if cell.freshness.answered(generation, self.is_tracked) {
            cell.bump(&mut self.raised);
        }
    }

    /// Records that the backend refused to let `key` be read: its readers ask, and get the error.
    pub(crate) fn was_refused(&mut self, key: &str, ticket: Ticket, error: Error) {
        if let Some(cell) = self
            .cells
            .get_mut(key)
            .filter(|cell| cell.is_near() && cell.base.ticket <= ticket)
        {
            cell.refusal = Some((ticket, error));
            cell.freshness.refused();
            cell.bump(&mut self.raised);
        }
    }

    /// Records that `key` could not be read just now: it is to be read again a little later.
    pub(crate) fn was_not_read(&mut self, key: &Arc<str>) {
        if let Some(cell) = self
            .cells
            .get_mut(key)
            .filter(|cell| cell.is_near() && self.is_tracked)
            && cell.freshness.queued()
        {
            self.deferred.push(Arc::clone(key));
        }
    }

    /// Whether there are slots that could not be read just now.
    pub(crate) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Queues the slots that could not be read before.
    pub(crate) fn queue_deferred(&mut self) {
        self.rereads.extend(std::mem::take(&mut self.deferred));
    }

    /// Records that the backend notifies us of changes from now on, or no longer does. What was
    /// read before may have changed.
    pub(crate) fn tracked(&mut self, is_tracked: bool, mono: Monotonic) {
        self.is_tracked = is_tracked;
        let invalidate: Invalidate = if is_tracked {
            SlotFreshness::reconnected
        } else {
            SlotFreshness::disconnected
        };
        self.invalidate_all(invalidate, mono);
        self.touch_near();
    }

    /// Records that everything may have changed.
    pub(crate) fn all_changed(&mut self, mono: Monotonic) {
        self.invalidate_all(SlotFreshness::invalidated, mono);
    }

    fn invalidate_all(&mut self, invalidate: Invalidate, mono: Monotonic) {
        for (key, cell) in self.cells.iter_mut().filter(|(_, cell)| cell.is_near()) {
            invalidate(&mut cell.freshness, self.generation.next(), mono);
            if self.is_tracked && cell.freshness.queued() {
                self.rereads.push_back(Arc::clone(key));
            }
        }
    }

    /// Records that `key` may have changed.
    pub(crate) fn invalidated(&mut self, key: &Arc<str>, mono: Monotonic) {
        let Some(cell) = self.cells.get_mut(key) else {
            return;
        };
        cell.freshness.invalidated(self.generation.next(), mono);
        if cell.is_near() && self.is_tracked && cell.freshness.queued() {
            self.rereads.push_back(Arc::clone(key));
        }
    }

    /// While changes are not tracked: queues the near slots that are watched.
    pub(crate) fn queue_polls(&mut self) {
        if self.is_tracked {
            return;
        }
        for (key, cell) in self
            .cells
            .iter_mut()
            .filter(|(_, cell)| cell.is_near() && !cell.watches.is_empty())
        {
            if cell.freshness.queued() {
                self.rereads.push_back(Arc::clone(key));
            }
        }
    }

    /// How many slots are queued to be read again.
    pub(crate) fn queued_reads(&self) -> usize {
        self.rereads.len()
    }

    /// Removes and returns the keys that are to be read again now, at most `most`.
    pub(crate) fn take_stale(&mut self, most: usize) -> Vec<Arc<str>> {
        let mut keys: Vec<_> = self.rereads.drain(..most.min(self.rereads.len())).collect();
        if self.rereads.is_empty() {
            self.rereads = VecDeque::new();
        }

        keys.retain(|key| {
            self.cells.get_mut(key).is_some_and(|cell| {
                cell.freshness.dequeued();
                cell.is_near()
            })
        });
        keys
    }

    /// Records that the way in which near or watched slots are to be read may have changed.
    pub(crate) fn touch_near(&mut self) {
        for cell in self
            .cells
            .values_mut()
            .filter(|cell| cell.is_near() || !cell.watches.is_empty())
        {
            cell.bump(&mut self.raised);
        }
    }
}
