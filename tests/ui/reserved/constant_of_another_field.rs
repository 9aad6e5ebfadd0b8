use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[allow(non_snake_case)]
struct State {
    fooBar: u8,
    foo_bar: u8,
}

fn main() {}
