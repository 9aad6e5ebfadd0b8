use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(value)]
    number: u8,
    #[synced(value)]
    perhaps: Option<Vec<u8>>,
    #[synced(value)]
    text: String,
}

fn main() {}
