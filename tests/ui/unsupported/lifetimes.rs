use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
struct State<'a> {
    name: &'a str,
    text: std::borrow::Cow<'a, str>,
}

#[derive(SyncedMemory)]
struct Other {
    name: &'static str,
}

fn main() {}
