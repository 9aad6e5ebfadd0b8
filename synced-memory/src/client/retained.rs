//! The slots that scopes retain after their use, so that values are still known when the backend is
//! away: least recently used ones are dropped if all slots together take more than `cache_limit`
//! (rule 10).
//!
//! Its lock is not taken together with another one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::error::Result;
use crate::base::fork::try_lock_inherited;
use crate::base::hash::shrink_sparse;
use crate::base::lock::{LockGuard, lock};
use crate::client::shared::Shared;
use crate::client::slot::Slot;

/// If views hold more than the limit, how often it is looked whether they have gone.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

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
        let Some(scopes) = self.scopes() else {
            return make();
        };
        if let Some(slot) = used(scopes, scope, name) {
            return Ok(slot);
        }
        // Under no lock: to make a slot takes that of the state.
        let fresh = make()?;
        let Some(mut scopes) = self.scopes() else {
            return Ok(fresh);
        };
        scopes.lookups += 1;
        let retained = RetainedSlot {
            slot: Arc::clone(&fresh),
            used: scopes.lookups,
        };
        let slots = scopes.by_scope.entry(scope).or_default();
        let slot = Arc::clone(&slots.entry(name.into()).or_insert(retained).slot);
        drop(scopes);
        if self.shared.state().cache.is_too_large() {
            self.drop_excess();
        }
        Ok(slot)
    }

    /// Drops slots whenever they have grown beyond the limit.
    pub(crate) async fn keep_within_limit(&self) -> Infallible {
        loop {
            let is_within = self.drop_excess();
            let grew = self.shared.cache_grew.notified();
            if is_within {
                grew.await;
            } else {
                // Views hold the others: nobody says when they have gone.
                let _ = self.shared.clock.timeout(LOOK_AGAIN, grew).await;
            }
        }
    }

    /// Drops what is to be dropped so that the slots take no more than the limit. Returns whether
    /// that was possible.
    fn drop_excess(&self) -> bool {
        let limit = self.shared.settings.cache_limit;
        let bytes = {
            let mut state = self.shared.state();
            let bytes = state.cache.bytes();
            if bytes <= limit {
                state.cache.set_alarm(limit);
                return true;
            }
            bytes
        };
        let Some(scopes) = self.scopes() else {
            return true;
        };
        let unheld = scopes.slots().filter(|retained| !retained.is_held());
        let unheld: Vec<_> = unheld
            .map(|retained| (retained.used, Arc::clone(&retained.slot.key)))
            .collect();
        drop(scopes);

        let state = self.shared.state();
        let mut sizes: Vec<_> = unheld
            .iter()
            .map(|(used, key)| (*used, state.cache.size_of(key)))
            .collect();
        drop(state);
        sizes.sort_unstable();

        // More than is needed, so that the next look is not due at once.
        let mut too_many = bytes - (limit - limit / 8);
        let last = sizes.iter().find(|(_, size)| {
            too_many = too_many.saturating_sub(*size);
            too_many == 0
        });
        let last = last.or(sizes.last()).map_or(0, |(used, _)| *used);
        let removed = self.scopes().map(|mut scopes| {
            scopes.remove(|retained| retained.used <= last && !retained.is_held())
        });
        // Under no lock: to drop a slot takes that of the state.
        drop(removed);
        let mut state = self.shared.state();
        let left = state.cache.bytes();
        state.cache.set_alarm(limit.max(left + limit / 8));
        left <= limit
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

/// The retained slot of `name`, which is in use now.
fn used(
    mut scopes: LockGuard<'_, ScopesWithSlots>,
    scope: ScopeId,
    name: &str,
) -> Option<Arc<Slot>> {
    scopes.lookups += 1;
    let now = scopes.lookups;
    let retained = scopes.by_scope.get_mut(&scope)?.get_mut(name)?;
    retained.used = now;
    Some(Arc::clone(&retained.slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::{Error, ErrorKind};
    use crate::base::lock::assert_unlocked;
    use crate::base::settings::Settings;

    #[test]
    fn a_slot_is_made_under_no_lock() {
        let shared = Shared::new(Settings::default(), "test", None).unwrap();
        let retained = RetainedSlots::new(&Arc::new(shared));
        let made = retained.slot(retained.new_scope(), "k", || {
            assert_unlocked();
            Err(Error::new(ErrorKind::Closed, "on purpose"))
        });
        assert!(made.is_err());
    }
}
