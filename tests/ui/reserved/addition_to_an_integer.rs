use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    counter: i64,
    add_counter: String,
}

fn main() {}
