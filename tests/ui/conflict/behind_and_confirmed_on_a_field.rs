use synced_memory::SyncedMemory;

// A field may differ from its struct, and from its neighbours.
#[derive(SyncedMemory)]
#[synced(confirmed)]
struct State {
    #[synced(confirmed, behind)]
    list: Vec<u8>,
    #[synced(behind)]
    number: u8,
    #[synced(near, confirmed)]
    text: String,
}

fn main() {}
