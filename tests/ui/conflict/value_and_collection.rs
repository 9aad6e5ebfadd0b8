use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(value, collection)]
    both: Vec<u8>,
}

fn main() {}
