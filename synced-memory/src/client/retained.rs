//! The slots that scopes retain after their use, so that values are still known when the backend is
//! away: least recently used ones are dropped if all slots together take more than `cache_limit`
//! (rule 10).
//!
//! Its lock is taken before those of `shared.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::base::error::Result;
use crate::base::fork::try_lock_inherited;
use crate::base::lock::{LockGuard, lock};
use crate::cache::shrink_sparse;
use crate::client::shared::Shared;
use crate::client::slot::Slot;

/// The slots of one memory that its scopes retain.
#[derive(Debug)]
pub(crate) struct RetainedSlots {
    shared: Arc<Shared>,
    scopes: Mutex<ScopesWithSlots>,
}

#[derive(Debug, Default)]
struct ScopesWithSlots {
    by_scope: HashMap<ScopeId, HashMap<Box<str>, RetainedSlot>>,
    last_scope: u64,
    /// How many lookups there were: the time of a use.
    lookups: u64,
    /// The slots are not looked through again before they take so many bytes. If most of them are
    /// held by views, each look would go through all of them in vain.
    look_at: usize,
}

impl ScopesWithSlots {
    fn slots(&self) -> impl Iterator<Item = &RetainedSlot> {
        self.by_scope.values().flat_map(HashMap::values)
    }

    fn remove(&mut self, is_removed: impl Fn(&RetainedSlot) -> bool) -> Vec<RetainedSlot> {
        let mut removed = Vec::new();
        for slots in self.by_scope.values_mut() {
            let here = slots.extract_if(|_, retained| is_removed(retained));
            removed.extend(here.map(|(_, retained)| retained));
            shrink_sparse(slots);
        }
        removed
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ScopeId(u64);

#[derive(Debug)]
struct RetainedSlot {
    slot: Arc<Slot>,
    /// The lookup that used it last.
    used: u64,
}

impl RetainedSlot {
    /// Whether a view or a call holds the slot as well.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.slot) > 1
    }
}

impl RetainedSlots {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            scopes: Mutex::default(),
        }
    }

    /// The name of a scope whose slots are retained until they are [dropped](Self::drop_scope).
    pub(crate) fn new_scope(&self) -> ScopeId {
        let Some(mut scopes) = self.scopes() else {
            // In the child of a fork nothing is retained.
            return ScopeId(0);
        };
        scopes.last_scope += 1;
        ScopeId(scopes.last_scope)
    }

    pub(crate) fn drop_scope(&self, scope: ScopeId) {
        let dropped = self.scopes().and_then(|mut scopes| {
            let dropped = scopes.by_scope.remove(&scope);
            shrink_sparse(&mut scopes.by_scope);
            dropped
        });
        // Under no lock: to drop a slot takes that of the state.
        drop(dropped);
    }

    /// The slot of `name` in a scope: the retained one, or the one that `make` makes.
    pub(crate) fn slot(
        &self,
        scope: ScopeId,
        name: &str,
        make: impl FnOnce() -> Result<Arc<Slot>>,
    ) -> Result<Arc<Slot>> {
        let Some(mut scopes) = self.scopes() else {
            return make();
        };
        scopes.lookups += 1;
        let used = scopes.lookups;
        let slots = scopes.by_scope.entry(scope).or_default();
        if let Some(retained) = slots.get_mut(name) {
            retained.used = used;
            return Ok(Arc::clone(&retained.slot));
        }

        let slot = make()?;
        let retained = RetainedSlot {
            slot: Arc::clone(&slot),
            used,
        };
        slots.insert(name.into(), retained);
        let dropped = self.over_limit(&mut scopes);
        drop(scopes);
        // Under no lock: to drop a slot takes that of the state.
        drop(dropped);
        Ok(slot)
    }

    /// Drops slots whenever the refresher has made others grow. Never ready.
    pub(crate) async fn keep_within_limit(&self) {
        loop {
            self.shared.cache_grew.notified().await;
            let dropped = self.scopes().map(|mut scopes| self.over_limit(&mut scopes));
            drop(dropped);
        }
    }

    /// Removes what is to be dropped so that the slots take no more than the limit.
    fn over_limit(&self, scopes: &mut ScopesWithSlots) -> Vec<RetainedSlot> {
        let limit = self.shared.settings.cache_limit;
        let bytes = self.shared.state().cache.bytes();
        if bytes <= limit.max(scopes.look_at) {
            return Vec::new();
        }

        let state = self.shared.state();
        let unheld = scopes.slots().filter(|retained| !retained.is_held());
        let mut unheld: Vec<(u64, usize)> = unheld
            .map(|retained| (retained.used, state.cache.size_of(&retained.slot.key)))
            .collect();
        drop(state);
        unheld.sort_unstable();

        // More than is needed, so that the next look is not due at once.
        let mut too_many = bytes - (limit - limit / 8);
        let last = unheld.iter().find(|(_, size)| {
            too_many = too_many.saturating_sub(*size);
            too_many == 0
        });
        let last = last.or(unheld.last()).map_or(0, |(used, _)| *used);
        scopes.look_at = limit + too_many;
        scopes.remove(|retained| retained.used <= last && !retained.is_held())
    }

    /// `None` in the child of a fork if its parent was using them.
    fn scopes(&self) -> Option<LockGuard<'_, ScopesWithSlots>> {
        if self.shared.is_inherited() {
            try_lock_inherited(&self.scopes)
        } else {
            Some(lock(&self.scopes))
        }
    }
}
