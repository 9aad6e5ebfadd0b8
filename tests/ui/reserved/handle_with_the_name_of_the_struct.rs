use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(handle = State)]
struct State {
    counter: i64,
}

fn main() -> synced_memory::Result<()> {
    State::open("memory:")?.counter()?;
    Ok(())
}
