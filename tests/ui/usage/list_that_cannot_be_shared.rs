use synced_memory::SyncedMemory;

struct Plain;

// One error: code that uses the field causes none.
#[derive(SyncedMemory)]
struct State {
    fine: u8,
    field: Vec<Plain>,
}

fn main() -> synced_memory::Result<()> {
    let state = State::open("memory:")?;
    state.set_field(vec![Plain])?;
    state.update_field(Vec::clear)?;
    let _ = state.field();
    state.restore(state.snapshot()?)?;
    state.set_fine(1)?;
    Ok(())
}
