use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(alias("old"))]
    counter: i64,
}

fn main() {}
