//! What a struct is that derives `SyncedMemory`, and its live handle.

use crate::error::Result;
use crate::memory::Memory;
use std::fmt::Debug;

/// A struct whose fields are shared; derive it.
///
/// The struct stays a plain one: it is the schema, and the type of a snapshot. What is live is the
/// handle that [`attach`](SyncedMemory::attach) returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a synced struct",
    note = "write `#[derive(SyncedMemory)]` on it"
)]
pub trait SyncedMemory: Sized {
    /// The live handle, with a getter and a setter for each field.
    type Handle: Handle<Schema = Self> + Clone + Debug + Send + Sync + 'static;

    /// The wire names, in field order.
    const NAMES: &'static [&'static str];

    /// The handle of this struct on an open memory.
    fn attach(memory: &Memory) -> Self::Handle;

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
