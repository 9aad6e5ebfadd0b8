use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(collection)]
    tuple: (u8, u8),
}

fn main() {}
