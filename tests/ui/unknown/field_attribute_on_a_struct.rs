use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(ttl = "30m")]
struct State {
    counter: i64,
}

fn main() {}
