use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

// serde says what is wrong, and the handle is there.
#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
#[serde(rename_all = "sarcastic")]
struct State {
    #[serde(rename = 5, defualt)]
    a: u8,
}

fn main() -> synced_memory::Result<()> {
    State::open("memory:")?.set_a(1)?;
    Ok(())
}
