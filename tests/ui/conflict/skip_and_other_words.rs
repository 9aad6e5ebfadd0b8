use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(skip, rename = "n", ttl = "1s", alias = "a")]
    cached: u8,
}

fn main() {}
