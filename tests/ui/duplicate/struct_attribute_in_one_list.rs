use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix = "a:", prefix = "b:")]
struct State {
    counter: i64,
}

fn main() {}
