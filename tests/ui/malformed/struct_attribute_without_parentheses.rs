use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced]
struct State {
    counter: i64,
}

fn main() {}
