use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix = "a{b")]
struct State {
    counter: i64,
}

fn main() {}
