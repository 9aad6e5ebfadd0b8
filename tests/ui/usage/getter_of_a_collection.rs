use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    history: Vec<u64>,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    let _: Vec<u64> = state.history()?;
    Ok(())
}
