use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    user: User,
    synced_user: u8,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
}

fn main() {}
