//! Which commands are sent to a server, and in how many round trips.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::Direction::ToServer;
use support::{Proxy, Server, eventually};
use synced_memory::{Key, Memory, SyncedMemory, Written};

const DEADLINE: Duration = Duration::from_secs(10);

/// The commands this library needs, which Redis from 6.2 on, Valkey and Dragonfly all have.
/// `CLIENT SETINFO` is sent by the redis crate, which ignores the answer.
const ALLOWED: &str = "auth hello select client|setinfo client|setname client|tracking client|caching client time info \
    get mget getrange exists set del unlink pttl pexpire scan dbsize hget hmget hset hincrby hdel hlen hgetall eval evalsha script script|load";

#[derive(SyncedMemory, Debug, Clone, PartialEq)]
struct Sample {
    a: i64,
    b: String,
    c: Vec<i64>,
    d: Option<String>,
    #[synced(ttl = "1h")]
    e: i64,
    #[synced(alias = "older")]
    f: i64,
    g: BTreeMap<String, i64>,
    h: f64,
}

#[derive(SyncedMemory, Debug)]
struct NearSample {
    #[synced(near)]
    near: i64,
}

fn sample() -> Sample {
    let (b, g) = ("text".to_owned(), BTreeMap::from([("x".to_owned(), 1)]));
    Sample {
        a: 1,
        b,
        c: vec![1, 2],
        d: None,
        e: 5,
        f: 6,
        g,
        h: 0.5,
    }
}

/// Uses everything that sends commands.
fn run_session(url: &str, proxy: &Proxy) {
    let memory = Memory::builder()
        .url(url)
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .build()
        .unwrap();
    let handle = Sample::attach(&memory);
    assert_eq!(handle.restore(sample()).unwrap(), Written::Stored);
    assert_eq!(handle.snapshot().unwrap(), sample());
    for n in 0..3 {
        assert_eq!(handle.set_a(n).unwrap(), Written::Stored);
        assert_eq!(handle.a().unwrap(), n);
        assert_eq!(handle.set_e(n).unwrap(), Written::Stored);
    }
    let near = NearSample::attach(&memory);
    let mut watch = near.synced_near().watch();
    assert_eq!(watch.recv().unwrap(), None);
    near.set_near(1).unwrap();
    assert_eq!(watch.recv().unwrap(), Some(1));
    assert_eq!(near.near().unwrap(), 1);
    assert!(near.synced_near().delete().unwrap());
    assert!(handle.synced_f().delete().unwrap());
    assert_eq!(handle.synced_f().find().unwrap(), None);
    proxy.refuse(true);
    proxy.cut();
    eventually(DEADLINE, "the lost connection is noticed", || {
        !memory.status().connected
    });
    assert_eq!(handle.set_a(7).unwrap(), Written::Queued);
    assert!(handle.synced_b().delete().unwrap());
    proxy.refuse(false);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(handle.a().unwrap(), 7);
    memory.scope("s").set(&Key::new("n"), 1).unwrap();
    let many = memory.scope("many");
    for n in 0..100 {
        many.set(&Key::named(format!("n{n}")), n).unwrap();
    }
    assert_eq!(memory.names().unwrap(), ["a", "c", "d", "e", "g", "h"]);
    assert_eq!(memory.purge().unwrap(), 107);
    memory.close(DEADLINE).unwrap();
}

#[test]
fn only_commands_that_every_server_has_are_sent() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.password("pw").start();
        let proxy = Proxy::to(&server);
        server.info("server");
        server.reset_stats();
        run_session(&format!("redis://:pw@127.0.0.1:{}/3", proxy.port()), &proxy);
        let stats = server.info("commandstats");
        let called: BTreeSet<&str> = stats
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next())
            .collect();
        let known: BTreeSet<&str> = ALLOWED
            .split(' ')
            .filter(|name| !name.is_empty())
            .chain(["config|resetstat", "config"])
            .collect();
        let unknown: Vec<_> = called.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?} are not on the list");
        for needed in [
            "hello", "select", "time", "info", "get", "set", "del", "scan", "evalsha", "hset",
            "hdel",
        ] {
            assert!(called.contains(needed), "{needed} was not sent: {called:?}");
        }
    }
}

/// A connection that receives every command that the server executes.
struct Monitor(BufReader<TcpStream>);

/// An executed command, and whether a script called it.
#[derive(Debug)]
struct Executed {
    by_script: bool,
    words: Vec<String>,
}

impl Monitor {
    fn of(server: &Server) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut monitor = Self(BufReader::new(stream));
        assert_eq!(monitor.line(), "+OK");
        monitor
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// All commands up to now. Only the script and the envelopes may have quotes in them.
    fn commands(mut self, server: &Server) -> Vec<Executed> {
        server.cli(&["ECHO", "the end of the session"]);
        let mut commands = Vec::new();
        loop {
            let line = self.line();
            if line.contains("the end of the session") {
                return commands;
            }
            let (head, words) = line.split_once("] ").unwrap();
            let words = words
                .trim_matches('"')
                .split("\" \"")
                .map(str::to_owned)
                .collect();
            commands.push(Executed {
                by_script: head.ends_with("lua"),
                words,
            });
        }
    }
}

#[test]
fn every_key_that_the_script_touches_is_declared_and_on_one_hash_tag() {
    for builder in [Server::redis(), Server::valkey()] {
        let server = builder.start();
        let proxy = Proxy::to(&server);
        let monitor = Monitor::of(&server);
        run_session(&proxy.url(), &proxy);
        let mut declared = Vec::new();
        let (mut scripts, mut touches) = (0, 0);
        for command in monitor.commands(&server) {
            let name = command.words[0].to_lowercase();
            if name == "eval" || name == "evalsha" {
                let count: usize = command.words[2].parse().unwrap();
                declared = command.words[3..3 + count].to_vec();
                for pair in declared.chunks(2) {
                    assert_eq!(
                        pair[1],
                        format!("synced-memory/{{{}}}", pair[0]),
                        "the key and its sidecar"
                    );
                }
                scripts += 1;
            } else if command.by_script {
                assert!(
                    declared.contains(&command.words[1]),
                    "{command:?} is not declared in {declared:?}"
                );
                touches += 1;
            }
        }
        assert!(
            scripts > 10 && touches > 5 * scripts,
            "{scripts} calls, {touches} commands"
        );
    }
}

#[test]
fn a_server_in_cluster_mode_accepts_every_call() {
    let bus = Server::redis().start();
    bus.stop();
    let server = Server::redis()
        .arg("cluster-enabled", "yes")
        .arg("cluster-port", &bus.port().to_string())
        .start();
    server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    eventually(DEADLINE, "the cluster is up", || {
        let info: String = redis::from_redis_value(server.cli(&["CLUSTER", "INFO"])).unwrap();
        info.contains("cluster_state:ok")
    });
    let refused = server
        .try_cli(&["EVAL", "return 1", "2", "a", "b"])
        .unwrap_err();
    assert!(
        refused.to_string().contains("CROSSSLOT") || refused.code() == Some("CROSSSLOT"),
        "{refused}"
    );
    let proxy = Proxy::to(&server);
    // With all keys in one slot, and with each key in its own slot.
    for prefix in ["app{tag}:", "{t}", "memory:"] {
        run_session(
            &format!(
                "{}?prefix={}",
                proxy.url(),
                prefix.replace('{', "%7B").replace('}', "%7D")
            ),
            &proxy,
        );
        server.cli(&["FLUSHALL"]);
    }
}

#[test]
fn a_snapshot_is_one_round_trip() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let handle = Sample::open(&proxy.url()).unwrap();
    handle.restore(sample()).unwrap();
    server.reset_stats();
    let before = proxy.bytes(ToServer);
    // No answer comes: whatever reaches the server was sent without waiting for one.
    proxy.swallow_answers(true);
    assert_eq!(
        handle.snapshot().unwrap(),
        sample(),
        "it returns what is known"
    );
    // Eight fields that are known to be small, and an older name of which nothing is known.
    assert_eq!(server.command_count("get"), 8);
    assert_eq!(server.command_count("exists"), 1);
    assert!(proxy.bytes(ToServer) > before);
}

#[test]
fn a_restore_is_one_round_trip() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    for knows_the_script in [true, false] {
        proxy.swallow_answers(false);
        let handle = Sample::open(&proxy.url()).unwrap();
        if knows_the_script {
            handle.restore(sample()).unwrap();
        }
        server.cli(&["FLUSHALL"]);
        server.reset_stats();
        proxy.swallow_answers(true);
        assert_eq!(handle.restore(sample()).unwrap(), Written::Queued);
        for name in Sample::NAMES {
            assert!(
                server.get_raw(&format!("memory:{name}")).is_some(),
                "{name} waited for an answer"
            );
        }
        let calls = server.command_count("evalsha") + server.command_count("eval");
        assert_eq!(calls, 1);
        proxy.swallow_answers(false);
        handle.memory().flush(DEADLINE).unwrap();
        assert_eq!(handle.snapshot().unwrap(), sample());
    }
}

#[test]
fn a_script_that_the_server_forgot_is_sent_again() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let handle = Sample::open(&server.url()).unwrap();
        for n in 0..5 {
            assert_eq!(handle.set_a(n).unwrap(), Written::Stored);
            server.cli(&["SCRIPT", "FLUSH"]);
            assert_eq!(
                handle
                    .restore(Sample {
                        a: 10 + n,
                        ..sample()
                    })
                    .unwrap(),
                Written::Stored
            );
            server.cli(&["SCRIPT", "FLUSH"]);
        }
        assert_eq!(handle.memory().status().pending, 0);
        server.reset_stats();
        for n in 0..10 {
            handle.set_a(n).unwrap();
        }
        assert!(
            server.command_count("eval") <= 1,
            "the script's text is sent with every call"
        );
        assert!(handle.memory().status().last_error.is_none());
    }
}
