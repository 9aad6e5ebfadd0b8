use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    #[serde(rename = "b")]
    a: u8,
    b: u8,
}

fn main() {}
