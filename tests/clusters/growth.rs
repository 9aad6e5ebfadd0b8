//! Primaries that join and leave: their first slot comes, and their last one goes.

use std::collections::BTreeSet;

use std::time::Duration;

use support::{Cluster, Server, eventually};
use synced_memory::{Key, SyncedMemory, Tracking, Written};

use crate::{DEADLINE, builder, reader_of};

#[derive(SyncedMemory)]
#[synced(near)]
struct Watched {
    #[synced(default)]
    value: u32,
}

/// The keys of a slot that a primary without any slot is being given are there already, and the
/// slot is not.
#[test]
fn keys_on_their_way_to_a_new_primary_are_read_written_and_listed() {
    for program in [Server::redis, Server::valkey] {
        let mut cluster = Cluster::start(program, 3, 0);
        let added = cluster.add_primary(program);
        let tagged = || builder(&cluster).prefix("{tag}:");
        let memory = tagged().build().unwrap();
        let key = |n: u32| Key::<u32>::named(format!("k{n}"));
        for n in 0..10 {
            assert_eq!(memory.set(&key(n), n).unwrap(), Written::Stored);
        }
        let moving = cluster.begin_move(cluster.slot_of("{tag}:k0"), added);
        while moving.migrate_some(10) > 0 {}

        let other = tagged().build().unwrap();
        for n in 0..10 {
            eventually(DEADLINE, "it is read where it is", || {
                other.get(&key(n)).is_ok_and(|found| found == Some(n))
            });
        }
        for n in 0..10 {
            eventually(DEADLINE, "it is written where it is", || {
                other.set(&key(n), n + 1).unwrap() == Written::Stored
            });
            assert_eq!(memory.get(&key(n)).unwrap(), Some(n + 1));
        }
        let names: BTreeSet<String> = (0..10).map(|n| format!("k{n}")).collect();
        let found = reader_of(tagged()).names().unwrap();
        let found: BTreeSet<String> = found.into_iter().collect();
        assert_eq!(found, names);
        moving.settle();
        eventually(DEADLINE, "it is a node as any other", || {
            memory.set(&key(0), 1).unwrap() == Written::Stored && memory.status().nodes.len() == 4
        });
        assert_eq!(memory.names().unwrap().len(), 10);
    }
}

/// A primary that gets a slot and loses it again is another server to connect to, and then is not.
#[test]
fn near_readers_follow_to_a_primary_that_comes_and_goes_and_nothing_of_it_stays() {
    let mut cluster = Cluster::start(Server::redis, 3, 0);
    let added = cluster.add_primary(Server::redis);
    // Else it becomes a replica when its last slot goes.
    let migrates = "cluster-allow-replica-migration";
    cluster.nodes()[added].cli(&["CONFIG", "SET", migrates, "no"]);
    let memory = builder(&cluster).build().unwrap();
    let writer = builder(&cluster).timeout(DEADLINE).build().unwrap();
    let reader = Watched::attach(&memory);
    let slot = cluster.slot_of("memory:value");
    let home = cluster.owner(slot);
    let mut watch = memory.watch(&Key::<u32>::new("value"));
    let mut seen = 0;
    for round in 0..8 {
        for (step, to) in [(1, added), (2, home)] {
            let value = 2 * round + step;
            cluster.move_slot(slot, to);
            assert_eq!(
                writer.set(&Key::new("value"), value).unwrap(),
                Written::Stored
            );
            eventually(Duration::from_secs(3), "the near reader has it", || {
                reader.value().unwrap() == value
            });
            while seen != value {
                seen = watch.recv_timeout(DEADLINE).unwrap().unwrap_or(seen);
            }
        }
    }
    eventually(DEADLINE, "it is not used any more", || {
        let status = memory.status();
        status.nodes.len() == 3 && status.connected && status.unreachable_slots == 0
    });
    assert_eq!(memory.status().tracking, Tracking::On);
    eventually(DEADLINE, "nothing is stale", || memory.status().stale == 0);
}
