use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    counter: i64,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    let _: u64 = state.counter()?;
    Ok(())
}
