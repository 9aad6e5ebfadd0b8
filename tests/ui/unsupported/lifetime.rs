use synced_memory::SyncedMemory;

// Its declaration, and each use of it.
#[derive(SyncedMemory)]
struct State<'a> {
    name: &'a str,
    text: std::borrow::Cow<'a, str>,
}

fn main() {}
