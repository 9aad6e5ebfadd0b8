use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix, scope =, handle, crate)]
struct State {
    #[synced(rename, alias("old"), ttl = , accessor)]
    counter: i64,
}

fn main() {}
