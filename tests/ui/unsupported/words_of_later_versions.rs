use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(near, behind)]
struct State {
    #[synced(near)]
    counter: i64,
    #[synced(behind)]
    name: String,
}

fn main() {}
