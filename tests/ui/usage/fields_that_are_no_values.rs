use synced_memory::SyncedMemory;

struct Plain;

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Fine;

// One error for each of the fields that cannot be shared, none for what uses them.
#[derive(SyncedMemory)]
struct State {
    fine: Fine,
    plain: Plain,
    list: Vec<Plain>,
    perhaps: Option<Plain>,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.set_plain(Plain)?;
    state.set_fine(state.fine()?)?;
    state.set_list(vec![Plain])?;
    state.update_list(Vec::clear)?;
    let _ = state.list();
    state.restore(state.snapshot()?)?;
    Ok(())
}
