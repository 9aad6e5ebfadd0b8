use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    theme: String,
    set_theme: String,
    synced_theme: String,
    update_theme: String,
    counter: i64,
    add_counter: String,
    sub_counter: String,
    ratio: f64,
    add_ratio: String,
    sub_ratio: String,
    history: Vec<u8>,
    update_history: u8,
    synced_history: u8,
    #[synced(nested)]
    user: User,
    synced_user: u8,
    #[synced(accessor = "theme")]
    other: String,
    #[synced(accessor = "updated")]
    update_counter: String,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
}

fn main() {}
