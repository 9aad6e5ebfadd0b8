use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    theme: String,
    set_theme: String,
    synced_theme: String,
    update_theme: String,
    counter: i64,
    add_counter: String,
    #[synced(accessor = "theme")]
    other: String,
}

fn main() {}
