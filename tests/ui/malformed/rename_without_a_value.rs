use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(rename)]
    counter: i64,
}

fn main() {}
