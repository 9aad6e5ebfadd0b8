use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(scope = "")]
struct State {
    counter: i64,
}

fn main() {}
