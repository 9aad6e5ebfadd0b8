use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(into)]
    title: String,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.set_title(5)?;
    Ok(())
}
