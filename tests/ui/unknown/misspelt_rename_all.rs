use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(rename_al = "camelCase")]
struct State {
    counter: i64,
}

fn main() {}
