//! The local cell of one key, held by a handle.

use std::any::TypeId;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::waiting::Signal;
use crate::cache::Version;
use crate::client::shared::Shared;

/// The local cell of one key, held by a scope and by the views of the key, or by a watch.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: Arc<str>,
    pub(crate) version: Version,
    is_near: AtomicBool,
    /// The types of which a value was read back: a bit for each, by its hash.
    read_back: AtomicU64,
    watch: Option<Arc<Signal>>,
    shared: Arc<Shared>,
}

impl Slot {
    pub(crate) fn hold(shared: &Arc<Shared>, key: impl Into<Arc<str>>) -> Self {
        let key = key.into();
        shared.is_inherited();
        let version = shared.state().cache.hold(&key);
        Self {
            key,
            version,
            is_near: AtomicBool::new(false),
            read_back: AtomicU64::new(0),
            watch: None,
            shared: Arc::clone(shared),
        }
    }

    /// A hold of its own for a watch, which is woken whenever the visible value has changed.
    pub(crate) fn watched(mut self, watch: &Arc<Signal>) -> Self {
        if !self.shared.is_inherited() {
            self.shared.state().cache.watch(&self.key, watch);
            self.shared.wake_refresher();
        }
        self.watch = Some(Arc::clone(watch));
        self
    }

    /// Whether a value of this type was read back that was written by way of this slot. Two types
    /// with one hash count as one.
    pub(crate) fn was_read_back(&self, written: TypeId) -> bool {
        self.read_back.load(Ordering::Relaxed) & bit_of(written) != 0
    }

    pub(crate) fn note_read_back(&self, written: TypeId) {
        self.read_back.fetch_or(bit_of(written), Ordering::Relaxed);
    }

    /// Keeps the slot current from its next read on.
    pub(crate) fn keep_near(&self) {
        if !self.is_near.swap(true, Ordering::Relaxed) && !self.shared.is_inherited() {
            self.shared.want_tracking();
            self.shared.state().cache.keep_near(&self.key);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.shared.is_inherited() {
            return;
        }
        let was_near = *self.is_near.get_mut();
        // Before the lock, so that it is not dropped under it.
        let connection = was_near.then(|| self.shared.connection_of(&self.key));
        let connection = connection.flatten();
        let mut state = self.shared.state();
        if let Some(watch) = &self.watch {
            state.cache.unwatch(&self.key, watch);
        }
        if was_near {
            state.cache.stop_near(&self.key);
        }
        // Under the lock: whoever makes the slot near again reads it after that.
        if let Some(connection) = &connection
            && !state.cache.is_near(&self.key)
        {
            connection.session.untrack(&self.key);
        }
        state.release(&self.key);
        let shard = state.map.shard_of(&self.key);
        let is_any_unused = state.is_any_unused(shard);
        drop(state);
        if is_any_unused {
            self.shared.wake([shard]);
        }
    }
}

fn bit_of(written: TypeId) -> u64 {
    let mut hasher = DefaultHasher::new();
    written.hash(&mut hasher);
    1 << (hasher.finish() % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::Settings;

    #[test]
    fn a_watch_leaves_nothing_in_a_slot_that_others_hold() {
        let shared = Arc::new(Shared::new(Settings::default(), "nowhere", None).unwrap());
        let (held, watch) = (Slot::hold(&shared, "k"), Arc::<Signal>::default());
        for _ in 0..3 {
            let slot = Slot::hold(&shared, "k");
            slot.keep_near();
            let slot = slot.watched(&watch);
            assert_eq!(
                (shared.state().cache.stale(), Arc::strong_count(&watch)),
                (1, 3)
            );
            drop(slot);
            assert_eq!(
                (shared.state().cache.stale(), Arc::strong_count(&watch)),
                (0, 1)
            );
        }
        let version = held.version.load(Ordering::Relaxed);
        shared.state().cache.touch("k");
        assert!(
            held.version.load(Ordering::Relaxed) > version,
            "the slot is still there"
        );
    }
}
