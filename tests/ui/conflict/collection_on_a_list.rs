use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(collection)]
    list: Vec<u8>,
}

fn main() {}
