use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    #[serde(skip)]
    one: u8,
    #[serde(skip)]
    #[synced(skip)]
    fine: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    fine_too: Option<u8>,
}

fn main() {}
