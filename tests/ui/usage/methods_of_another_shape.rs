use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    history: Vec<u64>,
    #[synced(value)]
    tags: Vec<String>,
    ratio: f64,
    theme: String,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.synced_history();
    state.tags().push("x".to_owned())?;
    state.sub_ratio(0.5)?;
    state.add_theme("x".to_owned())?;
    Ok(())
}
