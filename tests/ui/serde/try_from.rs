use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(try_from = "u8")]
struct State {
    number: u8,
}

impl TryFrom<u8> for State {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Ok(Self { number })
    }
}

fn main() {}
