//! Typed state that many processes share through Redis, and that keeps working when Redis does not.
#![doc = ""]
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

pub use crate::base::error::{Error, ErrorKind, Result};
pub use crate::base::policy::{ConnectPolicy, ReadPolicy, WritePolicy};
pub use crate::handle::config::Builder;
pub use crate::handle::dead_letter::DeadLetter;
pub use crate::handle::key::Key;
pub use crate::handle::memory::{Memory, Status};
pub use crate::handle::schema::{Handle, SyncedMemory};
pub use crate::handle::synced::{Integer, Number, Synced, ValueIndex};
pub use crate::handle::value::Value;
pub use crate::handle::watch::{Watch, WatchIter};
pub use crate::pending::journal::Durability;
pub use crate::pending::outbox::Written;
pub use synced_memory_derive::SyncedMemory;
