use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct Nothing;

fn main() {}
