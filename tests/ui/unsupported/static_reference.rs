use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    name: &'static str,
}

fn main() {}
