use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State {
    #[synced(value, collection)]
    both: Vec<u8>,
    #[synced(collection, nested, value)]
    all: Names,
    #[synced(collection)]
    perhaps: Option<Vec<u8>>,
    #[synced(collection)]
    boxed: Box<Vec<u8>>,
    #[synced(collection)]
    number: u8,
    #[synced(collection)]
    text: String,
    #[synced(collection)]
    array: [u8; 4],
    #[synced(collection)]
    tuple: (u8, u8),
    #[synced(collection)]
    list: Vec<u8>,
}

type Names = Vec<String>;

fn main() {}
