#![allow(unreachable_patterns)]

use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    // serde ignores an alias that is the name of the member itself.
    #[serde(alias = "b", alias = "c")]
    c: u8,
    b: u8,
}

fn main() {}
