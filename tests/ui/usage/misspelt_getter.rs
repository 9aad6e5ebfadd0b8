use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    counter: i64,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.conter()?;
    Ok(())
}
