//! One node that is away is the trouble of its own keys.

use std::time::{Duration, Instant};

use support::{Cluster, Server, eventually};
use synced_memory::{Key, Memory, Written};

use crate::{DEADLINE, builder, reader_of};

/// A key of each of three nodes.
fn one_of_each(cluster: &Cluster) -> [Key<u32>; 3] {
    [0, 1, 2].map(|node| {
        let name = (0..).map(|n| format!("n{n}"));
        let mut name = name.filter(|name| {
            let slot = cluster.slot_of(&format!("memory:{name}"));
            cluster.owner(slot) == node
        });
        Key::named(name.next().expect("there is one"))
    })
}

/// How long all but one of a hundred writes to these keys take at most. None may be queued.
fn p99(memory: &Memory, keys: &[Key<u32>], lasts: Duration) -> Duration {
    let end = Instant::now() + lasts;
    let mut times = Vec::new();
    for n in 0.. {
        for key in keys {
            let began = Instant::now();
            assert_eq!(memory.set(key, n).unwrap(), Written::Stored, "{key:?}");
            times.push(began.elapsed());
        }
        if Instant::now() > end {
            break;
        }
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// What a machine that is busy with something else may add.
const NOISE: Duration = Duration::from_millis(100);

#[test]
fn a_frozen_node_delays_no_write_of_another_ones_keys_also_while_a_slot_moves() {
    for program in [Server::redis, Server::valkey] {
        let cluster = Cluster::start(program, 3, 0);
        let memory = builder(&cluster).build().unwrap();
        let [one, two, frozen] = one_of_each(&cluster);
        let others = [one, two];
        let undisturbed = p99(&memory, &others, Duration::from_secs(1));
        memory.set(&frozen, 0).unwrap();

        cluster.nodes()[2].freeze();
        assert_eq!(memory.set(&frozen, 1).unwrap(), Written::Queued);
        let beside = p99(&memory, &others, Duration::from_secs(1));
        let slot = cluster.slot_of("memory:moving");
        let between = |owner: usize| (owner + 1) % 2;
        if cluster.owner(slot) < 2 {
            cluster.move_slot(slot, between(cluster.owner(slot)));
        }
        let beside_a_move = p99(&memory, &others, Duration::from_secs(1));
        println!("p99: {undisturbed:?}, {beside:?}, {beside_a_move:?}");
        assert!(beside.max(beside_a_move) <= 3 * undisturbed + NOISE);
        let status = memory.status();
        assert_eq!(status.pending, 1, "{status:?}");
        assert!(!status.connected, "{status:?}");

        cluster.nodes()[2].thaw();
        memory.flush(DEADLINE).unwrap();
        let reader = reader_of(builder(&cluster));
        assert_eq!(reader.get(&frozen).unwrap(), Some(1));
        eventually(DEADLINE, "all are connected", || memory.status().connected);
    }
}

#[test]
fn a_cluster_with_a_node_that_is_down_is_opened_and_used() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let [one, two, away] = one_of_each(&cluster);
    cluster.nodes()[2].kill();
    let began = Instant::now();
    let memory = builder(&cluster).build().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(memory.set(&one, 1).unwrap(), Written::Stored);
    assert_eq!(memory.set(&two, 2).unwrap(), Written::Stored);
    assert_eq!(memory.set(&away, 3).unwrap(), Written::Queued);
    assert!(memory.names().is_err(), "a part would look like all");
    cluster.nodes()[2].start();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.names().unwrap().len(), 3);
}

/// The default of servers: while one slot has no server, no node serves any.
#[test]
fn where_full_coverage_is_required_all_writes_wait_for_the_node_that_is_away() {
    let whole = |builder: support::Builder| builder.arg("cluster-require-full-coverage", "yes");
    let cluster = Cluster::start_with(Server::redis, 3, 0, whole);
    let memory = builder(&cluster).build().unwrap();
    let [one, two, _] = one_of_each(&cluster);
    cluster.nodes()[2].kill();
    let write = |key| memory.set(key, 7).unwrap();
    eventually(DEADLINE, "the others do not serve", || {
        write(&one) == Written::Queued
    });
    assert_eq!(write(&two), Written::Queued);
    let error = memory.status().last_error.expect("it says why").to_string();
    assert!(
        error.contains("CLUSTERDOWN") || error.contains("refused"),
        "{error}"
    );
    cluster.nodes()[2].start();
    memory.flush(DEADLINE).unwrap();
    eventually(DEADLINE, "writes are answered again", || {
        write(&one) == Written::Stored
    });
}

/// Nothing is pending, so that nothing is lost with the records that it keeps of this process.
#[test]
fn to_close_takes_no_longer_than_to_notice_that_a_node_hangs() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let memory = builder(&cluster).build().unwrap();
    for key in one_of_each(&cluster) {
        memory.set(&key, 1).unwrap();
    }
    cluster.nodes()[1].freeze();
    let began = Instant::now();
    memory.close(DEADLINE).unwrap();
    assert!(began.elapsed() < DEADLINE / 6, "{:?}", began.elapsed());
}

/// One slot of a node has nobody who serves it, and the others of that node are served.
#[test]
fn a_slot_that_its_node_does_not_serve_is_the_trouble_of_its_own_keys() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let memory = builder(&cluster).build().unwrap();
    let [served, _, _] = one_of_each(&cluster);
    let node = &cluster.nodes()[0];
    let names = (0..).map(|n| format!("unserved{n}"));
    let mut unserved = names.filter(|name| {
        let slot = cluster.slot_of(&format!("memory:{name}"));
        cluster.owner(slot) == 0
    });
    let unserved = unserved.next().expect("there is one");
    let slot = cluster.slot_of(&format!("memory:{unserved}")).to_string();
    node.cli(&["CLUSTER", "DELSLOTS", &slot]);
    let unserved = Key::<u32>::named(unserved);
    assert_eq!(memory.set(&unserved, 1).unwrap(), Written::Queued);
    p99(&memory, &[served], Duration::from_secs(2));
    assert_eq!(memory.status().pending, 1);
    node.cli(&["CLUSTER", "ADDSLOTS", &slot]);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&unserved).unwrap(), Some(1));
}
