use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(value)]
    number: u8,
}

fn main() {}
