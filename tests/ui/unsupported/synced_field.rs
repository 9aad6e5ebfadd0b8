use synced_memory::{Synced, SyncedMemory};

#[derive(SyncedMemory)]
struct State {
    history: Synced<Vec<String>>,
}

fn main() {}
