//! What an operator sees: `tracing` events and `status()`.

use std::time::Duration;

use support::{Event, Logs, Proxy, Server, eventually, eventually_some};
use synced_memory::{ErrorKind, Key, Memory, Written};

const DEADLINE: Duration = Duration::from_secs(10);

fn number(name: &str) -> Key<i64> {
    Key::named(name.to_owned())
}

fn quick(url: &str) -> Memory {
    Memory::builder()
        .url(url)
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .build()
        .unwrap()
}

/// Waits for an event that contains all of `parts`, and returns the first one.
#[track_caller]
fn logged(logs: &Logs, parts: &[&str]) -> Event {
    eventually_some(DEADLINE, &format!("{parts:?} is logged"), || {
        logs.events().into_iter().find(|event| {
            let text = event.to_string();
            parts.iter().all(|part| text.contains(part))
        })
    })
}

fn is_warning_or_error(event: &Event) -> bool {
    event.level.as_str() == "WARN" || event.level.as_str() == "ERROR"
}

#[test]
fn an_outage_is_logged_from_its_beginning_to_its_end() {
    let logs = Logs::capture();
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let at = format!("127.0.0.1:{}", proxy.port());
    let memory = quick(&proxy.url());
    assert_eq!(logged(&logs, &[&at, "connected"]).level.as_str(), "INFO");
    memory.set(&number("a"), 1).unwrap();
    let flushed = logged(&logs, &[&at, "flushed"]);
    assert_eq!(flushed.field("writes"), Some("1"));

    let outage = Logs::capture();
    proxy.refuse(true);
    proxy.cut();
    let lost = logged(&outage, &[&at, "lost", "breaker opened"]);
    assert!(is_warning_or_error(&lost), "{lost}");
    assert!(
        lost.field("error").is_some_and(|error| !error.is_empty()),
        "{lost}"
    );
    for name in ["a", "b", "c"] {
        assert_eq!(memory.set(&number(name), 2).unwrap(), Written::Queued);
    }
    assert!(
        logged(&outage, &[&at, "could not connect"])
            .field("error")
            .is_some()
    );

    let end = Logs::capture();
    proxy.refuse(false);
    memory.flush(DEADLINE).unwrap();
    logged(&end, &[&at, "connected"]);
    logged(&end, &[&at, "breaker closed"]);
    eventually(DEADLINE, "what was flushed is logged", || {
        let writes = logs_of(&end, &at, "flushed");
        let counts = writes
            .iter()
            .map(|event| event.field("writes").unwrap().parse::<u32>().unwrap());
        counts.sum::<u32>() == 3
    });
    // One outage opens and closes the breaker once, however many attempts fail in between.
    assert_eq!(logs_of(&outage, &at, "breaker opened").len(), 1);
    assert_eq!(logs_of(&outage, &at, "breaker closed").len(), 1);
}

fn logs_of(logs: &Logs, at: &str, what: &str) -> Vec<Event> {
    logs.containing(at)
        .into_iter()
        .filter(|event| event.to_string().contains(what))
        .collect()
}

#[test]
fn a_backend_that_is_not_there_at_the_start_is_warned_about_once() {
    let logs = Logs::capture();
    let server = Server::redis().start();
    server.stop();
    let at = format!("127.0.0.1:{}", server.port());
    let memory = quick(&server.url());
    memory.set(&number("a"), 1).unwrap();
    eventually(DEADLINE, "it has tried again and again", || {
        logs_of(&logs, &at, "could not connect").len() > 5
    });
    let warnings = logs_of(&logs, &at, "")
        .into_iter()
        .filter(is_warning_or_error)
        .count();
    assert_eq!(warnings, 1, "{:?}", logs.containing(&at));
}

#[test]
fn a_superseded_write_is_logged_and_counted() {
    let logs = Logs::capture();
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let memory = Memory::builder()
        .url(proxy.url())
        .prefix(format!("superseded{}:", server.port()))
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .build()
        .unwrap();
    let other = Memory::builder()
        .url(server.url())
        .prefix(format!("superseded{}:", server.port()))
        .build()
        .unwrap();
    memory.set(&number("n"), 1).unwrap();
    proxy.refuse(true);
    proxy.cut();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    assert_eq!(memory.set(&number("n"), 2).unwrap(), Written::Queued);
    let queued = memory.synced(&number("n")).last_modified().unwrap();
    // A later write by another process; the clocks of two memories may differ by the error of their
    // estimates.
    eventually(DEADLINE, "the other write is the later one", || {
        assert_eq!(other.set(&number("n"), 3).unwrap(), Written::Stored);
        other.synced(&number("n")).last_modified().unwrap() > queued
    });
    proxy.refuse(false);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&number("n")).unwrap(), Some(3));
    assert_eq!(memory.status().superseded, 1);
    let event = logged(
        &logs,
        &["superseded by", &format!("superseded{}:n", server.port())],
    );
    assert_eq!(
        event.field("key"),
        Some(format!("superseded{}:n", server.port()).as_str())
    );
    assert_eq!(memory.dead_letters().len(), 0);
}

#[test]
fn a_refused_write_is_logged_with_its_key_and_the_reason_and_without_its_value() {
    const VALUE: i64 = 918_273_645_546;
    let logs = Logs::capture();
    let server = Server::redis().start();
    server.cli(&["ACL", "SETUSER", "alice", "on", ">pw", "~*", "+@all"]);
    let proxy = Proxy::to(&server);
    let prefix = format!("refused{}:", server.port());
    let memory = Memory::builder()
        .url(format!("redis://alice:pw@127.0.0.1:{}", proxy.port()))
        .prefix(&prefix)
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .build()
        .unwrap();
    server.cli(&["ACL", "SETUSER", "alice", "resetkeys"]);
    assert_eq!(
        memory.set(&number("online"), VALUE).unwrap_err().kind(),
        ErrorKind::Rejected
    );
    let refused = logged(&logs, &["refused", &format!("{prefix}online")]);
    assert!(
        is_warning_or_error(&refused) && refused.to_string().contains("NOPERM"),
        "{refused}"
    );
    proxy.refuse(true);
    proxy.cut();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    assert_eq!(
        memory.set(&number("queued"), VALUE).unwrap(),
        Written::Queued
    );
    proxy.refuse(false);
    memory.flush(DEADLINE).unwrap();
    let dead_letter = logged(&logs, &["dead letter", &format!("{prefix}queued")]);
    assert!(
        is_warning_or_error(&dead_letter) && dead_letter.to_string().contains("NOPERM"),
        "{dead_letter}"
    );
    assert_eq!(memory.status().dead_letters, 1);
    assert_eq!(logs.containing(&VALUE.to_string()).len(), 0);
    // A write whose caller got the error is no dead letter, and is not logged as one.
    assert_eq!(
        logs_of(&logs, &format!("{prefix}online"), "dead letter").len(),
        0
    );
}

#[test]
fn a_backend_that_takes_no_writes_is_logged_and_so_is_its_recovery() {
    let logs = Logs::capture();
    let server = Server::redis().start();
    let at = format!("127.0.0.1:{}", server.port());
    let memory = quick(&server.url());
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(memory.set(&number("n"), 1).unwrap(), Written::Queued);
    let event = logged(&logs, &[&at, "takes no writes", "OOM"]);
    assert!(is_warning_or_error(&event), "{event}");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    memory.flush(DEADLINE).unwrap();
    logged(&logs, &[&at, "takes writes again"]);
}

#[test]
fn a_write_that_a_drop_could_not_deliver_is_logged() {
    let logs = Logs::capture();
    let server = Server::redis().start();
    server.stop();
    let at = format!("127.0.0.1:{}", server.port());
    let memory = Memory::builder()
        .url(server.url())
        .shutdown_timeout(Duration::from_millis(20))
        .build()
        .unwrap();
    memory.set(&number("undelivered"), 1).unwrap();
    drop(memory);
    let event = logged(&logs, &[&at, "undelivered"]);
    assert_eq!(event.level.as_str(), "ERROR");
    assert!(event.to_string().contains("memory:undelivered"), "{event}");
}

#[test]
fn status_shows_an_outage() {
    let server = Server::redis().start();
    let proxy = Proxy::to(&server);
    let memory = quick(&proxy.url());
    memory.set(&number("a"), 1).unwrap();
    let status = memory.status();
    assert!(
        status.connected && status.last_error.is_none() && status.oldest_pending.is_none(),
        "{status:?}"
    );
    assert_eq!(
        (
            status.pending,
            status.dead_letters,
            status.superseded,
            status.expired
        ),
        (0, 0, 0, 0)
    );

    proxy.refuse(true);
    proxy.cut();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    let error = memory.status().last_error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error
            .to_string()
            .contains(&format!("127.0.0.1:{}", proxy.port())),
        "{error}"
    );
    memory.set(&number("a"), 2).unwrap();
    memory.set(&number("a"), 3).unwrap();
    memory.set(&number("b"), 2).unwrap();
    assert_eq!(memory.status().pending, 2, "keys, not writes");
    eventually(DEADLINE, "the oldest write ages", || {
        memory
            .status()
            .oldest_pending
            .is_some_and(|age| age > Duration::from_millis(50))
    });
    memory.set(&number("a"), 4).unwrap();
    assert!(
        memory.status().oldest_pending.unwrap() > Duration::from_millis(50),
        "a newer write made it younger"
    );

    proxy.refuse(false);
    memory.flush(DEADLINE).unwrap();
    let status = memory.status();
    assert!(
        status.connected && status.oldest_pending.is_none(),
        "{status:?}"
    );
    assert_eq!(
        (
            status.pending,
            status.dead_letters,
            status.superseded,
            status.expired
        ),
        (0, 0, 0, 0)
    );
    assert!(status.last_error.is_some(), "the last error stays");
    assert_eq!(memory.set(&number("a"), 5).unwrap(), Written::Stored);
}

#[test]
fn status_shows_the_eviction_policy_of_the_server() {
    for builder in [Server::redis(), Server::redis_6(), Server::valkey()] {
        let server = builder.start();
        let memory = quick(&server.url());
        assert_eq!(
            memory.status().eviction_policy.as_deref(),
            Some("noeviction")
        );
        server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
        let later = Memory::open(&server.url()).unwrap();
        assert_eq!(
            later.status().eviction_policy.as_deref(),
            Some("volatile-lru")
        );
        server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        eventually(DEADLINE, "a reconnect asks again", || {
            memory.status().eviction_policy.as_deref() == Some("volatile-lru")
        });
    }
}
