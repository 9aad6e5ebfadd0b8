//! The slots: what the backend last answered for each key. No I/O.

use crate::clock::{Mono, Stamp};
use crate::envelope::{self, Text};
use crate::error::Error;
use crate::wait::Signal;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

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
    is_told: bool,
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

/// How a slot that is read locally is kept current.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is asked for by itself
struct Near {
    /// How many of the holders want it.
    wanted: usize,
    /// Why the backend gives nothing, and the request that was answered so.
    refused: Option<(Ticket, Error)>,
    /// Rises with each change that the backend tells of. A read that was sent under another one says nothing of
    /// what is there now (DESIGN, rule 14).
    generation: Generation,
    /// The generation from which on a read may be shown to others without their asking: the slot was not read
    /// locally before, and nobody cared for what was told.
    since: Generation,
    /// What was read of it under such a generation.
    read: Read,
    /// Nothing was told since it was read.
    is_current: bool,
    /// When it was last known to be current.
    current_until: Option<Mono>,
    /// It waits to be read again.
    is_queued: bool,
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

/// What was told of a key before a read of it was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
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

impl Cell {
    /// Says that what it shows has changed. What watches it is woken when the lock around all this is free.
    fn bump(&mut self, raised: &mut Vec<Arc<Signal>>) {
        self.version.fetch_add(1, Ordering::Release);
        raised.extend(self.watches.iter().filter(|watch| watch.raise()).cloned());
    }

    fn is_near(&self) -> bool {
        self.near.wanted > 0
    }

    /// Takes in that what is there may have changed; whether it is to be read again now.
    fn may_have_changed(&mut self, mono: Mono, is_told: bool) -> bool {
        self.near.generation.0 += 1;
        if std::mem::take(&mut self.near.is_current) {
            self.near.current_until = Some(mono);
        }
        self.is_near() && is_told && !std::mem::replace(&mut self.near.is_queued, true)
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
        let Some(cell) = self.cells.get_mut(key) else { return false };
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
        let was_refused = cell.near.refused.take_if(|(ticket, _)| *ticket <= answer.ticket).is_some();
        let changed = !same || expires != cell.base.expires || was_refused;
        cell.base = Base { expires, ..answer };
        if changed {
            cell.bump(&mut self.raised);
        }
    }

    /// Takes in when what the request `ticket` was answered with ends: `None` for never.
    pub(crate) fn ends(&mut self, key: &str, ticket: Ticket, end: Option<Mono>) {
        let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.base.ticket == ticket) else { return };
        let known = cell.base.expires;
        // Each answer tells it as later than it is, by the time that the answer took.
        if let (Some(known), Some(end)) = (known, end)
            && known <= end
            && end.saturating_sub(known) < ANSWER
        {
            return;
        }
        cell.base.expires = end;
        if end.is_some_and(|end| known.is_none_or(|known| end < known)) {
            cell.bump(&mut self.raised);
        }
    }

    /// Takes in that the backend refuses to let `key` be read: whoever reads it asks, and is told why.
    pub(crate) fn was_refused(&mut self, key: &str, ticket: Ticket, error: Error) {
        if let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.is_near() && cell.base.ticket <= ticket) {
            cell.near.refused = Some((ticket, error));
            cell.near.read = cell.near.read.min(Read::Once);
            cell.bump(&mut self.raised);
        }
    }

    /// Why the backend gives nothing for `key`.
    pub(crate) fn refusal(&self, key: &str) -> Option<&Error> {
        self.cells.get(key)?.near.refused.as_ref().map(|(_, error)| error)
    }

    /// Keeps the slot of `key` current from its next read on, for one more of its holders.
    pub(crate) fn keep_near(&mut self, key: &Arc<str>) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        cell.near.wanted += 1;
        if cell.near.wanted == 1 {
            // What is known, or is being read, may have changed with nobody listening.
            cell.near.generation.0 += 1;
            cell.near.since = cell.near.generation;
            cell.bump(&mut self.raised);
        }
    }

    /// Takes in that one of the holders that wanted the slot kept current has no more use for that.
    pub(crate) fn let_go(&mut self, key: &str) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        cell.near.wanted -= 1;
        if !cell.is_near() {
            let Near { generation, is_queued, .. } = cell.near;
            cell.near = Near { generation, is_queued, ..Near::default() };
        }
    }

    /// Has `watch` woken from now on whenever what `key` shows has changed, and the slot read where it may be old.
    pub(crate) fn watch(&mut self, key: &Arc<str>, watch: &Arc<Signal>) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.watches.push(Arc::clone(watch));
            if cell.is_near() && !cell.near.is_current && !std::mem::replace(&mut cell.near.is_queued, true) {
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

    /// Where the backend tells of no changes: has the slots read again that are watched.
    pub(crate) fn look_again(&mut self) {
        if self.is_told {
            return;
        }
        for (key, cell) in self.cells.iter_mut().filter(|(_, cell)| cell.is_near() && !cell.watches.is_empty()) {
            if !std::mem::replace(&mut cell.near.is_queued, true) {
                self.stale.push_back(Arc::clone(key));
            }
        }
    }

    /// Whether the slot of `key` is kept current.
    pub(crate) fn is_near(&self, key: &str) -> bool {
        self.cells.get(key).is_some_and(Cell::is_near)
    }

    /// Whether a read of `key` needs not ask the backend: what is known is kept current, or nobody can be asked.
    pub(crate) fn is_local(&self, key: &str, is_connected: bool) -> bool {
        let is_kept = |cell: &Cell| cell.is_near() && (!is_connected || self.is_told && cell.near.read == Read::Kept);
        self.cells.get(key).is_some_and(|cell| cell.base.is_known() && is_kept(cell))
    }

    /// Whether what `key` shows is no older than the first read of those that want it kept current, or nobody can be
    /// asked.
    pub(crate) fn is_shown(&self, key: &str, is_connected: bool) -> bool {
        let is_shown = |cell: &Cell| cell.base.is_known() && (cell.near.read > Read::Never || !is_connected);
        self.cells.get(key).is_some_and(is_shown)
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
    pub(crate) fn touch_near(&mut self) {
        for cell in self.cells.values_mut().filter(|cell| cell.is_near() || !cell.watches.is_empty()) {
            cell.bump(&mut self.raised);
        }
    }

    /// How many slots are read locally and not known to be current.
    pub(crate) fn not_current(&self) -> usize {
        self.cells.values().filter(|cell| cell.is_near() && !cell.near.is_current).count()
    }

    /// Takes in that everything may have changed.
    pub(crate) fn all_changed(&mut self, mono: Mono) {
        for (key, cell) in self.cells.iter_mut().filter(|(_, cell)| cell.is_near()) {
            if cell.may_have_changed(mono, self.is_told) {
                self.stale.push_back(Arc::clone(key));
            }
        }
    }

    /// Takes in that `key` could not be read just now: it is to be read again a little later.
    pub(crate) fn was_not_read(&mut self, key: &Arc<str>) {
        if let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.is_near() && self.is_told)
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
    pub(crate) fn changed(&mut self, key: &Arc<str>, mono: Mono) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        if cell.may_have_changed(mono, self.is_told) {
            self.stale.push_back(Arc::clone(key));
        }
    }

    /// How many slots are to be read again.
    pub(crate) fn stale(&self) -> usize {
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
        self.cells.get(key).map(|cell| cell.near.generation).unwrap_or_default()
    }

    /// Takes in that an answer for `key` was taken in, to a read that was sent under `generation`.
    pub(crate) fn was_read(&mut self, key: &str, generation: Generation) {
        let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.is_near()) else { return };
        // A late answer says nothing against an earlier one to a later read.
        cell.near.is_current |= self.is_told && cell.near.generation == generation;
        let read = if self.is_told { Read::Kept } else { Read::Once };
        if generation >= cell.near.since && cell.near.read < read {
            cell.near.read = read;
            cell.bump(&mut self.raised);
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
    pub(crate) fn touch(&mut self, key: &str) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.bump(&mut self.raised);
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

    /// A cache that is told of changes, with a slot that is read locally.
    fn near() -> (Cache, Arc<str>) {
        let (mut cache, key) = (Cache::default(), Arc::from("k"));
        cache.hold(&key);
        cache.told(true, Mono::ZERO);
        cache.keep_near(&key);
        (cache, key)
    }

    fn read(cache: &mut Cache, key: &str, stored: &'static str, ticket: Ticket, generation: Generation) {
        cache.answered(key, base(stored, ticket));
        cache.was_read(key, generation);
    }

    fn is_current(cache: &Cache, key: &str) -> bool {
        cache.staleness(key, Duration::from_secs(9)) == Some(Duration::ZERO)
    }

    #[test]
    fn what_was_read_before_a_slot_became_near_is_asked_for_again() {
        let (mut cache, key) = (Cache::default(), Arc::from("k"));
        cache.hold(&key);
        cache.told(true, Mono::ZERO);
        let before = cache.generation(&key);
        read(&mut cache, &key, "old", 1, before);
        cache.keep_near(&key);
        assert!(!cache.is_local(&key, true) && !is_current(&cache, &key));
        // One that was under way.
        read(&mut cache, &key, "older", 2, before);
        assert!(!cache.is_local(&key, true) && !is_current(&cache, &key));
        assert!(cache.is_local(&key, false), "while nobody can be asked it is all there is");
        let now = cache.generation(&key);
        read(&mut cache, &key, "new", 3, now);
        assert!(cache.is_local(&key, true) && is_current(&cache, &key));
    }

    #[test]
    fn a_reply_during_which_the_key_changed_is_shown_but_is_not_current() {
        let (mut cache, key) = near();
        let sent = cache.generation(&key);
        cache.changed(&key, Mono::ZERO);
        cache.changed(&key, Mono::ZERO);
        read(&mut cache, &key, "shown", 1, sent);
        assert_eq!(cache.base(&key).at(Mono::ZERO).unwrap(), "shown");
        assert!(cache.is_local(&key, true) && !is_current(&cache, &key));
        assert_eq!(cache.take_stale(9), [Arc::clone(&key)], "it is read again, once");
        let sent = cache.generation(&key);
        read(&mut cache, &key, "new", 2, sent);
        assert!(is_current(&cache, &key) && cache.take_stale(9).is_empty());
    }

    #[test]
    fn a_late_reply_to_an_earlier_read_says_nothing_against_a_later_one() {
        let (mut cache, key) = near();
        let early = cache.generation(&key);
        cache.changed(&key, Mono::ZERO);
        cache.take_stale(9);
        let late = cache.generation(&key);
        read(&mut cache, &key, "new", 2, late);
        read(&mut cache, &key, "old", 1, early);
        assert_eq!(cache.base(&key).at(Mono::ZERO).unwrap(), "new");
        assert!(is_current(&cache, &key));
    }

    #[test]
    fn after_a_reconnect_every_slot_is_read_again_before_it_is_current() {
        let (mut cache, key) = near();
        let before = cache.generation(&key);
        read(&mut cache, &key, "old", 1, before);
        cache.told(false, Mono::ZERO);
        assert!(!is_current(&cache, &key) && cache.is_local(&key, false));
        assert_eq!(cache.not_current(), 1);
        cache.told(true, Mono::ZERO);
        // A reply over the connection that was lost.
        read(&mut cache, &key, "late", 2, before);
        assert!(!is_current(&cache, &key) && cache.is_local(&key, true));
        assert_eq!(cache.take_stale(9), [Arc::clone(&key)]);
        let now = cache.generation(&key);
        read(&mut cache, &key, "new", 3, now);
        assert!(is_current(&cache, &key) && cache.not_current() == 0);
    }

    #[test]
    fn what_could_not_be_read_is_read_again_later_and_what_is_refused_is_asked_for_by_its_readers() {
        let (mut cache, key) = near();
        let now = cache.generation(&key);
        read(&mut cache, &key, "value", 1, now);
        cache.changed(&key, Mono::ZERO);
        cache.take_stale(9);
        cache.was_not_read(&key);
        cache.was_not_read(&key);
        assert!(cache.take_stale(9).is_empty() && cache.is_any_for_later());
        cache.now_is_later();
        assert_eq!(cache.take_stale(9), [Arc::clone(&key)]);
        cache.was_refused(&key, 1, Error::closed());
        assert!(!cache.is_local(&key, true));
        let now = cache.generation(&key);
        read(&mut cache, &key, "again", 2, now);
        assert!(cache.is_local(&key, true) && is_current(&cache, &key));
    }

    #[test]
    fn an_end_is_shown_when_it_has_come_and_its_estimates_do_not_move_it() {
        let (mut cache, key) = near();
        let version = cache.hold(&key);
        let now = cache.generation(&key);
        read(&mut cache, &key, "value", 1, now);
        let before = version.load(Ordering::Relaxed);
        let second = Duration::from_secs(1);
        cache.ends(&key, 1, Some(second));
        assert!(version.load(Ordering::Relaxed) > before, "whoever has it shown learns of its end");
        let before = version.load(Ordering::Relaxed);
        cache.ends(&key, 1, Some(second + ANSWER / 2));
        assert_eq!((version.load(Ordering::Relaxed), cache.base(&key).expires), (before, Some(second)));
        assert!(cache.base(&key).at(second).is_none());
        cache.ends(&key, 0, Some(2 * second));
        assert!(cache.base(&key).at(second).is_none(), "that was said of something else");
        cache.ends(&key, 1, None);
        assert!(cache.base(&key).at(second).is_some());
    }

    #[test]
    fn whoever_watches_a_slot_is_woken_once_until_it_looks() {
        let ((mut cache, key), watch) = (near(), Arc::new(Signal::default()));
        cache.take_raised();
        cache.watch(&key, &watch);
        assert_eq!(cache.take_stale(9), [Arc::clone(&key)], "it is read, though nobody else asks");
        let now = cache.generation(&key);
        read(&mut cache, &key, "value", 1, now);
        cache.touch(&key);
        assert_eq!(cache.take_raised().len(), 1);
        cache.touch(&key);
        assert!(cache.take_raised().is_empty(), "it knows already");
        let context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(watch.poll(&context).is_ready());
        cache.answered(&key, base("other", 2));
        assert_eq!(cache.take_raised().len(), 1);
        cache.unwatch(&key, &watch);
        assert!(watch.poll(&context).is_ready());
        cache.touch(&key);
        assert!(cache.take_raised().is_empty());
        assert_eq!(Arc::strong_count(&watch), 1, "nothing of it is left");
    }

    #[test]
    fn a_slot_is_kept_current_until_the_last_one_that_wanted_it_is_gone() {
        let (mut cache, key) = near();
        cache.hold(&key);
        cache.keep_near(&key);
        let now = cache.generation(&key);
        read(&mut cache, &key, "value", 1, now);
        cache.let_go(&key);
        cache.changed(&key, Mono::ZERO);
        assert_eq!(cache.take_stale(9), [Arc::clone(&key)]);
        cache.changed(&key, Mono::ZERO);
        cache.let_go(&key);
        assert!(cache.take_stale(9).is_empty(), "nobody wants it any more");
        cache.changed(&key, Mono::ZERO);
        assert!(cache.take_stale(9).is_empty() && !cache.is_local(&key, true) && cache.not_current() == 0);
        // One that comes later begins anew.
        cache.keep_near(&key);
        assert!(!cache.is_local(&key, true) && !cache.is_shown(&key, true));
        read(&mut cache, &key, "late", 2, now);
        assert!(!cache.is_local(&key, true) && !cache.is_shown(&key, true));
        let now = cache.generation(&key);
        read(&mut cache, &key, "new", 3, now);
        assert!(cache.is_local(&key, true) && cache.is_shown(&key, true));
    }

    #[test]
    fn where_changes_are_not_told_what_is_watched_is_looked_at_again_and_nothing_else() {
        let ((mut cache, key), watch, unwatched) = (near(), Arc::new(Signal::default()), Arc::from("other"));
        cache.hold(&unwatched);
        cache.keep_near(&unwatched);
        cache.watch(&key, &watch);
        cache.take_stale(9);
        cache.look_again();
        assert!(cache.take_stale(9).is_empty());
        cache.told(false, Mono::ZERO);
        cache.look_again();
        cache.look_again();
        assert_eq!(cache.take_stale(9), [Arc::clone(&key)]);
        let now = cache.generation(&key);
        read(&mut cache, &key, "value", 1, now);
        assert!(cache.is_shown(&key, true) && !cache.is_local(&key, true));
    }
}
