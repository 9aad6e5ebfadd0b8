use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    theme: String,
    set_theme: String,
}

fn main() {}
