use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct Unserialized {
    name: String,
}

// One error: code that uses the field causes none.
#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    unserialized: Unserialized,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.unserialized().set_name("Ada".to_owned())?;
    state.restore(state.snapshot()?)?;
    Ok(())
}
