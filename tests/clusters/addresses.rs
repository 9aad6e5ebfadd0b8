//! Where nodes say that they are, and what is no cluster.

use std::sync::atomic::{AtomicUsize, Ordering};

use support::{Cluster, Server};
use synced_memory::{ErrorKind, Key, Memory, Written};

use crate::{DEADLINE, builder};

/// Writes and reads keys of all nodes, and lets one slot move.
fn is_usable(cluster: &Cluster, memory: &Memory) {
    let key = |n: u32| Key::<u32>::named(format!("n{n}"));
    let write = |from: u32| {
        for n in 0..30 {
            assert_eq!(memory.set(&key(n), from + n).unwrap(), Written::Stored);
            assert_eq!(memory.get(&key(n)).unwrap(), Some(from + n));
        }
    };
    write(0);
    let slot = cluster.slot_of("memory:n0");
    cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
    write(100);
    let status = memory.status();
    assert!(status.connected, "{status:?}");
    assert_eq!((status.nodes.len(), status.unreachable_slots), (3, 0));
}

#[test]
fn nodes_that_announce_host_names_are_found_by_them() {
    let named = |builder: support::Builder| {
        let builder = builder.arg("cluster-announce-hostname", "localhost");
        builder.arg("cluster-preferred-endpoint-type", "hostname")
    };
    for program in [Server::redis, Server::valkey] {
        let cluster = Cluster::start_with(program, 3, 0, named);
        let memory = builder(&cluster).build().unwrap();
        is_usable(&cluster, &memory);
        let nodes = memory.status().nodes;
        assert!(
            nodes
                .iter()
                .all(|node| node.address.starts_with("localhost:")),
            "{nodes:?}"
        );
    }
}

/// They say no host: it is the one that was asked.
#[test]
fn nodes_that_announce_no_host_are_where_they_were_asked() {
    let unknown = |builder: support::Builder| {
        builder.arg("cluster-preferred-endpoint-type", "unknown-endpoint")
    };
    for program in [Server::redis, Server::valkey] {
        let cluster = Cluster::start_with(program, 3, 0, unknown);
        let memory = builder(&cluster).build().unwrap();
        is_usable(&cluster, &memory);
    }
}

#[test]
fn addresses_lead_to_every_node_that_a_server_names() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let proxies = cluster.proxied();
    let memory = Memory::builder().url(proxies.url());
    let memory = memory.addresses(proxies.addresses()).build().unwrap();
    is_usable(&cluster, &memory);
    let nodes: Vec<String> = memory
        .status()
        .nodes
        .into_iter()
        .map(|node| node.address)
        .collect();
    for proxy in proxies.proxies() {
        let address = format!("127.0.0.1:{}", proxy.port());
        assert!(nodes.contains(&address), "{nodes:?}");
    }
    proxies.proxies().iter().for_each(support::Proxy::cut);
    memory.set(&Key::<u32>::new("n0"), 7).unwrap();
    memory.flush(DEADLINE).unwrap();
}

#[test]
fn addresses_that_panic_are_an_error_and_no_panic_of_ours() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let calls = AtomicUsize::new(0);
    let panics = move |host: &str, port| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) > 2, "on purpose");
        (host.to_owned(), port)
    };
    let memory = builder(&cluster).addresses(panics).build().unwrap();
    let key = Key::<u32>::new("k");
    memory.set(&key, 1).unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&key).unwrap(), Some(1));
}

#[test]
fn what_is_no_cluster_is_rejected_with_the_url_to_write() {
    for program in [Server::redis, Server::redis_6, Server::valkey] {
        let server = program().start();
        let url = format!("redis-cluster://127.0.0.1:{}", server.port());
        let error = Memory::open(&url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains("write redis://"), "{error}");
    }
}

#[test]
fn no_seed_that_answers_is_an_outage_and_no_error() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    cluster.nodes().iter().for_each(Server::kill);
    let memory = builder(&cluster).build().unwrap();
    let key = Key::<u32>::new("k");
    assert_eq!(memory.set(&key, 1).unwrap(), Written::Queued);
    assert_eq!(memory.get(&key).unwrap(), Some(1), "its own write");
    let status = memory.status();
    assert!(!status.connected, "{status:?}");
    assert_eq!(status.unreachable_slots, 16_384);
    let other = memory.get(&Key::<u32>::new("other")).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Unavailable, "{other}");
    cluster.nodes().iter().for_each(Server::start);
    memory.flush(DEADLINE).unwrap();
}
