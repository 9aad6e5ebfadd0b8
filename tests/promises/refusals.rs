//! Rules 2, 12 and 13: what a server refuses, for some time or permanently.

use std::fmt::{Debug, Write};
use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use support::{Logs, Proxy, Server, eventually, eventually_some};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};

use crate::line::forget_dead_letters;

const DEADLINE: Duration = Duration::from_secs(10);

/// The rights that are enough for the prefix `memory:`; the README states them.
const KEYS: &str = "~memory:* ~synced-memory/{memory:*";
const COMMANDS: &str = "+time +get +eval +evalsha +script|load +getrange +setrange +strlen +exists +hget +hmget +hincrby +set +del +hset +hlen +hgetall +pttl +pexpire +hdel +scan +dbsize +info";
/// Needed for invalidations; without it near reads and watches ask the server each time.
const TRACKING: &str = "+client|tracking +client|caching";
/// Needed for `client_name`; without it connections have no name.
const NAME: &str = "+client|setname";
/// Optional: the ACL log has fewer entries with it, on servers that know the subcommand.
const QUIET: &str = "+client|setinfo";

fn number(name: &str) -> Key<i64> {
    Key::named(name.to_owned())
}

fn stored(server: &Server, key: &str) -> Option<i64> {
    let envelope: serde_json::Value = serde_json::from_slice(&server.get_raw(key)?).unwrap();
    envelope["value"].as_i64()
}

fn quick(url: &str) -> Memory {
    Memory::builder()
        .url(url)
        .backoff(Duration::from_millis(5), Duration::from_millis(100))
        .build()
        .unwrap()
}

fn last_error(memory: &Memory) -> String {
    memory
        .status()
        .last_error
        .map(|error| error.to_string())
        .unwrap_or_default()
}

// --- passwords

#[test]
fn open_reports_a_wrong_password_at_once() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder
            .password("right")
            .user("alice", "on >right ~* +@all")
            .start();
        let without_password = format!("redis://127.0.0.1:{}", server.port());
        for url in [
            server.url_as("default", "wrong"),
            server.url_as("alice", "wrong"),
            server.url_as("bob", "right"),
            without_password,
        ] {
            let asked = Instant::now();
            let error = Memory::builder()
                .url(&url)
                .timeout(2 * DEADLINE)
                .build()
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
            assert!(
                error
                    .to_string()
                    .contains(&format!("127.0.0.1:{}", server.port())),
                "{error}"
            );
            assert!(asked.elapsed() < DEADLINE, "it waited for its timeout");
        }
    }
}

#[test]
fn the_password_the_user_the_database_and_the_socket_are_those_of_the_url() {
    let server = Server::redis()
        .password("p@ss:w/rd% \"#")
        .user("alice", "on >a&b=c ~* +@all")
        .unix_socket()
        .start();
    let socket = server.socket().display().to_string();
    let with_password = server.url();
    server.cli(&["SELECT", "3"]);
    for (n, url) in (1..).zip([
        format!("{with_password}/3"),
        format!("{}/3", with_password.replace("redis://", "valkey://")),
        format!("{}/3", server.url_as("alice", "a&b=c")),
        format!("redis+unix://{socket}?db=3&password=p%40ss%3Aw%2Frd%25%20%22%23"),
        format!("redis+unix://{socket}?db=3&user=alice&password=a%26b%3Dc"),
    ]) {
        let memory = Memory::open(&url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(memory.set(&number("n"), n).unwrap(), Written::Stored);
        assert_eq!(stored(&server, "memory:n"), Some(n));
    }
    server.cli(&["SELECT", "0"]);
    assert_eq!(server.get_raw("memory:n"), None);
}

#[test]
fn no_password_is_in_any_message_log_line_or_debug_output() {
    const SECRET: &str = "tr0ub4dor-and-3";
    let logs = Logs::capture();
    let server = Server::redis()
        .password(SECRET)
        .user("alice", &format!("on >{SECRET}-alice {KEYS} +get +info"))
        .start();
    let proxy = Proxy::to(&server);
    let through = server.url().replace(
        &format!(":{}", server.port()),
        &format!(":{}", proxy.port()),
    );
    let mut said = String::new();
    let mut say = |what: &dyn Debug| writeln!(said, "{what:?} {what:#?}").unwrap();

    let builder = Memory::builder()
        .url(&through)
        .backoff(Duration::from_millis(5), Duration::from_millis(50));
    say(&builder);
    let memory = builder.build().unwrap();
    let synced = memory.synced(&number("n"));
    memory.set(&number("n"), 1).unwrap();
    say(&(&memory, &synced, memory.status()));
    proxy.refuse(true);
    proxy.cut();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    memory.set(&number("n"), 2).unwrap();
    say(&(
        memory.status(),
        memory.names(),
        memory.flush(Duration::from_millis(10)),
    ));
    say(&memory.names().map_err(|error| error.to_string()));
    server.cli(&["CONFIG", "SET", "requirepass", "another"]);
    proxy.refuse(false);
    eventually(DEADLINE, "the password is refused", || {
        memory
            .status()
            .last_error
            .is_some_and(|error| error.kind() == ErrorKind::Rejected)
    });
    say(&memory.status());
    say(&memory
        .close(Duration::from_millis(10))
        .map_err(|error| (error.to_string(), error)));
    for url in [
        server.url(),
        server.url_as("alice", &format!("{SECRET}-wrong")),
    ] {
        say(&Memory::open(&url).map_err(|error| (error.to_string(), error)));
    }
    for bad in ["/x", "/0?colour=1", "/0#x"] {
        say(&Memory::open(&format!("{}{bad}", server.url()))
            .map_err(|error| (error.to_string(), error)));
    }
    let alice = Memory::open(&server.url_as("alice", &format!("{SECRET}-alice")));
    say(&alice.map_err(|error| (error.to_string(), error)));

    assert!(
        said.matches("Rejected").count() > 4 && said.matches("Config").count() > 4,
        "{said}"
    );
    for encoded in [SECRET, "tr0ub4dor", "%2Dand%2D3"] {
        assert!(!said.contains(encoded), "{said}");
        assert_eq!(logs.containing(encoded).len(), 0);
    }
    assert!(
        !logs.containing(&proxy.port().to_string()).is_empty(),
        "nothing was logged"
    );
}

#[test]
fn no_write_is_lost_when_the_password_is_changed_on_the_server() {
    let server = Server::redis().password("first").start();
    let memory = quick(&server.url());
    assert_eq!(memory.set(&number("n"), 1).unwrap(), Written::Stored);
    server.cli(&["CONFIG", "SET", "requirepass", "second"]);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually(DEADLINE, "the password is refused", || {
        memory
            .status()
            .last_error
            .is_some_and(|error| error.kind() == ErrorKind::Rejected)
    });
    assert_eq!(memory.set(&number("n"), 2).unwrap(), Written::Queued);
    assert_eq!(memory.get(&number("n")).unwrap(), Some(2));
    server.cli(&["CONFIG", "SET", "requirepass", "first"]);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(stored(&server, "memory:n"), Some(2));
}

// --- servers that take no writes now

/// Asserts that while the server takes no writes, they are queued with the cause, and reads work;
/// and that everything is delivered once it has recovered. `answers_reads`: whether the server
/// answers reads meanwhile.
fn assert_writes_wait_for_recovery(
    server: &Server,
    code: &str,
    answers_reads: bool,
    take_no_writes: impl FnOnce(),
    recover: impl FnOnce(),
) {
    server.set_raw("memory:foreign", r#"{"value": 7, "last_modified": 5}"#);
    let memory = quick(&server.url());
    assert_eq!(memory.set(&number("known"), 1).unwrap(), Written::Stored);
    assert_eq!(memory.set(&number("gone"), 1).unwrap(), Written::Stored);
    take_no_writes();
    assert_eq!(
        memory.set(&number("n"), 2).unwrap(),
        Written::Queued,
        "{code}"
    );
    assert!(
        last_error(&memory).contains(code),
        "{code}: {}",
        last_error(&memory)
    );
    assert_eq!(
        memory.set(&number("known"), 3).unwrap(),
        Written::Queued,
        "{code}"
    );
    assert_eq!(
        memory.set(&number("known"), 4).unwrap(),
        Written::Queued,
        "{code}"
    );
    let status = memory.status();
    assert_eq!((status.pending, status.dead_letters), (2, 0), "{code}");
    assert!(status.oldest_pending.is_some());
    assert!(
        status
            .last_error
            .is_some_and(|error| error.kind() == ErrorKind::Unavailable)
    );
    assert_eq!(memory.get(&number("n")).unwrap(), Some(2));
    assert_eq!(memory.get(&number("known")).unwrap(), Some(4));
    if answers_reads {
        eventually(DEADLINE, "the server answers reads", || {
            memory.get(&number("foreign")).unwrap() == Some(7)
        });
        assert_eq!(stored(server, "memory:known"), Some(1), "{code}");
    } else {
        assert_eq!(
            memory.get(&number("foreign")).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
    let late = memory.flush(Duration::from_millis(50)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(late.to_string().contains("memory:known"), "{late}");
    recover();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(stored(server, "memory:n"), Some(2), "{code}");
    assert_eq!(stored(server, "memory:known"), Some(4), "{code}");
    eventually(DEADLINE, "writes wait for their answer again", || {
        memory.set(&number("known"), 5).unwrap() == Written::Stored
    });
    let status = memory.status();
    assert!(status.connected, "{status:?}");
    assert_eq!(
        (status.pending, status.dead_letters, status.superseded),
        (0, 0, 0),
        "{code}"
    );
}

#[test]
fn a_server_that_is_out_of_memory_gets_the_writes_when_there_is_room_again() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.arg("maxmemory-policy", "noeviction").start();
        let limit = |bytes: &str| drop(server.cli(&["CONFIG", "SET", "maxmemory", bytes]));
        assert_writes_wait_for_recovery(&server, "OOM", true, || limit("1"), || limit("0"));
    }
}

#[test]
fn a_server_that_is_out_of_memory_still_makes_deletes() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.arg("maxmemory-policy", "noeviction").start();
        let memory = quick(&server.url());
        memory.set(&number("n"), 1).unwrap();
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        assert!(memory.delete(&number("n")).unwrap());
        eventually(DEADLINE, "the key is gone", || {
            server.get_raw("memory:n").is_none()
        });
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        memory.flush(DEADLINE).unwrap();
        assert_eq!(server.get_raw("memory:n"), None);
    }
}

#[test]
fn a_replica_gets_the_writes_when_it_is_a_master_again() {
    let dead = Server::redis().start();
    dead.stop();
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let follow = |host: &str, port: &str| drop(server.cli(&["REPLICAOF", host, port]));
        let port = dead.port().to_string();
        assert_writes_wait_for_recovery(
            &server,
            "READONLY",
            true,
            || follow("127.0.0.1", &port),
            || follow("NO", "ONE"),
        );
    }
}

#[test]
fn a_replica_that_has_lost_its_master_keeps_what_is_known() {
    let dead = Server::redis().start();
    dead.stop();
    let server = Server::redis()
        .arg("replica-serve-stale-data", "no")
        .start();
    let follow = |host: &str, port: &str| drop(server.cli(&["REPLICAOF", host, port]));
    let port = dead.port().to_string();
    assert_writes_wait_for_recovery(
        &server,
        "MASTERDOWN",
        false,
        || follow("127.0.0.1", &port),
        || follow("NO", "ONE"),
    );
}

#[test]
fn a_server_that_cannot_save_gets_the_writes_when_it_can() {
    let server = Server::redis()
        .arg("enable-protected-configs", "yes")
        .start();
    let saved = || {
        server
            .info("persistence")
            .contains("rdb_last_bgsave_status:ok")
    };
    let save = |to: &str| {
        server.cli(&["CONFIG", "SET", "dir", to]);
        server.cli(&["BGSAVE"]);
        eventually(DEADLINE, "the save has ended", || {
            server
                .info("persistence")
                .contains("rdb_bgsave_in_progress:0")
                && saved() != (to == "/proc/self")
        });
    };
    let Value::Array(dir) = server.cli(&["CONFIG", "GET", "dir"]) else {
        panic!("CONFIG GET answers in pairs")
    };
    let dir: String = redis::from_redis_value(dir[1].clone()).unwrap();
    server.cli(&["CONFIG", "SET", "save", "3600 1000000"]);
    assert_writes_wait_for_recovery(
        &server,
        "MISCONF",
        true,
        || save("/proc/self"),
        || save(&dir),
    );
}

#[test]
fn a_server_that_is_loading_gets_the_writes_when_it_has_loaded() {
    let server = Server::redis()
        .slow_loading(Duration::from_millis(10))
        .start();
    let memory = quick(&server.url());
    assert_eq!(memory.set(&number("known"), 1).unwrap(), Written::Stored);
    server.set_raw("memory:foreign", r#"{"value": 7, "last_modified": 5}"#);
    for n in 0..200 {
        server.set_raw(&format!("filler{n}"), [b'x'; 2_000]);
    }
    server.stop();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    assert_eq!(memory.set(&number("n"), 2).unwrap(), Written::Queued);
    server.launch();
    eventually(DEADLINE, "the cause is shown", || {
        last_error(&memory).contains("LOADING")
    });
    let opened = quick(&server.url());
    assert_eq!(opened.set(&number("late"), 5).unwrap(), Written::Queued);
    assert_eq!(memory.set(&number("known"), 3).unwrap(), Written::Queued);
    assert_eq!(memory.get(&number("known")).unwrap(), Some(3));
    assert_eq!(
        memory.get(&number("foreign")).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        opened.get(&number("known")).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let (status, late) = (memory.status(), opened.status());
    assert!(
        server.info("persistence").contains("loading:1"),
        "the server had loaded before the test was done"
    );
    assert_eq!(
        (status.pending, status.dead_letters, late.pending),
        (2, 0, 1)
    );
    server.wait_ready();
    memory.flush(DEADLINE).unwrap();
    opened.flush(DEADLINE).unwrap();
    for (key, value) in [
        ("memory:n", 2),
        ("memory:known", 3),
        ("memory:late", 5),
        ("memory:foreign", 7),
    ] {
        assert_eq!(stored(&server, key), Some(value), "{key}");
    }
    assert_eq!(memory.get(&number("foreign")).unwrap(), Some(7));
}

#[test]
fn a_server_that_takes_no_writes_is_tried_again_with_growing_pauses() {
    let dead = Server::redis().start();
    dead.stop();
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let least = Duration::from_millis(20);
    let memory = Memory::builder()
        .url(proxy.url())
        .backoff(least, Duration::from_secs(60))
        .build()
        .unwrap();
    assert_eq!(memory.set(&number("n"), 1).unwrap(), Written::Stored);
    server.cli(&["REPLICAOF", "127.0.0.1", &dead.port().to_string()]);
    assert_eq!(memory.set(&number("n"), 2).unwrap(), Written::Queued);
    // The n-th wait is 10 ms × 2^n on average: thirty attempts within four seconds would mean that
    // the waits do not grow.
    let (before, started) = (proxy.connections(), Instant::now());
    while started.elapsed() < Duration::from_secs(4) && proxy.connections() - before < 30 {
        thread::park_timeout(Duration::from_millis(5));
    }
    let tries = proxy.connections() - before;
    assert!(tries < 30, "{tries} connections in {:?}", started.elapsed());
}

// --- rights

#[derive(SyncedMemory, Debug, Clone, PartialEq)]
struct Sample {
    one: i64,
    #[synced(ttl = "1h")]
    two: i64,
}

#[test]
fn the_rights_that_the_readme_names_are_enough_for_everything() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let order = format!("ACL SETUSER minimal on >pw {KEYS} {COMMANDS} {TRACKING} {NAME}");
        server.cli(&order.split(' ').collect::<Vec<_>>());
        let _ = server.try_cli(&["ACL", "SETUSER", "minimal", QUIET]);
        server.cli(&["ACL", "LOG", "RESET"]);
        let handle = Sample::open(&server.url_as("minimal", "pw")).unwrap();
        let memory = handle.memory();
        let sample = Sample { one: 1, two: 2 };
        assert_eq!(handle.restore(sample.clone()).unwrap(), Written::Stored);
        assert_eq!(handle.snapshot().unwrap(), sample);
        assert_eq!(handle.set_one(3).unwrap(), Written::Stored);
        assert_eq!(handle.set_two(3).unwrap(), Written::Stored);
        assert_eq!(
            memory.scope("a").set(&number("n"), 1).unwrap(),
            Written::Stored
        );
        assert!(handle.synced_one().delete().unwrap());
        assert_eq!(memory.names().unwrap(), ["two"]);
        assert!(memory.contains(&number("two")).unwrap());
        assert_eq!(memory.purge().unwrap(), 2);
        let mut watch = memory.watch(&number("one"));
        assert_eq!(watch.recv().unwrap(), None);
        server.set_raw("memory:one", "7");
        assert_eq!(watch.recv_timeout(DEADLINE).unwrap(), Some(7));
        assert_eq!(memory.status().stale, 0, "it is tracked");
        assert_eq!(
            memory.status().eviction_policy.as_deref(),
            Some("noeviction")
        );
        let status = memory.status();
        assert_eq!((status.pending, status.dead_letters), (0, 0));
        assert!(status.last_error.is_none(), "{status:?}");
        memory.close(DEADLINE).unwrap();
        let denied = format!("{:?}", server.cli(&["ACL", "LOG"]));
        assert!(
            !denied.contains("toplevel") && !denied.contains("lua"),
            "{denied}"
        );
    }
}

#[test]
fn without_one_of_those_rights_a_write_is_rejected_and_was_never_made() {
    let server = Server::redis().start();
    let mut half_made = Vec::new();
    for missing in COMMANDS.split(' ').map(|rule| rule.trim_start_matches('+')) {
        server.cli(&["FLUSHALL"]);
        let order = format!("ACL SETUSER without-{missing} on >pw {KEYS} {COMMANDS} -{missing}");
        server.cli(&order.split(' ').collect::<Vec<_>>());
        let open = || Memory::open(&server.url_as(&format!("without-{missing}"), "pw"));
        let Ok(memory) = open() else {
            assert_eq!(missing, "time", "only this one is needed to connect");
            continue;
        };
        Memory::open(&server.url())
            .unwrap()
            .set(&number("del"), 1)
            .unwrap();
        server.cli(&["DEL", "synced-memory/{memory:del}"]);
        let handle = Sample::attach(&memory);
        let errors = [
            ("memory:one", None, handle.set_one(5).err()),
            ("memory:two", None, handle.set_two(5).err()),
            ("memory:del", Some(1), memory.delete(&number("del")).err()),
        ];
        let mut refused = memory.names().is_err();
        for (key, before, error) in errors {
            let Some(error) = error else { continue };
            refused = true;
            assert_eq!(error.kind(), ErrorKind::Rejected, "{missing}: {error}");
            assert!(error.to_string().contains(key), "{missing}: {error}");
            if stored(&server, key) != before {
                half_made.push(format!("{key} without {missing}"));
            }
        }
        refused |= memory.get(&number("one")).is_err();
        // One of SCRIPT LOAD and EVAL is needed to send the script, and EVAL if the server forgets
        // it. Without the others below, pushes and adds send whole values, records only stay until
        // they expire, the script takes a longer path, the eviction policy is not shown, and a SCAN
        // that does not end is noticed later.
        let optional = [
            "setrange",
            "strlen",
            "eval",
            "script|load",
            "hdel",
            "hget",
            "hincrby",
            "hlen",
            "hgetall",
            "info",
            "dbsize",
        ];
        assert!(
            refused || optional.contains(&missing),
            "{missing} is not needed"
        );
        assert_eq!(
            (memory.status().pending, memory.status().dead_letters),
            (0, 0),
            "{missing}"
        );
    }
    assert_eq!(half_made, [""; 0], "rejected, and still made");
}

#[test]
fn without_rights_to_a_key_a_write_is_withdrawn_and_the_rest_of_the_batch_is_delivered() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder
            .user(
                "alice",
                "on >pw ~memory:one ~synced-memory/{memory:one} +@all",
            )
            .start();
        server.set_raw("memory:two", r#"{"value": 7, "last_modified": 5}"#);
        let handle = Sample::open(&server.url_as("alice", "pw")).unwrap();
        // One call, one batch.
        let error = handle.restore(Sample { one: 1, two: 2 }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.to_string().contains("memory:two"), "{error}");
        assert_eq!(stored(&server, "memory:one"), Some(1));
        assert_eq!(stored(&server, "memory:two"), Some(7));
        for _ in 0..3 {
            assert_eq!(handle.set_two(2).unwrap_err().kind(), ErrorKind::Rejected);
            assert_eq!(
                handle.synced_two().delete().unwrap_err().kind(),
                ErrorKind::Rejected
            );
            assert_eq!(handle.set_one(3).unwrap(), Written::Stored);
            assert_eq!(handle.one().unwrap(), 3);
            assert_eq!(handle.two().unwrap_err().kind(), ErrorKind::Rejected);
        }
        let status = handle.memory().status();
        assert!(status.connected);
        assert_eq!((status.pending, status.dead_letters), (0, 0));
        assert_eq!(stored(&server, "memory:two"), Some(7));
    }
}

#[test]
fn a_withdrawn_write_leaves_the_view_as_it_was() {
    let server = Server::redis().start();
    server.cli(&["ACL", "SETUSER", "alice", "on", ">pw", "~*", "+@all"]);
    let memory = Memory::open(&server.url_as("alice", "pw")).unwrap();
    let synced = memory.synced(&number("n"));
    synced.set(1).unwrap();
    let stamp = synced.last_modified().unwrap();
    // Reads still work, scripts do not.
    server.cli(&["ACL", "SETUSER", "alice", "-eval", "-evalsha"]);
    let error = synced.set(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(
        error.to_string().contains("memory:n") && error.to_string().contains("NOPERM"),
        "{error}"
    );
    assert_eq!(synced.get().unwrap(), 1);
    assert_eq!(synced.last_modified().unwrap(), stamp);
    assert_eq!(synced.delete().unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(synced.get().unwrap(), 1);
    assert_eq!(memory.status().pending, 0);
    assert_eq!(memory.dead_letters().len(), 0);
    server.cli(&["ACL", "SETUSER", "alice", "+eval", "+evalsha"]);
    assert_eq!(synced.set(3).unwrap(), Written::Stored);
    assert_eq!(stored(&server, "memory:n"), Some(3));
}

#[test]
fn a_queued_write_that_is_refused_is_a_dead_letter_and_the_others_are_delivered() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        server.cli(&["ACL", "SETUSER", "alice", "on", ">pw", "~*", "+@all"]);
        let proxy = Proxy::to(&server);
        let url = format!("redis://alice:pw@127.0.0.1:{}", proxy.port());
        let memory = quick(&url);
        for name in ["lost", "deleted", "kept"] {
            memory.set(&number(name), 1).unwrap();
        }
        proxy.refuse(true);
        proxy.cut();
        eventually(DEADLINE, "the loss is noticed", || {
            !memory.status().connected
        });
        let many: Vec<Key<i64>> = (0..100).map(|n| number(&format!("kept{n}"))).collect();
        for key in &many[..50] {
            assert_eq!(memory.set(key, 2).unwrap(), Written::Queued);
        }
        assert_eq!(memory.set(&number("lost"), 2).unwrap(), Written::Queued);
        assert!(memory.delete(&number("deleted")).unwrap());
        let stamp = memory
            .synced(&number("lost"))
            .last_modified()
            .unwrap()
            .unwrap();
        for key in &many[50..] {
            assert_eq!(memory.set(key, 2).unwrap(), Written::Queued);
        }
        server.cli(&[
            "ACL",
            "SETUSER",
            "alice",
            "resetkeys",
            "~memory:kept*",
            "~synced-memory/{memory:kept*",
        ]);
        proxy.refuse(false);
        memory.flush(DEADLINE).unwrap();

        for key in 0..100 {
            assert_eq!(stored(&server, &format!("memory:kept{key}")), Some(2));
        }
        assert_eq!(stored(&server, "memory:lost"), Some(1));
        assert_eq!(stored(&server, "memory:deleted"), Some(1));
        let status = memory.status();
        assert_eq!((status.pending, status.dead_letters), (0, 2));
        assert!(
            status
                .last_error
                .is_some_and(|error| error.kind() == ErrorKind::Rejected)
        );
        let mut letters = forget_dead_letters(&memory);
        letters.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(letters.len(), 2);
        assert_eq!(
            (letters[0].key.as_str(), &letters[0].value()),
            ("memory:deleted", &None)
        );
        assert_eq!(
            (letters[1].key.as_str(), &letters[1].value()),
            ("memory:lost", &Some(serde_json::json!(2)))
        );
        assert_eq!(letters[1].last_modified, stamp);
        for letter in &letters {
            assert_eq!(letter.reason.kind(), ErrorKind::Rejected);
            assert!(
                letter.reason.to_string().contains(&letter.key),
                "{}",
                letter.reason
            );
        }
        assert_eq!(memory.status().dead_letters, 0);
        assert_eq!(memory.dead_letters().len(), 0);
        assert_eq!(memory.set(&number("kept"), 9).unwrap(), Written::Stored);
    }
}

#[test]
fn no_write_is_lost_when_the_user_is_deleted_and_created_again() {
    let server = Server::redis().start();
    server.cli(&["ACL", "SETUSER", "alice", "on", ">pw", "~*", "+@all"]);
    let memory = quick(&server.url_as("alice", "pw"));
    memory.set(&number("n"), 1).unwrap();
    server.cli(&["ACL", "DELUSER", "alice"]);
    eventually(DEADLINE, "the refusal is shown", || {
        memory
            .status()
            .last_error
            .is_some_and(|error| error.kind() == ErrorKind::Rejected)
    });
    assert_eq!(memory.set(&number("n"), 2).unwrap(), Written::Queued);
    server.cli(&["ACL", "SETUSER", "alice", "on", ">pw", "~*", "+@all"]);
    memory.flush(DEADLINE).unwrap();
    let value = eventually_some(DEADLINE, "the value is there", || {
        stored(&server, "memory:n")
    });
    assert_eq!(value, 2);
}
