use serde::{Deserialize, Serialize};
use synced_memory::SyncedMemory;

// serde reports the mistake, and the handle is generated.
#[derive(Clone, Serialize, Deserialize, SyncedMemory)]
struct State {
    #[serde(defualt)]
    a: u8,
}

fn main() -> synced_memory::Result<()> {
    State::open("memory:")?.set_a(1)?;
    Ok(())
}
