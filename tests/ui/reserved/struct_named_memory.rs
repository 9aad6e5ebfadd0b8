use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct Memory {
    counter: i64,
}

fn main() {}
