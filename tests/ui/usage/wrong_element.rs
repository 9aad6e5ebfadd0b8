use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    history: Vec<u64>,
    #[synced(nested)]
    user: User,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    age: u8,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.history().push("x")?;
    state.user().set_age("x")?;
    state.user().add_age(-1)?;
    state.update_history(|history| history.push("x"))?;
    let _: Vec<u64> = state.history()?;
    Ok(())
}
