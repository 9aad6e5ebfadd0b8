use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(skip, rename = "n")]
    cached: u8,
}

fn main() {}
