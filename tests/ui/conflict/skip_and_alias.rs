use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(skip, alias = "a")]
    cached: u8,
}

fn main() {}
