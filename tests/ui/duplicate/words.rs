use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix = "a:", prefix = "b:")]
#[synced(rename_all = "camelCase")]
#[synced(rename_all = "camelCase")]
struct State {
    #[synced(default, default = 1)]
    counter: i64,
    #[synced(ttl = "1s")]
    #[synced(ttl = "2s")]
    name: String,
}

fn main() {}
