use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    counter: i64,
    name: String,
    #[synced(into)]
    title: String,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.set_counter("three")?;
    let _: u64 = state.counter()?;
    state.set_name("Ada")?;
    state.set_title(5)?;
    Ok(())
}
