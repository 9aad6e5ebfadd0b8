use synced_memory::SyncedMemory;

// Serialize is there, SyncedMemory is not.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Plain {
    name: String,
}

// SyncedMemory is there, Serialize is not.
#[derive(SyncedMemory)]
struct Unserialized {
    name: String,
}

// One error for each, none for what uses them.
#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    plain: Plain,
    #[synced(nested)]
    unserialized: Unserialized,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.unserialized().set_name("Ada".to_owned())?;
    state.set_plain(Plain { name: String::new() })?;
    state.restore(state.snapshot()?)?;
    Ok(())
}
