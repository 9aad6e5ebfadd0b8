use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(renmae = "n")]
    counter: i64,
}

fn main() {}
