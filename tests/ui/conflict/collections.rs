use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(value, collection)]
    both: Vec<u8>,
    #[synced(collection)]
    perhaps: Option<Vec<u8>>,
    #[synced(collection)]
    number: u8,
}

fn main() {}
