//! Typed state that many processes share through Redis, and that keeps working when Redis does not.
//!
//! [attributes.md]: derive@SyncedMemory
//! [capacity.md]: Memory
//! [collections.md]: Synced
//! [credentials.md]: Credentials
//! [near.md]: ReadPolicy
//! [servers.md]: Builder
//! [sqlite.md]: Memory
//! [watching.md]: Watch
//! [MIT]: https://opensource.org/license/mit
//! [Apache-2.0]: https://www.apache.org/licenses/LICENSE-2.0
#![doc = ""]
// The README names these pages too, as files of the repository: of two definitions the first holds.
#![doc = include_str!("../../README.md")]

extern crate self as synced_memory;

mod backend;
mod base;
mod cache;
mod client;
mod handle;
#[doc(hidden)]
#[allow(missing_docs, missing_debug_implementations)]
pub mod macro_support;
#[cfg(test)]
mod model;
mod pending;
mod value;

#[cfg(feature = "redis")]
pub use crate::base::credentials::{BoxError, Credentials};
pub use crate::base::error::{Error, ErrorKind, Result};
pub use crate::base::policy::{ConnectPolicy, ReadPolicy, WritePolicy};
pub use crate::cache::Tracking;
pub use crate::client::state::ContendedKey;
pub use crate::handle::config::Builder;
pub use crate::handle::dead_letter::DeadLetter;
pub use crate::handle::key::Key;
pub use crate::handle::memory::Memory;
pub use crate::handle::schema::{Handle, SyncedMemory};
pub use crate::handle::status::{NodeStatus, Status};
pub use crate::handle::synced::{Integer, Number, Synced, ValueIndex};
pub use crate::handle::value::Value;
pub use crate::handle::watch::{Watch, WatchIter};
pub use crate::pending::journal::Durability;
pub use crate::pending::outbox::Written;
/// The version of `rustls` of [`Builder::tls_config`]. The feature `tls`.
#[cfg(feature = "tls")]
pub use rustls;
pub use synced_memory_derive::SyncedMemory;
