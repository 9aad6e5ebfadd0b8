use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix)]
struct State {
    counter: i64,
}

fn main() {}
