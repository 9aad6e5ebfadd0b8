//! A cluster over TLS, and users who have the rights that the docs name.

use std::fs;
use std::path::Path;

use support::{Authority, Cluster, Server, eventually};
use synced_memory::{Builder, ErrorKind, Key, Memory, ReadPolicy, Tracking, Written};

use crate::{DEADLINE, builder};

fn keys() -> Vec<Key<u32>> {
    (0..30).map(|n| Key::named(format!("n{n}"))).collect()
}

/// Writes all keys, reads them near, and lists them.
fn assert_works(memory: &Memory, value: u32) {
    for key in keys() {
        assert_eq!(memory.set(&key, value).unwrap(), Written::Stored, "{key:?}");
        assert_eq!(memory.get(&key).unwrap(), Some(value), "{key:?}");
    }
    assert_eq!(memory.names().unwrap().len(), keys().len());
}

/// While the slot of a key is being moved, and the key is at its new server already, it is written
/// there.
fn write_while_its_slot_moves(cluster: &Cluster, memory: &Memory, value: u32) {
    let slot = cluster.slot_of("memory:n0");
    let moving = cluster.begin_move(slot, (cluster.owner(slot) + 1) % 3);
    while moving.migrate_some(10) > 0 {}
    assert_eq!(memory.set(&keys()[0], value).unwrap(), Written::Stored);
    assert_eq!(memory.get(&keys()[0]).unwrap(), Some(value));
    moving.settle();
    memory.flush(DEADLINE).unwrap();
}

#[test]
fn over_tls_everything_is_the_same_also_when_slots_move_and_a_replica_takes_over() {
    let authority = Authority::new("ours");
    let certificate = authority.local();
    let cluster = Cluster::start_with_tls(3, 1, &certificate, &authority);
    let (url, ca) = (cluster.url(), authority.file());
    let in_url = format!("{url}?tls=true&tls_ca={}", ca.display());
    let memory = Memory::builder()
        .url(in_url)
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    assert!(memory.status().connected, "{:?}", memory.status());
    assert_works(&memory, 1);
    write_while_its_slot_moves(&cluster, &memory, 2);
    assert_works(&memory, 3);

    // What the primary had is on its replica, which takes over.
    cluster.wait_ready();
    cluster.nodes()[0].kill();
    eventually(DEADLINE, "the replica is used", || {
        let mut written = keys().into_iter().map(|key| memory.set(&key, 4).unwrap());
        written.all(|written| written == Written::Stored)
    });
    assert_works(&memory, 5);
    let ports = cluster.nodes().iter().map(Server::tls_port);
    let ports: Vec<String> = ports.map(|port| format!(":{port}")).collect();
    for node in memory.status().nodes {
        let is_tls = ports.iter().any(|port| node.address.ends_with(port));
        assert!(is_tls, "{node:?}");
    }

    let stranger = Memory::builder().url(url).tls(true).build().unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::Rejected, "{stranger}");
    assert!(stranger.to_string().contains("UnknownIssuer"), "{stranger}");
}

/// As in the cloud: nodes name each other by addresses, and the certificate has a name.
#[test]
fn nodes_at_addresses_that_no_certificate_has_are_verified_by_the_name_that_they_are_to_have() {
    let authority = Authority::new("ours");
    let certificate = authority.named(&["cache.example"]);
    let cluster = Cluster::start_with_tls(3, 0, &certificate, &authority);
    let of = |name: &str| -> Builder {
        let url = format!("{}?tls=true&tls_name={name}", cluster.url());
        Memory::builder().url(url).tls_ca(authority.file())
    };
    assert_works(&of("cache.example").build().unwrap(), 1);
    let error = of("other.example").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}

/// What the docs say that a user needs, for the prefix `memory:`.
fn rights() -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
    let page = |name: &str| fs::read_to_string(workspace.join(name)).expect("it is there");
    let readme = page("README.md");
    let (_, of_server) = readme.split_once("ACL SETUSER app ").expect("the block");
    let of_server = of_server.split("```").next().expect("it ends");
    let mut all: Vec<String> = of_server.split_whitespace().map(str::to_owned).collect();
    let servers = page("synced-memory/servers.md");
    for start in ["| `redis-cluster://` | `+", "| `replicas` | `+"] {
        let (_, row) = servers.split_once(start).expect("the row is there");
        let rights = row.split('`').next().expect("it ends");
        let rights = format!("+{}", rights.replace("\\|", "|"));
        all.extend(rights.split_whitespace().map(str::to_owned));
    }
    all.join(" ")
}

/// `logged`: a right without which nothing is missing, but which a server that knows it, or any,
/// logs as refused.
fn rights_are_enough(program: fn() -> support::Builder, logged: &str) {
    let rights = rights() + logged;
    let cluster = Cluster::start_with(program, 3, 1, |builder| builder.user("app", &rights));
    let url = cluster.url().replacen("://", "://app:secret@", 1);
    let memory = builder(&cluster)
        .url(format!("{url}?replicas=1"))
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    assert_works(&memory, 1);
    write_while_its_slot_moves(&cluster, &memory, 2);
    assert_works(&memory, 3);
    assert_eq!(memory.status().tracking, Tracking::On);
    assert_eq!(memory.purge().unwrap(), 30);
    for node in cluster.nodes() {
        let refused = node.cli(&["ACL", "LOG"]);
        assert_eq!(refused, redis::Value::Array(Vec::new()));
    }

    let take_away = |right: &str| {
        for node in cluster.nodes() {
            node.cli(&["ACL", "SETUSER", "app", right]);
        }
    };
    take_away("-wait");
    assert_eq!(memory.set(&keys()[0], 4).unwrap(), Written::Queued);
    take_away("+wait");
    memory.flush(DEADLINE).unwrap();
    take_away("-cluster");
    let error = Memory::open(&url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}

#[test]
fn the_rights_that_the_docs_name_are_enough_for_a_cluster_with_replicas() {
    rights_are_enough(Server::redis, "");
    rights_are_enough(Server::redis_6, " +client|setinfo");
    rights_are_enough(Server::valkey, " +client|setinfo");
}
