use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    fields: u8,
}

fn main() {}
