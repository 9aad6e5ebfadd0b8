#![allow(unreachable_patterns)]

use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    // An alias that is the own name is none.
    #[serde(alias = "b", alias = "c")]
    c: u8,
    b: u8,
}

fn main() {}
