use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(value)]
    tags: Vec<String>,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.tags().push("x".to_owned())?;
    Ok(())
}
