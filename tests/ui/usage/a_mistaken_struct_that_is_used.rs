use synced_memory::SyncedMemory;

// One error in the attributes is one error, however much the struct is used.
#[derive(SyncedMemory)]
#[synced(rename_all = "camel")]
struct State<T: Clone> {
    #[synced(default = 1)]
    counter: i64,
    items: Vec<T>,
}

fn main() -> synced_memory::Result<()> {
    let state = State::<u8>::open("memory:")?;
    state.set_counter(state.counter()? + 1)?;
    state.synced_items().get()?;
    state.clone().restore(state.snapshot()?)?;
    state.memory().get(&SyncedState::<u8>::COUNTER)?;
    Ok(())
}
