use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(alias = "own")]
    own: i64,
}

fn main() {}
