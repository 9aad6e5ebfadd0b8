use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    // A collection has no `synced_history`.
    history: Vec<u8>,
    update_history: u8,
    synced_history: u8,
}

fn main() {}
