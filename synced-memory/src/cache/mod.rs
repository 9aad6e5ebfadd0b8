//! The slots: what the backend last answered for each key. No I/O.

mod near;

pub(crate) use near::Generation;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::{Monotonic, Stamp};
use crate::base::waiting::Signal;
use crate::value::envelope::{self, Text};
use near::Near;

/// The place of a request in the order in which requests are sent to the backend. An answer to a
/// later request is never overwritten by one to an earlier request, whichever is handled first.
pub(crate) type Ticket = u64;

/// The version of what a slot shows. It rises with every local write and every changed answer.
pub(crate) type Version = Arc<AtomicU64>;

/// Two ends that are told so shortly after each other are the same.
const ANSWER: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(crate) struct Cache {
    cells: HashMap<Arc<str>, Cell>,
    /// The backend tells what changes.
    is_tracked: bool,
    /// The last generation of any slot: none comes twice, also where a slot goes and is made anew.
    generation: Generation,
    /// The slots that are to be read again.
    stale: VecDeque<Arc<str>>,
    /// Those that could not be read just now, and are to be read again a little later.
    later: Vec<Arc<str>>,
    /// The watches that are to be woken once nobody is in here.
    raised: Vec<Arc<Signal>>,
}

#[derive(Debug, Default)]
struct Cell {
    version: Version,
    base: Base,
    /// The last stamp that was issued or seen for the key.
    last: Stamp,
    /// The scopes, views and watches that hold the slot. It goes when nobody holds it.
    holders: usize,
    near: Near,
    watches: Vec<Arc<Signal>>,
}

/// What the backend last answered for a key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    pub(crate) stored: Option<Bytes>,
    /// The request that this answers; zero as long as there was no answer.
    pub(crate) ticket: Ticket,
    /// When this process's own `ttl` ends it.
    pub(crate) expires: Option<Monotonic>,
    /// The first request that was made after that.
    asked_after: Option<Ticket>,
    value: OnceLock<Text>,
}

/// Nothing was answered yet.
static UNKNOWN: Base = Base {
    stored: None,
    ticket: 0,
    expires: None,
    asked_after: None,
    value: OnceLock::new(),
};

impl Base {
    pub(crate) fn new(stored: Option<Bytes>, ticket: Ticket, expires: Option<Monotonic>) -> Self {
        Self {
            stored,
            ticket,
            expires,
            asked_after: None,
            value: OnceLock::new(),
        }
    }

    /// What this process itself has stored.
    pub(crate) fn own(sealed: Bytes, ticket: Ticket, expires: Option<Monotonic>) -> Self {
        let value = OnceLock::from(envelope::own_value_of(&sealed));
        Self {
            stored: Some(sealed),
            ticket,
            expires,
            asked_after: None,
            value,
        }
    }

    /// The value that is there at `mono`, as JSON text.
    pub(crate) fn value_at(&self, mono: Monotonic) -> Option<&str> {
        let stored = self.at(mono)?;
        Some(
            self.value
                .get_or_init(|| envelope::value_of(stored))
                .as_str(),
        )
    }

    /// The same where nobody has to look for it any more.
    pub(crate) fn known_value(&self, mono: Monotonic) -> Option<Text> {
        self.at(mono).and_then(|_| self.value.get().cloned())
    }

    /// Whether the backend ever answered.
    pub(crate) fn is_known(&self) -> bool {
        self.ticket > 0
    }

    /// What is there at `mono`.
    pub(crate) fn at(&self, mono: Monotonic) -> Option<&Bytes> {
        let expired = self.expires.is_some_and(|expires| expires <= mono);
        self.stored.as_ref().filter(|_| !expired)
    }
}

impl Cell {
    /// Says that what it shows has changed. What watches it is woken when the lock around all this
    /// is free.
    fn bump(&mut self, raised: &mut Vec<Arc<Signal>>) {
        self.version.fetch_add(1, Ordering::Release);
        raised.extend(self.watches.iter().filter(|watch| watch.raise()).cloned());
    }
}

/// Gives back the room of what has gone: as many may never come again.
pub(crate) fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    const FEW: usize = 16;
    if map.capacity() > 4 * map.len() + FEW {
        map.shrink_to(2 * map.len());
    }
}

impl Cache {
    /// Takes hold of the slot of `key`, which is made at the first call.
    pub(crate) fn hold(&mut self, key: &Arc<str>) -> Version {
        let cell = self.cells.entry(Arc::clone(key)).or_default();
        cell.holders += 1;
        Arc::clone(&cell.version)
    }

    /// Lets go of the slot of `key`; whether nobody holds it any more.
    pub(crate) fn release(&mut self, key: &str) -> bool {
        let Some(cell) = self.cells.get_mut(key) else {
            return false;
        };
        cell.holders -= 1;
        let is_last = cell.holders == 0;
        if is_last {
            self.cells.remove(key);
            give_back(&mut self.cells);
        }
        is_last
    }

    /// What the backend last answered for `key`.
    pub(crate) fn base(&self, key: &str) -> &Base {
        self.cells.get(key).map_or(&UNKNOWN, |cell| &cell.base)
    }

    /// Takes in that the request `ticket` asks for `key` at `mono`.
    pub(crate) fn asked(&mut self, key: &str, ticket: Ticket, mono: Monotonic) {
        let Some(base) = self.cells.get_mut(key).map(|cell| &mut cell.base) else {
            return;
        };
        if base.expires.is_some_and(|expires| expires <= mono) {
            base.asked_after.get_or_insert(ticket);
        }
    }

    /// Takes in an answer for `key`, unless a later request was answered before.
    ///
    /// A slot follows the backend, whatever the stamps say: servers do go backwards.
    pub(crate) fn answered(&mut self, key: &str, answer: Base) {
        let Some(cell) = self.cells.get_mut(key) else {
            return;
        };
        if answer.ticket < cell.base.ticket {
            return;
        }
        let same = cell.base.stored == answer.stored && cell.base.ticket != 0;
        // An answer says nothing of the time to live: the same bytes keep the one that is known.
        // Where they are there after their end, somebody has given them more time.
        let keeps = same
            && cell
                .base
                .asked_after
                .is_none_or(|first| answer.ticket < first);
        let expires = answer.expires.or(cell.base.expires.filter(|_| keeps));
        let asked_after = cell.base.asked_after.filter(|_| keeps);
        let was_refused = cell
            .near
            .refused
            .take_if(|(ticket, _)| *ticket <= answer.ticket)
            .is_some();
        let changed = !same || expires != cell.base.expires || was_refused;
        cell.base = Base {
            expires,
            asked_after,
            ..answer
        };
        if changed {
            cell.bump(&mut self.raised);
        }
    }

    /// Takes in when what the request `ticket` was answered with ends: `None` for never.
    pub(crate) fn ends(&mut self, key: &str, ticket: Ticket, end: Option<Monotonic>) {
        let Some(cell) = self
            .cells
            .get_mut(key)
            .filter(|cell| cell.base.ticket == ticket)
        else {
            return;
        };
        let known = cell.base.expires;
        // Each answer tells it as later than it is, by the time that the answer took.
        if let (Some(known), Some(end)) = (known, end)
            && known <= end
            && end.saturating_sub(known) < ANSWER
        {
            return;
        }
        (cell.base.expires, cell.base.asked_after) = (end, None);
        if end.is_some_and(|end| known.is_none_or(|known| end < known)) {
            cell.bump(&mut self.raised);
        }
    }

    /// Has `watch` woken from now on whenever what `key` shows has changed, and the slot read where
    /// it may be old.
    pub(crate) fn watch(&mut self, key: &Arc<str>, watch: &Arc<Signal>) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.watches.push(Arc::clone(watch));
            if cell.is_near()
                && !cell.near.is_current
                && !std::mem::replace(&mut cell.near.is_queued, true)
            {
                self.stale.push_back(Arc::clone(key));
            }
        }
    }

    pub(crate) fn unwatch(&mut self, key: &str, watch: &Arc<Signal>) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.watches.retain(|other| !Arc::ptr_eq(other, watch));
        }
    }

    /// Takes out the watches that are to be woken.
    pub(crate) fn take_raised(&mut self) -> Vec<Arc<Signal>> {
        std::mem::take(&mut self.raised)
    }

    /// The last stamp that was issued or seen for `key`.
    pub(crate) fn last(&self, key: &str) -> Stamp {
        self.cells.get(key).map_or(Stamp::ZERO, |cell| cell.last)
    }

    /// Takes in that `stamp` was issued or seen for `key`.
    pub(crate) fn seen(&mut self, key: &str, stamp: Stamp) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.last = cell.last.max(Stamp::new(stamp.get()));
        }
    }

    /// Moves the stamps that were issued by a clock that turned out to be `by` ns behind.
    pub(crate) fn shift(&mut self, by: i64) {
        for cell in self.cells.values_mut() {
            cell.last = cell.last.shifted(by);
        }
    }

    /// Says that what `key` shows has changed, for another reason than an answer.
    pub(crate) fn touch(&mut self, key: &str) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.bump(&mut self.raised);
        }
    }
}

#[cfg(test)]
mod tests;
