use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(rename_all = "sarcastic")]
struct State {
    counter: i64,
}

fn main() {}
