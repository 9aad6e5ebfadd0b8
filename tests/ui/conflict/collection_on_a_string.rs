use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(collection)]
    text: String,
}

fn main() {}
