use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    snapshot: u8,
}

fn main() {}
