//! Code of the user runs under no lock (rule 18): it may make every call, from wherever it is
//! called, and a slow subscriber delays nobody else.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{Child, Server, eventually};
use synced_memory::{ErrorKind, Key, Memory, Written};
use tempfile::TempDir;

use crate::line::{DEADLINE, on_every_backend};

/// The name of the thread on which wakers run.
const IO_THREAD: &str = "synced-memory";

fn subscriber(url: &str) -> Child {
    Child::spawn(env!("CARGO_BIN_EXE_subscriber"), [url])
}

/// Waits until there was an event that contains this, and returns its line.
fn event(process: &mut Child, what: &str) -> String {
    let mut found = None;
    eventually(DEADLINE, what, || {
        process.send("set");
        process.recv();
        let events = process.ask("events");
        let event = events.split("; ").find(|event| event.contains(what));
        found = event.map(ToOwned::to_owned);
        found.is_some()
    });
    found.expect("it was found")
}

#[test]
fn a_subscriber_makes_every_call_from_events_of_the_callers_and_of_the_io_thread() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let file = format!("sqlite:{}", directory.path().join("state.db").display());
    let answered = "status=true get=Some(1) near=\"read\" set=Stored update=() confirmed=Stored \
                    names=\"read\"";
    for url in [server.url(), file, "memory:".to_owned()] {
        let event = event(&mut subscriber(&url), "main: flushed");
        assert!(event.ends_with(answered), "{url}: {event}");
    }

    let mut process = subscriber(&server.url());
    event(&mut process, "main: flushed");
    server.kill();
    let lost = event(&mut process, "connection lost");
    assert!(!lost.contains("main:"), "{lost}");
    assert!(
        lost.contains("status=true get=Some(1) near=\"read\""),
        "{lost}"
    );
    server.start();
    let back = event(&mut process, "connected, breaker closed");
    assert!(back.contains("status=true"), "{back}");
}

/// Returns once an event is blocked.
fn blocks(process: &mut Child) {
    eventually(DEADLINE, "an event is blocked", || {
        process.ask("is_blocked") == "is_blocked true"
    });
}

#[test]
fn a_slow_subscriber_in_an_event_of_a_caller_delays_no_other_caller() {
    let (server, directory) = (Server::redis().start(), TempDir::new().unwrap());
    let file = format!("sqlite:{}", directory.path().join("state.db").display());
    for url in [server.url(), file, "memory:".to_owned()] {
        let mut process = subscriber(&url);
        process.ask("block");
        process.ask("call");
        blocks(&mut process);
        assert_eq!(process.ask("set"), "set Ok(Stored)", "{url}");
        assert_eq!(process.ask("read"), "read Ok(Some(1))", "{url}");
        assert_eq!(process.ask("is_blocked"), "is_blocked true", "{url}");
        process.ask("unblock");
    }
}

#[test]
fn a_slow_subscriber_in_an_event_of_the_io_thread_delays_nobody() {
    let server = Server::redis().start();
    let mut process = subscriber(&server.url());
    process.ask("block");
    server.kill();
    blocks(&mut process);
    server.start();
    eventually(DEADLINE, "it is connected again", || {
        process.ask("set") == "set Ok(Stored)"
    });
    assert_eq!(process.ask("is_blocked"), "is_blocked true");
    process.ask("unblock");
}

/// A waker that makes calls, and says on which thread, how long that took and what they returned.
struct Asks<F> {
    calls: F,
    answers: Mutex<Sender<(String, Duration, String)>>,
}

impl<F: Fn() -> String + Send + Sync + 'static> Wake for Asks<F> {
    fn wake(self: Arc<Self>) {
        let (started, thread) = (Instant::now(), thread::current());
        let said = (self.calls)();
        let name = thread.name().unwrap_or_default().to_owned();
        let answers = self.answers.lock().unwrap();
        let _ = answers.send((name, started.elapsed(), said));
    }
}

/// Polls futures until one is not answered at once, and returns that: the I/O thread wakes it.
fn pending<F: Future>(waker: &Waker, mut begin: impl FnMut() -> F) -> Pin<Box<F>> {
    let mut found = None;
    eventually(DEADLINE, "it has to wait", || {
        let mut future = Box::pin(begin());
        let polled = future.as_mut().poll(&mut Context::from_waker(waker));
        found = polled.is_pending().then_some(future);
        found.is_some()
    });
    found.expect("it was found")
}

/// What each kind of call returns on an I/O thread.
fn every_call(memory: &Memory) -> String {
    fn kind<T>(result: synced_memory::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }
    let list = memory.synced(&Key::<Vec<i64>>::new("list"));
    let number = memory.synced(&Key::<i64>::new("number"));
    let opened = Memory::open("memory:").map(drop);
    let _ = memory.watch(&Key::<i64>::new("number")).recv();
    let refused = [
        kind(memory.update(&Key::<i64>::new("number"), |number| *number = Some(9))),
        kind(number.confirmed().set(9)),
        kind(number.confirmed().get()),
        kind(list.pop()),
        kind(memory.names()),
        kind(memory.scope("s").purge()),
    ];
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {}",
        number.get().ok(),
        memory.set(&Key::new("other"), 2_i64).ok(),
        list.push(3).ok(),
        kind(memory.flush(DEADLINE)),
        kind(memory.close(DEADLINE)),
        kind(opened),
        memory.dead_letters().len(),
        refused,
        memory.status().connected,
    )
}

#[test]
fn a_waker_makes_every_call_and_none_of_them_waits() {
    on_every_backend("wakers", |memory, other| {
        let view = memory.synced(&Key::<i64>::new("number"));
        view.set(0).unwrap();
        let _ = memory.synced(&Key::<Vec<i64>>::new("list")).to_vec();
        let (answers, inbox) = channel();
        let asked = memory.clone();
        let waker = Waker::from(Arc::new(Asks {
            calls: move || every_call(&asked),
            answers: Mutex::new(answers),
        }));
        let mut set = pending(&waker, || view.set_async(1));
        let (thread, took, said) = inbox.recv_timeout(DEADLINE).expect("it returns");
        assert_eq!(thread, IO_THREAD);
        assert!(took < DEADLINE / 4, "{took:?}: {said}");
        let refused = ["Some(Unavailable)"; 6].join(", ");
        let expected = format!(
            "Some(1) Some(Queued) Some(Queued) Some(Timeout) Some(Timeout) None 0 [{refused}] true"
        );
        assert_eq!(said, expected);
        assert!(matches!(
            set.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(Ok(Written::Stored))
        ));

        memory.flush(DEADLINE).unwrap();
        assert_eq!(other.get(&Key::<i64>::new("other")).unwrap(), Some(2));
        assert_eq!(
            other.get(&Key::<Vec<i64>>::new("list")).unwrap(),
            Some(vec![3])
        );
    });
}

/// A waker that makes a call when it is dropped.
struct AsksOnDrop(Memory, Arc<AtomicUsize>);

impl Wake for AsksOnDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for AsksOnDrop {
    fn drop(&mut self) {
        let _ = self.0.set(&Key::new("of_drop"), self.0.status().superseded);
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_waker_makes_calls_when_it_is_dropped_before_or_after_the_answer() {
    on_every_backend("drops", |memory, _| {
        let view = memory.synced(&Key::<i64>::new("number"));
        let dropped = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let asks = AsksOnDrop(memory.clone(), Arc::clone(&dropped));
            let waker = Waker::from(Arc::new(asks));
            let mut set = Box::pin(view.set_async(1));
            let _ = Pin::new(&mut set).poll(&mut Context::from_waker(&waker));
            drop(waker);
            drop(set);
        }
        let (flushed, inbox) = channel();
        let memory = memory.clone();
        thread::spawn(move || flushed.send(memory.flush(DEADLINE).map(|()| memory)));
        let memory = inbox
            .recv_timeout(2 * DEADLINE)
            .expect("it returns")
            .unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 100);
        assert!(memory.contains(&Key::<u64>::new("of_drop")).unwrap());
    });
}

#[test]
fn a_panic_in_one_waker_wakes_the_others_and_closes_nothing() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }
    on_every_backend("panics", |memory, other| {
        let number = Key::<i64>::new("number");
        memory.set(&number, 0).unwrap();
        let panics = Waker::from(Arc::new(Panics));
        let mut watches: Vec<_> = (0..3).map(|_| memory.watch(&number)).collect();
        for watch in &mut watches {
            assert_eq!(watch.recv().unwrap(), Some(0));
        }
        let mut first = Box::pin(watches[0].changed());
        assert!(
            first
                .as_mut()
                .poll(&mut Context::from_waker(&panics))
                .is_pending()
        );
        other.set(&number, 1).unwrap();
        drop(first);
        for watch in &mut watches[1..] {
            assert_eq!(watch.recv_timeout(DEADLINE).unwrap(), Some(1));
        }
        assert_eq!(memory.set(&number, 2).unwrap(), Written::Stored);
    });
}

#[test]
fn the_last_handle_that_a_waker_drops_delivers_what_is_queued_and_does_not_wait_there() {
    on_every_backend("last", |memory, _| {
        let url = memory_url(memory);
        let own = Memory::open(&url).unwrap();
        let (number, from_waker) = (Key::<i64>::new("number"), Key::<i64>::new("from_waker"));
        own.set(&number, 0).unwrap();
        let mut watch = own.watch(&number);
        assert_eq!(watch.recv().unwrap(), Some(0));
        let (answers, inbox) = channel();
        let last = Mutex::new(Some(own));
        let key = from_waker.clone();
        let waker = Waker::from(Arc::new(Asks {
            calls: move || {
                let Some(last) = last.lock().unwrap().take() else {
                    return "again".to_owned();
                };
                format!("{:?}", last.set(&key, 7).ok())
            },
            answers: Mutex::new(answers),
        }));
        let mut changed = Box::pin(watch.changed());
        let polled = changed.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        memory.set(&number, 1).unwrap();
        let (thread, took, said) = inbox.recv_timeout(DEADLINE).expect("it returns");
        assert_eq!(
            (thread.as_str(), said.as_str()),
            (IO_THREAD, "Some(Queued)")
        );
        assert!(took < Duration::from_millis(400), "{took:?}");
        eventually(DEADLINE, "the write is delivered", || {
            memory.get(&from_waker).unwrap() == Some(7)
        });
    });
}

/// The URL of a memory, out of what it prints.
fn memory_url(memory: &Memory) -> String {
    let shown = format!("{memory:?}");
    let target = shown.split('"').nth(1).expect("the target is shown");
    target.to_owned()
}

/// A value that makes calls whenever code of its own runs.
#[derive(Debug, PartialEq)]
struct Nosy(i64);

static ASKED: Mutex<Option<Memory>> = Mutex::new(None);
static CALLS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Makes calls, unless it is called by one of them.
fn ask() {
    let asked = ASKED.lock().unwrap().clone();
    let Some(memory) = asked.filter(|_| !IS_ASKING.replace(true)) else {
        return;
    };
    let is_io_thread = thread::current().name() == Some(IO_THREAD);
    let set = memory.set(&Key::new("asked"), 1_i64);
    assert!(set.is_ok() && memory.get(&Key::<i64>::new("asked")).is_ok());
    let updated = memory.update(&Key::<i64>::new("updated"), |updated| *updated = Some(2));
    let confirmed = memory
        .synced(&Key::<i64>::new("confirmed"))
        .confirmed()
        .set(3);
    assert_eq!(
        (updated.is_err(), confirmed.is_err()),
        (is_io_thread, is_io_thread)
    );
    assert!(memory.status().connected);
    CALLS.fetch_add(1, Ordering::Relaxed);
    IS_ASKING.set(false);
}

impl Serialize for Nosy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ask();
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Nosy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ask();
        i64::deserialize(deserializer).map(Self)
    }
}

impl Clone for Nosy {
    fn clone(&self) -> Self {
        ask();
        Self(self.0)
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        ask();
    }
}

#[test]
fn a_value_makes_calls_when_it_is_encoded_decoded_cloned_and_dropped_and_so_does_a_closure() {
    on_every_backend("nosy", |memory, other| {
        *ASKED.lock().unwrap() = Some(memory.clone());
        let nosy = Key::<Nosy>::new("nosy");
        let view = memory.synced(&nosy);
        view.set(Nosy(1)).unwrap();
        assert_eq!(view.get().unwrap(), Nosy(1));
        view.update(|value| {
            ask();
            value.0 += 1;
        })
        .unwrap();
        let mut watch = memory.watch(&nosy);
        assert_eq!(watch.recv().unwrap(), Some(Nosy(2)));
        other.set(&nosy, Nosy(3)).unwrap();
        assert_eq!(watch.recv_timeout(DEADLINE).unwrap(), Some(Nosy(3)));
        assert_eq!(
            view.with(|value| {
                ask();
                value.0
            })
            .unwrap(),
            3
        );

        // Decoded, and dropped, on the I/O thread.
        let (answers, inbox) = channel();
        let asked = memory.clone();
        let waker = Waker::from(Arc::new(Asks {
            calls: move || format!("{:?}", asked.get(&Key::<Nosy>::new("nosy")).unwrap()),
            answers: Mutex::new(answers),
        }));
        let set = pending(&waker, || view.set_async(Nosy(4)));
        let (thread, _, said) = inbox.recv_timeout(DEADLINE).expect("it returns");
        assert_eq!(
            (thread.as_str(), said.as_str()),
            (IO_THREAD, "Some(Nosy(4))")
        );
        drop(set);
        *ASKED.lock().unwrap() = None;
        assert!(CALLS.swap(0, Ordering::Relaxed) > 10);
    });
}
