use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefix = "a{b", scope = "a::{b}", rename_all = "snakecase")]
struct State {
    #[synced(rename = "")]
    a: i64,
    #[synced(rename = "a:b")]
    b: i64,
    #[synced(alias = "{c}")]
    c: i64,
    #[synced(accessor = "no name")]
    d: i64,
    #[synced(accessor = "self")]
    e: i64,
}

#[derive(SyncedMemory)]
#[synced(scope = "", rename_all = "sarcastic")]
struct Other {
    a: i64,
}

fn main() {}
