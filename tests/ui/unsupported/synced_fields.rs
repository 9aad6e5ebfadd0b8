use synced_memory::SyncedMemory;

use synced_memory::Synced;

#[derive(SyncedMemory)]
struct State {
    history: Synced<Vec<String>>,
    counter: synced_memory::Synced<i64>,
}

fn main() {}
