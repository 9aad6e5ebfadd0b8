use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(accessor)]
    counter: i64,
}

fn main() {}
