use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct Memory {
    counter: i64,
}

#[derive(SyncedMemory)]
#[synced(handle = State)]
struct State {
    counter: i64,
}

#[derive(SyncedMemory)]
#[synced(handle = SyncedMemory)]
struct Other {
    counter: i64,
}

fn main() -> synced_memory::Result<()> {
    State::open("memory:")?.counter()?;
    Ok(())
}
