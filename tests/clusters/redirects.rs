//! Slots on the move, and where servers send requests meanwhile.

use std::time::Duration;

use support::{Cluster, Server, eventually};
use synced_memory::{Key, Written};

use crate::{DEADLINE, builder, reader_of};

/// It was to be sent to the node that imports its slot, which is gone when it is its turn.
#[test]
fn a_write_that_was_sent_to_a_node_that_leaves_is_sent_where_its_slot_is() {
    let cluster = Cluster::start(Server::redis, 3, 1);
    let memory = builder(&cluster).build().unwrap();
    let key = Key::<u32>::new("key");
    assert_eq!(memory.set(&key, 1).unwrap(), Written::Stored);
    let slot = cluster.slot_of("memory:key");
    let to = (cluster.owner(slot) + 1) % 3;
    let moving = cluster.begin_move(slot, to);
    while moving.migrate_some(10) > 0 {}
    let replica = cluster.replica_of(to);
    eventually(DEADLINE, "the replica has it", || {
        let nodes = cluster.nodes();
        let count = |node: usize| nodes[node].cli(&["DBSIZE"]);
        count(to) == count(replica)
    });
    cluster.nodes()[to].freeze();
    assert_eq!(memory.set(&key, 2).unwrap(), Written::Queued);
    eventually(DEADLINE, "the replica takes over", || {
        cluster.nodes()[replica]
            .info("replication")
            .contains("role:master")
    });
    let id = cluster.id(replica);
    for node in cluster.nodes() {
        let _ = node.try_cli(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id]);
    }
    drop(moving);
    let flushed = memory.flush(Duration::from_secs(10));
    assert!(flushed.is_ok(), "{flushed:?} {:?}", memory.status());
    assert_eq!(reader_of(builder(&cluster)).get(&key).unwrap(), Some(2));
}
