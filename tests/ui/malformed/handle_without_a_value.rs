use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(handle)]
struct State {
    counter: i64,
}

fn main() {}
