use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(ttl = "soon")]
    a: i64,
    #[synced(ttl = "30")]
    b: i64,
    #[synced(ttl = "0s")]
    c: i64,
    #[synced(ttl = "3000y")]
    d: i64,
}

fn main() {}
