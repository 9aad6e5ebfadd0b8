use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefx = "app:")]
struct State {
    counter: i64,
}

fn main() {}
