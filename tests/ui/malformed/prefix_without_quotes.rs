use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix = app)]
struct State {
    counter: i64,
}

fn main() {}
