use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    memory: u8,
}

fn main() {}
