use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    restore: u8,
}

fn main() {}
