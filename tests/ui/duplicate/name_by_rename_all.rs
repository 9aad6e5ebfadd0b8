use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(rename_all = "camelCase")]
struct State {
    first_name: String,
    #[allow(non_snake_case)]
    #[synced(accessor = "other_name")]
    firstName: String,
}

fn main() {}
