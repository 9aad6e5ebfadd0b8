use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(collection)]
    perhaps: Option<Vec<u8>>,
}

fn main() {}
