use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced = "default"]
    counter: i64,
}

fn main() {}
