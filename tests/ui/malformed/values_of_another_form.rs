use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix = app, handle = "Live", crate = "synced_memory")]
struct State {
    #[synced(rename = 5, ttl = 30, skip = true)]
    counter: i64,
    #[synced(into(String), default = )]
    name: String,
    #[synced(rename = "a" alias = "b")]
    note: String,
    #[synced("a")]
    text: String,
}

fn main() {}
