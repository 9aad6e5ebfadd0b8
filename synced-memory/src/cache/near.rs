//! Slots that are read locally, and how they are kept current.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, Cell, Ticket};
use crate::base::clock::Monotonic;
use crate::base::error::Error;

/// How a slot that is read locally is kept current.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is asked for by itself
pub(super) struct Near {
    /// How many of the holders want it.
    wanted: usize,
    /// Why the backend gives nothing, and the request that was answered so.
    pub(super) refused: Option<(Ticket, Error)>,
    /// Another one with each change that the backend tells of. A read that was sent under another
    /// one says nothing of what is there now (rule 14).
    pub(super) generation: Generation,
    /// The generation from which on a read may be shown to others without their asking: the slot
    /// was not read locally before, and nobody cared for what was told.
    since: Generation,
    /// What was read of it under such a generation.
    read: Read,
    /// Nothing was told since it was read.
    pub(super) is_current: bool,
    /// When it was last known to be current.
    current_until: Option<Monotonic>,
    /// It waits to be read again.
    pub(super) is_queued: bool,
}

/// Whether a slot was read that is to be kept current.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Read {
    #[default]
    Never,
    /// While nothing was told of changes, or before it was refused.
    Once,
    /// While changes were told: what is known is what the backend keeps current.
    Kept,
}

/// What was told of a key before a read of it was sent. Later ones are larger, whatever slot they
/// are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(u64);

impl Generation {
    fn next(&mut self) -> Self {
        self.0 += 1;
        *self
    }
}

impl Cell {
    pub(super) fn is_near(&self) -> bool {
        self.near.wanted > 0
    }

    /// Takes in that what is there may have changed; whether it is to be read again now.
    fn may_have_changed(
        &mut self,
        mono: Monotonic,
        is_tracked: bool,
        generation: Generation,
    ) -> bool {
        self.near.generation = generation;
        if std::mem::take(&mut self.near.is_current) {
            self.near.current_until = Some(mono);
        }
        self.is_near() && is_tracked && !std::mem::replace(&mut self.near.is_queued, true)
    }
}

impl Cache {
    /// Takes in that the backend refuses to let `key` be read: whoever reads it asks, and is told
    /// why.
    pub(crate) fn was_refused(&mut self, key: &str, ticket: Ticket, error: Error) {
        if let Some(cell) = self
            .cells
            .get_mut(key)
            .filter(|cell| cell.is_near() && cell.base.ticket <= ticket)
        {
            cell.near.refused = Some((ticket, error));
            cell.near.read = cell.near.read.min(Read::Once);
            cell.bump(&mut self.raised);
        }
    }

    /// Why the backend gives nothing for `key`.
    pub(crate) fn refusal(&self, key: &str) -> Option<&Error> {
        self.cells
            .get(key)?
            .near
            .refused
            .as_ref()
            .map(|(_, error)| error)
    }

    /// Keeps the slot of `key` current from its next read on, for one more of its holders.
    pub(crate) fn keep_near(&mut self, key: &Arc<str>) {
        let Some(cell) = self.cells.get_mut(key) else {
            return;
        };
        cell.near.wanted += 1;
        if cell.near.wanted == 1 {
            // What is known, or is being read, may have changed with nobody listening.
            cell.near.generation = self.generation.next();
            cell.near.since = cell.near.generation;
            cell.bump(&mut self.raised);
        }
    }

    /// Takes in that one of the holders that wanted the slot kept current has no more use for that.
    pub(crate) fn let_go(&mut self, key: &str) {
        let Some(cell) = self.cells.get_mut(key) else {
            return;
        };
        cell.near.wanted -= 1;
        if !cell.is_near() {
            let Near {
                generation,
                is_queued,
                ..
            } = cell.near;
            cell.near = Near {
                generation,
                is_queued,
                ..Near::default()
            };
        }
    }

    /// Where the backend tells of no changes: has the slots read again that are watched.
    pub(crate) fn look_again(&mut self) {
        if self.is_tracked {
            return;
        }
        for (key, cell) in self
            .cells
            .iter_mut()
            .filter(|(_, cell)| cell.is_near() && !cell.watches.is_empty())
        {
            if !std::mem::replace(&mut cell.near.is_queued, true) {
                self.stale.push_back(Arc::clone(key));
            }
        }
    }

    /// Whether the slot of `key` is kept current.
    pub(crate) fn is_near(&self, key: &str) -> bool {
        self.cells.get(key).is_some_and(Cell::is_near)
    }

    /// Whether a read of `key` needs not ask the backend: what is known is kept current, or nobody
    /// can be asked.
    pub(crate) fn is_local(&self, key: &str, is_connected: bool) -> bool {
        let is_kept = |cell: &Cell| {
            cell.is_near() && (!is_connected || self.is_tracked && cell.near.read == Read::Kept)
        };
        self.cells
            .get(key)
            .is_some_and(|cell| cell.base.is_known() && is_kept(cell))
    }

    /// Whether what `key` shows is no older than the first read of those that want it kept current,
    /// or nobody can be asked.
    pub(crate) fn is_cell_visible(&self, key: &str, is_connected: bool) -> bool {
        let is_shown =
            |cell: &Cell| cell.base.is_known() && (cell.near.read > Read::Never || !is_connected);
        self.cells.get(key).is_some_and(is_shown)
    }

    /// How old what `key` shows may be: nothing where it is current, `None` where it is not known
    /// how old.
    pub(crate) fn staleness(&self, key: &str, mono: Monotonic) -> Option<Duration> {
        let near = &self.cells.get(key)?.near;
        if near.is_current {
            Some(Duration::ZERO)
        } else {
            near.current_until.map(|until| mono.saturating_sub(until))
        }
    }

    /// Takes in that the backend tells of changes from now on, or no longer. What was read before
    /// may have changed.
    pub(crate) fn tracked(&mut self, is_tracked: bool, mono: Monotonic) {
        self.is_tracked = is_tracked;
        self.all_changed(mono);
        self.touch_near();
    }

    /// Says of all slots that are read locally that how they are to be read may have changed.
    pub(crate) fn touch_near(&mut self) {
        for cell in self
            .cells
            .values_mut()
            .filter(|cell| cell.is_near() || !cell.watches.is_empty())
        {
            cell.bump(&mut self.raised);
        }
    }

    /// How many slots are read locally and not known to be current.
    pub(crate) fn stale(&self) -> usize {
        self.cells
            .values()
            .filter(|cell| cell.is_near() && !cell.near.is_current)
            .count()
    }

    /// Takes in that everything may have changed.
    pub(crate) fn all_changed(&mut self, mono: Monotonic) {
        for (key, cell) in self.cells.iter_mut().filter(|(_, cell)| cell.is_near()) {
            if cell.may_have_changed(mono, self.is_tracked, self.generation.next()) {
                self.stale.push_back(Arc::clone(key));
            }
        }
    }

    /// Takes in that `key` could not be read just now: it is to be read again a little later.
    pub(crate) fn was_not_read(&mut self, key: &Arc<str>) {
        if let Some(cell) = self
            .cells
            .get_mut(key)
            .filter(|cell| cell.is_near() && self.is_tracked)
            && !std::mem::replace(&mut cell.near.is_queued, true)
        {
            self.later.push(Arc::clone(key));
        }
    }

    /// Whether anything could not be read just now.
    pub(crate) fn is_any_for_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// What could not be read before is to be read now.
    pub(crate) fn now_is_later(&mut self) {
        self.stale.extend(std::mem::take(&mut self.later));
    }

    /// Takes in that `key` may have changed.
    pub(crate) fn invalidated(&mut self, key: &Arc<str>, mono: Monotonic) {
        let Some(cell) = self.cells.get_mut(key) else {
            return;
        };
        if cell.may_have_changed(mono, self.is_tracked, self.generation.next()) {
            self.stale.push_back(Arc::clone(key));
        }
    }

    /// How many slots are to be read again.
    pub(crate) fn queued_reads(&self) -> usize {
        self.stale.len()
    }

    /// Takes out what is to be read again now, at most `most`.
    pub(crate) fn take_stale(&mut self, most: usize) -> Vec<Arc<str>> {
        let keys: Vec<_> = self.stale.drain(..most.min(self.stale.len())).collect();
        if self.stale.is_empty() {
            self.stale = VecDeque::new();
        }
        let still_there = |key: &Arc<str>| {
            self.cells.get_mut(key).is_some_and(|cell| {
                cell.near.is_queued = false;
                cell.is_near()
            })
        };
        keys.into_iter().filter(still_there).collect()
    }

    /// What was told of `key` by now.
    pub(crate) fn generation(&self, key: &str) -> Generation {
        self.cells
            .get(key)
            .map(|cell| cell.near.generation)
            .unwrap_or_default()
    }

    /// Takes in that an answer for `key` was taken in, to a read that was sent under `generation`.
    pub(crate) fn was_read(&mut self, key: &str, generation: Generation) {
        let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.is_near()) else {
            return;
        };
        // A late answer says nothing against an earlier one to a later read.
        cell.near.is_current |= self.is_tracked && cell.near.generation == generation;
        let read = if self.is_tracked {
            Read::Kept
        } else {
            Read::Once
        };
        if generation >= cell.near.since && cell.near.read < read {
            cell.near.read = read;
            cell.bump(&mut self.raised);
        }
    }
}
