use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(rename = "name")]
    title: String,
    name: String,
}

fn main() {}
