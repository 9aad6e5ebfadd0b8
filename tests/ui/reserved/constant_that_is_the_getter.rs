use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[allow(non_snake_case)]
struct State {
    X: u8,
}

fn main() {}
