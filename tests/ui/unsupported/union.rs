use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
union Bits {
    int: u32,
    float: f32,
}

fn main() {}
