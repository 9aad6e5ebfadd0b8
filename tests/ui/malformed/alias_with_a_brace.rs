use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(alias = "{c}")]
    counter: i64,
}

fn main() {}
