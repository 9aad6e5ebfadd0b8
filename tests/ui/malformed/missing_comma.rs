use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(rename = "a" alias = "b")]
    counter: i64,
}

fn main() {}
