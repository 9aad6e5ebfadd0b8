use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(into(String))]
    counter: i64,
}

fn main() {}
