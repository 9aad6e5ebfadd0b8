use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    #[serde(flatten)]
    extra: std::collections::HashMap<String, u8>,
}

fn main() {}
