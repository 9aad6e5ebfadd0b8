//! Rules 4 and 8: stamps when clocks are wrong or step.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::{Child, FakeClock, Proxy, Python, Server, Stop, eventually};
use synced_memory::{Key, Memory, Written};

const DEADLINE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_NS: u64 = 3_600_000_000_000;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How far an estimate of the server's clock may be off on a host that is busy with other tests.
const SLACK_NS: u64 = 2_000_000_000;

fn key() -> Key<String> {
    Key::new("n")
}

/// The server's clock, in nanoseconds since 1970.
pub(crate) fn time(server: &Server) -> u64 {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(server.cli(&["TIME"])).unwrap();
    seconds * 1_000_000_000 + micros * 1_000
}

/// The stamp of what is stored under `memory:n`.
fn stamp(server: &Server) -> u64 {
    let stored = server.get_text("memory:n").unwrap();
    let envelope: serde_json::Value = serde_json::from_str(&stored).unwrap();
    envelope["last_modified"]
        .as_u64()
        .unwrap_or_else(|| panic!("{stored}"))
}

fn value(server: &Server) -> String {
    let stored = server.get_text("memory:n").unwrap();
    let envelope: serde_json::Value = serde_json::from_str(&stored).unwrap();
    envelope["value"]
        .as_str()
        .unwrap_or_else(|| panic!("{stored}"))
        .to_owned()
}

/// Stores the value of another program with its stamp.
fn put(server: &Server, text: &str, stamp: impl std::fmt::Display) {
    server.set_raw(
        "memory:n",
        format!(r#"{{"value": "{text}", "last_modified": {stamp}}}"#),
    );
}

/// Starts a process that has a memory and the clock `clock`.
fn writer(url: &str, clock: &FakeClock) -> Child {
    let mut child = Child::spawn_with(env!("CARGO_BIN_EXE_clock_writer"), [url], |command| {
        clock.apply(command);
    });
    assert_eq!(child.recv(), "ready");
    child
}

fn clock(off: Off) -> FakeClock {
    let clock = FakeClock::new();
    match off {
        Off::Ahead => clock.ahead(HOUR),
        Off::Right => {}
        Off::Behind => clock.behind(HOUR),
    }
    clock
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Off {
    Ahead,
    Right,
    Behind,
}

#[track_caller]
fn assert_near(stamp: u64, now: u64) {
    assert!(
        stamp.abs_diff(now) < SLACK_NS,
        "a stamp is {} s off",
        stamp.abs_diff(now) / 1_000_000_000
    );
}

#[test]
fn a_clock_that_steps_back_by_a_day_changes_nothing() {
    let server = Server::redis().start();
    let clock = FakeClock::new();
    let mut process = writer(&server.url(), &clock);
    let wall = |process: &mut Child| process.ask("wall").parse::<u64>().unwrap();
    assert_eq!(process.ask("set n before"), "Ok(Stored)");
    let mut last = stamp(&server);
    clock.behind(DAY);
    assert!(
        wall(&mut process) + 23 * HOUR_NS < time(&server),
        "the clock did not step"
    );
    for n in 0..20 {
        assert_eq!(process.ask(format!("set n after{n}")), "Ok(Stored)");
        assert_eq!(value(&server), format!("after{n}"));
        assert!(stamp(&server) > last);
        last = stamp(&server);
        assert_near(last, time(&server));
    }
    clock.ahead(DAY);
    assert!(
        wall(&mut process) > time(&server) + 23 * HOUR_NS,
        "the clock did not step"
    );
    assert_eq!(process.ask("set n ahead"), "Ok(Stored)");
    assert_near(stamp(&server), time(&server));
}

#[test]
fn a_clock_that_steps_during_an_outage_changes_no_order() {
    for step in [
        |clock: &FakeClock| clock.behind(DAY),
        |clock: &FakeClock| clock.ahead(DAY),
    ] {
        let server = Server::redis().start();
        let proxy = Proxy::to(&server);
        let clock = FakeClock::new();
        let mut process = writer(&proxy.url(), &clock);
        assert_eq!(process.ask("set n before"), "Ok(Stored)");
        proxy.refuse(true);
        proxy.cut();
        eventually(DEADLINE, "the lost connection is noticed", || {
            process.ask("connected") == "false"
        });
        step(&clock);
        assert_eq!(process.ask("set n during"), "Ok(Queued)");
        let queued: u64 = process
            .ask("stamp n")
            .trim_start_matches("Ok(Some(")
            .trim_end_matches("))")
            .parse()
            .unwrap();
        assert_near(queued, time(&server));
        proxy.refuse(false);
        assert_eq!(process.ask("flush"), "Ok(())");
        assert_eq!(value(&server), "during");
    }
}

#[test]
fn a_server_whose_clock_steps_back_by_a_day_accepts_every_write() {
    let clock = FakeClock::new();
    let server = Server::valkey().clock(&clock).start();
    let memory = Memory::open(&server.url()).unwrap();
    let true_time = time(&server);
    assert_eq!(
        memory.set(&key(), "before".to_owned()).unwrap(),
        Written::Stored
    );
    let mut last = stamp(&server);
    clock.behind(DAY);
    eventually(DEADLINE, "the server's clock has stepped", || {
        time(&server) + 23 * HOUR_NS < true_time
    });
    let fresh = |n: u32| Key::<String>::named(format!("n{n}"));
    let mut n = 0;
    eventually(DEADLINE, "the memory follows the server's clock", || {
        n += 1;
        assert_eq!(
            memory.set(&key(), format!("after{n}")).unwrap(),
            Written::Stored
        );
        assert_eq!(value(&server), format!("after{n}"));
        assert!(stamp(&server) > last);
        last = stamp(&server);
        assert_eq!(
            memory.set(&fresh(n), String::new()).unwrap(),
            Written::Stored
        );
        let stamp = memory.synced(&fresh(n)).last_modified().unwrap().unwrap();
        stamp + 23 * HOUR_NS < true_time
    });
    let other = Memory::open(&server.url()).unwrap();
    assert_eq!(
        other.set(&key(), "other".to_owned()).unwrap(),
        Written::Stored
    );
    assert_eq!(
        memory.set(&key(), "again".to_owned()).unwrap(),
        Written::Stored
    );
    assert_eq!(value(&server), "again");
}

#[test]
fn an_online_write_wins_over_a_stamp_that_is_an_hour_ahead() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let ahead = time(&server) + HOUR_NS;
        for knows_the_value in [false, true] {
            put(&server, "peer", ahead);
            let memory = Memory::open(&server.url()).unwrap();
            if knows_the_value {
                assert_eq!(memory.get(&key()).unwrap().as_deref(), Some("peer"));
            }
            let mut last = ahead;
            for n in 0..5 {
                assert_eq!(
                    memory.set(&key(), format!("ours{n}")).unwrap(),
                    Written::Stored
                );
                assert_eq!(value(&server), format!("ours{n}"));
                assert_eq!(memory.get(&key()).unwrap(), Some(format!("ours{n}")));
                let now = stamp(&server);
                assert!(
                    (last + 1..last + 1_000).contains(&now),
                    "just above: {last} {now}"
                );
                last = now;
            }
            assert!(memory.delete(&key()).unwrap());
            assert_eq!(server.get_raw("memory:n"), None);
            assert_eq!(
                memory.set(&key(), "again".to_owned()).unwrap(),
                Written::Stored
            );
            assert!(stamp(&server) > last);
            assert_eq!(memory.status().superseded, 0);
        }
    }
}

#[test]
fn an_online_write_and_a_python_peer_whose_clock_is_an_hour_ahead_overwrite_each_other() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let clock = clock(Off::Ahead);
    let mut faked = Command::new("true");
    clock.apply(&mut faked);
    let faked: std::collections::BTreeMap<_, _> = faked
        .get_envs()
        .map(|(name, value)| {
            (
                name.to_str().unwrap(),
                value.and_then(|v| v.to_str()).unwrap(),
            )
        })
        .collect();
    let mut python = Python::against(&server);
    python.run(&format!(
        "import os, subprocess, sys\nenv = {{**os.environ, **{}}}",
        serde_json::json!(faked)
    ));
    for n in 0..3 {
        let code = format!("from synced_memory import Memory; Memory().n = 'python{n}'");
        python.run(&format!(
            "subprocess.run([sys.executable, '-c', {code:?}], env=env, check=True, timeout=15)"
        ));
        assert_eq!(value(&server), format!("python{n}"));
        let ahead = stamp(&server);
        assert!(ahead > time(&server) + HOUR_NS / 2, "its clock was right");
        assert_eq!(
            memory.set(&key(), format!("rust{n}")).unwrap(),
            Written::Stored
        );
        assert_eq!(value(&server), format!("rust{n}"));
        assert!(stamp(&server) > ahead);
    }
}

#[test]
fn a_host_whose_clock_is_an_hour_off_writes_with_the_servers_time() {
    let server = Server::redis().start();
    for off in [Off::Behind, Off::Ahead] {
        let clock = clock(off);
        let mut process = writer(&server.url(), &clock);
        put(&server, "peer", time(&server));
        assert_eq!(process.ask("set n ours"), "Ok(Stored)");
        assert_eq!(value(&server), "ours");
        assert_near(stamp(&server), time(&server));
        assert_eq!(process.ask("set other ours"), "Ok(Stored)");
        let wall: u64 = process.ask("wall").parse().unwrap();
        assert!(
            wall.abs_diff(time(&server)) > HOUR_NS / 2,
            "its clock was right"
        );
    }
}

/// Two hosts on one server, each behind its own line.
struct Two {
    server: Server,
    lines: [Proxy; 2],
    processes: [Child; 2],
    _clocks: [FakeClock; 2],
}

impl Two {
    fn start(off: [Off; 2], connected: bool) -> Self {
        let server = Server::redis().start();
        let lines = [Proxy::to(&server), Proxy::to(&server)];
        for line in &lines {
            line.refuse(!connected);
        }
        let clocks = off.map(clock);
        let process = |n: usize| writer(&lines[n].url(), &clocks[n]);
        let mut processes = [process(0), process(1)];
        if connected {
            for n in 0..2 {
                eventually(DEADLINE, "both have connected", || {
                    processes[n].ask("connected") == "true"
                });
                lines[n].refuse(true);
                lines[n].cut();
            }
        }
        for process in &mut processes {
            eventually(DEADLINE, "both are cut off", || {
                process.ask("connected") == "false"
            });
        }
        Self {
            server,
            lines,
            processes,
            _clocks: clocks,
        }
    }

    /// The process `first` writes before the other one; the process `delivers` is connected again
    /// before the other one.
    fn write_and_deliver(&mut self, first: usize, delivers: usize) {
        assert_eq!(self.processes[first].ask("set n earlier"), "Ok(Queued)");
        let written = time(&self.server);
        eventually(DEADLINE, "the second write is later", || {
            time(&self.server) > written + SLACK_NS / 10
        });
        assert_eq!(self.processes[1 - first].ask("set n later"), "Ok(Queued)");
        for n in [delivers, 1 - delivers] {
            self.lines[n].refuse(false);
            assert_eq!(self.processes[n].ask("flush"), "Ok(())");
        }
    }

    fn check(off: [Off; 2], connected: bool) {
        for (first, delivers) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut two = Self::start(off, connected);
            two.write_and_deliver(first, delivers);
            assert_eq!(
                value(&two.server),
                "later",
                "{off:?}, {first} wrote first, {delivers} delivered first"
            );
            assert_near(stamp(&two.server), time(&two.server));
            for process in &mut two.processes {
                assert_eq!(process.ask("get n"), r#"Ok(Some("later"))"#);
            }
        }
    }
}

#[test]
fn the_later_of_two_writes_in_an_outage_wins_although_the_hosts_clocks_are_wrong() {
    Two::check([Off::Ahead, Off::Behind], true);
}

#[test]
fn a_write_before_the_first_connect_is_stamped_with_its_true_time() {
    Two::check([Off::Ahead, Off::Right], false);
    Two::check([Off::Behind, Off::Right], false);
}

#[test]
fn a_write_during_the_first_connect_has_the_servers_time_too() {
    // The clock and the stamps issued so far are shifted in one step: a stamp issued in between
    // would be shifted twice. Here the server's clock is the wrong one, because libfaketime is not
    // reliable with many threads.
    for off in [Off::Ahead, Off::Behind] {
        let clock = clock(off);
        let server = Server::valkey().clock(&clock).start();
        for round in 0..10 {
            let proxy = Proxy::to(&server);
            proxy.refuse(true);
            let memory = Memory::builder()
                .url(format!("{}?scope=s{round}", proxy.url()))
                .backoff(Duration::from_millis(5), Duration::from_millis(20))
                .build()
                .unwrap();
            let (next, stop) = (AtomicU64::new(0), Stop::default());
            let key = |n: u64| Key::<u64>::named(format!("k{n}"));
            thread::scope(|scope| {
                let stop_writing = stop.on_drop();
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !stop.is_set() && !memory.status().connected {
                            let n = next.fetch_add(1, Ordering::Relaxed);
                            memory.set(&key(n), n).unwrap();
                        }
                    });
                }
                eventually(DEADLINE, "the writers have started", || {
                    next.load(Ordering::Relaxed) > 100
                });
                proxy.refuse(false);
                eventually(DEADLINE, "the memory is connected", || {
                    memory.status().connected
                });
                drop(stop_writing);
            });
            memory.flush(DEADLINE).unwrap();
            let (newest, now) = (next.load(Ordering::Relaxed), time(&server));
            for n in newest.saturating_sub(1_000)..newest {
                let stamp = memory.synced(&key(n)).last_modified().unwrap().unwrap();
                assert!(
                    stamp.abs_diff(now) < HOUR_NS / 2,
                    "{off:?}: write {n} of {newest} is {} s off",
                    stamp.abs_diff(now) / 1_000_000_000
                );
            }
        }
    }
}

#[test]
fn a_stamp_beyond_2_to_62_counts_as_zero() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let memory = Memory::open(&server.url()).unwrap();
        for beyond in [
            "4611686018427387905",
            "9223372036854775807",
            "18446744073709551615",
            "99999999999999999999999",
        ] {
            put(&server, "peer", beyond);
            assert_eq!(memory.get(&key()).unwrap().as_deref(), Some("peer"));
            assert_eq!(
                memory.synced(&key()).last_modified().unwrap(),
                Some(0),
                "{beyond}"
            );
            assert_eq!(
                memory.set(&key(), "ours".to_owned()).unwrap(),
                Written::Stored
            );
            assert_near(stamp(&server), time(&server));
            // Also if this process has never read it.
            put(&server, "peer", beyond);
            assert_eq!(
                Memory::open(&server.url())
                    .unwrap()
                    .set(&key(), "fresh".to_owned())
                    .unwrap(),
                Written::Stored
            );
            assert_eq!(value(&server), "fresh");
            assert_near(stamp(&server), time(&server));
        }
    }
}

#[test]
fn the_largest_stamp_does_not_shut_out_an_online_write() {
    let server = Server::redis().start();
    for largest in [1_u64 << 62, (1 << 62) - 1, (1 << 62) - 500] {
        put(&server, "peer", largest);
        let memory = Memory::open(&server.url()).unwrap();
        for n in 0..3 {
            assert_eq!(
                memory.set(&key(), format!("ours{n}")).unwrap(),
                Written::Stored,
                "{largest}"
            );
            assert_eq!(value(&server), format!("ours{n}"), "{largest}");
        }
    }
}

#[test]
fn the_stamps_of_a_key_rise_strictly() {
    let server = Server::redis().start();
    let memories = [(); 3].map(|()| Memory::open(&server.url()).unwrap());
    let mut last = 0;
    for n in 0..300 {
        let memory = &memories[n % 3];
        assert_eq!(memory.set(&key(), n.to_string()).unwrap(), Written::Stored);
        assert!(stamp(&server) > last, "after {n} writes");
        last = stamp(&server);
        assert_eq!(memory.synced(&key()).last_modified().unwrap(), Some(last));
        if n % 10 == 0 {
            assert!(memory.delete(&key()).unwrap());
        }
    }
    // The stamps of concurrent writes rise too: no write is refused for an equal stamp.
    thread::scope(|scope| {
        for memory in memories.iter().chain(&memories) {
            scope.spawn(|| {
                for n in 0..100 {
                    assert_eq!(memory.set(&key(), n.to_string()).unwrap(), Written::Stored);
                }
            });
        }
    });
    assert!(stamp(&server) > last);
    assert!(
        memories
            .iter()
            .all(|memory| memory.status().superseded == 0)
    );
}
