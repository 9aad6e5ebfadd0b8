//! Primaries that join and leave: their first slot comes, and their last one goes.

use std::collections::BTreeSet;

use support::{Cluster, Server, eventually};
use synced_memory::{Key, Written};

use crate::{DEADLINE, builder};

/// The keys of a slot that a primary without any slot is being given are there already, and the
/// slot is not.
#[test]
fn keys_on_their_way_to_a_new_primary_are_read_written_and_listed() {
    for program in [Server::redis, Server::valkey] {
        let mut cluster = Cluster::start(program, 3, 0);
        let added = cluster.add_primary(program);
        let tagged = || builder(&cluster).prefix("{tag}:").build().unwrap();
        let memory = tagged();
        let key = |n: u32| Key::<u32>::named(format!("k{n}"));
        for n in 0..10 {
            assert_eq!(memory.set(&key(n), n).unwrap(), Written::Stored);
        }
        let moving = cluster.begin_move(cluster.slot_of("{tag}:k0"), added);
        while moving.migrate_some(10) > 0 {}

        let other = tagged();
        for n in 0..10 {
            eventually(DEADLINE, "it is read where it is", || {
                other.get(&key(n)).unwrap() == Some(n)
            });
        }
        for n in 0..10 {
            eventually(DEADLINE, "it is written where it is", || {
                other.set(&key(n), n + 1).unwrap() == Written::Stored
            });
            assert_eq!(memory.get(&key(n)).unwrap(), Some(n + 1));
        }
        let names: BTreeSet<String> = (0..10).map(|n| format!("k{n}")).collect();
        let found: BTreeSet<String> = tagged().names().unwrap().into_iter().collect();
        assert_eq!(found, names);
        moving.settle();
        eventually(DEADLINE, "it is a node as any other", || {
            memory.set(&key(0), 1).unwrap() == Written::Stored && memory.status().nodes.len() == 4
        });
        assert_eq!(memory.names().unwrap().len(), 10);
    }
}
