use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(nested, value)]
    one: User,
    #[synced(collection, nested)]
    two: User,
    #[synced(nested, skip)]
    three: User,
    #[synced(nested, nested)]
    four: User,
    #[synced(nestd)]
    five: User,
    #[synced(nested = true)]
    six: User,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
}

fn main() {}
