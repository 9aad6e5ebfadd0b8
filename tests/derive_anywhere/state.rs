//! Structs whose derive is compiled under each group of lints.

use synced_memory::SyncedMemory;

use crate::Part;

/// A field of each kind.
#[derive(SyncedMemory)]
pub struct State {
    /// With an underscore, which the names of its methods do not double.
    pub _id: u32,
    /// A list with an underscore: its view is its getter.
    pub _log: Vec<u8>,
    /// A part with an underscore: its getter is a handle.
    #[synced(nested)]
    pub _inner: Part,
    /// One value.
    pub active: Option<bool>,
    /// A list.
    pub items: Vec<String>,
    /// Not shared.
    #[synced(skip)]
    pub local: u8,
    /// A keyword.
    pub r#match: u8,
    /// A part.
    #[synced(nested, default)]
    pub part: Part,
    /// A number that is no integer.
    #[synced(default = 0.5, ttl = "1h", alias = "older")]
    pub ratio: f64,
    /// A text.
    #[synced(into)]
    pub text: String,
}

/// A struct of nothing.
#[derive(SyncedMemory)]
pub struct Nothing {}

/// A struct with a parameter.
#[derive(SyncedMemory)]
pub struct Of<T> {
    /// Of that type.
    pub one: T,
    /// Many of that type.
    pub many: Vec<T>,
}
