use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
enum Mode {
    On,
    Off,
}

#[derive(SyncedMemory)]
union Bits {
    int: u32,
    float: f32,
}

#[derive(SyncedMemory)]
struct Pair(u8, u8);

#[derive(SyncedMemory)]
struct Nothing;

fn main() {}
