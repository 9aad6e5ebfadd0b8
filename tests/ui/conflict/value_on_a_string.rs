use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(value)]
    text: String,
}

fn main() {}
