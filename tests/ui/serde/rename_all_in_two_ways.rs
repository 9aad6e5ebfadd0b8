use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(rename_all(serialize = "camelCase", deserialize = "kebab-case"))]
struct State {
    one_number: u64,
}

fn main() {}
