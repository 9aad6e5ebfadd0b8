use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    theme: String,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.add_theme("x".to_owned())?;
    Ok(())
}
