use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(transparent)]
struct State {
    #[synced(flatten)]
    counter: i64,
}

fn main() {}
