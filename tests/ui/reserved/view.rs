use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    theme: String,
    synced_theme: String,
}

fn main() {}
