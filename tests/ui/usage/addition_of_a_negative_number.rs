use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    age: u8,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.add_age(-1)?;
    Ok(())
}
