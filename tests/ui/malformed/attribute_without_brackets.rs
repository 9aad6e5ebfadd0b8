use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced]
struct State {
    #[synced = "default"]
    counter: i64,
}

fn main() {}
