use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    one: synced_memory::Synced<User>,
    other: u8,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    name: String,
}

fn main() -> synced_memory::Result<()> {
    State::open("memory:")?.set_other(1)?;
    Ok(())
}
