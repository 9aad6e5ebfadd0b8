//! Rule 14: a near read is never stale for good, whichever client writes and whatever happens.
//!
//! Bursts of writes by four kinds of writers, with faults in them, and after each a quiet point, at
//! which every reader has to agree with the server. `SYNCED_MEMORY_SOAK=1` is the long form.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::Connection;
use serde_json::Value;
use support::{Child, Direction, Dragonfly, Proxy, Python, Server, time_without_cpu};
use synced_memory::{Key, Memory};

use crate::line::{DEADLINE, quick};

const NAMES: [&str; 8] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"];
const READERS: usize = 4;

/// How long after a quiet point a reader may disagree with the server, in addition to the time that
/// the processes in between waited for a CPU (next to none on an idle machine).
const BOUND: Duration = Duration::from_millis(100);

/// The minimum number of quiet points, and the minimum duration.
fn length() -> (u32, Duration) {
    if std::env::var_os("SYNCED_MEMORY_SOAK").is_some() {
        (1_000, Duration::from_secs(60))
    } else {
        (60, Duration::from_secs(1))
    }
}

fn key(name: &str) -> String {
    format!("memory:s:{name}")
}

fn any_key() -> String {
    key(NAMES[fastrand::usize(..NAMES.len())])
}

/// A value that no other write has.
fn any_value() -> String {
    fastrand::u32(..).to_string()
}

/// A program without the library that runs arbitrary commands over a connection of its own.
struct Bare<'a> {
    server: &'a Server,
    connection: Option<Connection>,
    next: fn() -> Vec<String>,
}

impl Bare<'_> {
    fn burst(&mut self, end: Instant) {
        while Instant::now() < end {
            if self.connection.is_none() {
                let client = redis::Client::open(self.server.url()).unwrap();
                self.connection = client.get_connection_with_timeout(DEADLINE).ok();
                if let Some(connection) = &self.connection {
                    connection.set_read_timeout(Some(DEADLINE)).unwrap();
                }
            }
            let words = (self.next)();
            let mut command = redis::cmd(&words[0]);
            command.arg(&words[1..]);
            let sent = self
                .connection
                .as_mut()
                .map(|connection| command.query::<redis::Value>(connection));
            // The server is away, or there is nothing to rename.
            if sent.is_none_or(|sent| {
                sent.is_err_and(|error| error.is_io_error() || error.is_connection_dropped())
            }) {
                self.connection = None;
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_micros(fastrand::u64(..400)));
        }
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn any_command() -> Vec<String> {
    let (key, value, ttl) = (any_key(), any_value(), fastrand::u32(1..30).to_string());
    match fastrand::u8(..20) {
        0 | 1 => words(["SET", &key, &value, "PX", &ttl]),
        2 => words(["PEXPIRE", &key, &ttl]),
        3 | 4 => words(["DEL", &key]),
        5 => words(["RENAME", &key, &any_key()]),
        _ => words(["SET", &key, &value]),
    }
}

fn any_script() -> Vec<String> {
    const SET: &str = "return redis.call('SET', KEYS[1], ARGV[1])";
    const MOVE: &str = "redis.call('DEL', KEYS[1]) return redis.call('SET', KEYS[2], ARGV[1])";
    const BOTH: &str = "return redis.call('MSET', KEYS[1], ARGV[1], KEYS[2], ARGV[1])";
    let text = [SET, SET, SET, MOVE, BOTH][fastrand::usize(..5)];
    words(["EVAL", text, "2", &any_key(), &any_key(), &any_value()])
}

fn write_through_the_library(memory: &Memory, end: Instant) {
    let scope = memory.scope("s");
    while Instant::now() < end {
        let key = Key::<u32>::named(NAMES[fastrand::usize(..NAMES.len())].to_owned());
        match fastrand::u8(..8) {
            0 => drop(scope.delete(&key).unwrap()),
            _ => drop(scope.set(&key, fastrand::u32(..)).unwrap()),
        }
    }
    memory.flush(DEADLINE).unwrap();
}

/// What the package queued while it found no server is discarded: it would be written at some later
/// time.
const PYTHON: &str = "
import random, time
from synced_memory import PrefixedMemory
m = PrefixedMemory('s')
def burst(seconds):
    global m
    end = time.time() + seconds
    while time.time() < end:
        if not m._redis_available:
            m._queue.clear()
            m._stop_event.set()
            m = PrefixedMemory('s')
        setattr(m, f'k{random.randrange(8)}', random.randrange(2**32))
    m._queue.clear()
";

/// What happens in a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    KillClients,
    CutTheLine,
    Flush,
    Pause,
    Restart,
    NewViews,
}

impl Fault {
    fn any() -> Self {
        match fastrand::u8(..40) {
            0..5 => Self::KillClients,
            5..8 => Self::CutTheLine,
            8..12 => Self::Flush,
            12..16 => Self::Pause,
            16 => Self::Restart,
            17..22 => Self::NewViews,
            _ => Self::Nothing,
        }
    }
}

struct Scene<'a> {
    server: &'a Server,
    proxy: &'a Proxy,
    readers: Vec<Child>,
    stamped: Memory,
    python: Python,
    bare: [Bare<'a>; 2],
}

impl<'a> Scene<'a> {
    fn new(server: &'a Server, proxy: &'a Proxy, url: &str) -> Self {
        let reader = |_| {
            let mut reader = Child::spawn(
                env!("CARGO_BIN_EXE_near_reader"),
                [url, "s"].iter().chain(&NAMES),
            );
            assert_eq!(reader.recv(), "opened");
            reader
        };
        let mut python = Python::against(&server.port());
        python.run(PYTHON);
        let bare = |next| Bare {
            server,
            connection: None,
            next,
        };
        Self {
            server,
            proxy,
            readers: (0..READERS).map(reader).collect(),
            stamped: quick(server.url()).build().unwrap(),
            python,
            bare: [bare(any_command), bare(any_script)],
        }
    }

    /// How long the server, the proxies in this process, and each reader have waited for a CPU.
    fn waited(&self) -> Vec<Duration> {
        let proxies = time_without_cpu(std::process::id(), |name| {
            matches!(name, "proxy" | "dragonfly")
        });
        let all = self
            .readers
            .iter()
            .map(Child::pid)
            .map(|reader| time_without_cpu(reader, |_| true));
        [time_without_cpu(self.server.pid(), |_| true), proxies]
            .into_iter()
            .chain(all)
            .collect()
    }

    /// How long a change that passed through all of them may have waited for a CPU since `before`.
    fn waited_since(&self, before: &[Duration]) -> Duration {
        let since = self
            .waited()
            .into_iter()
            .zip(before)
            .map(|(now, before)| now.saturating_sub(*before));
        let since: Vec<Duration> = since.collect();
        let (shared, readers) = since.split_at(2);
        shared.iter().sum::<Duration>() + *readers.iter().max().expect("there are readers")
    }

    fn burst(&mut self, fault: Fault) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            self.proxy
                .delay(direction, Duration::from_micros(fastrand::u64(..2_500)));
        }
        let length = Duration::from_millis(fastrand::u64(4..16));
        let end = Instant::now() + length;
        let Self {
            stamped,
            python,
            bare,
            readers,
            server,
            proxy,
            ..
        } = self;
        thread::scope(|scope| {
            scope.spawn(|| write_through_the_library(stamped, end));
            scope.spawn(|| python.run(&format!("burst({})", length.as_secs_f64())));
            for bare in bare {
                scope.spawn(move || bare.burst(end));
            }
            // During the burst, at its end, or just after it.
            thread::sleep(length.mul_f64(1.2 * fastrand::f64()));
            match fault {
                Fault::Nothing => {}
                Fault::KillClients => {
                    drop(server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]));
                }
                Fault::CutTheLine => proxy.cut(),
                Fault::Flush => drop(server.cli(&["FLUSHALL"])),
                Fault::Pause => drop(server.cli(&["CLIENT", "PAUSE", "15"])),
                Fault::Restart => {
                    server.kill();
                    server.start();
                }
                Fault::NewViews => {
                    for reader in readers {
                        assert_eq!(reader.ask("renew"), "renewed");
                    }
                }
            }
        });
    }

    /// What the server holds, once no key is about to expire.
    fn quiet(&self) -> Vec<Value> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let held = NAMES.map(|name| {
                let left: i64 =
                    redis::from_redis_value(self.server.cli(&["PTTL", &key(name)])).unwrap();
                (left < 0).then(|| self.server.get_text(&key(name)))
            });
            if let Some(held) = held.into_iter().collect::<Option<Vec<_>>>() {
                return held
                    .into_iter()
                    .map(|stored| stored.map_or(Value::Null, |stored| value(&stored)))
                    .collect();
            }
            assert!(Instant::now() < deadline, "the server never comes to rest");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How long after the quiet point the last reader agreed.
    fn agreement(&mut self, what: &str) -> Duration {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let held = self.quiet();
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_nanos();
            let json = serde_json::to_string(&held).unwrap();
            for reader in &mut self.readers {
                reader.send(format!("agree {since} 5000 {json}"));
            }
            let answers: Vec<String> = self.readers.iter_mut().map(Child::recv).collect();
            let millis = answers
                .iter()
                .map(|answer| answer.strip_prefix("agreed ")?.parse().ok());
            if let Some(millis) = millis.collect::<Option<Vec<u64>>>() {
                return Duration::from_millis(millis.into_iter().max().unwrap());
            }
            // If something was written since, it was no quiet point: a program may write on a
            // thread of its own.
            assert!(
                self.quiet() != held && Instant::now() < deadline,
                "{what}: {answers:?} instead of {json}"
            );
        }
    }
}

/// The value that is stored, in an envelope or bare.
fn value(stored: &str) -> Value {
    let mut value: Value = serde_json::from_str(stored).unwrap();
    if value.get("last_modified").is_some() {
        value["value"].take()
    } else {
        value
    }
}

fn no_reader_is_stale_after_a_quiet_point(what: &str, server: &Server, proxy: &Proxy, url: &str) {
    let mut scene = Scene::new(server, proxy, url);
    let (least, length) = length();
    let (began, mut points, mut longest, mut all) = (Instant::now(), 0, Duration::ZERO, Vec::new());
    let mut longest_wait = Duration::ZERO;
    while points < least || began.elapsed() < length {
        let fault = if points == 3 {
            Fault::Restart
        } else {
            Fault::any()
        };
        scene.burst(fault);
        let before = scene.waited();
        let took = scene.agreement(&format!("{what}, {fault:?}"));
        let waited = scene.waited_since(&before);
        assert!(
            took <= BOUND + waited,
            "{what}: {took:?} after {fault:?}, of which {waited:?} without a CPU"
        );
        points += 1;
        longest = longest.max(took);
        longest_wait = longest_wait.max(waited);
        all.push(took);
    }
    let reads: u64 = scene
        .readers
        .iter_mut()
        .map(|reader| reader.ask("reads").parse::<u64>().unwrap())
        .sum();
    all.sort_unstable();
    eprintln!(
        "{what}: {points} quiet points in {:?}, {READERS} readers, {reads} near reads: 0 stuck; all agreed after {:?} \
         (median), {longest:?} (longest); without a CPU for {longest_wait:?} at most",
        began.elapsed(),
        all[all.len() / 2]
    );
}

#[test]
fn whatever_is_written_and_whatever_happens_every_reader_soon_agrees_with_the_server() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    no_reader_is_stale_after_a_quiet_point("Redis", &server, &proxy, &proxy.url());
}

#[test]
fn the_same_holds_by_dragonflys_rules() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let dragonfly = Dragonfly::over(&proxy);
    no_reader_is_stale_after_a_quiet_point("Dragonfly's rules", &server, &proxy, &dragonfly.url());
}

#[test]
fn the_same_holds_on_the_oldest_redis_and_on_valkey() {
    for (what, builder) in [
        ("Redis 6.2", Server::redis_6()),
        ("Valkey", Server::valkey()),
    ] {
        let server = builder.start();
        let proxy = Proxy::to(&server);
        no_reader_is_stale_after_a_quiet_point(what, &server, &proxy, &proxy.url());
    }
}
