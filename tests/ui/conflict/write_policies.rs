use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(behind, confirmed)]
struct State {
    #[synced(confirmed, behind)]
    list: Vec<u8>,
    #[synced(behind)]
    number: u8,
    #[synced(confirmed)]
    text: String,
}

#[derive(SyncedMemory)]
#[synced(confirmed)]
struct Sure {
    #[synced(behind)]
    list: Vec<u8>,
    #[synced(near, confirmed)]
    number: u8,
}

fn main() {}
