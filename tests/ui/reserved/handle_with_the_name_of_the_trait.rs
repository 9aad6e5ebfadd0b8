use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(handle = SyncedMemory)]
struct State {
    counter: i64,
}

fn main() {}
