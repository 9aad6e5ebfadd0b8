//! A watch waits on a thread or in a task of any executor, begins once a value is known, ends with
//! its memory, which it does not keep alive, and leaves nothing behind.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, Stream, StreamExt};
use support::{Server, eventually};
use synced_memory::{Error, ErrorKind, Key, Memory, Synced, SyncedMemory, Watch};
use tokio::runtime;

use crate::line::{DEADLINE, Line, on_every_backend, quick, wait_disconnected};
use crate::watches::next;

#[derive(SyncedMemory, Debug)]
struct Sample {
    #[synced(default)]
    count: i64,
}

fn key() -> Key<i64> {
    Key::new("count")
}

fn has_ended<T>(item: Result<T, Error>) -> bool {
    item.is_err_and(|error| error.kind() == ErrorKind::Closed)
}

/// Returns what keeps the memory alive, and a watch that was made with it.
type Hold = fn(&Memory) -> (Box<dyn Send>, Watch<i64>);

#[test]
fn a_watch_does_not_keep_the_memory_alive() {
    let server = Server::redis().start();
    let holds: [Hold; 3] = [
        |memory| (Box::new(memory.clone()), memory.watch(&key())),
        |memory| {
            let view = memory.synced(&key());
            let watch = view.watch();
            (Box::new(view), watch)
        },
        |memory| {
            let state = Sample::attach(memory);
            let watch = state.synced_count().watch();
            (Box::new(state), watch)
        },
    ];
    for hold in holds {
        let memory = Memory::open(&server.url()).unwrap();
        let (last, mut watch) = hold(&memory);
        drop(memory);
        assert_eq!(next(&mut watch), None);
        let items = thread::spawn(move || watch.into_iter().collect::<Vec<_>>());
        drop(last);
        let mut items = items.join().unwrap();
        assert!(has_ended(items.pop().unwrap()) && items.is_empty());
        // The connection that is left is the one that asks here.
        eventually(DEADLINE, "the connection is gone", || {
            server.info("clients").contains("connected_clients:1\r")
        });
    }
}

#[test]
fn a_watch_ends_after_closed() {
    on_every_backend("watch-ends", |one, _| {
        one.set(&key(), 1).unwrap();
        let (mut watch, mut unasked, waiting) =
            (one.watch(&key()), one.watch(&key()), one.watch(&key()));
        assert_eq!(next(&mut watch), Some(1));
        let waiting = thread::spawn(move || waiting.into_iter().collect::<Vec<_>>());
        one.close(DEADLINE).unwrap();
        assert!(
            has_ended(watch.recv())
                && has_ended(watch.recv())
                && has_ended(watch.recv_timeout(DEADLINE))
        );
        assert_eq!(
            next(&mut unasked),
            Some(1),
            "a value from before the close is seen before `Closed`"
        );
        assert!(has_ended(unasked.recv()));
        assert!(has_ended(waiting.join().unwrap().pop().unwrap()));
        assert!(
            has_ended(one.watch(&Key::<i64>::new("other")).recv()),
            "a watch that begins later"
        );
    });
}

#[test]
fn a_value_written_before_the_last_drop_is_seen_before_closed() {
    let memory = Memory::open("memory:").unwrap();
    let mut watch = memory.watch(&key());
    assert_eq!(next(&mut watch), None);
    memory.set(&key(), 1).unwrap();
    drop(memory);
    let items: Vec<_> = watch
        .into_iter()
        .map(|item| item.map_err(|error| error.kind()))
        .collect();
    assert_eq!(items, [Ok(Some(1)), Err(ErrorKind::Closed)]);
}

#[test]
fn an_invalid_name_is_an_error_once() {
    let memory = Memory::open("memory:").unwrap();
    let bad = Key::<i64>::new("a:b");
    for mut watch in [
        memory.watch(&bad),
        memory.synced(&bad).watch(),
        memory.scope("{").watch(&key()),
    ] {
        assert_eq!(watch.recv().unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(watch.recv().unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(watch.into_iter().count(), 1);
    }
    let watch = Sample::attach(&memory.scope("{")).watch();
    assert_eq!(
        watch.into_iter().next().unwrap().unwrap_err().kind(),
        ErrorKind::Config
    );
}

#[test]
fn a_watch_yields_nothing_while_no_value_is_known() {
    let server = Server::redis().start();
    server.set_raw("memory:count", "5");
    server.kill();
    let memory = quick(server.url())
        .timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let (mut watch, mut handle) = (memory.watch(&key()), Sample::attach(&memory).watch());
    let timeout = |error: Error| error.kind() == ErrorKind::Timeout;
    assert!(
        watch
            .recv_timeout(Duration::from_millis(200))
            .is_err_and(timeout)
    );
    assert!(handle.recv_timeout(Duration::ZERO).is_err_and(timeout));
    let began = Instant::now();
    assert!(
        watch
            .recv_timeout(Duration::from_millis(50))
            .is_err_and(timeout)
    );
    assert!(began.elapsed() >= Duration::from_millis(50));
    let waiting = thread::spawn(move || (next(&mut watch), watch));
    server.start();
    assert_eq!(
        waiting.join().unwrap().0,
        None,
        "the server came back without its data"
    );
    assert_eq!(next(&mut handle).unwrap(), ["count"]);
}

#[test]
fn while_the_server_is_away_a_watch_keeps_what_it_has_and_shows_own_writes() {
    let line = Line::new();
    let (memory, direct) = (line.open(), line.open_directly());
    direct.set(&key(), 1).unwrap();
    let mut watch = memory.watch(&key());
    assert_eq!(next(&mut watch), Some(1));
    line.down(&memory);
    direct.set(&key(), 2).unwrap();
    let silent = watch.recv_timeout(Duration::from_millis(100));
    assert_eq!(silent.unwrap_err().kind(), ErrorKind::Timeout);
    let mut late = memory.watch(&key());
    assert_eq!(
        next(&mut late),
        Some(1),
        "the last known value, while the server is away"
    );
    memory.set(&key(), 3).unwrap();
    assert_eq!((next(&mut watch), next(&mut late)), (Some(3), Some(3)));
    direct.set(&key(), 4).unwrap();
    line.up();
    assert_eq!(
        (next(&mut watch), next(&mut late)),
        (Some(4), Some(4)),
        "the newer one has won"
    );
}

/// Gives `see` a watch of an unset key, and its memory.
fn each_is_seen<F: Future<Output = ()>>(
    memory: &Memory,
    see: impl FnOnce(Watch<i64>, Memory) -> F,
) -> F {
    memory.delete(&key()).unwrap();
    see(memory.watch(&key()), memory.clone())
}

async fn by_changed(mut watch: Watch<i64>, memory: Memory) {
    assert_eq!(watch.changed().await.unwrap(), None);
    for n in 0..300 {
        let memory = memory.clone();
        let writer = thread::spawn(move || memory.set(&key(), n).unwrap());
        assert_eq!(watch.changed().await.unwrap(), Some(n));
        writer.join().unwrap();
    }
    // Dropping the future loses nothing.
    assert!(watch.changed().now_or_never().is_none());
    memory.set(&key(), 1_000).unwrap();
    assert_eq!(watch.changed().await.unwrap(), Some(1_000));
}

async fn by_stream(watch: Watch<i64>, memory: Memory) {
    let writer = thread::spawn(move || {
        (0..300).for_each(|n| _ = memory.set(&key(), n).unwrap());
        memory.set(&key(), 1_000).unwrap();
    });
    let newest = watch
        .filter_map(|item| async { item.unwrap() })
        .take_while(|n| {
            let goes_on = *n != 1_000;
            async move { goes_on }
        });
    newest
        .fold(-1, |last, n| async move {
            if n > last {
                n
            } else {
                panic!("{n} after {last}")
            }
        })
        .await;
    writer.join().unwrap();
}

/// Blocking, inside the executor that runs it.
async fn by_recv(mut watch: Watch<i64>, memory: Memory) {
    assert_eq!(watch.recv().unwrap(), None);
    for n in 0..300 {
        let memory = memory.clone();
        let writer = thread::spawn(move || memory.set(&key(), n).unwrap());
        assert_eq!(watch.recv_timeout(DEADLINE).unwrap(), Some(n));
        writer.join().unwrap();
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

#[test]
fn a_watch_waits_in_any_executor() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let runs: [fn(Task); 4] = [
        |task| pollster::block_on(task),
        |task| futures_executor::block_on(task),
        |task| {
            let thread = runtime::Builder::new_current_thread().build().unwrap();
            thread.block_on(async { tokio::spawn(task).await.unwrap() });
        },
        |task| {
            let threads = runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .build()
                .unwrap();
            threads.block_on(async { tokio::spawn(task).await.unwrap() });
        },
    ];
    for run in runs {
        run(Box::pin(each_is_seen(&memory, by_changed)));
        run(Box::pin(each_is_seen(&memory, by_stream)));
        run(Box::pin(each_is_seen(&memory, by_recv)));
    }
}

#[test]
fn a_stream_ends_after_closed_and_a_time_to_live_ends_in_any_executor() {
    #[derive(SyncedMemory, Debug)]
    struct Brief {
        #[synced(ttl = "500ms")]
        count: i64,
    }
    let state = Brief::open("memory:").unwrap();
    state.set_count(1).unwrap();
    let mut watch = state.synced_count().watch();
    runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(async {
            assert_eq!(watch.next().await.unwrap().unwrap(), Some(1));
            assert_eq!(watch.next().await.unwrap().unwrap(), None);
            drop(state);
            assert!(has_ended(watch.next().await.unwrap()));
            assert!(watch.next().await.is_none() && watch.next().await.is_none());
        });
}

#[test]
fn a_waker_may_use_and_drop_a_handle() {
    /// Drops a handle, as an executor may that is woken for a task that it has given up.
    struct Dropping(Mutex<Option<Synced<i64>>>);
    impl Wake for Dropping {
        fn wake(self: Arc<Self>) {
            let view = self.0.lock().unwrap().take();
            if let Some(view) = view {
                // Both calls take the locks of the library.
                let _ = view.set(2);
                drop(view);
            }
        }
    }

    let server = Server::redis().start();
    let (one, other) = (
        Memory::open(&server.url()).unwrap(),
        Memory::open(&server.url()).unwrap(),
    );
    let view = one.synced(&key());
    let mut watch = view.watch();
    drop(one);
    assert_eq!(next(&mut watch), None);
    let waker = Waker::from(Arc::new(Dropping(Mutex::new(Some(view.clone())))));
    assert!(
        pin!(watch.changed())
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    view.set(1).unwrap();
    assert_eq!(view.get().unwrap(), 2);
    drop(view);
    assert_eq!(other.get(&key()).unwrap(), Some(2));
    assert_eq!(next(&mut watch), Some(2));
    assert!(has_ended(watch.recv()));
    assert!(matches!(
        Pin::new(&mut watch).poll_next(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(Some(Err(_)))
    ));
}

#[test]
fn a_dropped_watch_frees_its_slot() {
    let server = Server::redis().start();
    let (memory, other) = (
        quick(server.url()).build().unwrap(),
        quick(server.url()).build().unwrap(),
    );
    let reads = || server.command_count("get");
    let (mut one, mut two) = (memory.watch(&key()), memory.watch(&key()));
    assert_eq!((next(&mut one), next(&mut two)), (None, None));
    drop(one);
    server.reset_stats();
    for n in 0..20 {
        other.set(&key(), n).unwrap();
        assert_eq!(next(&mut two), Some(n), "another watch holds it");
    }
    assert!(reads() >= 20);
    assert_eq!(memory.status().stale, 0);
    drop(two);
    // Once a later invalidation has arrived, all those before it have.
    let mut later = memory.watch(&Key::<i64>::new("later"));
    assert_eq!(next(&mut later), None);
    server.reset_stats();
    for n in 0..100 {
        other.set(&key(), n).unwrap();
    }
    other.set(&Key::new("later"), 1).unwrap();
    assert_eq!(next(&mut later), Some(1));
    assert_eq!(reads(), 1, "of the one key that is watched");
    // Its value is not known any more, either.
    server.kill();
    wait_disconnected(&memory);
    assert_eq!(
        memory.get(&key()).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        memory.synced(&key()).get().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[test]
fn a_watch_reads_each_change_once_and_leaves_other_reads_as_they_are() {
    let server = Server::redis().start();
    let (memory, other) = (
        quick(server.url()).build().unwrap(),
        quick(server.url()).build().unwrap(),
    );
    let count = memory.synced(&key());
    let mut watch = count.watch();
    assert_eq!(next(&mut watch), None);
    server.reset_stats();
    for n in 0..50 {
        other.set(&key(), n).unwrap();
        assert_eq!(next(&mut watch), Some(n));
    }
    assert_eq!(server.command_count("get"), 50);
    for n in 0..50 {
        server.set_raw("memory:count", n.to_string());
        assert_eq!(count.get().unwrap(), n, "it is read through, as before");
    }
    drop(watch);
    let mut later = memory.watch(&Key::<i64>::new("later"));
    assert_eq!(next(&mut later), None);
    server.reset_stats();
    for n in 0..50 {
        other.set(&key(), n).unwrap();
    }
    other.set(&Key::new("later"), 1).unwrap();
    assert_eq!(next(&mut later), Some(1));
    assert_eq!(
        server.command_count("get"),
        1,
        "the view that is left reads only when it is asked"
    );
    assert_eq!(count.get().unwrap(), 49);
}
