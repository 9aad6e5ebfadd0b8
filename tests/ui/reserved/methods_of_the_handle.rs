use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    memory: u8,
    snapshot: u8,
    restore: u8,
    watch: u8,
    clone: u8,
    fields: Vec<u8>,
    #[synced(accessor = "memory")]
    renamed: u8,
}

fn main() {}
