use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(alias = "count")]
    counter: i64,
    #[synced(alias = "count")]
    total: i64,
}

fn main() {}
