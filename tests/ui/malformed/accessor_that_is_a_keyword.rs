use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(accessor = "self")]
    counter: i64,
}

fn main() {}
