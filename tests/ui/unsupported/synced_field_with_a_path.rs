use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    counter: synced_memory::Synced<i64>,
}

fn main() {}
