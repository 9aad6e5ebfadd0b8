//! The local copies are bounded: rule 10. What they take in memory is in `footprint.rs`.

use std::time::Duration;

use support::{Server, eventually};
use synced_memory::{ErrorKind, Key, Memory, ReadPolicy};

const DEADLINE: Duration = Duration::from_secs(20);

/// Of so many values of 10 kB the limit of 1 MB has room for some 90.
const KEYS: usize = 300;
const LIMIT: usize = 1_000_000;

fn key(number: usize) -> Key<String> {
    Key::named(format!("k{number}"))
}

fn value(number: usize) -> String {
    format!("{number:010000}")
}

fn open(server: &Server, policy: ReadPolicy) -> Memory {
    let memory = Memory::builder()
        .url(server.url())
        .cache_limit(LIMIT)
        .read_policy(policy)
        .timeout(Duration::from_millis(300))
        .build();
    memory.expect("a memory")
}

#[test]
fn what_nobody_holds_is_dropped_least_recently_used_first_and_is_unknown_then_not_unset() {
    let server = Server::redis().start();
    let memory = open(&server, ReadPolicy::Through);
    let held = memory.synced(&key(0));
    for number in 0..KEYS {
        memory.set(&key(number), value(number)).expect("stored");
        // It is in use all the time.
        memory.get(&key(1)).expect("read");
        // The one that was used last may be beyond it until the next is used.
        let bytes = memory.status().cache_bytes;
        assert!(bytes <= LIMIT + value(number).len(), "{number}: {bytes}");
    }
    // What was dropped is read again from the backend.
    assert_eq!(memory.get(&key(2)).expect("read"), Some(value(2)));

    server.stop();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    let last = KEYS - 1;
    for number in [1, 2, last] {
        assert_eq!(
            memory.get(&key(number)).expect("known"),
            Some(value(number))
        );
    }
    assert_eq!(held.get().expect("held"), value(0));
    let dropped = memory.get(&key(3)).expect_err("it was dropped");
    assert_eq!(dropped.kind(), ErrorKind::Unavailable, "{dropped}");

    server.start();
    eventually(DEADLINE, "it is back", || memory.status().connected);
    // Whether something was persisted does not matter here.
    memory.get(&key(3)).expect("the server answers");
}

#[test]
fn a_write_that_waits_keeps_its_slot_whatever_else_is_used() {
    let server = Server::redis().start();
    let memory = open(&server, ReadPolicy::Through);
    server.stop();
    eventually(DEADLINE, "the loss is noticed", || {
        !memory.status().connected
    });
    for number in 0..KEYS {
        memory.set(&key(number), value(number)).expect("queued");
    }
    for number in 0..KEYS {
        assert_eq!(
            memory.get(&key(number)).expect("its own write"),
            Some(value(number))
        );
    }
    server.start();
    memory.flush(DEADLINE).expect("delivered");
    for number in 0..KEYS {
        assert_eq!(memory.get(&key(number)).expect("read"), Some(value(number)));
    }
    memory.get(&key(KEYS)).expect("read");
    let bytes = memory.status().cache_bytes;
    assert!(bytes <= LIMIT, "{bytes}");
}

#[test]
fn values_that_grow_are_bounded_though_no_name_is_new() {
    let server = Server::redis().start();
    let memory = open(&server, ReadPolicy::Through);
    for number in 0..KEYS {
        memory.set(&key(number), String::new()).expect("stored");
    }
    for number in 0..KEYS {
        memory.set(&key(number), value(number)).expect("stored");
    }
    eventually(DEADLINE, "the copies are bounded", || {
        memory.status().cache_bytes <= LIMIT
    });
    // Views hold what they have read; when they have gone, it is dropped as well.
    let views: Vec<_> = (0..KEYS)
        .map(|number| memory.synced(&key(number)))
        .collect();
    for view in &views {
        view.get().expect("read");
    }
    assert!(memory.status().cache_bytes > LIMIT);
    drop(views);
    eventually(DEADLINE, "the copies are bounded again", || {
        memory.status().cache_bytes <= LIMIT
    });
}

#[test]
fn near_copies_that_others_let_grow_are_dropped_as_well() {
    let server = Server::redis().start();
    let (memory, other) = (
        open(&server, ReadPolicy::Near),
        open(&server, ReadPolicy::Through),
    );
    for number in 0..KEYS {
        other.set(&key(number), String::new()).expect("stored");
        assert_eq!(memory.get(&key(number)).expect("read"), Some(String::new()));
    }
    let watch = memory.watch(&key(0));
    for number in 0..KEYS {
        other.set(&key(number), value(number)).expect("stored");
    }
    eventually(DEADLINE, "the copies are bounded", || {
        let status = memory.status();
        status.stale == 0 && status.cache_bytes <= LIMIT
    });
    for number in 0..KEYS {
        eventually(DEADLINE, "the new value is read", || {
            memory.get(&key(number)).expect("read") == Some(value(number))
        });
    }
    drop(watch);
}

#[test]
fn the_records_of_what_was_dropped_go_from_the_server() {
    let server = Server::redis().start();
    let memory = open(&server, ReadPolicy::Through);
    for number in 0..KEYS {
        memory.set(&key(number), value(number)).expect("stored");
    }
    let records = || {
        let fields = |number: usize| {
            let sidecar = format!("synced-memory/{{memory:k{number}}}");
            server.cli(&["HLEN", &sidecar]) != redis::Value::Int(0)
        };
        (0..KEYS).filter(|number| fields(*number)).count()
    };
    // Those of what is retained, and a batch that is not worth a request.
    eventually(DEADLINE, "the records are dropped", || records() <= 90 + 64);
}
