#![allow(unreachable_patterns)]

use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    #[serde(rename = "b")]
    a: u8,
    b: u8,
    #[serde(alias = "b", alias = "c")]
    c: u8,
}

fn main() {}
