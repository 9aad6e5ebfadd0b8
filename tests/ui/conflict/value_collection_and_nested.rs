use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(collection, nested, value)]
    all: Names,
}

type Names = Vec<String>;

fn main() {}
