use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(Skip)]
    counter: i64,
}

fn main() {}
