//! Typed state that many processes share through Redis, and that keeps working when Redis does not.
#![doc = ""]
#![doc = include_str!("../../README.md")]

extern crate self as synced_memory;

mod backend;
mod cache;
mod clock;
mod commit;
mod config;
mod core;
mod dead_letter;
mod envelope;
mod error;
mod fault;
mod flusher;
mod journal;
mod json;
mod key;
mod memory;
#[cfg(test)]
mod model;
mod mutation;
mod outbox;
mod part;
mod policy;
#[doc(hidden)]
#[allow(missing_docs, missing_debug_implementations)]
pub mod private;
mod rebase;
mod refresher;
mod schema;
mod shape;
mod shared;
mod slot;
mod source;
mod state;
mod synced;
mod turns;
mod updating;
mod value;
mod wait;
mod watch;

pub use crate::config::Builder;
pub use crate::dead_letter::DeadLetter;
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::journal::Durability;
pub use crate::key::Key;
pub use crate::memory::{Memory, Status};
pub use crate::outbox::Written;
pub use crate::policy::{ReadPolicy, WritePolicy};
pub use crate::schema::{Handle, SyncedMemory};
pub use crate::synced::{Integer, Number, Synced, ValueIndex};
pub use crate::value::Value;
pub use crate::watch::{Watch, WatchIter};
pub use synced_memory_derive::SyncedMemory;
