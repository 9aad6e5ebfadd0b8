//! A blocking call inside an async runtime does not panic, and a blocking call needs no runtime.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use support::{Child, Server, eventually};
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};
use tokio::runtime::{self, Runtime};
use tokio::task::{self, LocalSet};

const DEADLINE: Duration = Duration::from_secs(10);
/// More than a tokio task may do at once before tokio's own primitives make it yield.
const MANY: i64 = 300;

#[derive(SyncedMemory, Debug, Clone, PartialEq)]
struct Sample {
    count: i64,
    #[synced(default = "none".to_owned())]
    text: String,
}

fn key() -> Key<i64> {
    Key::new("count")
}

fn current_thread() -> Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn multi_thread() -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Every blocking call, with a server that answers: each is answered, however many there are.
fn every_call(url: &str) {
    let handle = Sample::open(url).unwrap();
    let memory = handle.memory().clone();
    for n in 0..MANY {
        assert_eq!(
            handle.set_count(n).unwrap(),
            Written::Stored,
            "after {n} writes"
        );
        assert_eq!(handle.count().unwrap(), n);
    }
    let sample = Sample {
        count: 5,
        text: "five".to_owned(),
    };
    assert_eq!(handle.restore(sample.clone()).unwrap(), Written::Stored);
    assert_eq!(handle.snapshot().unwrap(), sample);
    assert!(memory.contains(&key()).unwrap());
    assert_eq!(memory.names().unwrap(), ["count", "text"]);
    assert!(handle.synced_text().delete().unwrap());
    let scope = memory.scope("below");
    scope.set(&key(), 1).unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.purge().unwrap(), 2);
    let status = memory.status();
    assert!(
        status.connected && status.last_error.is_none(),
        "{status:?}"
    );
    drop((handle, memory, scope));
    let closed = Memory::open(url).unwrap();
    closed.set(&key(), 1).unwrap();
    closed.close(DEADLINE).unwrap();
    assert_eq!(closed.get(&key()).unwrap_err().kind(), ErrorKind::Closed);
}

/// Every blocking call while the backend is away: each returns in time.
fn every_call_without_the_backend(url: &str) {
    let (timeout, started) = (Duration::from_millis(100), Instant::now());
    let memory = Memory::builder()
        .url(url)
        .timeout(timeout)
        .shutdown_timeout(timeout)
        .build()
        .unwrap();
    let handle = Sample::attach(&memory);
    for n in 0..MANY {
        assert_eq!(handle.set_count(n).unwrap(), Written::Queued);
        assert_eq!(handle.count().unwrap(), n);
    }
    assert_eq!(
        handle
            .restore(Sample {
                count: 5,
                text: String::new()
            })
            .unwrap(),
        Written::Queued
    );
    assert_eq!(handle.snapshot().unwrap().count, 5);
    assert!(handle.synced_text().delete().unwrap());
    assert_eq!(handle.text().unwrap(), "none");
    assert_eq!(memory.names().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(memory.purge().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(
        memory.flush(timeout).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    drop((handle, memory));
    let closed = Memory::builder().url(url).timeout(timeout).build().unwrap();
    closed.set(&key(), 1).unwrap();
    assert_eq!(
        closed.close(timeout).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    drop(closed);
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
}

/// Runs a test in every context of a runtime from which a user may call.
fn in_every_context(test: impl Fn(&str) + Clone + Send + 'static) {
    for (kind, runtime) in [
        ("current thread", current_thread()),
        ("multi-thread", multi_thread()),
    ] {
        let say = move |context: &str| format!("{kind}, {context}");
        runtime.block_on(async { test(&say("block_on")) });
        let spawned = test.clone();
        runtime
            .block_on(runtime.spawn(async move { spawned(&say("spawn")) }))
            .unwrap();
        let spawned = test.clone();
        runtime
            .block_on(runtime.spawn_blocking(move || spawned(&say("spawn_blocking"))))
            .unwrap();
        let spawned = test.clone();
        LocalSet::new().block_on(&runtime, async move {
            spawned(&say("LocalSet"));
            task::spawn_local(async move { spawned(&say("spawn_local")) })
                .await
                .unwrap();
        });
        let entered = runtime.enter();
        test(&say("enter"));
        drop(entered);
        // In the middle of a task, after an await.
        let spawned = test.clone();
        let waited = runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            spawned(&say("after a wait"));
        });
        runtime.block_on(waited).unwrap();
    }
    let spawned = test.clone();
    multi_thread().block_on(async move {
        task::spawn(async move { task::block_in_place(|| spawned("block_in_place")) })
            .await
            .unwrap();
    });
    pollster::block_on(async { test("pollster") });
}

#[test]
fn a_blocking_call_in_an_async_runtime_is_answered_and_does_not_panic() {
    let server = Server::redis().start();
    let url = server.url();
    in_every_context(move |context| {
        let started = Instant::now();
        every_call(&format!("{url}?scope={}", percent(context)));
        assert!(
            started.elapsed() < DEADLINE,
            "{context}: {:?}",
            started.elapsed()
        );
    });
}

#[test]
fn a_blocking_call_in_an_async_runtime_with_the_backend_away_ends_and_does_not_panic() {
    let server = Server::redis().start();
    server.stop();
    let url = server.url();
    in_every_context(move |_| every_call_without_the_backend(&url));
}

#[test]
fn a_blocking_call_on_the_backend_of_this_process_does_not_panic_either() {
    in_every_context(|_| every_call("memory:"));
}

#[test]
fn in_a_runtime_a_write_without_an_answer_waits_for_its_timeout_at_most() {
    let server = Server::redis().start();
    let memory = Memory::builder()
        .url(server.url())
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    memory.set(&key(), 1).unwrap();
    server.freeze();
    current_thread().block_on(async {
        let started = Instant::now();
        for n in 0..MANY {
            assert_eq!(memory.set(&key(), n).unwrap(), Written::Queued);
            assert_eq!(memory.get(&key()).unwrap(), Some(n));
        }
        // The first call waits; those after it do not.
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
    });
    server.thaw();
    memory.flush(DEADLINE).unwrap();
}

#[test]
fn a_memory_can_be_dropped_inside_a_runtime_and_delivers_what_it_holds() {
    let server = Server::redis().start();
    for runtime in [current_thread(), multi_thread()] {
        let memory = Memory::builder()
            .url(server.url())
            .backoff(Duration::from_millis(5), Duration::from_millis(50))
            .shutdown_timeout(DEADLINE)
            .build()
            .unwrap();
        server.stop();
        eventually(DEADLINE, "the loss is noticed", || {
            !memory.status().connected
        });
        assert_eq!(memory.set(&key(), 7).unwrap(), Written::Queued);
        server.start();
        runtime.block_on(async move { drop(memory) });
        assert!(
            server
                .get_text("memory:count")
                .is_some_and(|stored| stored.starts_with(r#"{"value": 7,"#))
        );
        server.cli(&["FLUSHALL"]);
        // Dropped with the runtime itself, in a task that never ends.
        let memory = Memory::open(&server.url()).unwrap();
        let (sender, receiver) = mpsc::channel();
        runtime.spawn(async move {
            memory.set(&key(), 8).unwrap();
            sender.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(memory);
        });
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        receiver.recv_timeout(DEADLINE).unwrap();
        drop(runtime);
        assert!(
            server
                .get_text("memory:count")
                .is_some_and(|stored| stored.starts_with(r#"{"value": 8,"#))
        );
    }
}

#[test]
fn a_memory_outlives_the_runtime_that_it_was_opened_in() {
    let server = Server::redis().start();
    for runtime in [current_thread(), multi_thread()] {
        let url = server.url();
        let handle = runtime.block_on(async move { Sample::open(&url).unwrap() });
        runtime.block_on(async { handle.set_count(1).unwrap() });
        runtime.shutdown_timeout(DEADLINE);
        assert_eq!(handle.set_count(2).unwrap(), Written::Stored);
        assert_eq!(handle.count().unwrap(), 2);
        let other = current_thread();
        other.block_on(async { assert_eq!(handle.set_count(3).unwrap(), Written::Stored) });
        drop(other);
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        eventually(DEADLINE, "it reconnects without a runtime", || {
            handle.set_count(4).unwrap() == Written::Stored && handle.memory().status().connected
        });
    }
}

#[test]
fn a_memory_is_used_from_many_threads_and_tasks_at_once() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let write = |memory: &Memory, n: i64| {
        let key = Key::<i64>::named(format!("k{n}"));
        for value in 0..MANY {
            assert_eq!(memory.set(&key, value).unwrap(), Written::Stored);
            assert_eq!(memory.get(&key).unwrap(), Some(value));
        }
    };
    let runtime = multi_thread();
    thread::scope(|scope| {
        for n in 0..8 {
            let memory = &memory;
            scope.spawn(move || write(memory, n));
        }
        let tasks: Vec<_> = (8..12)
            .map(|n| {
                let memory = memory.clone();
                runtime.spawn(async move { write(&memory, n) })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
    assert_eq!(memory.names().unwrap().len(), 12);
}

#[test]
fn a_memory_in_a_thread_local_is_dropped_at_the_end_of_the_thread() {
    let server = Server::redis().start();
    let mut process = Child::spawn(env!("CARGO_BIN_EXE_clock_writer"), [server.url()]);
    assert_eq!(process.recv(), "ready");
    assert_eq!(process.ask("keep n kept"), "ended");
    assert_eq!(process.ask("get n"), r#"Ok(Some("kept"))"#);
}

fn percent(text: &str) -> String {
    text.replace([' ', ','], "-")
}
