use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(ttl = "soon")]
    counter: i64,
}

fn main() {}
