//! SWAPDB notifies nobody: what the page on near reads says to do about that helps.

use support::{Server, eventually};
use synced_memory::{Key, ReadPolicy};

use crate::line::{DEADLINE, quick};

#[test]
fn after_a_swap_of_databases_clients_that_were_made_to_reconnect_show_the_other_one() {
    let server = Server::redis().start();
    let number = Key::<i64>::new("n");
    let open = |database: u8| {
        let url = format!("{}/{database}", server.url());
        let near = quick(url).read_policy(ReadPolicy::Near);
        near.timeout(DEADLINE).build().unwrap()
    };
    let (memory, other) = (open(0), open(1));
    memory.set(&number, 1).unwrap();
    other.set(&number, 2).unwrap();
    let view = memory.synced(&number);
    let mut watch = memory.watch(&number);
    assert_eq!(view.get().unwrap(), 1);
    assert_eq!(watch.recv().unwrap(), Some(1));

    server.cli(&["SWAPDB", "0", "1"]);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually(DEADLINE, "the other database is seen", || {
        view.get().unwrap() == 2 && other.get(&number).unwrap() == Some(1)
    });
    assert_eq!(watch.recv_timeout(DEADLINE).unwrap(), Some(2));
}
