//! Three servers share out the keys. One of them is killed: what goes on, what waits, and that what
//! has waited is there once the server is back.
//!
//! ```text
//! cargo run --example cluster
//! ```
//!
//! It starts three redis-servers of its own (redis-server must be installed), and makes them a
//! cluster.

use std::error::Error;
use std::time::Duration;

use synced_memory::{ErrorKind, Memory, NodeStatus, Status, SyncedMemory, Written};
use synced_memory_examples::{RedisCluster, wait_until};

/// One for each user. Its key is that of no other user, so carts are shared out to all servers.
#[derive(SyncedMemory)]
struct Cart {
    items: Vec<String>,
}

const USERS: usize = 30;

/// Puts an item into each cart. Returns how many servers have it by now, and how many will.
fn put_into_all(carts: &[SyncedCart], item: &str) -> synced_memory::Result<(usize, usize)> {
    let (mut stored, mut queued) = (0, 0);
    for cart in carts {
        match cart.items().push(item.to_string())? {
            Written::Stored => stored += 1,
            Written::Queued => queued += 1,
            Written::Superseded => panic!("a push is merged with whatever is there"),
        }
    }
    Ok((stored, queued))
}

fn carts_of(memory: &Memory) -> Vec<SyncedCart> {
    let users = (0..USERS).map(|user| format!("user-{user}"));
    users
        .map(|user| Cart::attach(&memory.scope_for(&user)))
        .collect()
}

fn print(status: &Status) {
    for node in &status.nodes {
        let NodeStatus {
            address,
            connected,
            pending,
            ..
        } = node;
        println!("  {address}: connected: {connected}, {pending} keys pending");
    }
    println!("  {} slots cannot be reached", status.unreachable_slots);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut cluster = RedisCluster::of_three();
    let memory = Memory::open(&cluster.url())?;
    let carts = carts_of(&memory);

    println!("three servers, each with a part of the keys");
    assert_eq!(put_into_all(&carts, "tea")?, (USERS, 0));
    let status = memory.status();
    print(&status);
    assert!(status.connected && status.nodes.len() == 3);

    println!("one of them is killed");
    let killed = cluster.servers()[0].address();
    cluster.servers()[0].kill();
    let (stored, queued) = put_into_all(&carts, "milk")?;
    println!("  {stored} writes are stored, {queued} are queued");
    assert!(stored > 0, "the other servers have their keys");
    assert!(queued > 0, "its own keys wait for it");
    for cart in &carts {
        // A process reads its own writes, wherever they are.
        assert_eq!(cart.items().get()?, ["tea", "milk"]);
    }

    // What waits, waits for the server that is away, and for no other.
    let waits_where_it_should = |node: &NodeStatus| {
        let is_away = node.address == killed;
        node.connected != is_away && (node.pending > 0) == is_away
    };
    wait_until("only the killed server has pending keys", || {
        memory.status().nodes.iter().all(waits_where_it_should)
    });
    let status = memory.status();
    print(&status);
    assert!(!status.connected && status.unreachable_slots > 0);
    let away = status.nodes.iter().find(|node| node.address == killed);
    let why = away.and_then(|node| node.last_error.as_ref());
    println!("  last error: {}", why.expect("it says why"));
    // What asks all servers fails: a part of the names would look like all of them.
    let error = memory.names().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

    println!("it is started again");
    cluster.servers()[0].start();
    memory.flush(Duration::from_secs(10))?;
    wait_until("all servers are connected", || memory.status().connected);
    let status = memory.status();
    print(&status);
    assert_eq!((status.pending, status.unreachable_slots), (0, 0));
    assert_eq!(status.dead_letters, 0, "every queued write was made");

    // Another process, or a memory of its own as here, finds everything on the servers, once.
    let other = Memory::open(&cluster.url())?;
    for cart in carts_of(&other) {
        assert_eq!(cart.items().get()?, ["tea", "milk"]);
    }
    Ok(())
}
