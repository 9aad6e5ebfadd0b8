use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    // A float has no `sub_ratio`.
    ratio: f64,
    add_ratio: String,
    sub_ratio: String,
}

fn main() {}
