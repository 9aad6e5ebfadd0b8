use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    user: User,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    age: u8,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.user().set_age("x")?;
    Ok(())
}
