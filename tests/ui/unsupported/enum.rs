use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
enum Mode {
    On,
    Off,
}

fn main() {}
