use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    clone: u8,
}

fn main() {}
