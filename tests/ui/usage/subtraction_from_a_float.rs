use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    ratio: f64,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.sub_ratio(0.5)?;
    Ok(())
}
