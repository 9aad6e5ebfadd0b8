use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(rename = 5)]
    counter: i64,
}

fn main() {}
