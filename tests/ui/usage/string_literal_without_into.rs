use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    name: String,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.set_name("Ada")?;
    Ok(())
}
