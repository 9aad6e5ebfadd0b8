//! The slots: what the backend last answered for each key. No I/O.

use crate::clock::{Mono, Stamp};
use crate::envelope::{self, Text};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The place of a request in the order in which requests are sent to the backend. An answer to a
/// later request is never overwritten by one to an earlier request, whichever is handled first.
pub(crate) type Ticket = u64;

/// The version of what a slot shows. It rises with every local write and every changed answer.
pub(crate) type Version = Arc<AtomicU64>;

#[derive(Debug, Default)]
pub(crate) struct Cache {
    cells: HashMap<Arc<str>, Cell>,
    /// The backend tells what changes.
    is_told: bool,
    /// The slots that are to be read again.
    stale: VecDeque<Arc<str>>,
}

#[derive(Debug, Default)]
struct Cell {
    version: Version,
    base: Base,
    /// The last stamp that was issued or seen for the key.
    last: Stamp,
    /// The scopes and views that hold the slot. It goes when nobody holds it.
    holders: usize,
    near: Near,
}

/// How a slot that is read locally is kept current.
#[derive(Debug, Default)]
struct Near {
    is_wanted: bool,
    /// Rises with each change that the backend tells of. A read that was sent under another one says nothing of
    /// what is there now (DESIGN, rule 14).
    generation: Generation,
    /// Nothing was told since it was read.
    is_current: bool,
    /// When it was last known to be current.
    current_until: Option<Mono>,
    /// It waits to be read again.
    is_queued: bool,
}

/// What was told of a key before a read of it was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// What the backend last answered for a key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    pub(crate) stored: Option<Bytes>,
    /// The request that this answers; zero as long as there was no answer.
    pub(crate) ticket: Ticket,
    /// When this process's own `ttl` ends it.
    pub(crate) expires: Option<Mono>,
    value: OnceLock<Text>,
}

/// Nothing was answered yet.
static UNKNOWN: Base = Base { stored: None, ticket: 0, expires: None, value: OnceLock::new() };

impl Base {
    pub(crate) fn new(stored: Option<Bytes>, ticket: Ticket, expires: Option<Mono>) -> Self {
        Self { stored, ticket, expires, value: OnceLock::new() }
    }

    /// What this process itself has stored.
    pub(crate) fn own(sealed: Bytes, ticket: Ticket, expires: Option<Mono>) -> Self {
        let value = OnceLock::from(envelope::own_value_of(&sealed));
        Self { stored: Some(sealed), ticket, expires, value }
    }

    /// The value that is there at `mono`, as JSON text.
    pub(crate) fn value_at(&self, mono: Mono) -> Option<&str> {
        let stored = self.at(mono)?;
        Some(self.value.get_or_init(|| envelope::value_of(stored)).as_str())
    }

    /// The same where nobody has to look for it any more.
    pub(crate) fn known_value(&self, mono: Mono) -> Option<Text> {
        self.at(mono).and_then(|_| self.value.get().cloned())
    }

    /// Whether the backend ever answered.
    pub(crate) fn is_known(&self) -> bool {
        self.ticket > 0
    }

    /// What is there at `mono`.
    pub(crate) fn at(&self, mono: Mono) -> Option<&Bytes> {
        let expired = self.expires.is_some_and(|expires| expires <= mono);
        self.stored.as_ref().filter(|_| !expired)
    }
}

impl Cache {
    /// Takes hold of the slot of `key`, which is made at the first call.
    pub(crate) fn hold(&mut self, key: &Arc<str>) -> Version {
        let cell = self.cells.entry(Arc::clone(key)).or_default();
        cell.holders += 1;
        Arc::clone(&cell.version)
    }

    /// Lets go of the slot of `key`.
    pub(crate) fn release(&mut self, key: &str) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.holders -= 1;
            if cell.holders == 0 {
                self.cells.remove(key);
            }
        }
    }

    /// What the backend last answered for `key`.
    pub(crate) fn base(&self, key: &str) -> &Base {
        self.cells.get(key).map_or(&UNKNOWN, |cell| &cell.base)
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
        let expires = answer.expires.or(cell.base.expires.filter(|_| same));
        let changed = !same || expires != cell.base.expires;
        cell.base = Base { expires, ..answer };
        if changed {
            cell.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Keeps the slot of `key` current from now on: it is read locally.
    pub(crate) fn keep_near(&mut self, key: &Arc<str>) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.near.is_wanted = true;
            cell.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether a read of `key` needs not ask the backend: what is known is kept current, or nobody can be asked.
    pub(crate) fn is_local(&self, key: &str, is_connected: bool) -> bool {
        let is_kept = |cell: &Cell| cell.near.is_wanted && cell.base.is_known() && (self.is_told || !is_connected);
        self.cells.get(key).is_some_and(is_kept)
    }

    /// How old what `key` shows may be: nothing where it is current, `None` where it is not known how old.
    pub(crate) fn staleness(&self, key: &str, mono: Mono) -> Option<Duration> {
        let near = &self.cells.get(key)?.near;
        if near.is_current { Some(Duration::ZERO) } else { near.current_until.map(|until| mono.saturating_sub(until)) }
    }

    /// Takes in that the backend tells of changes from now on, or no longer. What was read before may have changed.
    pub(crate) fn told(&mut self, is_told: bool, mono: Mono) {
        self.is_told = is_told;
        self.all_changed(mono);
        self.touch_near();
    }

    /// Says of all slots that are read locally that how they are to be read may have changed.
    pub(crate) fn touch_near(&self) {
        for cell in self.cells.values().filter(|cell| cell.near.is_wanted) {
            cell.version.fetch_add(1, Ordering::Release);
        }
    }

    /// How many slots are read locally and not known to be current.
    pub(crate) fn not_current(&self) -> usize {
        self.cells.values().filter(|cell| cell.near.is_wanted && !cell.near.is_current).count()
    }

    /// Takes in that everything may have changed.
    pub(crate) fn all_changed(&mut self, mono: Mono) {
        let near: Vec<_> = self.cells.iter().filter(|(_, cell)| cell.near.is_wanted).map(|(key, _)| key).collect();
        for key in near.into_iter().cloned().collect::<Vec<_>>() {
            self.changed(&key, mono);
        }
    }

    /// Takes in that an answer for `key` said nothing: it has to be read again.
    pub(crate) fn was_not_read(&mut self, key: &Arc<str>) {
        if let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.near.is_wanted && self.is_told)
            && !std::mem::replace(&mut cell.near.is_queued, true)
        {
            self.stale.push_back(Arc::clone(key));
        }
    }

    /// Takes in that `key` may have changed.
    pub(crate) fn changed(&mut self, key: &str, mono: Mono) {
        let Some((key, cell)) = self.cells.get_key_value(key).map(|(key, _)| Arc::clone(key)).and_then(|key| {
            let cell = self.cells.get_mut(&key)?;
            Some((key, cell))
        }) else {
            return;
        };
        cell.near.generation.0 += 1;
        if std::mem::take(&mut cell.near.is_current) {
            cell.near.current_until = Some(mono);
        }
        if cell.near.is_wanted && self.is_told && !std::mem::replace(&mut cell.near.is_queued, true) {
            self.stale.push_back(key);
        }
    }

    /// How many slots are to be read again.
    pub(crate) fn stale(&self) -> usize {
        self.stale.len()
    }

    /// Takes out what is to be read again now, at most `most`.
    pub(crate) fn take_stale(&mut self, most: usize) -> Vec<Arc<str>> {
        let keys: Vec<_> = self.stale.drain(..most.min(self.stale.len())).collect();
        let still_there = |key: &Arc<str>| {
            let cell = self.cells.get_mut(key);
            cell.map(|cell| cell.near.is_queued = false).is_some()
        };
        keys.into_iter().filter(still_there).collect()
    }

    /// What was told of `key` by now.
    pub(crate) fn generation(&self, key: &str) -> Generation {
        self.cells.get(key).map(|cell| cell.near.generation).unwrap_or_default()
    }

    /// Takes in that an answer for `key` was taken in, to a read that was sent under `generation`.
    pub(crate) fn was_read(&mut self, key: &str, generation: Generation) {
        if let Some(cell) = self.cells.get_mut(key).filter(|_| self.is_told) {
            cell.near.is_current = cell.near.generation == generation;
        }
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
    pub(crate) fn touch(&self, key: &str) {
        if let Some(cell) = self.cells.get(key) {
            cell.version.fetch_add(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(stored: &'static str, ticket: Ticket) -> Base {
        Base::new(Some(Bytes::from_static(stored.as_bytes())), ticket, None)
    }

    #[test]
    fn an_answer_to_an_earlier_request_does_not_replace_one_to_a_later_request() {
        let mut cache = Cache::default();
        let key: Arc<str> = "k".into();
        let version = cache.hold(&key);
        cache.answered(&key, base("new", 2));
        cache.answered(&key, base("old", 1));
        assert_eq!(cache.base(&key).at(Mono::ZERO).unwrap(), "new");
        assert_eq!(version.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_version_stays_while_the_answers_stay_the_same() {
        let mut cache = Cache::default();
        let key: Arc<str> = "k".into();
        let version = cache.hold(&key);
        for ticket in 1..5 {
            cache.answered(&key, base("same", ticket));
        }
        assert_eq!(version.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_slot_goes_with_its_last_holder() {
        let mut cache = Cache::default();
        let key: Arc<str> = "k".into();
        cache.hold(&key);
        cache.hold(&key);
        cache.answered(&key, base("a", 1));
        cache.release(&key);
        assert!(cache.base(&key).is_known());
        cache.release(&key);
        assert!(!cache.base(&key).is_known());
    }
}
