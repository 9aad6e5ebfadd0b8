use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(ttl = "1s")]
    #[synced(ttl = "2s")]
    name: String,
}

fn main() {}
