use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(flatten)]
    counter: i64,
}

fn main() {}
