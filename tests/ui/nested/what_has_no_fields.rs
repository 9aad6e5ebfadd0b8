use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    perhaps: Option<User>,
    #[synced(nested)]
    boxed: Box<User>,
    #[synced(nested)]
    shared: std::sync::Arc<User>,
    #[synced(nested)]
    list: Vec<User>,
    #[synced(nested)]
    by_name: std::collections::HashMap<String, User>,
    #[synced(nested)]
    json: serde_json::Value,
    #[synced(nested)]
    number: u64,
    #[synced(nested)]
    text: String,
    #[synced(nested)]
    pair: (User, User),
    #[synced(nested)]
    array: [User; 2],
    #[synced(nested)]
    borrowed: &'static User,
    #[synced(nested)]
    synced: synced_memory::Synced<User>,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
}

fn main() -> synced_memory::Result<()> {
    State::open("memory:")?.set_number(1)?;
    Ok(())
}
