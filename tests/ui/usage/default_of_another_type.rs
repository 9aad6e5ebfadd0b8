use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(default = "dark")]
    theme: String,
    #[synced(default)]
    mode: Mode,
    #[synced(skip)]
    skipped: Mode,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
enum Mode {
    On,
}

fn main() {}
