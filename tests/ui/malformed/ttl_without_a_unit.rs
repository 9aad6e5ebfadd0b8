use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(ttl = "30")]
    counter: i64,
}

fn main() {}
