use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix = "synced-memory/app:")]
struct State {
    counter: i64,
}

fn main() {}
