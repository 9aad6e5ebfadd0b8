//! Opening a cluster, and what is none: the wrong scheme says which one to write.

use std::time::Duration;

use support::{Cluster, Server};
use synced_memory::{ErrorKind, Key, Memory, Written};

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn redis_at_a_node_of_a_cluster_is_rejected_with_the_url_to_write() {
    for program in [Server::redis, Server::redis_6, Server::valkey] {
        let cluster = Cluster::start(program, 2, 1);
        // At a replica, too.
        for node in cluster.nodes() {
            let error = Memory::open(&node.url()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
            let shown = error.to_string();
            let expected = "write redis-cluster://host:port";
            assert!(shown.contains(expected), "{shown}");
            assert!(shown.contains(&node.port().to_string()), "{shown}");
        }
        let valkey = cluster.nodes()[0].url().replace("redis://", "valkey://");
        let error = Memory::open(&valkey).unwrap_err().to_string();
        assert!(error.contains("write valkey-cluster://"), "{error}");
    }
}

#[test]
fn a_user_who_may_not_ask_whether_it_is_a_cluster_goes_on_without() {
    let cluster = Cluster::start(Server::redis, 2, 0);
    let node = &cluster.nodes()[0];
    node.cli(&["ACL", "SETUSER", "a", "on", ">pw", "~*", "+@all", "-info"]);
    node.cli(&[
        "ACL", "SETUSER", "b", "on", ">pw", "~*", "+@all", "-cluster",
    ]);
    for user in ["a", "b"] {
        let memory = Memory::open(&node.url_as(user, "pw")).unwrap();
        let keys = (0..20).map(|n| Key::<u64>::named(format!("n{n}")));
        let answers: Vec<_> = keys.map(|key| memory.set(&key, 1).unwrap()).collect();
        // What the other node has waits; it is not given up.
        assert!(answers.contains(&Written::Queued), "{answers:?}");
        let status = memory.status();
        assert_eq!(status.dead_letters, 0, "{status:?}");
        let error = status.last_error.expect("it waits").to_string();
        assert!(error.contains("MOVED"), "{error}");
        drop(memory.close(Duration::ZERO));
    }
}

#[test]
fn redis_at_a_cluster_of_one_primary_is_any_server() {
    for program in [Server::redis, Server::redis_6, Server::valkey] {
        let cluster = Cluster::start(program, 1, 1);
        let memory = Memory::open(&cluster.nodes()[0].url()).unwrap();
        for n in 0..20 {
            let key = Key::<u64>::named(format!("n{n}"));
            assert_eq!(memory.set(&key, n).unwrap(), Written::Stored);
            assert_eq!(memory.get(&key).unwrap(), Some(n));
        }
        assert_eq!(memory.names().unwrap().len(), 20);
        memory.close(DEADLINE).unwrap();
    }
}
