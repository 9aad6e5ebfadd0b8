use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(collection)]
    boxed: Box<Vec<u8>>,
}

fn main() {}
