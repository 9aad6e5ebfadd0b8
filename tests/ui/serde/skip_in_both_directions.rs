use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    #[serde(skip_serializing, skip_deserializing)]
    three: u8,
}

fn main() {}
