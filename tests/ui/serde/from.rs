use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(from = "u8")]
struct State {
    number: u8,
}

impl From<u8> for State {
    fn from(number: u8) -> Self {
        Self { number }
    }
}

fn main() {}
