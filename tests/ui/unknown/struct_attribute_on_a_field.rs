use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(prefix = "app:")]
    counter: i64,
}

fn main() {}
