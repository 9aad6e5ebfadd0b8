use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(transparent)]
struct State {
    counter: i64,
}

fn main() {}
