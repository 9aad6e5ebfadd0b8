use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    counter: i64,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.set_conter(1)?;
    Ok(())
}
