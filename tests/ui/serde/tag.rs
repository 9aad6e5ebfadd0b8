use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(tag = "type")]
struct State {
    number: u64,
}

fn main() {}
