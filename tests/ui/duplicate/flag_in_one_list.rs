use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(nested, nested)]
    user: User,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
}

fn main() {}
