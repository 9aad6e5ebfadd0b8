//! What is known of a value without all of it being read: somebody who edits by hand may keep stamp
//! and length, so that no change is noticed. All of it is read once a minute at most, and once in a
//! minute at least while it changes.

use std::mem::{replace, take};
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, Ticket};
use crate::backend::shards::Shard;
use crate::base::clock::Monotonic;
use crate::value::document::Document;

/// How long a value is followed by its changes before all of it is read again.
const WHOLE_EVERY: Duration = Duration::from_secs(60);

impl Cache {
    /// What is known of `key` well enough to ask for what has changed since.
    pub(crate) fn known(&self, key: &str, mono: Monotonic) -> Option<&Document> {
        let base = self.base(key);
        let is_recent = |at: Monotonic| mono.saturating_sub(at) < WHOLE_EVERY;
        base.at(mono)
            .filter(|_| base.whole_at.is_some_and(is_recent))
    }

    /// Whether a change of `key` that was notified is one that this process has made.
    pub(crate) fn is_change_own(&self, key: &str) -> bool {
        self.cells
            .get(key)
            .is_some_and(|cell| cell.pace.has_changed())
    }

    /// Records that the answer to the request `ticket` was all of the value.
    pub(crate) fn was_read_whole(&mut self, key: &str, ticket: Ticket, mono: Monotonic) {
        if let Some(cell) = self.cells.get_mut(key)
            && cell.base.ticket == ticket
        {
            cell.base.whole_at = Some(mono);
            cell.is_unchecked = false;
        }
    }

    /// Records that an answer was what has changed since. A near slot is read as a whole before
    /// long.
    pub(crate) fn was_read_in_part(&mut self, key: &Arc<str>) {
        if let Some(cell) = self.cells.get_mut(key)
            && cell.is_near()
            && !replace(&mut cell.is_unchecked, true)
        {
            let shard = self.map.shard_of(key);
            self.shards[shard].unchecked.push(Arc::clone(key));
        }
    }

    /// What is known of `key` is not to be used: the next read brings all of it.
    pub(crate) fn forget_known(&mut self, key: &str) {
        if let Some(cell) = self.cells.get_mut(key) {
            cell.base.whole_at = None;
        }
    }

    /// Puts the near slots of a shard in line that were followed by their changes for long enough.
    pub(crate) fn queue_unchecked(&mut self, shard: Shard, mono: Monotonic) {
        for key in take(&mut self.shards[shard].unchecked) {
            let is_known = self.known(&key, mono).is_some();
            let reads = &mut self.shards[shard];
            let Some(cell) = self.cells.get_mut(&key) else {
                continue;
            };
            if !cell.is_unchecked {
                continue;
            }
            if is_known {
                reads.unchecked.push(key);
                continue;
            }
            cell.is_unchecked = false;
            if cell.is_near() && reads.tracking.is_on() && cell.freshness.queued() {
                reads.rereads.push_back(key);
            }
        }
    }
}
