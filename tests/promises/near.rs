//! DESIGN, rules 1, 9 and 14: near reads are local and never stale for good, behind writes never wait.

use std::time::{Duration, Instant};

use support::{Server, eventually};
use synced_memory::{Key, Memory, ReadPolicy, SyncedMemory, WritePolicy, Written};
use tempfile::TempDir;

use crate::line::{DEADLINE, Line, connected, lost, quick};

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

/// Runs a check with two memories on each backend.
fn on_every_backend(check: impl Fn(&Memory, &Memory)) {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let file = format!("sqlite:{}", directory.path().join("near.db").display());
    let valkey = Server::valkey().start();
    for url in [server.url(), valkey.url(), "memory:near".to_owned(), file] {
        let (one, other) = (quick(url.clone()).build().unwrap(), quick(url).build().unwrap());
        check(&one, &other);
    }
}

#[test]
fn a_near_read_sees_what_others_write_and_delete() {
    on_every_backend(|one, other| {
        let mine = Sample::attach(one);
        assert_eq!(mine.count().unwrap(), 0);
        for n in 1..50 {
            other.set(&key(), n).unwrap();
            eventually(DEADLINE, "the change is seen", || mine.count().unwrap() == n);
        }
        other.synced(&Key::<Vec<String>>::new("items")).push("a".to_owned()).unwrap();
        eventually(DEADLINE, "the push is seen", || mine.items().to_vec().unwrap() == ["a"]);
        other.delete(&key()).unwrap();
        eventually(DEADLINE, "the delete is seen", || mine.synced_count().find().unwrap().is_none());
        let near = one.synced(&key());
        eventually(DEADLINE, "it is current", || near.staleness() == Some(Duration::ZERO));
        assert_eq!(one.status().not_current, 0);
    });
}

#[test]
fn a_near_read_shows_this_processs_own_writes_at_once() {
    on_every_backend(|one, other| {
        let mine = Sample::attach(one);
        for n in 0..200_u8 {
            mine.set_count(n.into()).unwrap();
            assert_eq!(mine.count().unwrap(), i64::from(n));
            mine.items().push(n.to_string()).unwrap();
            assert_eq!(mine.items().len().unwrap(), usize::from(n) + 1);
        }
        one.flush(DEADLINE).unwrap();
        assert_eq!(other.get(&Key::<Vec<String>>::new("items")).unwrap().unwrap().len(), 200);
    });
}

#[test]
fn near_reads_ask_nobody() {
    let server = Server::redis().start();
    let memory = Memory::builder().url(server.url()).read_policy(ReadPolicy::Near).build().unwrap();
    let count = memory.synced(&key());
    count.set(5).unwrap();
    eventually(DEADLINE, "it is current", || count.get().is_ok() && count.staleness() == Some(Duration::ZERO));
    server.reset_stats();
    for _ in 0..10_000 {
        assert_eq!(count.get().unwrap(), 5);
    }
    assert_eq!(memory.get(&key()).unwrap(), Some(5));
    assert_eq!(server.command_count("get"), 0);
}

#[test]
fn after_whatever_happened_to_the_server_every_slot_is_read_again() {
    let line = Line::new();
    let (mine, direct) = (Sample::attach(&line.open()), line.open_directly());
    let agrees = |expected: Option<i64>| {
        eventually(DEADLINE, "the slot follows", || mine.synced_count().find().unwrap() == expected);
    };
    for n in 0..20 {
        direct.set(&key(), n).unwrap();
        agrees(Some(n));
        // What nobody tells: the line is down while it changes.
        line.down(mine.memory());
        assert_eq!(mine.count().unwrap(), n);
        direct.set(&key(), n + 1_000).unwrap();
        line.up();
        agrees(Some(n + 1_000));
        line.server.cli(&["FLUSHALL"]);
        agrees(None);
        line.server.set_raw("memory:count", "7");
        agrees(Some(7));
        line.server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        line.server.cli(&["RENAME", "memory:count", "elsewhere"]);
        agrees(None);
        line.server.cli(&["SET", "memory:count", "8", "PX", "30"]);
        agrees(None);
        connected(&direct);
    }
}

#[test]
fn while_the_server_is_away_near_reads_and_behind_writes_never_wait() {
    let line = Line::new();
    let memory = line.builder().read_policy(ReadPolicy::Near).write_policy(WritePolicy::Behind).build().unwrap();
    let count = memory.synced(&key());
    connected(&memory);
    assert_eq!(count.set(1).unwrap(), Written::Queued);
    memory.flush(DEADLINE).unwrap();
    eventually(DEADLINE, "it is current", || count.get().is_ok() && count.staleness() == Some(Duration::ZERO));
    line.server.freeze();
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    let mut n = 1;
    while began.elapsed() < Duration::from_secs(1) {
        n += 1;
        let call = Instant::now();
        assert_eq!(count.set(n).unwrap(), Written::Queued);
        assert_eq!(count.get().unwrap(), n);
        longest = longest.max(call.elapsed());
    }
    // Nothing waits for the network; a busy machine may keep a thread waiting.
    assert!(longest < Duration::from_millis(400), "{longest:?}");
    lost(&memory);
    assert!(count.staleness().is_some_and(|staleness| staleness > Duration::ZERO));
    line.server.thaw();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(line.open_directly().get(&key()).unwrap(), Some(n));
    eventually(DEADLINE, "it is current again", || count.staleness() == Some(Duration::ZERO));
}

#[test]
fn a_server_that_may_not_tell_is_asked_each_time() {
    let server = Server::redis().start();
    server.cli(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "resetchannels", "+@all", "-client|tracking"]);
    let memory = quick(server.url_as("app", "pw")).read_policy(ReadPolicy::Near).build().unwrap();
    let count = memory.synced(&key());
    for n in 0..20 {
        server.set_raw("memory:count", n.to_string());
        assert_eq!(count.get().unwrap(), n);
    }
    assert_eq!(count.staleness(), None);
}
