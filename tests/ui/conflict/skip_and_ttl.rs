use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(ttl = "1s", skip)]
    cached: u8,
}

fn main() {}
