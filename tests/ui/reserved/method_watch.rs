use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    watch: u8,
}

fn main() {}
