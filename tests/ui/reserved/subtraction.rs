use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    counter: i64,
    sub_counter: String,
}

fn main() {}
