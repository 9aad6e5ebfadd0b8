use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(default = "dark")]
    theme: String,
}

fn main() {}
