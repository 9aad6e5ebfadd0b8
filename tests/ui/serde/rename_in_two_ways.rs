use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    #[serde(rename(serialize = "a", deserialize = "b"))]
    renamed: u64,
}

fn main() {}
