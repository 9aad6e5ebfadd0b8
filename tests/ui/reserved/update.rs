use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    theme: String,
    update_theme: String,
}

fn main() {}
