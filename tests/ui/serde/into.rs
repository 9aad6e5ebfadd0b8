use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(into = "u8")]
struct State {
    number: u8,
}

impl From<State> for u8 {
    fn from(state: State) -> Self {
        state.number
    }
}

fn main() {}
