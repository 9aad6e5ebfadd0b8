use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(scope = "a:{b}")]
struct State {
    counter: i64,
}

fn main() {}
