//! Rule 11: nothing ends silently, and nothing ends late.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use support::Direction::{ToClient, ToServer};
use support::{Logs, Server, eventually};
use synced_memory::{Error, ErrorKind, Key, Memory, SyncedMemory, Written};

use crate::line::{DEADLINE, Line, quick, wait_disconnected};

/// How much longer than its limit a drop or a close may take on a machine that runs other tests.
const SLACK: Duration = Duration::from_millis(250);

fn key(name: &str) -> Key<u64> {
    Key::named(name.to_owned())
}

/// Asserts that a call takes no longer than `limit`; returns its result, and how long it took.
#[track_caller]
fn within<R>(limit: Duration, what: &str, call: impl FnOnce() -> R) -> (R, Duration) {
    let started = Instant::now();
    let answer = call();
    let took = started.elapsed();
    eprintln!("{what} took {took:?} of {limit:?}");
    assert!(took < limit + SLACK, "{what} took {took:?} of {limit:?}");
    (answer, took)
}

/// The sidecar of a key: the tombstone, and the writers' records.
fn sidecar(server: &Server, key: &str) -> HashMap<String, String> {
    redis::from_redis_value(server.cli(&["HGETALL", &format!("synced-memory/{{memory:{key}}}")]))
        .unwrap()
}

fn assert_closed<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn close_with_the_server_away_ends_in_time_and_names_what_was_not_delivered() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    memory.set(&key("delivered"), 1).unwrap();
    server.kill();
    wait_disconnected(&memory);
    memory.set(&key("one"), 1).unwrap();
    memory.scope("s").set(&key("two"), 2).unwrap();
    memory.delete(&key("delivered")).unwrap();
    let limit = Duration::from_millis(300);
    let (closed, took) = within(limit, "close", || memory.close(limit));
    assert!(took >= limit, "it tried until then: {took:?}");
    let error = closed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    for name in ["memory:one", "memory:s:two", "memory:delivered"] {
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(error.to_string().contains('3'), "how many: {error}");
}

#[test]
fn close_with_a_silent_server_ends_in_time_too() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    memory.set(&key("n"), 1).unwrap();
    server.freeze();
    assert_eq!(memory.set(&key("n"), 2).unwrap(), Written::Queued);
    let limit = Duration::from_millis(300);
    let (closed, _) = within(limit, "close", || memory.close(limit));
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Timeout);
    within(Duration::ZERO, "the drop after it", || drop(memory));

    // Nothing is queued; only the records of this writer may be left on the server.
    server.thaw();
    let memory = quick(server.url()).build().unwrap();
    memory.set(&key("n"), 3).unwrap();
    memory.flush(DEADLINE).unwrap();
    server.freeze();
    let (closed, _) = within(limit, "close with nothing queued", || memory.close(limit));
    closed.unwrap();
}

#[test]
fn the_last_drop_with_the_server_away_ends_within_shutdown_timeout() {
    for frozen in [false, true] {
        let logs = Logs::capture();
        let server = Server::redis().start();
        let limit = Duration::from_millis(300);
        let memory = quick(server.url()).shutdown_timeout(limit).build().unwrap();
        let other = memory.scope("s");
        memory.set(&key("n"), 1).unwrap();
        if frozen {
            server.freeze();
        } else {
            server.kill();
        }
        wait_disconnected(&memory);
        memory.set(&key("n"), 2).unwrap();
        within(Duration::ZERO, "the drop that is not the last", || {
            drop(memory);
        });
        let ((), took) = within(limit, "the last drop", || drop(other));
        assert!(took >= limit, "it tried until then: {took:?}");
        let logged = logs.containing(&format!("127.0.0.1:{}", server.port()));
        let logged = logged
            .iter()
            .any(|event| event.to_string().contains("memory:n"));
        assert!(logged, "what was lost is logged: {:?}", logs.events());
    }
}

#[test]
fn a_drop_with_nothing_queued_does_not_wait_for_a_server_that_is_away() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    memory.set(&key("n"), 1).unwrap();
    server.kill();
    wait_disconnected(&memory);
    within(Duration::ZERO, "the drop", || drop(memory));
}

#[test]
fn after_close_every_call_is_closed_for_every_clone_and_scope() {
    #[derive(SyncedMemory, Debug)]
    struct State {
        #[allow(dead_code)] // is read by way of the handle
        n: u64,
    }
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    let (clone, scope) = (memory.clone(), memory.scope("s"));
    let (state, view) = (State::attach(&memory), memory.synced(&key("n")));
    view.set(1).unwrap();
    clone.close(DEADLINE).unwrap();
    for memory in [&memory, &clone, &scope, &memory.scope("made later")] {
        assert_closed(memory.get(&key("n")));
        assert_closed(memory.set(&key("n"), 2));
        assert_closed(memory.delete(&key("n")));
        assert_closed(memory.contains(&key("n")));
        assert_closed(memory.names());
        assert_closed(memory.purge());
        assert_closed(memory.flush(Duration::from_millis(1)));
    }
    assert_closed(state.n());
    assert_closed(state.set_n(2));
    assert_closed(state.snapshot());
    assert_closed(view.get());
    assert_closed(view.set(2));
    assert_closed(view.last_modified());
    wait_disconnected(&memory);
    assert!(
        server
            .get_text("memory:n")
            .unwrap()
            .starts_with(r#"{"value": 1,"#)
    );
    eventually(DEADLINE, "the connection is closed", || {
        server.info("clients").contains("connected_clients:1\r\n")
    });
}

#[test]
fn a_second_close_is_ok_and_does_not_wait() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    server.kill();
    wait_disconnected(&memory);
    memory.set(&key("n"), 1).unwrap();
    memory.close(Duration::from_millis(10)).unwrap_err();
    within(Duration::ZERO, "the second close", || {
        memory.clone().close(DEADLINE)
    })
    .0
    .unwrap();
    within(Duration::ZERO, "the drop after it", || drop(memory));
}

#[test]
fn close_delivers_what_is_queued_when_the_server_comes_back_in_time() {
    let server = Server::redis().start();
    let memory = quick(server.url()).build().unwrap();
    server.kill();
    wait_disconnected(&memory);
    for n in 0..1_000 {
        memory.set(&key(&format!("k{n}")), n).unwrap();
    }
    thread::scope(|scope| {
        let closing = scope.spawn(|| memory.close(DEADLINE));
        eventually(DEADLINE, "it is closing", || {
            memory.get(&key("k0")).is_err()
        });
        assert_closed(memory.set(&key("late"), 1));
        assert!(!closing.is_finished(), "it waits for the server");
        server.start();
        closing.join().unwrap().unwrap();
    });
    for n in 0..1_000 {
        assert!(
            server
                .get_text(&format!("memory:k{n}"))
                .unwrap()
                .starts_with(&format!(r#"{{"value": {n},"#))
        );
    }
    assert_eq!(
        server.get_raw("memory:late"),
        None,
        "what was refused is never applied"
    );
}

#[test]
fn the_last_drop_delivers_what_is_queued_over_a_slow_line() {
    let line = Line::new();
    let memory = line.open();
    line.down(&memory);
    for n in 0..1_000 {
        memory.set(&key(&format!("k{n}")), n).unwrap();
    }
    line.proxy.delay(ToServer, Duration::from_millis(40));
    line.proxy.delay(ToClient, Duration::from_millis(40));
    line.up();
    within(Duration::from_secs(2), "the last drop", || drop(memory));
    for n in 0..1_000 {
        assert!(
            line.server
                .get_text(&format!("memory:k{n}"))
                .unwrap()
                .starts_with(&format!(r#"{{"value": {n},"#))
        );
    }
}

#[test]
fn an_orderly_close_drops_the_writers_records_and_keeps_the_tombstones() {
    let server = Server::redis().start();
    let (first, second) = (
        quick(server.url()).build().unwrap(),
        quick(server.url()).build().unwrap(),
    );
    for n in 0..3 {
        first.set(&key("n"), n).unwrap();
        second.set(&key("n"), n).unwrap();
    }
    first.set(&key("gone"), 1).unwrap();
    first.delete(&key("gone")).unwrap();
    // A record has two fields.
    assert_eq!(
        sidecar(&server, "n").len(),
        4,
        "{:?}",
        sidecar(&server, "n")
    );
    first.close(DEADLINE).unwrap();
    assert_eq!(
        sidecar(&server, "n").len(),
        2,
        "{:?}",
        sidecar(&server, "n")
    );
    assert_eq!(
        sidecar(&server, "gone").into_keys().collect::<Vec<_>>(),
        ["deleted"]
    );
    drop(second);
    assert!(
        sidecar(&server, "n").is_empty(),
        "{:?}",
        sidecar(&server, "n")
    );

    // However many memories were opened and closed.
    for n in 0..50 {
        let memory: Memory = quick(server.url()).build().unwrap();
        memory.set(&key("n"), n).unwrap();
    }
    assert!(
        sidecar(&server, "n").is_empty(),
        "{:?}",
        sidecar(&server, "n")
    );
}

#[test]
fn the_last_drop_inside_an_async_runtime_does_not_panic() {
    let server = Server::redis().start();
    let runtimes = [
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap(),
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap(),
    ];
    for runtime in runtimes {
        runtime.block_on(async {
            let memory = quick(server.url()).build().unwrap();
            memory.set(&key("n"), 1).unwrap();
            tokio::spawn(async move { drop(memory) }).await.unwrap();
            let memory = quick(server.url()).build().unwrap();
            memory.set(&key("n"), 2).unwrap();
            memory.close(DEADLINE).unwrap();
        });
    }
}
