use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(rename = "name")]
    title: String,
    name: String,
    #[synced(alias = "count")]
    counter: i64,
    #[synced(alias = "count")]
    total: i64,
    #[synced(alias = "own")]
    own: i64,
}

#[derive(SyncedMemory)]
#[synced(rename_all = "camelCase")]
struct Renamed {
    first_name: String,
    #[allow(non_snake_case)]
    firstName: String,
}

fn main() {}
