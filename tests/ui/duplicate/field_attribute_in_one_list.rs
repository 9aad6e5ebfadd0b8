use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(default, default = 1)]
    counter: i64,
}

fn main() {}
