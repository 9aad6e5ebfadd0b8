use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(rename_all = "snakecase")]
struct State {
    counter: i64,
}

fn main() {}
