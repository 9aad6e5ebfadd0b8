use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(defualt = 1)]
    counter: i64,
}

fn main() {}
