//! The slots: what the backend last answered for each key. No I/O.
//!
//! - `refresh.rs`: near slots: which may be read locally, and which are to be read again
//! - `mod.rs`: slots, answers and stamps
//! - `tracking.rs`: whether the backend notifies of changes
//! - `pace.rs`: how often one slot is read again, as a state machine
//! - `near.rs`: how current one slot is, as a state machine
//! - `whole.rs`: which values are followed by what has changed

mod near;
mod pace;
mod refresh;
mod tracking;
mod whole;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::backend::shards::{ByShard, ShardMap};
use crate::base::clock::{Monotonic, Stamp, has_expired};
use crate::base::error::Error;
use crate::base::hash::{KeyMap, shrink_sparse};
use crate::base::waiting::Signal;
use crate::value::document::Document;
use crate::value::envelope::Text;
pub(crate) use near::Generation;
use near::SlotFreshness;
use pace::Pace;
pub use tracking::Tracking;
use tracking::TrackingState;

/// A number that orders the requests as they are sent to the backend. An answer to a later request
/// is never overwritten by an answer to an earlier one, whichever is handled first.
pub(crate) type Ticket = u64;

/// The version of what a slot shows. It rises with every local write and every answer that differs
/// from the one before.
pub(crate) type Version = Arc<AtomicU64>;

/// Two estimates of when a key expires that differ by less than this are the same: each is late by
/// as much as its answer took.
const SAME_EXPIRY: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(crate) struct Cache {
    cells: KeyMap<Cell>,
    map: ShardMap,
    shards: ByShard<ShardReads>,
    /// A slot is in line at another shard than the one that was asked for it.
    has_strayed: bool,
    /// The last generation of any slot. None is used twice, even if a slot is dropped and made
    /// again.
    generation: Generation,
    /// The watches that are to be woken after the lock around the cache is free.
    raised: Vec<Arc<Signal>>,
    /// How many bytes all slots take.
    bytes: usize,
    /// How many bytes are too many.
    alarm_above: usize,
    /// It was said that they are too many.
    is_alarmed: bool,
}

/// What is to be read from one shard.
#[derive(Debug, Default)]
struct ShardReads {
    /// It is that of a server of a cluster.
    is_used: bool,
    tracking: TrackingState,
    /// The slots that are to be read again.
    rereads: VecDeque<Arc<str>>,
    /// The slots that are to be read again, but not before a time.
    paced: BinaryHeap<Reverse<(Monotonic, Arc<str>)>>,
    /// The slots that could not be read just now, and are to be read again a little later.
    deferred: Vec<Arc<str>>,
    /// The watched slots that the backend refused to let be read, each once, to be read again at
    /// the next poll.
    refused: Vec<Arc<str>>,
    /// The near slots that were last read by what has changed, each once.
    unchecked: Vec<Arc<str>>,
    /// The keys that are to be read there although it does not have their slots yet.
    asked: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Cell {
    version: Version,
    base: Base,
    /// The last stamp that was issued or seen for the key.
    last: Stamp,
    /// How many scopes, views and watches hold the slot. It is dropped with the last of them.
    holders: usize,
    /// How many of the holders want it kept current.
    near_holders: usize,
    freshness: SlotFreshness,
    pace: Pace,
    /// Why the backend refused to let the key be read, and the request that it refused.
    refusal: Option<(Ticket, Error)>,
    /// It is among the refused slots that are to be read again at the next poll.
    is_refused: bool,
    /// It is among the near slots that were last read by what has changed.
    is_unchecked: bool,
    /// By address, so that one of very many is removed at once: others wait for the lock.
    watches: BTreeMap<usize, Arc<Signal>>,
}

/// What the backend last answered for a key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    pub(crate) stored: Option<Document>,
    /// The request that this answers; zero before the first answer.
    pub(crate) ticket: Ticket,
    /// When it expires, as far as this process knows.
    pub(crate) expires: Option<Monotonic>,
    /// The first request that was sent after it expired.
    asked_after: Option<Ticket>,
    /// When all of it was last read.
    whole_at: Option<Monotonic>,
}

/// The base of a key for which nothing was answered yet.
static UNKNOWN: Base = Base {
    stored: None,
    ticket: 0,
    expires: None,
    asked_after: None,
    whole_at: None,
};

impl Base {
    pub(crate) fn new(stored: Option<Bytes>, ticket: Ticket, expires: Option<Monotonic>) -> Self {
        Self::of(stored.map(Document::of), ticket, expires)
    }

    pub(crate) fn of(stored: Option<Document>, ticket: Ticket, expires: Option<Monotonic>) -> Self {
        Self {
            stored,
            ticket,
            expires,
            asked_after: None,
            whole_at: None,
        }
    }

    /// The value that is there at `mono`, as JSON text.
    pub(crate) fn value_at(&self, mono: Monotonic) -> Option<Text> {
        Some(self.at(mono)?.value())
    }

    /// Whether the backend ever answered.
    pub(crate) fn is_known(&self) -> bool {
        self.ticket > 0
    }

    /// What is there at `mono`.
    pub(crate) fn at(&self, mono: Monotonic) -> Option<&Document> {
        let expired = has_expired(self.expires, mono);
        self.stored.as_ref().filter(|_| !expired)
    }
}

/// About what a slot takes beside its key and what is stored: the cell, the version, what a scope
/// keeps about it, this writer's record, and the room that hash maps have to spare (measured by
/// `footprint.rs`).
const SLOT: usize = 1024;

/// How many bytes a slot takes.
fn size_of(key: &str, base: &Base) -> usize {
    SLOT + 2 * key.len() + base.stored.as_ref().map_or(0, Document::len)
}

impl Cell {
    fn is_near(&self) -> bool {
        self.near_holders > 0
    }

    /// Records that what the slot shows has changed. Its watches are woken after the lock around
    /// the cache is free.
    fn bump(&mut self, raised: &mut Vec<Arc<Signal>>) {
        self.version.fetch_add(1, Ordering::Release);
        raised.extend(self.watches.values().filter(|watch| watch.raise()).cloned());
    }
}

fn address(watch: &Arc<Signal>) -> usize {
    Arc::as_ptr(watch).addr()
}

impl Cache {
    /// Adds a holder to the slot of `key`, which is made at the first call.
    pub(crate) fn hold(&mut self, key: &Arc<str>) -> Version {
        let bytes = &mut self.bytes;
        let cell = self.cells.entry(Arc::clone(key)).or_insert_with(|| {
            *bytes += size_of(key, &UNKNOWN);
            Cell::default()
        });
        cell.holders += 1;
        Arc::clone(&cell.version)
    }

    /// Removes a holder from the slot of `key`; whether it was the last one.
    pub(crate) fn release(&mut self, key: &str) -> bool {
        let Some(cell) = self.cells.get_mut(key) else {
            return false;
        };
        cell.holders -= 1;
        let is_last = cell.holders == 0;
        if is_last {
            self.bytes -= size_of(key, &cell.base);
            self.cells.remove(key);
            shrink_sparse(&mut self.cells);
        }
        is_last
    }

    /// How many bytes all slots take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets how many bytes are too many.
    pub(crate) fn set_alarm(&mut self, above: usize) {
        (self.alarm_above, self.is_alarmed) = (above, false);
    }

    /// Whether the slots take too many bytes.
    pub(crate) fn is_too_large(&self) -> bool {
        self.bytes > self.alarm_above
    }

    /// The same, once for each time that the limit is set.
    pub(crate) fn take_alarm(&mut self) -> bool {
        self.is_too_large() && !std::mem::replace(&mut self.is_alarmed, true)
    }

    /// How many bytes the slot of `key` takes; zero if there is none.
    pub(crate) fn size_of(&self, key: &str) -> usize {
        self.cells
            .get(key)
            .map_or(0, |cell| size_of(key, &cell.base))
    }

    /// What the backend last answered for `key`.
    pub(crate) fn base(&self, key: &str) -> &Base {
        self.cells.get(key).map_or(&UNKNOWN, |cell| &cell.base)
    }

    /// Records that the request `ticket`, sent at `mono`, reads `key`.
    pub(crate) fn asked(&mut self, key: &str, ticket: Ticket, mono: Monotonic) {
        let Some(base) = self.cells.get_mut(key).map(|cell| &mut cell.base) else {
            return;
        };
        if has_expired(base.expires, mono) {
            base.asked_after.get_or_insert(ticket);
        }
    }

    /// Stores an answer for `key`, unless a later request was answered before.
    ///
    /// A slot follows the backend, whatever the stamps say: servers do go backwards. Returns
    /// whether it shows something else now.
    pub(crate) fn answered(&mut self, key: &str, answer: Base) -> bool {
        let Some(cell) = self.cells.get_mut(key) else {
            return false;
        };
        if answer.ticket < cell.base.ticket {
            return false;
        }

        let ticket = answer.ticket;
        let same = cell.base.stored == answer.stored && cell.base.ticket != 0;
        // An answer does not include the time to live: the same bytes keep the one that is known.
        // If they are still there after it has ended, another process has prolonged it.
        let keeps = same
            && cell
                .base
                .asked_after
                .is_none_or(|first| answer.ticket < first);
        let expires = answer.expires.or(cell.base.expires.filter(|_| keeps));
        let asked_after = cell.base.asked_after.filter(|_| keeps);

        let whole_at = cell.base.whole_at;
        let was_refused = cell
            .refusal
            .take_if(|(ticket, _)| *ticket <= answer.ticket)
            .is_some();
        let changed = !same || expires != cell.base.expires || was_refused;

        self.bytes -= size_of(key, &cell.base);
        // Of the same bytes, what is known already: the value was found in them.
        let bytes = if same {
            std::mem::take(&mut cell.base)
        } else {
            answer
        };
        cell.base = Base {
            ticket,
            expires,
            asked_after,
            whole_at,
            ..bytes
        };
        self.bytes += size_of(key, &cell.base);
        if changed {
            cell.pace.changed();
            cell.bump(&mut self.raised);
        }
        changed
    }

    /// Records when the answer to the request `ticket` expires: `None` for never.
    pub(crate) fn ends(&mut self, key: &str, ticket: Ticket, end: Option<Monotonic>) {
        let Some(cell) = self
            .cells
            .get_mut(key)
            .filter(|cell| cell.base.ticket == ticket)
        else {
            return;
        };

        let known = cell.base.expires;
        // Each estimate is later than the truth, by the time that its answer took.
        if let (Some(known), Some(end)) = (known, end)
            && known <= end
            && end.saturating_sub(known) < SAME_EXPIRY
        {
            return;
        }

        if known != end {
            cell.pace.changed();
        }
        (cell.base.expires, cell.base.asked_after) = (end, None);
        if end.is_some_and(|end| known.is_none_or(|known| end < known)) {
            cell.bump(&mut self.raised);
        }
    }

    /// Wakes `watch` from now on whenever what `key` shows changes. A near slot that is not current
    /// is read again.
    pub(crate) fn watch(&mut self, key: &Arc<str>, watch: &Arc<Signal>) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.watches.insert(address(watch), Arc::clone(watch));
            if cell.is_near() && !cell.freshness.is_current() && cell.freshness.queued() {
                self.put_in_line(key);
            }
        }
    }

    pub(crate) fn unwatch(&mut self, key: &str, watch: &Arc<Signal>) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.watches.remove(&address(watch));
        }
    }

    /// Removes and returns the watches that are to be woken.
    pub(crate) fn take_raised(&mut self) -> Vec<Arc<Signal>> {
        std::mem::take(&mut self.raised)
    }

    /// The last stamp that was issued or seen for `key`.
    pub(crate) fn last(&self, key: &str) -> Stamp {
        self.cells.get(key).map_or(Stamp::ZERO, |cell| cell.last)
    }

    /// Records that `stamp` was issued or seen for `key`.
    pub(crate) fn seen(&mut self, key: &str, stamp: Stamp) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.last = cell.last.max(Stamp::new(stamp.get()));
        }
    }

    /// Shifts the stamps that were issued by a clock which turned out to be `by` ns behind.
    pub(crate) fn shift(&mut self, by: i64) {
        for cell in self.cells.values_mut() {
            cell.last = cell.last.shifted(by);
        }
    }

    /// Records that what `key` shows has changed for another reason than an answer.
    pub(crate) fn touch(&mut self, key: &str) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.bump(&mut self.raised);
        }
    }
}

#[cfg(test)]
mod tests;
