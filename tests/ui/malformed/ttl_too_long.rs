use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(ttl = "3000y")]
    counter: i64,
}

fn main() {}
