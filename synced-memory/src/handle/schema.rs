//! `SyncedMemory`, which structs derive, and their live handles.

use std::any::Any;
use std::fmt::Debug;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::OnceLock;

use crate::base::error::Result;
use crate::handle::memory::Memory;
use crate::handle::path::ValuePath;
use crate::value::shape::Member;

/// A struct whose fields are shared; derive it.
///
/// The struct itself stays a plain one: it is the schema, and the type of a snapshot. The shared
/// state is read and written through the handle that [`attach`](SyncedMemory::attach) returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a synced struct",
    label = "does not derive `SyncedMemory`",
    note = "write `#[derive(SyncedMemory)]` on it"
)]
pub trait SyncedMemory: Sized {
    /// The live handle, with a getter and a setter for each field.
    type Handle: Handle<Schema = Self> + Clone + Debug + Send + Sync + 'static;

    /// The wire names, in field order.
    const NAMES: &'static [&'static str];

    /// The handle of this struct on an open memory.
    fn attach(memory: &Memory) -> Self::Handle;

    /// The handle of this struct as a part of a value.
    #[doc(hidden)]
    fn inside(path: &ValuePath) -> Self::Handle;

    /// The members of this struct, as serde writes them inside a value.
    #[doc(hidden)]
    fn members() -> &'static [Member];

    /// The handle of a nested field, made at its first use.
    #[doc(hidden)]
    fn nested(nested: &NestedHandle, path: impl FnOnce() -> ValuePath) -> &Self::Handle {
        nested.handle(|| Self::inside(&path()))
    }

    /// Opens a URL; see [`Memory::open`].
    ///
    /// # Errors
    ///
    /// As [`Memory::open`].
    fn open(url: &str) -> Result<Self::Handle> {
        Memory::open(url).map(|memory| Self::attach(&memory))
    }

    /// Opens what the environment names; see [`Memory::from_env`].
    ///
    /// # Errors
    ///
    /// As [`Memory::from_env`].
    fn from_env() -> Result<Self::Handle> {
        Memory::from_env().map(|memory| Self::attach(&memory))
    }
}

/// The live handle of a struct that derives [`SyncedMemory`].
pub trait Handle {
    /// The struct.
    type Schema: SyncedMemory;
}

/// The handle of a nested field, made at its first use. It does not name the field's type, so that
/// a type that does not derive `SyncedMemory` is one compile error and not two.
#[doc(hidden)]
#[derive(Debug)]
pub struct NestedHandle(OnceLock<Box<dyn Any + Send + Sync>>);

// It is a handle, whose views are, and it is made whole or not at all.
impl UnwindSafe for NestedHandle {}
impl RefUnwindSafe for NestedHandle {}

impl NestedHandle {
    #[allow(clippy::new_without_default)] // only generated code makes one
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The handle; `make` gives the same type at each call.
    #[allow(clippy::missing_panics_doc, reason = "only generated code calls it")]
    pub fn handle<H: Send + Sync + 'static>(&self, make: impl FnOnce() -> H) -> &H {
        let handle = self.0.get_or_init(|| Box::new(make()));
        handle.downcast_ref().expect("a field has one type")
    }
}
