//! Rule 14: the server tracks what a process reads near or watches, and nothing else; and where it
//! does not, no slot counts as current.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, PushInfo, PushKind};
use support::{Direction, Dragonfly, Logs, Proxy, Server, Stop, eventually};
use synced_memory::{ErrorKind, Key, Memory, ReadPolicy, Synced, SyncedMemory, Tracking, Watch};

use crate::line::{DEADLINE, on_every_backend, quick, wait_connected, wait_disconnected};

fn servers() -> [Server; 3] {
    [Server::redis(), Server::redis_6(), Server::valkey()].map(|server| server.start())
}

fn near(url: impl Into<String>) -> Memory {
    quick(url).read_policy(ReadPolicy::Near).build().unwrap()
}

fn number(memory: &Memory, name: &str) -> Synced<u64> {
    memory.synced(&Key::<u64>::named(name.to_owned()))
}

/// A line of INFO that holds a number.
fn info(server: &Server, section: &str, name: &str) -> u64 {
    let start = format!("{name}:");
    let info = server.info(section);
    let line = info.lines().find_map(|line| line.strip_prefix(&start));
    line.and_then(|number| number.trim().parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {info}"))
}

/// How many keys the server tracks, for whomever.
fn tracked_keys(server: &Server) -> u64 {
    info(server, "stats", "tracking_total_keys")
}

fn is_current(view: &Synced<u64>) -> bool {
    view.find().is_ok() && view.staleness() == Some(Duration::ZERO)
}

fn sees(view: &Synced<u64>, value: u64) {
    eventually(DEADLINE, "the change is seen", || {
        view.find().unwrap() == Some(value)
    });
}

#[derive(SyncedMemory, Debug)]
struct Mixed {
    #[synced(near)]
    a: Option<u64>,
    b: Option<u64>,
    #[synced(near)]
    c: Option<u64>,
    d: Option<u64>,
}

#[test]
fn what_is_not_read_near_or_watched_costs_neither_the_server_nor_this_process_anything() {
    const WRITES: usize = 2_000;
    for server in servers() {
        let proxy = Proxy::to(&server);
        let memory = quick(proxy.url()).build().unwrap();
        for n in 0..20 {
            assert_eq!(
                number(&memory, &format!("through{n}")).find().unwrap(),
                None
            );
        }
        assert_eq!(memory.status().tracking, Tracking::Off);
        assert_eq!(info(&server, "clients", "tracking_clients"), 0);

        // One request for all four.
        let mixed = Mixed::attach(&memory);
        mixed.snapshot().unwrap();
        let mut watch = memory.watch(&Key::<u64>::new("watched"));
        assert_eq!(watch.recv().unwrap(), None);
        eventually(DEADLINE, "the near keys are tracked", || {
            mixed.snapshot().unwrap();
            tracked_keys(&server) == 3 && memory.status().stale == 0
        });
        assert_eq!(memory.status().tracking, Tracking::On);
        assert_eq!(info(&server, "stats", "tracking_total_prefixes"), 0);

        for n in 0..20 {
            assert_eq!(
                number(&memory, &format!("through{n}")).find().unwrap(),
                None
            );
        }
        assert_eq!(tracked_keys(&server), 3, "a read through is not tracked");
        let before = proxy.bytes(Direction::ToClient);
        for n in 0..WRITES {
            let name = ["b", "d", "through1", "other"][n % 4];
            server.set_raw(&format!("memory:{name}"), n.to_string());
        }
        // What was sent before this has come before this.
        server.set_raw("memory:watched", "1");
        assert_eq!(watch.recv().unwrap(), Some(1));
        let bytes = proxy.bytes(Direction::ToClient) - before;
        // An invalidation takes some 50 bytes, and so do the heartbeats' answers.
        assert!(
            bytes < 20 * WRITES as u64,
            "{bytes} bytes for {WRITES} writes"
        );

        for n in 0..10 {
            server.set_raw("memory:a", n.to_string());
            server.set_raw("memory:c", (n + 1).to_string());
            eventually(DEADLINE, "the changes are seen", || {
                (mixed.a().unwrap(), mixed.c().unwrap()) == (Some(n), Some(n + 1))
            });
        }
        drop((mixed, watch));
        let mut n = 0;
        eventually(DEADLINE, "what nobody looks at is not read again", || {
            n += 1;
            for name in ["a", "c", "watched"] {
                server.set_raw(&format!("memory:{name}"), n.to_string());
            }
            nothing_is_tracked(&server)
        });
    }
}

/// Whether the server tracks nothing, and does not begin to for longer than a read takes.
fn nothing_is_tracked(server: &Server) -> bool {
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        if tracked_keys(server) > 0 {
            return false;
        }
    }
    true
}

#[test]
fn a_key_that_was_read_through_is_tracked_from_its_first_near_read() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    for n in 0..50 {
        let name = format!("n{n}");
        let through = number(&memory, &name);
        server.set_raw(&format!("memory:{name}"), "1");
        assert_eq!(through.get().unwrap(), 1);
        let mut watch = memory.watch(&Key::<u64>::named(name.clone()));
        assert_eq!(watch.recv().unwrap(), Some(1));
        server.set_raw(&format!("memory:{name}"), "2");
        assert_eq!(watch.recv().unwrap(), Some(2));
        // Reads through in between neither track nor untrack it.
        assert_eq!(through.get().unwrap(), 2);
        server.set_raw(&format!("memory:{name}"), "3");
        assert_eq!(watch.recv().unwrap(), Some(3));
    }
}

#[test]
fn own_writes_leave_a_key_tracked() {
    for server in servers() {
        let memory = near(server.url());
        let count = number(&memory, "count");
        for n in 0..100 {
            count.set(2 * n).unwrap();
            assert_eq!(count.get().unwrap(), 2 * n);
            if n % 3 == 0 {
                eventually(DEADLINE, "it is current", || is_current(&count));
            }
            server.set_raw("memory:count", (2 * n + 1).to_string());
            sees(&count, 2 * n + 1);
        }
    }
}

#[test]
fn after_flushall_every_slot_is_tracked_again() {
    for server in servers() {
        let memory = near(server.url());
        let views: Vec<_> = (0..20).map(|n| number(&memory, &format!("n{n}"))).collect();
        for round in 0..10 {
            for n in 0..views.len() {
                server.set_raw(&format!("memory:n{n}"), round.to_string());
            }
            for view in &views {
                sees(view, round);
            }
            server.cli(&[["FLUSHALL"], ["FLUSHDB"]][usize::from(round % 2 == 0)]);
            for view in &views {
                eventually(DEADLINE, "it is gone", || view.find().unwrap().is_none());
            }
        }
    }
}

#[test]
fn a_slot_that_was_dropped_for_cache_limit_and_is_read_again_is_tracked_again() {
    const KEYS: u64 = 400;
    let server = Server::redis().start();
    let memory = quick(server.url())
        .read_policy(ReadPolicy::Near)
        .cache_limit(64 << 10)
        .build()
        .unwrap();
    let key = |n: u64| Key::<u64>::named(format!("n{n}"));
    for round in 0..5 {
        for n in 0..KEYS {
            server.set_raw(&format!("memory:n{n}"), (round * KEYS + n).to_string());
        }
        for n in 0..KEYS {
            eventually(DEADLINE, "the change is seen", || {
                memory.get(&key(n)).unwrap() == Some(round * KEYS + n)
            });
        }
    }
    assert!(memory.status().cache_bytes < 400 << 10);
}

/// A user who may do everything but what `rights` take away.
fn set_rights(server: &Server, rights: &[&str]) {
    let user = ["ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "+@all"];
    server.cli(&[&user, rights].concat());
}

fn poll(server: &Server, watch: &mut Watch<u64>, value: u64) {
    server.set_raw("memory:watched", value.to_string());
    while watch.recv_timeout(DEADLINE).unwrap() != Some(value) {}
}

#[test]
fn where_tracking_is_refused_near_reads_ask_and_watches_poll_and_that_is_said_once() {
    for refused in ["-client|tracking", "-client|caching"] {
        let (server, logs) = (Server::redis().start(), Logs::capture());
        set_rights(&server, &[refused]);
        let memory = near(server.url_as("app", "pw"));
        let count = number(&memory, "count");
        let mut watch = memory.watch(&Key::<u64>::new("watched"));
        for round in 0..3 {
            server.set_raw("memory:count", "100");
            sees(&count, 100);
            for n in 0..20 {
                server.set_raw("memory:count", n.to_string());
                assert_eq!(count.get().unwrap(), n, "it asks each time");
            }
            assert_eq!(count.staleness(), None);
            poll(&server, &mut watch, round);
            assert_eq!(memory.status().tracking, Tracking::Refused);
            server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            wait_disconnected(&memory);
            wait_connected(&memory);
        }
        let events = logs.containing(&format!("127.0.0.1:{}", server.port()));
        let warnings = events
            .iter()
            .filter(|event| event.message.contains("does not notify of changes"));
        assert_eq!(warnings.count(), 1, "{events:?}");
        assert_eq!(tracked_keys(&server), 0);
    }
}

#[test]
fn a_right_to_track_that_is_taken_away_leaves_no_slot_stale_and_counts_again_when_given_back() {
    let server = Server::redis().start();
    set_rights(&server, &[]);
    let memory = near(server.url_as("app", "pw"));
    let (count, unread) = (number(&memory, "count"), number(&memory, "unread"));
    let mut watch = memory.watch(&Key::<u64>::new("watched"));
    let mut next = 0;
    for round in 0..3 {
        for _ in 0..5 {
            next += 1;
            server.set_raw("memory:count", next.to_string());
            sees(&count, next);
        }
        eventually(DEADLINE, "they are current", || {
            is_current(&count) && is_current(&unread)
        });
        assert_eq!(memory.status().tracking, Tracking::On);

        set_rights(&server, &["-client|caching"]);
        // The connection stays. The next read that was to be tracked finds out.
        for _ in 0..5 {
            next += 1;
            server.set_raw("memory:count", next.to_string());
            server.set_raw("memory:unread", next.to_string());
            sees(&count, next);
            sees(&unread, next);
            poll(&server, &mut watch, next);
        }
        assert_eq!(memory.status().tracking, Tracking::Refused, "round {round}");
        assert_ne!(count.staleness(), Some(Duration::ZERO));

        set_rights(&server, &[]);
        server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        eventually(DEADLINE, "changes are notified again", || {
            count.find().is_ok() && memory.status().tracking == Tracking::On
        });
    }
}

#[test]
fn a_key_that_may_not_be_read_for_a_while_is_tracked_again_afterwards() {
    let server = Server::redis().start();
    set_rights(&server, &[]);
    let memory = near(server.url_as("app", "pw"));
    let count = number(&memory, "count");
    let mut next = 0;
    for _ in 0..10 {
        next += 1;
        server.set_raw("memory:count", next.to_string());
        sees(&count, next);
        set_rights(&server, &["resetkeys", "~other:*"]);
        server.set_raw("memory:count", "0");
        eventually(DEADLINE, "it is refused", || {
            count.find().map_err(|error| error.kind()) == Err(ErrorKind::Rejected)
        });
        set_rights(&server, &[]);
        eventually(DEADLINE, "it is read again", || {
            count.find().ok() == Some(Some(0))
        });
    }
}

/// A read that the server refuses leaves its key untracked, and a watch asks for nothing by itself.
#[test]
fn a_watch_goes_on_after_its_key_could_not_be_read_for_a_while() {
    for server in servers() {
        set_rights(&server, &[]);
        let memory = quick(server.url_as("app", "pw")).build().unwrap();
        server.set_raw("memory:watched", "0");
        let mut watch = memory.watch(&Key::<u64>::new("watched"));
        assert_eq!(watch.recv().unwrap(), Some(0));
        for n in 1..4 {
            set_rights(&server, &["resetkeys", "~other:*"]);
            server.set_raw("memory:watched", "100");
            let refused = watch.recv_timeout(DEADLINE).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Rejected);
            server.set_raw("memory:watched", n.to_string());
            set_rights(&server, &[]);
            assert_eq!(watch.recv_timeout(DEADLINE).unwrap(), Some(n));
            // It is tracked again.
            poll(&server, &mut watch, 10 + n);
        }
    }
}

#[test]
fn reads_that_are_answered_too_late_leave_no_slot_stale() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let memory = quick(proxy.url())
        .timeout(Duration::from_millis(50))
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let views: Vec<_> = (0..10).map(|n| number(&memory, &format!("n{n}"))).collect();
    for round in 0..10 {
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.delay(direction, Duration::from_millis(40));
        }
        for (n, view) in views.iter().enumerate() {
            server.set_raw(&format!("memory:n{n}"), round.to_string());
            // It may be a slot that is not known yet, or the line may be down.
            drop(view.find());
        }
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.delay(direction, Duration::ZERO);
        }
        for view in &views {
            eventually(DEADLINE, "the change is seen", || {
                view.find().ok() == Some(Some(round))
            });
        }
    }
}

#[test]
fn a_slot_that_nobody_looks_at_is_not_read_again_and_its_next_reader_asks() {
    for server in servers() {
        let memory = near(server.url());
        let count = number(&memory, "count");
        let mut next = 0;
        for _ in 0..2 {
            next += 1;
            server.set_raw("memory:count", next.to_string());
            sees(&count, next);
            eventually(DEADLINE, "nobody reads it again", || {
                next += 1;
                server.set_raw("memory:count", next.to_string());
                nothing_is_tracked(&server)
            });
            server.reset_stats();
            for _ in 0..100 {
                next += 1;
                server.set_raw("memory:count", next.to_string());
            }
            assert_eq!(memory.status().stale, 0);
            assert_eq!(count.get().unwrap(), next, "it asks");
            assert_eq!(server.command_count("get"), 1);
            assert_eq!(count.staleness(), Some(Duration::ZERO));
        }

        // What is watched is always read again.
        let mut watch = count.watch();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1_500) {
            next += 1;
            server.set_raw("memory:count", next.to_string());
            while watch.recv().unwrap() != Some(next) {}
        }
        eventually(DEADLINE, "it is tracked", || tracked_keys(&server) == 1);
    }
}

/// Sends writes of rising numbers to the key of `hot`, and does not wait for their answers: so the
/// server has some to make even while this thread has no CPU.
fn write_without_a_pause(server: &Server, stop: &Stop) {
    let mut requests = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let mut answers = requests.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| io::copy(&mut answers, &mut io::sink()).unwrap());
        let mut n = 0_u64;
        while !stop.is_set() {
            let mut batch = String::new();
            for _ in 0..100 {
                n += 1;
                writeln!(batch, "SET memory:hot {n}\r").unwrap();
            }
            requests.write_all(batch.as_bytes()).unwrap();
        }
        requests.shutdown(Shutdown::Write).unwrap();
    });
}

#[test]
fn a_key_that_is_written_all_the_time_is_read_at_most_once_a_millisecond() {
    const LENGTH: Duration = Duration::from_secs(1);
    let server = Server::redis().start();
    let (memory, stop) = (near(server.url()), Stop::default());
    let hot = number(&memory, "hot");
    thread::scope(|scope| {
        let stop_writing = stop.on_drop();
        scope.spawn(|| write_without_a_pause(&server, &stop));
        eventually(DEADLINE, "it is read", || hot.find().unwrap().is_some());
        server.reset_stats();
        let (began, mut seen, mut changes) = (Instant::now(), 0, 0);
        while began.elapsed() < LENGTH {
            let now = hot.get().unwrap();
            assert!(now >= seen, "{now} after {seen}");
            changes += u32::from(now > seen);
            seen = now;
        }
        let (reads, took) = (server.command_count("get"), began.elapsed());
        eprintln!("{reads} reads in {took:?}, of which {changes} were seen");
        // Some until it was noticed.
        assert!(
            u128::from(reads) <= took.as_millis() + 20,
            "{reads} in {took:?}"
        );
        assert!(changes > 20, "{changes} changes were seen");
        drop(stop_writing);
    });
    let last = server.get_text("memory:hot").unwrap().parse().unwrap();
    sees(&hot, last);
    eventually(DEADLINE, "it is current", || is_current(&hot));
}

#[test]
fn a_table_of_tracked_keys_that_is_too_small_leaves_no_slot_stale_and_no_storm_of_reads() {
    const KEYS: usize = 20;
    let (server, logs) = (Server::redis().start(), Logs::capture());
    server.cli(&["CONFIG", "SET", "tracking-table-max-keys", "1"]);
    let prefix = format!("small{}:", server.port());
    let memory = quick(format!("{}?prefix={prefix}", server.url()))
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let views: Vec<_> = (0..KEYS)
        .map(|n| number(&memory, &format!("n{n}")))
        .collect();
    let look = || views.iter().all(|view| view.find().is_ok());
    eventually(DEADLINE, "it is noticed", || {
        look() && memory.status().tracking == Tracking::Overflowing
    });
    for round in 0..5 {
        for n in 0..KEYS {
            server.set_raw(&format!("{prefix}n{n}"), round.to_string());
        }
        for view in &views {
            sees(view, round);
        }
    }
    eventually(DEADLINE, "reads become rare", || {
        server.reset_stats();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            assert!(look());
        }
        // Each once a second.
        server.command_count("get") <= KEYS as u64
    });
    let events = logs.containing(&prefix);
    let warnings = events
        .iter()
        .filter(|event| event.message.contains("tracking-table-max-keys"));
    assert_eq!(warnings.count(), 1, "{events:?}");

    server.cli(&["CONFIG", "SET", "tracking-table-max-keys", "0"]);
    eventually(DEADLINE, "there is room again", || {
        look() && memory.status().tracking == Tracking::On && memory.status().stale == 0
    });
    assert_eq!(tracked_keys(&server), KEYS as u64);
    for n in 0..KEYS {
        server.set_raw(&format!("{prefix}n{n}"), "77");
    }
    for view in &views {
        sees(view, 77);
    }
}

/// A process of version 0.2: it is notified of all keys below the prefix, and reads again what has
/// changed.
struct OldProcess {
    connection: Connection,
    pushes: Receiver<PushInfo>,
    value: Option<u64>,
}

impl OldProcess {
    fn on(server: &Server) -> Self {
        let client = redis::Client::open(format!("{}?protocol=resp3", server.url())).unwrap();
        let mut connection = client.get_connection().unwrap();
        let (sender, pushes) = channel();
        connection.set_push_sender(sender);
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg(&["TRACKING", "ON", "BCAST", "PREFIX", "memory:"]);
        let () = tracking.query(&mut connection).unwrap();
        let mut old = Self {
            connection,
            pushes,
            value: None,
        };
        old.read();
        old
    }

    fn read(&mut self) {
        let get = redis::cmd("GET").arg("memory:shared").to_owned();
        let stored: Option<String> = get.query(&mut self.connection).unwrap();
        self.value = stored.map(|stored| {
            let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
            stored.get("value").unwrap_or(&stored).as_u64().unwrap()
        });
    }

    /// What it shows.
    fn value(&mut self) -> Option<u64> {
        // Reads what has arrived.
        let () = redis::cmd("PING").query(&mut self.connection).unwrap();
        let is_of_shared = |push: &PushInfo| {
            push.kind == PushKind::Invalidate && format!("{:?}", push.data).contains("shared")
        };
        if self.pushes.try_iter().filter(is_of_shared).count() > 0 {
            self.read();
        }
        self.value
    }

    fn write(&mut self, value: u64) {
        let set = redis::cmd("SET").arg("memory:shared").arg(value).to_owned();
        let () = set.query(&mut self.connection).unwrap();
    }
}

#[test]
fn beside_a_process_of_version_0_2_neither_is_ever_stale() {
    for server in servers() {
        let (memory, other) = (near(server.url()), near(server.url()));
        let shared = [&memory, &other].map(|memory| number(memory, "shared"));
        let mut old = OldProcess::on(&server);
        for round in 0..50 {
            for n in 0..fastrand::u64(1..10) {
                let value = 100 * round + n;
                match fastrand::u8(..3) {
                    0 => old.write(value),
                    1 => _ = shared[0].set(value).unwrap(),
                    _ => _ = shared[1].set(value).unwrap(),
                }
            }
            let last = {
                let mut reader = OldProcess::on(&server);
                reader.value()
            };
            for view in &shared {
                sees(view, last.unwrap());
            }
            eventually(DEADLINE, "the old one sees it", || old.value() == last);
        }
    }
}

#[test]
fn by_dragonflys_rules_the_same_way_of_tracking_is_used() {
    let server = Server::redis().start();
    let dragonfly = Dragonfly::over(&server);
    let memory = near(dragonfly.url());
    let count = number(&memory, "count");
    eventually(DEADLINE, "it is current", || is_current(&count));
    assert_eq!(memory.status().tracking, Tracking::On);
    assert_eq!(tracked_keys(&server), 1);
    server.reset_stats();
    for n in 0..50 {
        server.set_raw("memory:other", n.to_string());
        server.set_raw("memory:count", n.to_string());
        sees(&count, n);
    }
    assert_eq!(tracked_keys(&server), 1);
}

#[test]
fn every_backend_says_whether_it_notifies() {
    on_every_backend("tracking-status", |one, _| {
        assert_eq!(one.status().tracking, Tracking::Off);
        let mut watch = one.watch(&Key::<u64>::new("watched"));
        assert_eq!(watch.recv().unwrap(), None);
        eventually(DEADLINE, "it notifies", || {
            one.status().tracking == Tracking::On
        });
    });
}

#[test]
fn a_key_that_many_write_is_named_with_how_often_others_wrote_first() {
    const WRITES: u64 = 300;
    on_every_backend("contended", |one, other| {
        let name = "contended";
        let add_all = |memory: &Memory, add: &(dyn Fn(&Synced<u64>) + Sync)| {
            let count = number(memory, name);
            (0..WRITES).for_each(|_| add(&count));
        };
        let by_both = |add: &(dyn Fn(&Synced<u64>) + Sync)| {
            thread::scope(|scope| {
                scope.spawn(|| add_all(one, add));
                scope.spawn(|| add_all(other, add));
            });
        };
        let refusals = || -> u64 {
            let all = [one, other].map(|memory| memory.status().contended);
            let of_key = all
                .iter()
                .flatten()
                .filter(|key| key.key == "memory:contended");
            of_key.map(|key| key.refusals).sum()
        };
        number(one, name).set(0).unwrap();
        assert_eq!(refusals(), 0);
        eventually(DEADLINE, "they get into each other's way", || {
            by_both(&|count| count.update(|count| *count += 1).unwrap());
            refusals() > 0
        });
        let quiet = number(one, "quiet");
        for n in 0..10 {
            quiet.set(n).unwrap();
        }
        let contended = one.status().contended;
        assert!(
            contended.iter().all(|key| key.key != "memory:quiet"),
            "{contended:?}"
        );
    });
}
