use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(value)]
    perhaps: Option<Vec<u8>>,
}

fn main() {}
