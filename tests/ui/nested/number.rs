use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(nested)]
    one: u64,
    other: u8,
}

fn main() -> synced_memory::Result<()> {
    State::open("memory:")?.set_other(1)?;
    Ok(())
}
