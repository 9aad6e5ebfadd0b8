use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(transparent)]
struct State {
    inner: u8,
}

fn main() {}
