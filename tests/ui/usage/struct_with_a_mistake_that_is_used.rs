use synced_memory::SyncedMemory;

// A mistake in the attributes is one error, however much the struct is used.
#[derive(SyncedMemory)]
#[synced(rename_all = "camel")]
struct State<T: Clone, U> {
    #[synced(default = 1)]
    counter: i64,
    items: Vec<T>,
    #[synced(nested)]
    user: User,
    #[synced(nested)]
    other: U,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct User {
    #[synced(nested, into)]
    name: Name,
    age: u8,
}

#[derive(Clone, SyncedMemory, serde::Serialize, serde::Deserialize)]
struct Name {
    first: String,
}

fn main() -> synced_memory::Result<()> {
    let state = State::<u8, User>::open("memory:")?;
    state.set_counter(state.counter()? + 1)?;
    state.add_counter(1)?;
    state.sub_counter(1)?;
    state.items().push(1)?;
    state.update_items(|items| items.len())?;
    state.user().set_age(1)?;
    state.other().name().set_first("Ada".to_owned())?;
    state.synced_user().get()?;
    state.clone().restore(state.snapshot()?)?;
    state.watch().recv()?;
    state.memory().get(&SyncedState::<u8, User>::COUNTER)?;
    Ok(())
}
