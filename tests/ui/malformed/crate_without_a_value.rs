use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(crate)]
struct State {
    counter: i64,
}

fn main() {}
