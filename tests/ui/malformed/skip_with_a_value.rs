use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(skip = true)]
    counter: i64,
}

fn main() {}
