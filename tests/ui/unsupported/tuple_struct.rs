use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct Pair(u8, u8);

fn main() {}
