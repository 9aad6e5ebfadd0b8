//! Primaries that go: what is answered stays, and nothing is made twice.

use std::cell::Cell;
use std::time::Duration;

use support::{Cluster, ClusterProxies, Server, eventually};
use synced_memory::{ErrorKind, Key, Memory, Written};

use crate::crew::{Crew, KEYS, Made};
use crate::{DEADLINE, builder, reader_of, soak};

const KEY: &str = KEYS[0];

/// How much the crew does while a primary goes once.
const ROUNDS: usize = 100;

/// The primary of the crew's list now.
fn primary(cluster: &Cluster) -> usize {
    cluster.owner(cluster.slot_of(KEY))
}

/// Waits until another node than this has the slot of the crew's list.
fn taken_over(cluster: &Cluster, from: usize) {
    eventually(DEADLINE, "a replica takes over", || {
        primary(cluster) != from
    });
}

/// How often a primary goes.
fn times() -> usize {
    if soak() { 10 } else { 2 }
}

/// Lets the crew work while `disturb` does what it does to the primary of its list, again and
/// again.
fn crew_while(cluster: &Cluster, mut crew: Crew, disturb: impl Fn(usize)) -> Crew {
    for _ in 0..times() {
        crew.work(ROUNDS, |turn| {
            if turn == 0 {
                disturb(primary(cluster));
            }
        });
    }
    crew
}

/// What a primary has answered is on its replica when it goes, and it has made some of what it has
/// not answered. A replica gets what its primary makes a little later, and what was answered just
/// before a primary goes would be lost with it.
fn goes(cluster: &Cluster, proxies: &ClusterProxies, primary: usize, go: impl Fn(&Server)) {
    let (node, proxy) = (&cluster.nodes()[primary], &proxies.proxies()[primary]);
    let swallowed = proxy.swallowed();
    proxy.swallow_answers(true);
    eventually(DEADLINE, "it makes what it does not answer", || {
        proxy.swallowed() > swallowed
    });
    cluster.wait_replicated(primary);
    go(node);
    proxy.cut();
    proxy.swallow_answers(false);
    taken_over(cluster, primary);
}

fn killed(program: fn() -> support::Builder) {
    let cluster = Cluster::start(program, 3, 1);
    let proxies = cluster.proxied();
    let kill = |primary: usize| {
        goes(&cluster, &proxies, primary, Server::kill);
        cluster.nodes()[primary].start();
        cluster.wait_ready();
    };
    crew_while(&cluster, Crew::through(&proxies), kill).check(builder(&cluster));
}

#[test]
fn nothing_is_lost_or_doubled_when_primaries_are_killed_and_replicas_take_over() {
    killed(Server::redis);
}

#[test]
fn the_same_holds_on_valkey() {
    killed(Server::valkey);
}

#[test]
fn nothing_is_lost_or_doubled_when_a_primary_is_frozen_past_its_failover_and_thawed() {
    let cluster = Cluster::start(Server::redis, 3, 1);
    let proxies = cluster.proxied();
    let freeze = |primary: usize| {
        goes(&cluster, &proxies, primary, Server::freeze);
        cluster.nodes()[primary].thaw();
        cluster.wait_ready();
    };
    crew_while(&cluster, Crew::through(&proxies), freeze).check(builder(&cluster));
}

#[test]
fn nothing_is_lost_or_doubled_by_failovers_in_good_order() {
    let cluster = Cluster::start(Server::redis, 3, 1);
    let fail_over = |primary: usize| cluster.failover(cluster.replica_of(primary));
    let crew = Crew::at(&cluster.url());
    crew_while(&cluster, crew, fail_over).check(builder(&cluster));
}

#[test]
fn nothing_is_lost_or_doubled_when_all_nodes_are_stopped_and_started() {
    let durable = |builder: support::Builder| {
        let builder = builder.arg("appendonly", "yes");
        builder.arg("appendfsync", "always")
    };
    let cluster = Cluster::start_with(Server::redis, 3, 0, durable);
    let restart = |_| {
        cluster.nodes().iter().for_each(Server::kill);
        cluster.nodes().iter().for_each(Server::start);
        cluster.wait_ready();
    };
    let crew = Crew::at(&cluster.url());
    crew_while(&cluster, crew, restart).check(builder(&cluster));
}

#[test]
fn nothing_is_lost_or_doubled_while_slots_move_and_nodes_freeze() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let mut crew = Crew::at(&cluster.url());
    let slots = KEYS.map(|key| cluster.slot_of(key));
    crew.work(ROUNDS * times(), |turn| {
        let node = &cluster.nodes()[turn % 3];
        node.freeze();
        // Longer than a call waits, and shorter than a failover takes.
        std::thread::sleep(Duration::from_millis(700));
        node.thaw();
        let slot = slots[turn % slots.len()];
        cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3);
    });
    crew.check(builder(&cluster));
}

/// How many calls a primary gets at least that its replica never hears of.
const LOST: u64 = 20;

/// The replicas of the primary are cut off from it, and then it is killed: what it answered since
/// is gone with it.
fn lossy(cluster: &Cluster, primary: usize) {
    cluster.cut_replication(primary);
    let node = &cluster.nodes()[primary];
    let before = node.command_count("evalsha");
    eventually(DEADLINE, "it makes what it will lose", || {
        node.command_count("evalsha") > before + LOST
    });
    node.kill();
    taken_over(cluster, primary);
    node.start();
    cluster.restore_replication();
    cluster.wait_ready();
}

#[test]
fn nothing_is_made_twice_when_a_primary_dies_with_what_its_replica_never_got() {
    let cluster = Cluster::start(Server::redis, 3, 1);
    let crew = Crew::at(&cluster.url());
    let mut crew = crew_while(&cluster, crew, |primary| lossy(&cluster, primary));
    crew.deliver();
    let made = Made::of(builder(&cluster));
    assert_eq!(made.twice(crew.all()), [0; 2], "{made:?}");
}

/// The survivor has another value of the same length where the one that is gone had the last one
/// that this process knows, and both were written by processes that had not seen the one before.
#[test]
fn what_a_survivor_has_is_not_taken_for_what_was_lost() {
    let cluster = Cluster::start(Server::redis, 3, 1);
    let [one, two] = [(); 2].map(|()| builder(&cluster).build().unwrap());
    let key = Key::<Vec<String>>::new("items");
    let push = |memory: &Memory, item: &str| {
        memory.synced(&key).push(item.to_owned()).unwrap();
        memory.flush(DEADLINE).unwrap();
    };
    push(&one, "first");
    assert_eq!(two.get(&key).unwrap().unwrap(), ["first"]);

    // Written by somebody whose clock is ahead.
    let from = primary(&cluster);
    let node = &cluster.nodes()[from];
    let ahead = in_an_hour(&node.get_text(KEY).unwrap());
    node.set_raw(KEY, ahead);
    cluster.wait_replicated(from);

    cluster.cut_replication(from);
    push(&one, "lost");
    node.kill();
    taken_over(&cluster, from);
    push(&two, "kept");
    push(&one, "last");
    let reader = reader_of(builder(&cluster));
    assert_eq!(
        reader.get(&key).unwrap().unwrap(),
        ["first", "kept", "last"]
    );
}

/// The same value, with a stamp of an hour later.
fn in_an_hour(envelope: &str) -> String {
    let (before, stamp) = envelope.rsplit_once(':').unwrap();
    let stamp: u64 = stamp.trim_matches([' ', '}']).parse().unwrap();
    let hour = Duration::from_secs(3_600).as_nanos();
    format!("{before}: {}}}", u128::from(stamp) + hour)
}

#[test]
fn with_replicas_nothing_answered_is_lost_even_then() {
    for program in [Server::redis, Server::valkey] {
        let cluster = Cluster::start(program, 3, 1);
        let crew = Crew::at(&format!("{}/?replicas=1", cluster.url()));
        let mut crew = crew_while(&cluster, crew, |primary| lossy(&cluster, primary));
        crew.check(builder(&cluster));
    }
}

#[test]
fn with_replicas_nothing_answered_is_lost_whenever_a_primary_is_killed_or_frozen() {
    for program in [Server::redis, Server::valkey] {
        let cluster = Cluster::start(program, 3, 1);
        let crew = Crew::at(&format!("{}/?replicas=1", cluster.url()));
        let gone = Cell::new(0);
        let goes = |primary: usize| {
            let node = &cluster.nodes()[primary];
            if gone.replace(gone.get() + 1) % 2 == 0 {
                node.kill();
                taken_over(&cluster, primary);
                node.start();
            } else {
                node.freeze();
                taken_over(&cluster, primary);
                node.thaw();
            }
            cluster.wait_ready();
        };
        crew_while(&cluster, crew, goes).check(builder(&cluster));
    }
}

#[test]
fn without_replicas_nothing_is_stored_and_a_confirmed_call_is_in_doubt() {
    let cluster = Cluster::start(Server::redis, 3, 0);
    let url = format!("{}/?replicas=1", cluster.url());
    let memory = builder(&cluster).url(url).build().unwrap();
    let key = Key::<u32>::new("n");
    let confirmed = || memory.synced(&key).confirmed().set(1).unwrap_err().kind();
    assert_eq!(confirmed(), ErrorKind::InDoubt);
    // The server has said so: another one is not sent.
    assert_eq!(confirmed(), ErrorKind::Unavailable);
    assert_eq!(memory.set(&key, 2).unwrap(), Written::Queued);
    let reader = reader_of(builder(&cluster));
    let seen = reader.get(&key).unwrap();
    assert_eq!(seen, Some(1), "what was made, and not what waits behind it");

    let nodes = memory.status().nodes;
    let waits: Vec<_> = nodes.iter().filter(|node| node.pending > 0).collect();
    assert!(!waits.is_empty(), "{nodes:?}");
    for node in waits {
        let why = node.last_error.as_ref().expect("it says why").to_string();
        assert!(why.contains("0 of 1 replicas"), "{why}");
    }
}
