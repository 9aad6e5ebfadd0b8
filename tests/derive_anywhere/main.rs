//! The derive in any crate: under every group of lints, denied and forbidden, with every keyword as
//! the name of a field, and with every name of the prelude taken by a type of the user's.

#![allow(
    clippy::duplicate_mod,
    reason = "`state.rs` is compiled under each group of lints"
)]

mod keywords;
mod lints;
mod primitives;

use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

/// What is nested. It is declared here, since serde's derive itself does not compile in all of the
/// crates.
#[derive(Clone, Default, Deserialize, Serialize, SyncedMemory)]
struct Part {
    #[serde(default)]
    value: u64,
}
