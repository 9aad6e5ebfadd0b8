use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(ttl = "0s")]
    counter: i64,
}

fn main() {}
