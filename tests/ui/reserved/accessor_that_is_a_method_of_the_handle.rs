use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(accessor = "memory")]
    renamed: u8,
}

fn main() {}
