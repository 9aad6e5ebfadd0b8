//! What generated code may name. Not part of the interface: it may change in any release.

pub use crate::error::{Error, Result};
pub use crate::key::{Key, Spec};
pub use crate::memory::Memory;
pub use crate::outbox::Written;
pub use crate::schema::{Handle, SyncedMemory};
pub use crate::synced::{AnyView as View, Synced};
pub use crate::value::Value;
pub use std;

use crate::state::Request;
use std::sync::{Arc, OnceLock};

/// What generated code does with a field, as calls on the field's own type: where that is no
/// [`Value`], rustc sees the same mistake each time and reports it once.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared: a field needs `Serialize + DeserializeOwned + Clone + Send + Sync + 'static`",
    label = "not a value that can be shared",
    note = "derive `serde::Serialize`, `serde::Deserialize` and `Clone` for it, or leave the field out with `#[synced(skip)]`"
)]
pub trait FieldType: Sized {
    fn field() -> Field<Self>;
    fn view<'a>(field: &'a Field<Self>, memory: &Memory, key: &Key<Self>) -> &'a Synced<Self>;
    fn get(view: &Synced<Self>) -> Result<Self>;
    fn set(view: &Synced<Self>, value: Self) -> Result<Written>;
    fn as_view(view: &Synced<Self>) -> &dyn View;
    /// The value that [`load`] brought, or its default.
    fn loaded(view: &Synced<Self>) -> Result<Self>;
    fn restore(restore: &mut Restore, view: &Synced<Self>, value: Self) -> Result<()>;
}

#[diagnostic::do_not_recommend]
impl<T: Value> FieldType for T {
    fn field() -> Field<Self> {
        Field(OnceLock::new())
    }

    fn view<'a>(field: &'a Field<Self>, memory: &Memory, key: &Key<Self>) -> &'a Synced<Self> {
        field.0.get_or_init(|| memory.synced(key))
    }

    fn get(view: &Synced<Self>) -> Result<Self> {
        view.get()
    }

    fn set(view: &Synced<Self>, value: Self) -> Result<Written> {
        view.set(value)
    }

    fn as_view(view: &Synced<Self>) -> &dyn View {
        view
    }

    fn loaded(view: &Synced<Self>) -> Result<Self> {
        view.shown_or_default().map(Arc::unwrap_or_clone)
    }

    fn restore(restore: &mut Restore, view: &Synced<Self>, value: Self) -> Result<()> {
        restore.writes.push(view.assignment(&value)?);
        Ok(())
    }
}

/// The view of a field, made at its first use.
pub struct Field<T>(OnceLock<Synced<T>>);

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

/// A whole struct on its way to the backend: all values are encoded before the first is queued.
pub struct Restore {
    memory: Memory,
    writes: Vec<(Arc<str>, Request)>,
}

impl Restore {
    pub fn new(memory: &Memory) -> Self {
        Self { memory: memory.clone(), writes: Vec::new() }
    }

    /// The weakest of what became of the fields.
    pub fn commit(self) -> Result<Written> {
        let answers = self.memory.core().write_all(self.writes)?;
        answers.into_iter().try_fold(Written::Stored, |weakest, answer| Ok(weakest.min(answer?.written)))
    }
}
