use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(ttl =)]
    counter: i64,
}

fn main() {}
