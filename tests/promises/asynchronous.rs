//! Every call that waits has an async form, which runs on any executor and loses nothing when its
//! future is dropped.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use support::Server;
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory, Written};
use tokio::runtime;

use crate::line::{DEADLINE, Line, wait_connected, wait_disconnected};

#[derive(SyncedMemory, Debug)]
struct Sample {
    #[synced(default)]
    count: i64,
    items: Vec<String>,
}

/// Calls every async form on a backend that answers.
async fn call_every_form(url: String) {
    let sample = Sample::open(&url).unwrap();
    sample.memory().purge().unwrap();
    let count = sample.synced_count().clone();
    for n in 0..300 {
        assert_eq!(count.set_async(n).await.unwrap(), Written::Stored);
        assert_eq!(count.get_async().await.unwrap(), n);
    }
    assert_eq!(
        count
            .update_async(|count| std::mem::replace(count, 7))
            .await
            .unwrap(),
        299
    );
    sample
        .items()
        .update_async(|items| items.push("a".to_owned()))
        .await
        .unwrap();
    assert_eq!(
        sample
            .items()
            .at(0)
            .set_async("b".to_owned())
            .await
            .unwrap(),
        Written::Stored
    );
    assert_eq!(sample.items().get_async().await.unwrap(), ["b"]);
    assert_eq!(
        sample.items().at(5).get_async().await.unwrap_err().kind(),
        ErrorKind::Unset
    );
    let memory = sample.memory().clone();
    memory.flush_async(DEADLINE).await.unwrap();
    memory.close_async(DEADLINE).await.unwrap();
    assert_eq!(
        count.get_async().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

/// Polls a future once, and drops it.
fn poll_once_and_drop<F: Future>(future: F) {
    let _: Poll<_> = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

#[test]
fn the_async_forms_run_on_any_executor() {
    let server = Server::redis().start();
    for url in [server.url(), "memory:".to_owned()] {
        runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(call_every_form(url.clone()));
        // A task that may move between threads: the futures are `Send`.
        let threads = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        threads
            .block_on(threads.spawn(call_every_form(url.clone())))
            .unwrap();
        pollster::block_on(call_every_form(url.clone()));
        // Inside a future that joins several, on an executor that is not tokio's.
        futures_executor::block_on(async {
            futures_util::join!(call_every_form(url.clone() + "?prefix=other:"), async {})
        });
    }
}

#[test]
fn many_tasks_write_and_read_at_once() {
    let server = Server::redis().start();
    let sample = Arc::new(Sample::open(&server.url()).unwrap());
    let threads = runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap();
    threads.block_on(async {
        let task = |n: usize| {
            let sample = Arc::clone(&sample);
            tokio::spawn(async move {
                for i in 0..20 {
                    sample
                        .items()
                        .update_async(|items| items.push(format!("{n}/{i}")))
                        .await
                        .unwrap();
                    sample
                        .synced_count()
                        .update_async(|count| *count += 1)
                        .await
                        .unwrap();
                }
            })
        };
        let tasks: Vec<_> = (0..8).map(task).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(sample.synced_count().get_async().await.unwrap(), 160);
        let items = sample.items().get_async().await.unwrap();
        for n in 0..8 {
            let prefix = format!("{n}/");
            let own: Vec<_> = items
                .iter()
                .filter_map(|item| item.strip_prefix(&prefix))
                .collect();
            assert_eq!(own, (0..20).map(|i| i.to_string()).collect::<Vec<_>>());
        }
    });
}

#[test]
fn dropping_a_future_never_loses_a_write() {
    let line = Line::new();
    let sample = Sample::attach(&line.open());
    let memory = sample.memory().clone();
    wait_connected(&memory);
    let key = Key::<i64>::new("count");
    for n in 0..200_i64 {
        poll_once_and_drop(sample.synced_count().set_async(n));
        assert_eq!(
            sample.synced_count().get().unwrap(),
            n,
            "this process reads it at once"
        );
        if n % 10 == 0 {
            line.proxy.cut();
        }
    }
    memory.flush(DEADLINE).unwrap();
    assert_eq!(line.open_directly().get(&key).unwrap(), Some(199));
    // It does not block later calls or the shutdown either.
    sample.items().push("after".to_owned()).unwrap();
    drop(memory.close_async(DEADLINE));
    poll_once_and_drop(sample.synced_count().set_async(200));
    poll_once_and_drop(memory.close_async(DEADLINE));
    drop((sample, memory));
    assert_eq!(
        line.open_directly().get(&key).unwrap(),
        Some(200),
        "the last drop has delivered it"
    );
}

#[test]
fn an_async_call_waits_no_longer_than_the_timeout_on_any_executor() {
    let server = Server::redis().start();
    let limit = Duration::from_millis(100);
    for run in [
        (|future| pollster::block_on(future)) as fn(std::pin::Pin<Box<dyn Future<Output = ()>>>),
        |future| {
            runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(future);
        },
    ] {
        let memory = Memory::builder()
            .url(server.url())
            .timeout(limit)
            .build()
            .unwrap();
        let count = memory.synced(&Key::<i64>::new("count"));
        count.set(1).unwrap();
        server.freeze();
        run(Box::pin({
            let count = count.clone();
            async move {
                let began = Instant::now();
                assert_eq!(count.set_async(2).await.unwrap(), Written::Queued);
                let waited = began.elapsed();
                assert!(waited >= limit && waited < 3 * limit, "{waited:?}");
                assert_eq!(count.get_async().await.unwrap(), 2);
            }
        }));
        wait_disconnected(&memory);
        server.thaw();
        memory.flush(DEADLINE).unwrap();
        assert_eq!(memory.get(&Key::<i64>::new("count")).unwrap(), Some(2));
    }
}

/// An executor may poll the task or drop it while it is woken, and so use the memory.
#[test]
fn a_waker_that_an_answer_wakes_may_use_the_memory() {
    struct UsesMemory(Memory, mpsc::Sender<Written>);
    impl Wake for UsesMemory {
        fn wake(self: Arc<Self>) {
            let key = Key::<i64>::new("count");
            assert!(self.0.get(&key).unwrap().is_some());
            // The first one ends the wait; others may follow it.
            let _ = self.1.send(self.0.set(&key, 2).unwrap());
        }
    }

    let line = Line::new();
    let memory = line.open();
    let count = memory.synced(&Key::<i64>::new("count"));
    count.set(0).unwrap();
    for is_answered in [true, false] {
        let (sender, written) = mpsc::channel();
        let waker = Waker::from(Arc::new(UsesMemory(memory.clone(), sender)));
        line.proxy.stall(true);
        let mut set = Box::pin(count.set_async(1));
        assert!(
            set.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        if !is_answered {
            line.down(&memory);
        }
        line.proxy.stall(false);
        written
            .recv_timeout(DEADLINE)
            .expect("it is woken, and no lock is held");
        line.up();
        memory.flush(DEADLINE).unwrap();
        assert!(
            set.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        );
    }
}
