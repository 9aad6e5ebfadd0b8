//! What works on one server works on a cluster, whose nodes each have a part of the keys.

use std::collections::BTreeSet;

use support::{Cluster, Server, eventually};
use synced_memory::{Key, Memory, SyncedMemory, Written};

use crate::{DEADLINE, builder};

fn opened(cluster: &Cluster) -> Memory {
    builder(cluster).build().unwrap()
}

#[derive(SyncedMemory)]
#[synced(near)]
struct Flags {
    #[synced(default)]
    limit: u32,
}

fn keys_of(node: &Server) -> usize {
    redis::from_redis_value(node.cli(&["DBSIZE"])).unwrap()
}

#[test]
fn keys_of_all_nodes_are_read_written_listed_and_purged() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let (one, other) = (opened(&cluster), opened(&cluster));
    assert!(one.status().connected, "{:?}", one.status());
    let names: BTreeSet<String> = (0..100).map(|n| format!("n{n}")).collect();
    let key = |name: &str| Key::<u32>::named(name.to_owned());
    for (n, name) in (0_u32..).zip(&names) {
        assert_eq!(one.set(&key(name), n).unwrap(), Written::Stored, "{name}");
        assert_eq!(other.get(&key(name)).unwrap(), Some(n));
    }
    let counts: Vec<usize> = cluster.nodes().iter().map(keys_of).collect();
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    let found: BTreeSet<String> = other.names().unwrap().into_iter().collect();
    assert_eq!(found, names);
    let scope = one.scope("s");
    for n in 0..20 {
        scope.set(&key(&format!("n{n}")), n).unwrap();
    }
    assert_eq!(other.scope("s").purge().unwrap(), 20);
    assert_eq!(one.names().unwrap().len(), 100);

    let flags = Flags::attach(&other);
    flags.limit().unwrap();
    Flags::attach(&one).set_limit(7).unwrap();
    eventually(DEADLINE, "the near reader sees it", || {
        flags.limit().unwrap() == 7
    });
    assert!(one.flush(DEADLINE).is_ok());
}
