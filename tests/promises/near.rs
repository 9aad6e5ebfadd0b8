//! Rules 1, 9 and 14: near reads are local and never stale for good, behind writes never
//! wait.

use std::thread;
use std::time::{Duration, Instant};

use support::{Canary, Direction, Server, Stop, eventually};
use synced_memory::{ErrorKind, Key, Memory, ReadPolicy, SyncedMemory, WritePolicy, Written};

use crate::line::{DEADLINE, Line, on_every_backend, quick, wait_connected, wait_disconnected};

#[derive(SyncedMemory, Debug)]
struct Sample {
    #[synced(near, default)]
    count: i64,
    #[synced(near, behind)]
    items: Vec<String>,
    #[synced(default)]
    plain: i64,
}

fn key() -> Key<i64> {
    Key::new("count")
}

#[test]
fn a_near_read_sees_what_others_write_and_delete() {
    on_every_backend("near-others", |one, other| {
        let mine = Sample::attach(one);
        assert_eq!(mine.count().unwrap(), 0);
        for n in 1..50 {
            other.set(&key(), n).unwrap();
            eventually(DEADLINE, "the change is seen", || {
                mine.count().unwrap() == n
            });
        }
        other
            .synced(&Key::<Vec<String>>::new("items"))
            .push("a".to_owned())
            .unwrap();
        eventually(DEADLINE, "the push is seen", || {
            mine.items().to_vec().unwrap() == ["a"]
        });
        other.delete(&key()).unwrap();
        eventually(DEADLINE, "the delete is seen", || {
            mine.synced_count().find().unwrap().is_none()
        });
        let count = mine.synced_count();
        eventually(DEADLINE, "it is current", || {
            count.get().is_ok() && count.staleness() == Some(Duration::ZERO)
        });
        assert_eq!(
            one.synced(&key()).staleness(),
            None,
            "only near reads have a staleness"
        );
        assert_eq!(one.status().stale, 0);
    });
}

#[test]
fn a_near_read_shows_this_processs_own_writes_at_once() {
    on_every_backend("near-own", |one, other| {
        let mine = Sample::attach(one);
        for n in 0..200_u8 {
            mine.set_count(n.into()).unwrap();
            assert_eq!(mine.count().unwrap(), i64::from(n));
            mine.items().push(n.to_string()).unwrap();
            assert_eq!(mine.items().len().unwrap(), usize::from(n) + 1);
        }
        one.flush(DEADLINE).unwrap();
        assert_eq!(
            other
                .get(&Key::<Vec<String>>::new("items"))
                .unwrap()
                .unwrap()
                .len(),
            200
        );
    });
}

#[test]
fn near_reads_send_no_request() {
    let server = Server::redis().start();
    let memory = Memory::builder()
        .url(server.url())
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let count = memory.synced(&key());
    count.set(5).unwrap();
    eventually(DEADLINE, "it is current", || {
        count.get().is_ok() && count.staleness() == Some(Duration::ZERO)
    });
    // From when the slot was read again after the invalidation by that write.
    eventually(DEADLINE, "10,000 reads send no request", || {
        server.reset_stats();
        (0..10_000).for_each(|_| assert_eq!(count.get().unwrap(), 5));
        assert_eq!(memory.get(&key()).unwrap(), Some(5));
        server.command_count("get") == 0
    });
}

#[test]
fn whatever_happens_to_the_server_every_slot_is_read_again_afterwards() {
    let line = Line::new();
    let (mine, direct) = (Sample::attach(&line.open()), line.open_directly());
    let agrees = |expected: Option<i64>| {
        eventually(DEADLINE, "the slot shows it", || {
            mine.synced_count().find().unwrap() == expected
        });
    };
    for n in 0..20 {
        direct.set(&key(), n).unwrap();
        agrees(Some(n));
        // A change without an invalidation: the line is down.
        line.down(mine.memory());
        assert_eq!(mine.count().unwrap(), n);
        direct.set(&key(), n + 1_000).unwrap();
        line.up();
        agrees(Some(n + 1_000));
        line.server.cli(&["FLUSHALL"]);
        agrees(None);
        line.server.set_raw("memory:count", "7");
        agrees(Some(7));
        line.server
            .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        line.server.cli(&["RENAME", "memory:count", "renamed"]);
        agrees(None);
        line.server.cli(&["SET", "memory:count", "8", "PX", "30"]);
        // Wait for that: a write without a time to live would keep this one.
        eventually(DEADLINE, "it ends", || {
            line.server.get_raw("memory:count").is_none()
        });
        agrees(None);
        wait_connected(&direct);
    }
}

#[test]
fn after_an_outage_a_large_state_is_read_again_in_batches_and_each_slot_once() {
    const SLOTS: usize = 5_000;
    let line = Line::new();
    let (memory, direct) = (
        line.builder()
            .read_policy(ReadPolicy::Near)
            .build()
            .unwrap(),
        line.open_directly(),
    );
    let name = |n: usize| Key::<usize>::named(format!("k{n}"));
    let mut sets = redis::pipe();
    (0..SLOTS).for_each(|n| _ = sets.set(format!("memory:k{n}"), n).ignore());
    let mut connection = redis::Client::open(line.server.url())
        .unwrap()
        .get_connection()
        .unwrap();
    let () = sets.query(&mut connection).unwrap();
    let views: Vec<_> = (0..SLOTS).map(|n| memory.synced(&name(n))).collect();
    assert!(
        views
            .iter()
            .enumerate()
            .all(|(n, view)| view.get().unwrap() == n)
    );
    eventually(DEADLINE, "all are current", || memory.status().stale == 0);
    line.down(&memory);
    assert_eq!(memory.status().stale, SLOTS);
    direct.set(&name(7), 70).unwrap();
    for direction in [Direction::ToServer, Direction::ToClient] {
        line.proxy.delay(direction, Duration::from_millis(5));
    }
    line.server.reset_stats();
    line.up();
    let mut steps = vec![SLOTS];
    eventually(DEADLINE, "all are current again", || {
        let left = memory.status().stale;
        if steps.last() != Some(&left) {
            steps.push(left);
        }
        left == 0
    });
    assert!(
        steps.is_sorted_by(|one, next| one > next) && steps.len() > 10,
        "{steps:?}"
    );
    let reads = line.server.command_count("get");
    // The write's script has read its key.
    assert!(
        (SLOTS as u64..SLOTS as u64 + 10).contains(&reads),
        "{reads} reads of {SLOTS} slots"
    );
    assert_eq!(views[7].get().unwrap(), 70);
}

#[test]
fn while_the_server_is_away_near_reads_and_behind_writes_never_wait() {
    let line = Line::new();
    let memory = line
        .builder()
        .read_policy(ReadPolicy::Near)
        .write_policy(WritePolicy::Behind)
        .build()
        .unwrap();
    let count = memory.synced(&key());
    wait_connected(&memory);
    assert_eq!(count.set(1).unwrap(), Written::Queued);
    memory.flush(DEADLINE).unwrap();
    eventually(DEADLINE, "it is current", || {
        count.get().is_ok() && count.staleness() == Some(Duration::ZERO)
    });
    line.server.freeze();
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    let mut n = 1;
    while began.elapsed() < Duration::from_secs(1) {
        n += 1;
        let call = Instant::now();
        assert_eq!(count.set(n).unwrap(), Written::Queued);
        assert_eq!(count.get().unwrap(), n);
        // A key that was never read from the server.
        let fresh = memory.synced(&Key::<i64>::named(format!("fresh{}", n % 100)));
        assert_eq!(fresh.set(n).unwrap(), Written::Queued);
        assert_eq!(fresh.get().unwrap(), n);
        longest = longest.max(call.elapsed());
    }
    // No call waits for the network, but on a busy machine a thread may wait for a CPU.
    assert!(longest < Duration::from_millis(400), "{longest:?}");
    wait_disconnected(&memory);
    assert!(
        count
            .staleness()
            .is_some_and(|staleness| staleness > Duration::ZERO)
    );
    line.server.thaw();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(line.open_directly().get(&key()).unwrap(), Some(n));
    eventually(DEADLINE, "it is current again", || {
        count.staleness() == Some(Duration::ZERO)
    });
}

#[derive(SyncedMemory, Debug)]
#[synced(behind)]
struct BusyFields {
    a: i64,
    b: i64,
    c: i64,
}

#[test]
fn however_busy_a_process_is_it_sees_what_others_change() {
    on_every_backend("near-busy", |one, other| {
        let (count, stop) = (Sample::attach(one).synced_count().clone(), Stop::default());
        let busy = BusyFields::attach(one);
        count.set(0).unwrap();
        eventually(DEADLINE, "it is current", || {
            count.get().is_ok() && count.staleness() == Some(Duration::ZERO)
        });
        thread::scope(|scope| {
            let _stop = stop.on_drop();
            for field in [busy.synced_a(), busy.synced_b(), busy.synced_c()] {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.is_set() {
                        field.set(7).unwrap();
                    }
                });
            }
            // Each new watch may restart the search for changes.
            scope.spawn(|| {
                while !stop.is_set() {
                    drop(one.watch(&Key::<i64>::named(format!(
                        "watched{}",
                        fastrand::u8(..100)
                    ))));
                }
            });
            for n in 1..=5 {
                other.set(&key(), n).unwrap();
                eventually(DEADLINE, "it is seen", || count.get().unwrap() == n);
            }
        });
    });
}

#[test]
fn without_the_right_to_track_each_near_read_asks_the_server() {
    let server = Server::redis().start();
    server.cli(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pw",
        "~*",
        "resetchannels",
        "+@all",
        "-client|tracking",
    ]);
    let memory = quick(server.url_as("app", "pw"))
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let count = memory.synced(&key());
    for n in 0..20 {
        server.set_raw("memory:count", n.to_string());
        assert_eq!(count.get().unwrap(), n);
    }
    assert_eq!(count.staleness(), None);
}

#[derive(SyncedMemory)]
#[synced(near)]
struct Plain {
    plain: i64,
}

#[test]
fn a_value_that_was_read_through_is_read_again_by_the_first_near_read() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    let mine = Sample::attach(&memory);
    mine.count().unwrap();
    let near = Key::<i64>::new("plain");
    for n in 0..20 {
        // Another scope has a slot of its own: its keys are tracked already, and none of them is
        // read near yet.
        let scope = memory.scope(&format!("s{n}"));
        let known = format!("memory:s{n}:plain");
        server.set_raw(&known, "1");
        assert_eq!(scope.get(&near).unwrap(), Some(1));
        server.set_raw(&known, "2");
        let plain = Plain::attach(&scope);
        assert_eq!(plain.plain().unwrap(), 2);
        server.set_raw(&known, "3");
        eventually(DEADLINE, "the change is seen", || {
            plain.plain().unwrap() == 3
        });
    }
}

#[test]
fn whatever_its_prefix_and_whenever_it_is_first_read_a_near_key_is_tracked() {
    let server = Server::redis().start();
    for round in 0..100 {
        let prefix = format!("p{}:", round % 7);
        let memory = quick(format!("{}?prefix={prefix}", server.url()))
            .build()
            .unwrap();
        // At once: the connection has only just been made.
        let sample = Sample::attach(&memory);
        let before = sample.count().unwrap();
        server.set_raw(&format!("{prefix}count"), (before + 1).to_string());
        eventually(DEADLINE, "the change is seen", || {
            sample.count().unwrap() == before + 1
        });
        if round % 10 == 0 {
            // More prefixes, while the first ones are in use; `p` is the beginning of all of those.
            for other in ["q:", "q:r:", "p", "x:"] {
                let memory = under(&memory, other);
                let key = format!("{other}other");
                server.set_raw(&key, "1");
                assert_eq!(memory.other().unwrap(), 1);
                server.set_raw(&key, "2");
                eventually(DEADLINE, "the change is seen", || {
                    memory.other().unwrap() == 2
                });
            }
            let now = sample.count().unwrap();
            server.set_raw(&format!("{prefix}count"), (now + 1).to_string());
            eventually(DEADLINE, "the change is seen", || {
                sample.count().unwrap() == now + 1
            });
        }
    }
}

/// A near field under one of a few prefixes.
enum Other {
    Q(SyncedUnderQ),
    R(SyncedUnderR),
    P(SyncedUnderP),
    X(SyncedUnderX),
}

impl Other {
    fn other(&self) -> synced_memory::Result<i64> {
        match self {
            Self::Q(handle) => handle.other(),
            Self::R(handle) => handle.other(),
            Self::P(handle) => handle.other(),
            Self::X(handle) => handle.other(),
        }
    }
}

fn under(memory: &Memory, prefix: &str) -> Other {
    match prefix {
        "q:" => Other::Q(UnderQ::attach(memory)),
        "q:r:" => Other::R(UnderR::attach(memory)),
        "p" => Other::P(UnderP::attach(memory)),
        "x:" => Other::X(UnderX::attach(memory)),
        _ => panic!("{prefix} is none of them"),
    }
}

macro_rules! under {
    ($($name:ident $prefix:literal),+) => {
        $(#[derive(SyncedMemory)] #[synced(near, prefix = $prefix)] struct $name { other: i64 })+
    };
}

under!(UnderQ "q:", UnderR "q:r:", UnderP "p", UnderX "x:");

#[test]
fn a_slot_that_a_loading_server_refused_to_read_is_read_once_it_has_loaded() {
    let server = Server::redis()
        .slow_loading(Duration::from_millis(2))
        .start();
    let sample = Sample::attach(&quick(server.url()).build().unwrap());
    server.set_raw("memory:count", "1");
    eventually(DEADLINE, "the change is seen", || {
        sample.count().unwrap() == 1
    });
    server.set_raw("memory:count", "2");
    for n in 0..300 {
        server.set_raw(&format!("filler{n}"), [b'x'; 2_000]);
    }
    eventually(DEADLINE, "the change is seen", || {
        sample.count().unwrap() == 2
    });
    server.stop();
    wait_disconnected(sample.memory());
    server.launch();
    let cause = || {
        sample
            .memory()
            .status()
            .last_error
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    eventually(DEADLINE, "the read is refused", || {
        cause().contains("LOADING")
    });
    assert_eq!(
        sample.count().unwrap(),
        2,
        "meanwhile it shows what is known"
    );
    server.wait_ready();
    eventually(DEADLINE, "it is current", || {
        sample.synced_count().staleness() == Some(Duration::ZERO)
            && sample.memory().status().stale == 0
    });
    assert_eq!(sample.count().unwrap(), 2);
}

#[test]
fn a_near_read_of_a_key_that_became_another_type_is_rejected_as_any_read_is() {
    let server = Server::redis().start();
    let sample = Sample::attach(&quick(server.url()).build().unwrap());
    for n in 0..20 {
        sample.set_count(n).unwrap();
        assert_eq!(sample.count().unwrap(), n);
        server.cli(&["DEL", "memory:count"]);
        server.cli(&["HSET", "memory:count", "a", "1"]);
        let kind = || sample.count().map_err(|error| error.kind());
        eventually(DEADLINE, "it is refused", || {
            kind() == Err(ErrorKind::Rejected)
        });
        server.cli(&["DEL", "memory:count"]);
        server.set_raw("memory:count", "7");
        eventually(DEADLINE, "it is read again", || kind() == Ok(7));
        server.set_raw("memory:count", "8");
        eventually(DEADLINE, "a change is seen again", || kind() == Ok(8));
        eventually(DEADLINE, "it is current", || {
            sample.synced_count().staleness() == Some(Duration::ZERO)
                && sample.memory().status().stale == 0
        });
    }
}

#[test]
fn a_time_to_live_that_others_set_ends_in_time_without_an_invalidation() {
    const TTL: Duration = Duration::from_millis(150);
    let server = Server::redis().arg("enable-debug-command", "yes").start();
    // The server expires a key only when it is accessed.
    server.cli(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    let sample = Sample::attach(&quick(server.url()).build().unwrap());
    let (count, canary) = (sample.synced_count(), Canary::start());
    for n in 1..10 {
        server.cli(&["SET", "memory:count", &n.to_string()]);
        eventually(DEADLINE, "the change is seen", || {
            count.find().unwrap() == Some(n)
        });
        let before = Instant::now();
        server.cli(&["PEXPIRE", "memory:count", &TTL.as_millis().to_string()]);
        eventually(DEADLINE, "the value ends", || {
            count.find().unwrap().is_none()
        });
        let (took, lateness) = (before.elapsed(), canary.lateness());
        // The server counts in whole milliseconds.
        assert!(
            took + Duration::from_millis(2) >= TTL,
            "it ended after {took:?}"
        );
        assert!(
            took <= TTL + Duration::from_millis(50) + 3 * lateness,
            "{took:?}; the machine was late by {lateness:?}"
        );
        // A time to live that is shortened, and then removed.
        server.cli(&["SET", "memory:count", "70", "PX", "100000"]);
        eventually(DEADLINE, "the change is seen", || {
            count.find().unwrap() == Some(70)
        });
        server.cli(&["PEXPIRE", "memory:count", "60"]);
        server.cli(&["PERSIST", "memory:count"]);
        let before = Instant::now();
        while before.elapsed() < Duration::from_millis(80) {
            assert!(
                count.find().unwrap().is_some() || before.elapsed() < Duration::from_millis(60)
            );
        }
        eventually(DEADLINE, "the value stays", || {
            count.find().unwrap() == Some(70)
        });
    }
}

#[test]
fn a_slot_whose_change_is_in_doubt_is_not_read_in_a_busy_loop() {
    let line = Line::new();
    let sample = Sample::attach(&line.open());
    sample.items().push("a".to_owned()).unwrap();
    sample.memory().flush(DEADLINE).unwrap();
    eventually(DEADLINE, "it is known", || {
        sample.items().to_vec().unwrap() == ["a"]
    });
    line.proxy.refuse(true);
    line.proxy.cut_after_bytes(Direction::ToServer, 0);
    sample.items().push("b".to_owned()).unwrap();
    wait_disconnected(sample.memory());
    line.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    line.server.reset_stats();
    line.proxy.refuse(false);
    let cause = || {
        sample
            .memory()
            .status()
            .last_error
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    eventually(DEADLINE, "writes are refused", || cause().contains("OOM"));
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(sample.items().to_vec().unwrap(), ["a", "b"]);
    }
    let reads = line.server.command_count("get");
    assert!(reads < 100, "{reads} reads in {:?}", began.elapsed());
    line.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    sample.memory().flush(DEADLINE).unwrap();
    eventually(DEADLINE, "it is current", || {
        sample.memory().status().stale == 0
    });
    assert_eq!(sample.items().to_vec().unwrap(), ["a", "b"]);
}
