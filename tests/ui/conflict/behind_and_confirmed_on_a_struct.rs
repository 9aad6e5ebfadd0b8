use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(behind, confirmed)]
struct State {
    list: Vec<u8>,
}

fn main() {}
