use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced("a")]
    counter: i64,
}

fn main() {}
