//! Sentinel makes another server the primary: it is followed, and nothing is lost or made twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use support::{Proxy, Server, Stop, Watched, eventually, eventually_some};
use synced_memory::{Builder, Key, Memory, ReadPolicy, Written};

use crate::line::{DEADLINE, wait_connected};

/// How long an old primary may still answer after all sentinels have named another one.
const GRACE: Duration = Duration::from_millis(200);

fn number() -> Key<u64> {
    Key::new("n")
}

fn ids() -> Key<Vec<String>> {
    Key::new("ids")
}

/// With the pauses that users have, unless they say otherwise.
fn builder(watched: &Watched) -> Builder {
    Memory::builder().url(watched.url())
}

fn open(watched: &Watched) -> Memory {
    builder(watched).timeout(DEADLINE).build().unwrap()
}

/// A memory at one server, whoever is the primary.
fn open_at(server: &Server) -> Memory {
    let builder = Memory::builder().url(server.url());
    builder.timeout(DEADLINE).build().unwrap()
}

/// Waits until the replica has all that the primary has.
fn wait_replicated(primary: &Server, replica: &Server) {
    let offset = |server: &Server| {
        let info = server.info("replication");
        let line = |name| info.lines().find_map(|line| line.strip_prefix(name));
        let offset = line("slave_repl_offset:").or_else(|| line("master_repl_offset:"));
        offset.expect("an offset").to_owned()
    };
    let end = offset(primary);
    let number = |text: &str| text.parse::<u64>().expect("a number");
    eventually(DEADLINE, "the replica has caught up", || {
        number(&offset(replica)) >= number(&end)
    });
}

/// A server that is made a replica closes all connections.
fn is_primary(server: &Server) -> bool {
    let role = eventually_some(DEADLINE, "it says its role", || {
        server.try_cli(&["ROLE"]).ok()
    });
    let redis::Value::Array(parts) = role else {
        panic!("{role:?}")
    };
    parts[0] == redis::Value::BulkString(b"master".to_vec())
}

/// Makes the sentinels take a server for dead, though it goes on, and everybody else reaches it: it
/// refuses all that they ask for, as the default user.
fn hide_from_sentinels(server: &Server) {
    server.cli(&["ACL", "SETUSER", "default", "-@all"]);
}

/// The users of servers that are hidden from sentinels.
fn with_app(server: support::Builder) -> support::Builder {
    server.user("app", "on >pw ~* &* +@all")
}

fn url_of_app(watched: &Watched) -> String {
    watched.url().replacen("://", "://app:pw@", 1)
}

/// Four memories push ids without end. At some moment no answer of the primary arrives any more,
/// so that what was pushed from then on is in doubt; then it is killed.
fn kill_the_primary(program: fn() -> support::Builder) {
    let watched = Watched::start(program);
    let servers = watched.servers();
    let proxies: Vec<_> = servers.iter().map(Proxy::to).collect();
    let reached: BTreeMap<u16, u16> = servers
        .iter()
        .zip(&proxies)
        .map(|(server, proxy)| (server.port(), proxy.port()))
        .collect();
    let reached = Arc::new(reached);
    let stop = Stop::default();
    let pushed: Vec<(String, u64, u64)> = thread::scope(|scope| {
        let stop_guard = stop.on_drop();
        let pushers: Vec<_> = (0..4)
            .map(|writer| {
                let (reached, stop) = (Arc::clone(&reached), &stop);
                let memory = builder(&watched)
                    .addresses(move |host, port| {
                        (host.to_owned(), *reached.get(&port).unwrap_or(&port))
                    })
                    .build()
                    .unwrap();
                scope.spawn(move || {
                    let list = memory.synced(&ids());
                    let (mut count, mut queued) = (0, 0);
                    while !stop.is_set() {
                        match list.push(format!("{writer}/{count}")).unwrap() {
                            Written::Queued => queued += 1,
                            written => assert_eq!(written, Written::Stored),
                        }
                        count += 1;
                        thread::sleep(Duration::from_millis(2));
                    }
                    memory.flush(DEADLINE).unwrap();
                    assert!(memory.dead_letters().is_empty());
                    (writer.to_string(), count, queued)
                })
            })
            .collect();
        let length = |server: &Server| open_at(server).get(&ids()).unwrap_or_default();
        let grown_to = |server: &Server, least: usize| {
            eventually(DEADLINE, "ids are pushed", || {
                length(server).is_some_and(|ids| ids.len() >= least)
            });
        };
        grown_to(&servers[0], 200);
        for proxy in &proxies {
            proxy.swallow_answers(true);
        }
        // What arrives from now on is not answered, and what was answered is replicated.
        eventually(DEADLINE, "an answer is lost", || proxies[0].swallowed() > 0);
        wait_replicated(&servers[0], &servers[1]);
        servers[0].kill();
        for proxy in &proxies {
            proxy.swallow_answers(false);
            proxy.cut();
        }
        watched.wait_replaced(0);
        let before = length(&servers[1]).unwrap_or_default().len();
        grown_to(&servers[1], before + 200);
        drop(stop_guard);
        pushers
            .into_iter()
            .map(|pusher| pusher.join().unwrap())
            .collect()
    });

    let queued: u64 = pushed.iter().map(|(_, _, queued)| queued).sum();
    assert!(queued > 0, "writes had to wait");
    let mut found = BTreeMap::new();
    for id in open_at(&servers[1]).get(&ids()).unwrap().unwrap() {
        *found.entry(id).or_insert(0) += 1;
    }
    let all = pushed
        .iter()
        .flat_map(|(writer, count, _)| (0..*count).map(move |n| format!("{writer}/{n}")));
    let expected: BTreeMap<_, _> = all.map(|id| (id, 1)).collect();
    assert!(found == expected, "each id is there once");
}

#[test]
fn when_the_primary_is_killed_no_write_is_lost_or_doubled() {
    kill_the_primary(Server::redis);
}

#[test]
fn when_the_primary_is_killed_no_write_is_lost_or_doubled_on_valkey() {
    kill_the_primary(Server::valkey);
}

#[test]
fn when_the_primary_is_killed_no_write_is_lost_or_doubled_on_redis_6() {
    kill_the_primary(Server::redis_6);
}

/// Nothing else would end the wait of a call with such a timeout: the connection is open, and the
/// server has not yet been silent for so long.
#[test]
fn a_write_that_a_frozen_primary_has_is_stored_by_the_new_one_at_once() {
    let watched = Watched::start(Server::redis);
    let [old, new] = watched.servers() else {
        panic!("two servers")
    };
    let memory = open(&watched);
    let near = builder(&watched).read_policy(ReadPolicy::Near);
    let near = near.timeout(DEADLINE).build().unwrap();
    memory.set(&ids(), vec!["before".to_owned()]).unwrap();
    memory.set(&number(), 1).unwrap();
    assert_eq!(near.get(&number()).unwrap(), Some(1));
    wait_replicated(old, new);

    old.freeze();
    let began = Instant::now();
    // It waits for the old one until that is replaced, and is sent to the new one then.
    memory.synced(&ids()).push("meanwhile".to_owned()).unwrap();
    memory.flush(DEADLINE).unwrap();
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    let expected = Some(vec!["before".to_owned(), "meanwhile".to_owned()]);
    assert_eq!(open_at(new).get(&ids()).unwrap(), expected);

    // Nobody who waits is answered by the old one, which goes on with what it had received.
    watched.wait_replaced(0);
    old.thaw();
    for n in 2..100 {
        let written = memory.set(&number(), n).unwrap();
        assert_eq!(written, Written::Stored);
        assert_eq!(open_at(new).get(&number()).unwrap(), Some(n));
        eventually(DEADLINE, "the near reader has it", || {
            near.get(&number()).unwrap() == Some(n)
        });
    }
    eventually(DEADLINE, "the old one is a replica", || !is_primary(old));
    assert_eq!(memory.get(&ids()).unwrap(), expected, "once");
}

/// The sentinels have lost sight of the primary, and clients have not: it takes and answers writes
/// as before, which are lost when it becomes a replica.
#[test]
fn an_old_primary_that_goes_on_answers_nothing_of_ours() {
    let watched = Watched::start_with(Server::redis, with_app, |sentinel| sentinel);
    let [old, new] = watched.servers() else {
        panic!("two servers")
    };
    let url = url_of_app(&watched);
    let memory = Memory::builder().url(&url).timeout(DEADLINE).build();
    let memory = memory.unwrap();
    let near = Memory::builder().url(&url).read_policy(ReadPolicy::Near);
    let near = near.build().unwrap();
    memory.set(&number(), 0).unwrap();
    assert_eq!(near.get(&number()).unwrap(), Some(0));
    wait_replicated(old, new);
    let at_old = Memory::builder().url(old.url_as("app", "pw")).build();
    let (at_old, at_new) = (at_old.unwrap(), open_at(new));

    let stop = Stop::default();
    thread::scope(|scope| {
        let stop_guard = stop.on_drop();
        let writer = scope.spawn(|| {
            let mut stored = Vec::new();
            for n in 1.. {
                if stop.is_set() {
                    break;
                }
                if memory.set(&number(), n).unwrap() == Written::Stored {
                    stored.push((Instant::now(), n));
                }
            }
            stored
        });
        hide_from_sentinels(old);
        watched.wait_replaced(0);
        let replaced = Instant::now();
        // This is what is promised, and no wait for something that happens.
        thread::sleep(GRACE);
        // From now on both are asked for: the last one that the old one has does not change.
        let last_of_old = at_old.get(&number()).unwrap().unwrap();
        eventually(DEADLINE, "there are writes after it", || {
            at_new.get(&number()).unwrap() > Some(last_of_old + 200)
        });
        eventually(Duration::from_secs(2), "a near read is current", || {
            let newest = at_new.get(&number()).unwrap();
            near.get(&number()).unwrap() >= newest
        });
        assert_eq!(at_old.get(&number()).unwrap(), Some(last_of_old));
        assert!(is_primary(old), "it would have answered");
        assert_eq!(at_old.set(&number(), 0).unwrap(), Written::Stored);
        drop(stop_guard);
        let stored = writer.join().unwrap();
        let mut late = stored.iter().filter(|(at, _)| *at > replaced + GRACE);
        assert!(late.all(|(_, n)| *n > last_of_old));
    });
    assert!(memory.status().connected);
}

#[test]
fn a_failover_by_hand_is_followed_at_once_and_nothing_is_made_twice() {
    let watched = Watched::start(Server::valkey);
    let memory = builder(&watched).read_policy(ReadPolicy::Near);
    let memory = memory.backoff(DEADLINE, DEADLINE).build().unwrap();
    let list = memory.synced(&ids());
    for n in 0..100 {
        assert_eq!(list.push(n.to_string()).unwrap(), Written::Stored);
    }
    let [old, new] = watched.servers() else {
        panic!("two servers")
    };
    wait_replicated(old, new);
    watched.fail_over();
    watched.wait_replaced(0);
    // A pause would take much longer than a test waits.
    eventually(Duration::from_secs(2), "writes go to the new one", || {
        let written = memory.set(&number(), 7).unwrap();
        written == Written::Stored && open_at(new).get(&number()).unwrap() == Some(7)
    });
    assert_eq!(list.push("100".to_owned()).unwrap(), Written::Stored);
    let expected: Vec<_> = (0..=100).map(|n| n.to_string()).collect();
    assert_eq!(open_at(new).get(&ids()).unwrap(), Some(expected));
}

/// The longest pause would take much longer than a test waits.
#[test]
fn in_an_outage_the_new_primary_is_connected_to_as_soon_as_it_is_named() {
    let watched = Watched::start(Server::redis);
    let memory = builder(&watched)
        .backoff(DEADLINE, DEADLINE)
        .build()
        .unwrap();
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
    watched.servers()[0].kill();
    watched.wait_replaced(0);
    eventually(Duration::from_secs(2), "it is connected", || {
        memory.status().connected
    });
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.set(&number(), 2).unwrap(), Written::Stored);
}

#[test]
fn with_one_sentinel_of_three_everything_goes_on_and_a_failover_is_followed_when_two_are_there() {
    let watched = Watched::start(Server::redis);
    let before = open(&watched);
    assert_eq!(before.set(&number(), 1).unwrap(), Written::Stored);
    wait_replicated(&watched.servers()[0], &watched.servers()[1]);
    for sentinel in &watched.sentinels()[..2] {
        sentinel.kill();
    }
    assert_eq!(before.set(&number(), 2).unwrap(), Written::Stored);
    let after = open(&watched);
    assert_eq!(after.get(&number()).unwrap(), Some(2));
    assert!(after.status().last_error.is_none());

    watched.sentinels()[1].start();
    watched.servers()[0].kill();
    watched.wait_replaced(0);
    for memory in [before, after] {
        memory.set(&number(), 3).unwrap();
        memory.flush(DEADLINE).unwrap();
        assert_eq!(memory.set(&number(), 4).unwrap(), Written::Stored);
    }
}

/// The others are known from it.
#[test]
fn a_url_needs_to_name_one_sentinel_alone() {
    let watched = Watched::start(Server::redis);
    let port = watched.sentinels()[0].port();
    let url = format!("redis-sentinel://127.0.0.1:{port}/mymaster");
    let memory = Memory::builder().url(url).build().unwrap();
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
    wait_replicated(&watched.servers()[0], &watched.servers()[1]);
    watched.sentinels()[0].kill();
    watched.servers()[0].kill();
    watched.wait_replaced(0);
    memory.flush(DEADLINE).unwrap();
    eventually(DEADLINE, "it has followed", || {
        memory.set(&number(), 2).unwrap() == Written::Stored
    });
}

#[test]
fn without_any_sentinel_the_last_known_primary_is_used_and_the_status_says_so() {
    let durable = |server: support::Builder| server.arg("appendonly", "yes");
    let watched = Watched::start_with(Server::redis, durable, |sentinel| sentinel);
    let memory = builder(&watched).build().unwrap();
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
    for sentinel in watched.sentinels() {
        sentinel.kill();
    }
    let last_error_says = |words: &[&str]| {
        let error = memory.status().last_error;
        error.is_some_and(|error| words.iter().all(|word| error.to_string().contains(word)))
    };
    let port = watched.servers()[0].port().to_string();
    eventually(DEADLINE, "it is said that no sentinel answers", || {
        last_error_says(&["no sentinel answers", &port, "last known primary"])
    });
    assert!(memory.status().connected);
    assert_eq!(memory.set(&number(), 2).unwrap(), Written::Stored);

    watched.servers()[0].stop();
    eventually(
        DEADLINE,
        "it is said that the last known one does not answer",
        || {
            last_error_says(&[
                "no sentinel answers",
                &port,
                "neither does the last known primary",
            ])
        },
    );
    assert_eq!(memory.set(&number(), 3).unwrap(), Written::Queued);
    watched.servers()[0].start();
    memory.flush(DEADLINE).unwrap();
    wait_connected(&memory);
    eventually(DEADLINE, "it is said again", || {
        last_error_says(&["no sentinel answers", &port, "last known primary"])
    });
    assert_eq!(memory.get(&number()).unwrap(), Some(3));

    // As soon as they are back, they are followed.
    for sentinel in watched.sentinels() {
        sentinel.start();
    }
    watched.wait_ready();
    watched.fail_over();
    watched.wait_replaced(0);
    eventually(DEADLINE, "the new one is followed", || {
        memory.set(&number(), 4).unwrap() == Written::Stored
            && open_at(&watched.servers()[1]).get(&number()).unwrap() == Some(4)
    });
}

/// It is asked from time to time.
#[test]
fn a_sentinel_that_lets_nobody_subscribe_is_followed_all_the_same() {
    let watched = Watched::start_with(Server::redis, with_app, |sentinel| {
        sentinel.user("watcher", "on >pw resetchannels +@all")
    });
    let memory = Memory::builder()
        .url(url_of_app(&watched))
        .sentinel_user("watcher")
        .sentinel_password("pw")
        .timeout(DEADLINE)
        .build()
        .unwrap();
    assert_eq!(memory.set(&number(), 1).unwrap(), Written::Stored);
    hide_from_sentinels(&watched.servers()[0]);
    watched.wait_replaced(0);
    let new = open_at(&watched.servers()[1]);
    eventually(DEADLINE, "the new one is followed", || {
        memory.set(&number(), 2).unwrap() == Written::Stored
            && new.get(&number()).unwrap() == Some(2)
    });
    let denied = watched.sentinels()[0].cli(&["ACL", "LOG"]);
    assert!(
        format!("{denied:?}").contains("+switch-master"),
        "{denied:?}"
    );
}
