use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(collection)]
    array: [u8; 4],
}

fn main() {}
