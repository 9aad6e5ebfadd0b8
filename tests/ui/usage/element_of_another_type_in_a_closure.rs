use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    history: Vec<u64>,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.update_history(|history| history.push("x"))?;
    Ok(())
}
