use synced_memory::SyncedMemory;

#[derive(SyncedMemory)]
#[synced(prefx = "app:", scop = "a", rename_al = "camelCase")]
struct State {
    #[synced(defualt = 1, renmae = "n")]
    counter: i64,
    #[synced(Skip)]
    cached: u8,
}

fn main() {}
