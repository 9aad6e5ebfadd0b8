use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(handle = "Live")]
struct State {
    counter: i64,
}

fn main() {}
