use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(rename_all = "camelCase")]
#[synced(rename_all = "camelCase")]
struct State {
    counter: i64,
}

fn main() {}
