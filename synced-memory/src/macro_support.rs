//! What generated code may name. Not part of the interface: it may change in any release.

pub use crate::base::error::{Error, Result};
pub use crate::handle::follow::FollowNothing;
pub use crate::handle::key::{Key, Spec};
pub use crate::handle::memory::Memory;
pub use crate::handle::path::ValuePath;
pub use crate::handle::schema::{Handle, NestedHandle, SyncedMemory};
pub use crate::handle::synced::{AnyView as View, Synced};
pub use crate::handle::value::Value;
pub use crate::handle::watch::Watch;
pub use crate::pending::outbox::Written;
pub use crate::value::shape::Member;
pub use std;

use std::sync::{Arc, OnceLock};

use crate::base::policy::WritePolicy;
use crate::base::waiting::block_on;
use crate::client::state::{self, Request};
use crate::handle::synced;

/// What the fields of a handle are: each a key of its own, or all of them members inside one key.
#[derive(Debug, Clone)]
pub enum HandleRoot {
    Root(Memory),
    Inside(ValuePath),
}

impl HandleRoot {
    /// Under the struct's own prefix and scope.
    pub fn root(
        memory: &Memory,
        prefix: Option<&'static str>,
        scope: Option<&'static str>,
    ) -> Self {
        let memory = prefix.map_or_else(|| memory.clone(), |prefix| memory.under_prefix(prefix));
        Self::Root(scope.map_or_else(|| memory.clone(), |scope| memory.scope(scope)))
    }

    pub fn inside(path: &ValuePath) -> Self {
        Self::Inside(path.clone())
    }

    pub fn memory(&self) -> &Memory {
        match self {
            Self::Root(memory) => memory,
            Self::Inside(path) => path.memory(),
        }
    }
}

/// What generated code does with a field, as calls on the field's own type: if that is not a
/// [`Value`], rustc finds the same mistake at each call, and reports it once.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared: a field needs \
               `Serialize + DeserializeOwned + Clone + Send + Sync + 'static`",
    label = "not a value that can be shared",
    note = "derive `serde::Serialize`, `serde::Deserialize` and `Clone` for it, or leave the field \
            out with `#[synced(skip)]`"
)]
pub trait FieldType: Sized {
    fn field() -> LazyView<Self>;
    /// The view of a field, under `key`, or inside another key as the member `inside`.
    fn view<'a>(
        field: &'a LazyView<Self>,
        root: &HandleRoot,
        key: &Key<Self>,
        inside: &Key<Self>,
    ) -> &'a Synced<Self>;
    fn get(view: &Synced<Self>) -> Result<Self>;
    fn set(view: &Synced<Self>, value: Self) -> Result<Written>;
    fn update<R>(view: &Synced<Self>, change: impl FnMut(&mut Self) -> R) -> Result<R>;
    fn part(view: &Synced<Self>) -> ValuePath;
    fn as_view(view: &Synced<Self>) -> &dyn View;
    /// The value that [`load`] brought, or its default.
    fn loaded(loaded: &Loaded, view: &Synced<Self>) -> Result<Self>;
    fn restore(restore: &mut Restore, view: &Synced<Self>, value: Self) -> Result<()>;
}

#[diagnostic::do_not_recommend]
impl<T: Value> FieldType for T {
    fn field() -> LazyView<Self> {
        LazyView(OnceLock::new())
    }

    fn view<'a>(
        field: &'a LazyView<Self>,
        root: &HandleRoot,
        key: &Key<Self>,
        inside: &Key<Self>,
    ) -> &'a Synced<Self> {
        field.0.get_or_init(|| match root {
            HandleRoot::Root(memory) => memory.synced(key),
            HandleRoot::Inside(path) => path.member(inside),
        })
    }

    fn get(view: &Synced<Self>) -> Result<Self> {
        view.get()
    }

    fn set(view: &Synced<Self>, value: Self) -> Result<Written> {
        view.set(value)
    }

    fn update<R>(view: &Synced<Self>, change: impl FnMut(&mut Self) -> R) -> Result<R> {
        view.update(change)
    }

    fn part(view: &Synced<Self>) -> ValuePath {
        view.path().clone()
    }

    fn as_view(view: &Synced<Self>) -> &dyn View {
        view
    }

    fn loaded(loaded: &Loaded, view: &Synced<Self>) -> Result<Self> {
        match &loaded.0 {
            Some(stored) => view.value_in(stored),
            None => view.cached_or_default(),
        }
        .map(Arc::unwrap_or_clone)
    }

    fn restore(restore: &mut Restore, view: &Synced<Self>, value: Self) -> Result<()> {
        let (key, request) = view.request(&value)?;
        restore.policy = match (view.path().write_policy(), restore.policy) {
            (WritePolicy::Confirmed, _) | (_, WritePolicy::Confirmed) => WritePolicy::Confirmed,
            (WritePolicy::Through, _) | (_, WritePolicy::Through) => WritePolicy::Through,
            (WritePolicy::Behind, WritePolicy::Behind) => WritePolicy::Behind,
        };
        match (restore.writes.last_mut(), request) {
            // Inside a key all fields are one change.
            (
                Some((last, Request::Mutate { mutation, .. })),
                Request::Mutate { mutation: more, .. },
            ) if *last == key => {
                mutation.join(more);
            }
            (_, request) => restore.writes.push((key, request)),
        }
        Ok(())
    }
}

/// A field that can be added to.
#[diagnostic::on_unimplemented(message = "`{Self}` is no number that can be added to")]
pub trait AddableField: FieldType {
    fn add(view: &Synced<Self>, amount: Self) -> Result<Written>;
}

#[diagnostic::do_not_recommend]
impl<T: synced::Number> AddableField for T {
    fn add(view: &Synced<Self>, amount: Self) -> Result<Written> {
        view.add(amount)
    }
}

/// A field that can be subtracted from.
#[diagnostic::on_unimplemented(message = "`{Self}` is no integer")]
pub trait IntegerField: AddableField {
    fn sub(view: &Synced<Self>, amount: Self) -> Result<Written>;
}

#[diagnostic::do_not_recommend]
impl<T: synced::Integer> IntegerField for T {
    fn sub(view: &Synced<Self>, amount: Self) -> Result<Written> {
        view.sub(amount)
    }
}

/// The view of a field, made at its first use.
pub struct LazyView<T>(OnceLock<Synced<T>>);

/// What [`load`] asked for: it is in the slots; or, for a confirmed handle, what the backend has
/// under its key, without queued writes on top.
#[derive(Debug)]
pub struct Loaded(Option<state::KeyView>);

/// Asks the backend for all views in one round trip.
pub fn load(root: &HandleRoot, views: &[&dyn View]) -> Result<Loaded> {
    if let HandleRoot::Inside(path) = root
        && path.is_confirmed()
    {
        return block_on(path.view_now()).map(|stored| Loaded(Some(stored)));
    }
    let mut keys = views
        .iter()
        .map(|view| view.keys())
        .collect::<Result<Vec<_>>>()?
        .concat();
    if let HandleRoot::Inside(_) = root {
        keys.sort_unstable();
        keys.dedup();
    }
    block_on(root.memory().core().load(&keys)).map(|_| Loaded(None))
}

/// Watches all views, which have these names.
pub fn watch(
    root: &HandleRoot,
    views: &[&dyn View],
    names: &'static [&'static str],
) -> Watch<Vec<&'static str>> {
    let paths: Vec<&ValuePath> = views.iter().map(|view| view.as_path()).collect();
    Watch::of_paths(root.memory(), &paths, names)
}

/// A whole struct on its way to the backend: all values are encoded before the first is queued.
pub struct Restore {
    memory: Memory,
    writes: Vec<(Arc<str>, Request)>,
    /// The strictest policy of the fields.
    policy: WritePolicy,
}

impl Restore {
    pub fn new(root: &HandleRoot) -> Self {
        Self {
            memory: root.memory().clone(),
            writes: Vec::new(),
            policy: WritePolicy::Behind,
        }
    }

    /// The weakest result of the fields.
    pub fn commit(self) -> Result<Written> {
        let answers = block_on(self.memory.core().write_together(self.writes, self.policy))?;
        Ok(answers
            .into_iter()
            .map(|answer| answer.written)
            .fold(Written::Stored, Written::min))
    }
}
