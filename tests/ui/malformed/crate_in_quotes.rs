use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(crate = "synced_memory")]
struct State {
    counter: i64,
}

fn main() {}
