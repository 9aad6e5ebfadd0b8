use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(scop = "a")]
struct State {
    counter: i64,
}

fn main() {}
