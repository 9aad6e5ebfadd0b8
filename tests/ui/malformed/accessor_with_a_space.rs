use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(accessor = "no name")]
    counter: i64,
}

fn main() {}
