use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(skip)]
    mode: Mode,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
enum Mode {
    On,
}

fn main() {}
