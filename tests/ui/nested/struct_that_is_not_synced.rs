use synced_memory::SyncedMemory;

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Plain {
    name: String,
}

// One error: code that uses the field causes none.
#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    plain: Plain,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.set_plain(Plain { name: String::new() })?;
    state.restore(state.snapshot()?)?;
    Ok(())
}
