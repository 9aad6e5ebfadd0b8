//! Rules 1, 2, 4, 9, 10 and 12: the server is killed, frozen, restarted, or was never
//! there.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::{Child, Logs, Proxy, Server, Stop, eventually};
use synced_memory::{ErrorKind, Key, Memory, Synced, SyncedMemory, Written};

use crate::line::{DEADLINE, Line, durable, quick, wait_connected, wait_disconnected};

/// The default timeout, which bounds every call.
const TIMEOUT: Duration = Duration::from_millis(500);
const THREADS: usize = 8;
const SHARED: [&str; 3] = ["shared0", "shared1", "shared2"];

/// A write, and when it was called and answered, in ns since 1970.
#[derive(Debug, Clone)]
struct Write {
    key: String,
    value: u64,
    started: u128,
    ended: u128,
}

/// How long a call took, and when it began and ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallTime {
    started: Instant,
    ended: Instant,
    /// Without the time that the thread was ready to run and waited for a CPU: other tests run
    /// beside this one.
    pub(crate) time: Duration,
}

/// When an outage began, and between which times the breaker certainly was open.
#[derive(Debug, Clone, Copy)]
struct Outage {
    start: Instant,
    opened: Instant,
    end: Instant,
}

/// A stopwatch for the calls of one thread.
pub(crate) struct Stopwatch(Option<File>);

impl Stopwatch {
    pub(crate) fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    pub(crate) fn time(&self, call: impl FnOnce()) -> CallTime {
        let (queued, started) = (self.queued(), Instant::now());
        call();
        let ended = Instant::now();
        let queued = self.queued().saturating_sub(queued);
        CallTime {
            started,
            ended,
            time: (ended - started).saturating_sub(queued),
        }
    }

    /// How long this thread has waited for a CPU so far; the second number of its `schedstat`, in
    /// ns.
    fn queued(&self) -> Duration {
        let mut line = [0; 64];
        let length = self.0.as_ref().map_or(0, |file| {
            file.read_at(&mut line, 0).expect("it can be read")
        });
        let number = str::from_utf8(&line[..length])
            .expect("it is text")
            .split(' ')
            .nth(1);
        Duration::from_nanos(number.map_or(0, |number| number.parse().expect("it is a number")))
    }
}

/// Eight threads that write to a key of their own and to shared keys, and read them, all the time.
struct Writers {
    stop: Stop,
    rounds: [AtomicU64; THREADS],
    /// How late this machine wakes a thread at most. A call waits for other threads too (the I/O
    /// thread, the holder of a lock), which may wait for a CPU.
    lateness: AtomicU64,
}

impl Writers {
    /// Runs `outages` under the writers; returns all their writes, how long each call took, and the
    /// largest lateness.
    fn under(
        memory: &Memory,
        outages: impl FnOnce(&Self),
    ) -> (Vec<Write>, Vec<CallTime>, Duration) {
        let all = Self {
            stop: Stop::default(),
            rounds: Default::default(),
            lateness: AtomicU64::new(0),
        };
        let (mut writes, mut took) = (Vec::new(), Vec::new());
        thread::scope(|scope| {
            let stop = all.stop.on_drop();
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let all = &all;
                    scope.spawn(move || all.write(memory, thread))
                })
                .collect();
            scope.spawn(|| all.watch_the_machine());
            outages(&all);
            drop(stop);
            for thread in threads {
                let (written, timed) = thread.join().expect("a call failed");
                writes.extend(written);
                took.extend(timed);
            }
        });
        (
            writes,
            took,
            Duration::from_micros(all.lateness.load(Ordering::Relaxed)),
        )
    }

    fn write(&self, memory: &Memory, thread: usize) -> (Vec<Write>, Vec<CallTime>) {
        let origin = (Instant::now(), since_1970());
        let (mut writes, mut took, stopwatch) =
            (Vec::new(), Vec::new(), Stopwatch::of_this_thread());
        let own = memory.synced(&Key::<u64>::named(format!("own{thread}")));
        let shared = SHARED.map(|name| memory.synced(&Key::<u64>::new(name)));
        let mut n = 0;
        while !self.stop.is_set() {
            n += 1;
            // Busy threads, but not so busy that they take the CPUs from each other.
            thread::sleep(Duration::from_micros(100));
            let mut timed = |call: &mut dyn FnMut()| {
                let timed = stopwatch.time(call);
                took.push(timed);
                timed
            };
            let mut set = |view: &Synced<u64>, key: String, value| {
                let call = timed(&mut || {
                    let written = view.set(value).expect("a write is stored or queued");
                    assert_ne!(written, Written::Superseded, "no other process writes");
                });
                let at = |instant: Instant| origin.1 + instant.duration_since(origin.0).as_nanos();
                writes.push(Write {
                    key,
                    value,
                    started: at(call.started),
                    ended: at(call.ended),
                });
            };
            set(&own, format!("own{thread}"), n);
            let index = (usize::try_from(n).expect("a count is small") + thread) % SHARED.len();
            set(
                &shared[index],
                SHARED[index].to_owned(),
                (thread as u64 + 1) * 1_000_000 + n,
            );
            timed(&mut || {
                assert_eq!(
                    own.get().expect("it was written"),
                    n,
                    "a process reads its own writes"
                );
            });
            timed(&mut || _ = shared[index].get().expect("it was written"));
            self.rounds[thread].store(n, Ordering::Relaxed);
        }
        (writes, took)
    }

    /// Waits until every writer has made this many more rounds.
    fn go_on_for(&self, rounds: u64) {
        let before: Vec<u64> = self
            .rounds
            .iter()
            .map(|round| round.load(Ordering::Relaxed))
            .collect();
        eventually(DEADLINE, "all writers go on", || {
            self.rounds
                .iter()
                .zip(&before)
                .all(|(round, before)| round.load(Ordering::Relaxed) >= before + rounds)
        });
    }

    fn watch_the_machine(&self) {
        const NAP: Duration = Duration::from_millis(1);
        while !self.stop.is_set() {
            let started = Instant::now();
            thread::sleep(NAP);
            let late = started.elapsed().saturating_sub(NAP);
            self.lateness.fetch_max(
                u64::try_from(late.as_micros()).unwrap_or(u64::MAX),
                Ordering::Relaxed,
            );
        }
    }
}

fn since_1970() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is past 1970")
        .as_nanos()
}

/// Asserts that no call took longer than `timeout` and 50 ms, that few waited for the breaker to
/// open, and that none waited while it was open.
fn assert_bounded(what: &str, took: &[CallTime], lateness: Duration, outages: &[Outage]) {
    let longest = took
        .iter()
        .map(|took| took.time)
        .max()
        .expect("there were calls");
    // Slow calls at other times wait for the disk, which other tests use too.
    let at_its_beginning = |took: &&CallTime| {
        outages
            .iter()
            .any(|it| took.started < it.opened && took.ended > it.start)
    };
    let is_slow = |took: &&CallTime| took.time > Duration::from_millis(100) + lateness;
    let slow = took.iter().filter(is_slow).filter(at_its_beginning).count();
    let within = |took: &&CallTime| {
        outages
            .iter()
            .any(|it| took.started > it.opened && took.ended < it.end)
    };
    let while_open: Vec<&CallTime> = took.iter().filter(within).collect();
    let longest_open = while_open
        .iter()
        .map(|took| took.time)
        .max()
        .expect("there were calls in the outage");
    eprintln!(
        "{what}: {} calls, longest {longest:?}, {slow} waited; with the breaker open {} calls, longest \
         {longest_open:?}; this machine was late by {lateness:?}",
        took.len(),
        while_open.len()
    );
    assert!(
        longest <= TIMEOUT + Duration::from_millis(50) + lateness,
        "a call took {longest:?}"
    );
    assert!(
        slow <= THREADS * outages.len() * 2,
        "{slow} calls waited in {} outages",
        outages.len()
    );
    assert!(
        while_open.len() >= THREADS * outages.len() * 100,
        "{} calls in the outages",
        while_open.len()
    );
    assert!(
        longest_open <= Duration::from_millis(50) + lateness,
        "a call waited {longest_open:?} for an open breaker"
    );
}

/// Asserts that each key holds the last write to it, by rule 4. Of concurrent writes either may be
/// the last; the clocks of two processes agree to within `margin`.
fn assert_the_last_write_won(server: &Server, writes: &[Write], margin: Duration) {
    let mut keys: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
    for write in writes {
        keys.entry(&write.key).or_default().push(write);
    }
    for (key, writes) in keys {
        let stored = server
            .get_text(&format!("memory:{key}"))
            .unwrap_or_else(|| panic!("{key} is lost"));
        let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
        let value = stored["value"].as_u64().unwrap();
        let winner = writes.iter().find(|write| write.value == value);
        let winner =
            winner.unwrap_or_else(|| panic!("{key} holds {value}, which was never written"));
        let same = |write: &&Write| (write.value >= 1_000_000_000) == (value >= 1_000_000_000);
        for write in &writes {
            let margin = if same(write) { Duration::ZERO } else { margin };
            assert!(
                write.started <= winner.ended + margin.as_nanos(),
                "{key} holds {winner:?}, but {write:?} was later"
            );
        }
    }
}

/// Makes three outages under eight writers, each from `begin` to `end`.
fn three_outages(what: &str, server: &Server, begin: impl Fn(), end: impl Fn()) {
    let memory = Memory::builder()
        .url(server.url())
        .backoff(Duration::from_millis(10), Duration::from_millis(100))
        .build()
        .unwrap();
    let mut outages = Vec::new();
    let (writes, took, lateness) = Writers::under(&memory, |writers| {
        for _ in 0..3 {
            writers.go_on_for(20);
            let start = Instant::now();
            begin();
            wait_disconnected(&memory);
            let opened = Instant::now();
            writers.go_on_for(100);
            outages.push(Outage {
                start,
                opened,
                end: Instant::now(),
            });
            end();
            wait_connected(&memory);
        }
        writers.go_on_for(20);
    });
    memory.flush(DEADLINE).unwrap();
    assert_bounded(what, &took, lateness, &outages);
    assert_the_last_write_won(server, &writes, Duration::ZERO);
    let status = memory.status();
    assert_eq!(
        (status.pending, status.dead_letters, status.superseded),
        (0, 0, 0),
        "{status:?}"
    );
}

#[test]
fn when_the_server_is_killed_under_eight_writers_no_write_is_lost_and_no_call_waits() {
    let server = durable();
    three_outages("killed", &server, || server.kill(), || server.start());
}

#[test]
fn when_the_server_is_frozen_under_eight_writers_no_write_is_lost_and_each_waits_once() {
    let server = durable();
    three_outages("frozen", &server, || server.freeze(), || server.thaw());
}

#[test]
fn when_the_server_is_restarted_under_eight_writers_no_write_is_lost_and_no_call_waits() {
    let server = durable();
    three_outages("restarted", &server, || server.stop(), || server.start());
}

#[test]
fn the_last_write_of_two_processes_wins_whatever_happens_to_the_server() {
    let server = durable();
    let memory = quick(server.url()).build().unwrap();
    let mut peer = Child::spawn_with(env!("CARGO_BIN_EXE_peer"), [""; 0], |peer| {
        _ = peer.env("SYNCED_MEMORY_URL", server.url());
    });
    assert_eq!(peer.recv(), "opened");
    assert_eq!(
        peer.ask(format!("write own-of-peer {}", SHARED.join(" "))),
        "started"
    );
    let peer_goes_on = |peer: &mut Child, least: u64| {
        let before: u64 = peer.ask("writes").parse().unwrap();
        eventually(DEADLINE, "the peer goes on", || {
            peer.ask("writes").parse::<u64>().unwrap() >= before + least
        });
    };
    let mut outages = Vec::new();
    let (mut writes, took, lateness) = Writers::under(&memory, |writers| {
        type Action = fn(&Server);
        let faults: [(Action, Action); 3] = [
            (Server::kill, Server::start),
            (Server::freeze, Server::thaw),
            (Server::stop, Server::start),
        ];
        for (begin, end) in faults {
            writers.go_on_for(20);
            peer_goes_on(&mut peer, 50);
            let start = Instant::now();
            begin(&server);
            wait_disconnected(&memory);
            let opened = Instant::now();
            writers.go_on_for(100);
            peer_goes_on(&mut peer, 50);
            outages.push(Outage {
                start,
                opened,
                end: Instant::now(),
            });
            end(&server);
            wait_connected(&memory);
        }
        writers.go_on_for(20);
        peer_goes_on(&mut peer, 50);
    });
    memory.flush(DEADLINE).unwrap();
    peer.send("stop");
    loop {
        let line = peer.recv();
        let words: Vec<&str> = line.split(' ').collect();
        let [key, value, started, ended] = words[..] else {
            break;
        };
        writes.push(Write {
            key: key.to_owned(),
            value: value.parse().unwrap(),
            started: started.parse().unwrap(),
            ended: ended.parse().unwrap(),
        });
    }
    assert_bounded("two processes", &took, lateness, &outages);
    // Each process estimates the server's clock to within half a round trip, on a busy machine.
    assert_the_last_write_won(&server, &writes, Duration::from_millis(50) + lateness);
    for name in SHARED {
        let key = Key::<u64>::new(name);
        let here = memory.get(&key).unwrap().unwrap();
        assert_eq!(
            peer.ask(format!("get {name}")),
            format!("Some(Number({here}))")
        );
    }
}

#[test]
fn a_hundred_thousand_sets_to_one_key_while_offline_are_one_command_on_reconnect() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    let key = Key::<u64>::new("n");
    server.kill();
    wait_disconnected(&memory);
    let view = memory.synced(&key);
    for n in 1..=100_000 {
        assert_eq!(view.set(n).unwrap(), Written::Queued);
    }
    assert_eq!(memory.status().pending, 1);
    server.start();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        server.command_count("eval") + server.command_count("evalsha"),
        1
    );
    assert_eq!(server.command_count("set"), 1);
    assert!(
        server
            .get_text("memory:n")
            .unwrap()
            .starts_with(r#"{"value": 100000,"#)
    );
}

#[test]
fn sets_to_ten_thousand_keys_while_offline_come_back_in_batches() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    server.kill();
    wait_disconnected(&memory);
    for n in 0..10_000 {
        let key = Key::<u64>::named(format!("k{n}"));
        assert_eq!(memory.set(&key, n + 1).unwrap(), Written::Queued);
        assert_eq!(memory.set(&key, n).unwrap(), Written::Queued);
    }
    assert_eq!(memory.status().pending, 10_000);
    server.start();
    memory.flush(DEADLINE).unwrap();
    let calls = server.command_count("eval") + server.command_count("evalsha");
    eprintln!("10,000 keys came back in {calls} calls");
    assert!(calls <= 500, "{calls} calls for 10,000 keys");
    assert_eq!(server.command_count("set"), 10_000);
    for n in 0..10_000 {
        let stored = server.get_text(&format!("memory:k{n}")).unwrap();
        assert!(
            stored.starts_with(&format!(r#"{{"value": {n},"#)),
            "k{n} holds {stored}"
        );
    }
}

#[derive(SyncedMemory)]
struct Settings {
    counter: i64,
    #[synced(default = "dark".to_owned())]
    theme: String,
    note: Option<String>,
    tags: Vec<String>,
}

#[test]
fn without_a_server_fields_read_as_unavailable_or_default_and_writes_wait_until_it_appears() {
    let server = Server::redis().start();
    server.kill();
    let memory = quick(server.url()).build().unwrap();
    let settings = Settings::attach(&memory);
    assert_eq!(settings.theme().unwrap(), "dark");
    let unknown = [
        settings.counter().unwrap_err(),
        settings.note().unwrap_err(),
        settings.tags().get().unwrap_err(),
        settings.tags().len().unwrap_err(),
        settings.snapshot().map(drop).unwrap_err(),
    ];
    assert!(
        unknown
            .iter()
            .all(|error| error.kind() == ErrorKind::Unavailable),
        "{unknown:?}"
    );

    let status = memory.status();
    assert!(
        !status.connected && status.pending == 0 && status.oldest_pending.is_none(),
        "{status:?}"
    );
    let error = status.last_error.expect("the refusal is known");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error
            .to_string()
            .contains(&format!("127.0.0.1:{}", server.port())),
        "{error}"
    );

    assert_eq!(settings.set_counter(3).unwrap(), Written::Queued);
    assert_eq!(
        settings.set_theme("light".to_owned()).unwrap(),
        Written::Queued
    );
    assert_eq!(settings.set_note(None).unwrap(), Written::Queued);
    assert_eq!(
        (settings.counter().unwrap(), settings.theme().unwrap()),
        (3, "light".to_owned())
    );
    let first = memory.status().oldest_pending.expect("writes wait");
    eventually(DEADLINE, "the oldest write grows older", || {
        memory.status().oldest_pending.unwrap() > first
    });
    assert_eq!(memory.status().pending, 3);

    server.start();
    memory.flush(DEADLINE).unwrap();
    let status = memory.status();
    assert!(
        status.connected && status.pending == 0 && status.oldest_pending.is_none(),
        "{status:?}"
    );
    assert!(
        server
            .get_text("memory:counter")
            .unwrap()
            .starts_with(r#"{"value": 3,"#)
    );
    assert!(
        server
            .get_text("memory:theme")
            .unwrap()
            .starts_with(r#"{"value": "light","#)
    );
    assert!(
        server
            .get_text("memory:note")
            .unwrap()
            .starts_with(r#"{"value": null,"#)
    );
    assert_eq!(server.get_raw("memory:tags"), None);
    let other = Settings::open(&server.url()).unwrap();
    assert_eq!(
        (other.counter().unwrap(), other.theme().unwrap()),
        (3, "light".to_owned())
    );
}

#[test]
fn a_read_of_what_was_never_read_waits_for_a_quick_reconnect() {
    // Logging takes time, in which a read finds out that the connection is gone.
    let _logs = Logs::capture();
    let line = Line::new();
    let beside = quick(line.server.url()).timeout(DEADLINE).build().unwrap();
    for round in 0..100_u64 {
        // The first loss of a connection in a new memory, and a second one.
        let memory = line.builder().timeout(DEADLINE).build().unwrap();
        for loss in 0..2 {
            let key = Key::<u64>::named(format!("never_read_{round}_{loss}"));
            assert_eq!(beside.set(&key, round).unwrap(), Written::Stored);
            line.proxy.cut();
            assert_eq!(
                memory.get(&key).unwrap(),
                Some(round),
                "{round}, {loss}: {:?}",
                memory.status()
            );
        }
    }
}

#[test]
fn open_waits_for_a_silent_server_for_no_longer_than_timeout() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    proxy.stall(true);
    let limit = Duration::from_millis(300);
    let started = Instant::now();
    let memory = quick(proxy.url()).timeout(limit).build().unwrap();
    let took = started.elapsed();
    eprintln!("open took {took:?} of {limit:?}");
    // It does wait: an answer within `timeout` would have counted.
    assert!(
        took >= limit * 9 / 10 && took <= limit + Duration::from_millis(150),
        "{took:?}"
    );
    let key = Key::<i32>::new("n");
    let started = Instant::now();
    assert_eq!(memory.get(&key).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(memory.set(&key, 1).unwrap(), Written::Queued);
    assert!(
        started.elapsed() < limit / 2,
        "the breaker is open from the start"
    );
    proxy.stall(false);
    memory.flush(DEADLINE).unwrap();
    assert!(
        server
            .get_text("memory:n")
            .unwrap()
            .starts_with(r#"{"value": 1,"#)
    );
}

#[test]
fn once_the_breaker_is_open_calls_return_at_once_and_show_what_is_known_with_pending_writes_on_top()
{
    const CALLS: usize = 20_000;
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    let (read, written) = (Key::<u64>::new("read"), Key::<u64>::new("written"));
    memory.set(&read, 7).unwrap();
    memory.set(&written, 0).unwrap();
    server.freeze();
    let started = Instant::now();
    assert_eq!(memory.set(&written, 1).unwrap(), Written::Queued);
    let first = started.elapsed();
    assert!(first <= TIMEOUT + Duration::from_millis(150), "{first:?}");
    wait_disconnected(&memory);
    let stopwatch = Stopwatch::of_this_thread();
    let mut took = Vec::with_capacity(2 * CALLS);
    for n in 2..CALLS as u64 {
        took.push(
            stopwatch
                .time(|| assert_eq!(memory.set(&written, n).unwrap(), Written::Queued))
                .time,
        );
        took.push(
            stopwatch
                .time(|| assert_eq!(memory.get(&written).unwrap(), Some(n)))
                .time,
        );
        assert_eq!(memory.get(&read).unwrap(), Some(7));
    }
    assert!(!memory.status().connected, "the outage went on");
    took.sort_unstable();
    let (most, longest) = (took[took.len() * 999 / 1_000], took[took.len() - 1]);
    eprintln!(
        "first call {first:?}; then 99.9 % of {} calls within {most:?}, longest {longest:?}",
        took.len()
    );
    assert!(
        most < Duration::from_millis(1),
        "99.9 % of the calls within {most:?}"
    );
    assert!(longest < TIMEOUT / 2, "a call waited for {longest:?}");
    server.thaw();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&written).unwrap(), Some(CALLS as u64 - 1));
}

#[test]
fn a_half_open_connection_is_noticed_without_any_call() {
    let line = Line::new();
    let memory = line.open();
    wait_connected(&memory);
    line.proxy.stall(true);
    let started = Instant::now();
    wait_disconnected(&memory);
    eprintln!("noticed after {:?}", started.elapsed());
    // A second between two heartbeats, and the time that an answer may take.
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    let started = Instant::now();
    assert_eq!(memory.set(&Key::new("n"), 1).unwrap(), Written::Queued);
    assert!(
        started.elapsed() < TIMEOUT / 2,
        "no call waits for a connection that is known to be gone"
    );
    line.proxy.stall(false);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(
        line.proxy.cuts(),
        0,
        "the memory itself has ended the connection"
    );
}

#[test]
fn a_read_shows_what_the_server_holds_even_if_that_is_older() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    let key = Key::<u64>::new("n");
    let view = memory.synced(&key);

    view.set(1).unwrap();
    server.cli(&["FLUSHALL"]);
    assert_eq!(view.find().unwrap(), None);

    view.set(2).unwrap();
    let stamp = view.last_modified().unwrap().unwrap();
    for older in [stamp - 3_600_000_000_000, 5, 0] {
        server.set_raw(
            "memory:n",
            format!(r#"{{"value": 3, "last_modified": {older}}}"#),
        );
        assert_eq!(view.get().unwrap(), 3);
        assert_eq!(view.last_modified().unwrap(), Some(older));
    }
    assert_eq!(view.set(4).unwrap(), Written::Stored);
    assert!(
        view.last_modified().unwrap().unwrap() > stamp,
        "this process's stamps of a key only rise"
    );

    server.kill();
    wait_disconnected(&memory);
    assert_eq!(view.get().unwrap(), 4);
    server.start();
    // The server has lost all its data.
    eventually(DEADLINE, "the read shows it", || {
        view.find().unwrap().is_none()
    });
    assert_eq!(memory.get(&key).unwrap(), None);

    server.kill();
    wait_disconnected(&memory);
    assert_eq!(view.set(5).unwrap(), Written::Queued);
    server.start();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(view.get().unwrap(), 5);
    assert!(
        server
            .get_text("memory:n")
            .unwrap()
            .starts_with(r#"{"value": 5,"#)
    );
}

#[test]
fn a_write_made_right_after_a_read_has_found_the_server_silent_is_delivered() {
    let server = Server::redis().start();
    let limit = Duration::from_millis(20);
    let memory = quick(server.url()).timeout(limit).build().unwrap();
    let key = Key::<u64>::new("n");
    for n in 1..=50 {
        memory.set(&key, 2 * n).unwrap();
        memory.flush(DEADLINE).unwrap();
        server.freeze();
        // The read gives the connection up, and the write is made before the flusher has noticed.
        memory.get(&key).unwrap();
        memory.set(&key, 2 * n + 1).unwrap();
        server.thaw();
        memory
            .flush(DEADLINE)
            .unwrap_or_else(|error| panic!("round {n}: {error}"));
        assert_eq!(memory.get(&key).unwrap(), Some(2 * n + 1));
    }
}
