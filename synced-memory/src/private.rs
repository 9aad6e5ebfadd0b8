//! What generated code may name. Not part of the interface: it may change in any release.

pub use crate::error::{Error, Result};
pub use crate::key::{Key, Spec};
pub use crate::memory::Memory;
pub use crate::outbox::Written;
pub use crate::schema::{Handle, SyncedMemory};
pub use crate::synced::{AnyView as View, Synced};
pub use std;

use crate::state::Request;
use std::sync::{Arc, OnceLock};

pub use crate::schema::Value;

/// The view of a field, made at its first use.
pub struct Field<T>(OnceLock<Synced<T>>);

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Field<T> {
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Value> Field<T> {
    pub fn view(&self, memory: &Memory, key: &Key<T>) -> &Synced<T> {
        self.0.get_or_init(|| memory.synced(key))
    }
}

/// The memory of a handle: under the struct's own prefix and scope.
pub fn attach(memory: &Memory, prefix: Option<&'static str>, scope: Option<&'static str>) -> Memory {
    let memory = prefix.map_or_else(|| memory.clone(), |prefix| memory.under_prefix(prefix));
    scope.map_or_else(|| memory.clone(), |scope| memory.scope(scope))
}

/// Asks the backend for all of these in one round trip.
pub fn load(memory: &Memory, views: &[&dyn View]) -> Result<()> {
    let keys: Vec<_> = views.iter().map(|view| view.keys()).collect::<Result<Vec<_>>>()?.concat();
    memory.core().load(&keys)
}

/// The value that [`load`] brought, or its default.
pub fn loaded<T: Value>(view: &Synced<T>) -> Result<T> {
    view.shown_or_default().map(Arc::unwrap_or_clone)
}

/// A whole struct on its way to the backend: all values are encoded before the first is queued.
pub struct Restore {
    memory: Memory,
    writes: Vec<(Arc<str>, Request)>,
}

impl Restore {
    pub fn new(memory: &Memory) -> Self {
        Self { memory: memory.clone(), writes: Vec::new() }
    }

    #[allow(clippy::needless_pass_by_value)] // the struct is taken apart
    pub fn set<T: Value>(&mut self, view: &Synced<T>, value: T) -> Result<()> {
        self.writes.push(view.assignment(&value)?);
        Ok(())
    }

    pub fn commit(self) -> Result<Written> {
        let answers = self.memory.core().write_all(self.writes)?;
        let mut weakest = Written::Stored;
        for answer in answers {
            weakest = weakest.min(answer?.written);
        }
        Ok(weakest)
    }
}
