use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    theme: String,
    #[synced(accessor = "theme")]
    other: String,
    #[synced(accessor = "fine")]
    set_theme: String,
}

fn main() {}
