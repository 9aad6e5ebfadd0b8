use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;

use super::*;
use crate::backend::commit::{Attempt, Expects, KeyChange, LONG, Outcome, TimeToLive, Writer};
use crate::backend::layout::Node;
use crate::backend::shards::Shard;
use crate::backend::{Reply, Session};
use crate::base::clock::Stamp;
use crate::base::policy::WritePolicy;
use crate::client::flusher::failing::{FailingBackend, Faults};
use crate::client::state::Request;
use crate::pending::outbox::Written;
use crate::value::envelope::Unsealed;
use crate::value::mutation::{Action, Json, Mutation, Operation};

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Panicking;

impl Backend for Panicking {
    fn connect(&self, _node: &Node) -> Reply<Box<dyn Session>> {
        panic!("on purpose")
    }

    fn target(&self) -> &'static str {
        "nowhere:"
    }
}

#[test]
fn a_panic_of_the_io_thread_closes_the_memory_and_leaves_nobody_waiting() {
    let core = Core::open(Panicking, Settings::default(), None).unwrap();
    // It may have been opened just before.
    while core.shared().check_open().is_ok() {
        std::thread::yield_now();
    }
    let read = block_on(core.load(&["k".into()]));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Closed);
    let last = core.shared().state().last_error.clone();
    assert!(last.is_some_and(|error| error.to_string().contains("panicked")));
}

/// A memory and its faults, once it is connected.
fn connected(settings: Settings) -> (Arc<Core>, Arc<Faults>) {
    let backend = FailingBackend::new();
    let faults = Arc::clone(&backend.faults);
    let core = Core::open(backend, settings, None).unwrap();
    eventually("it is connected", || core.shared().is_connected());
    (Arc::new(core), faults)
}

/// A memory whose writes are not answered within this time, and its faults.
fn unanswered(timeout: Duration) -> (Arc<Core>, Arc<Faults>) {
    let (core, faults) = connected(Settings {
        timeout,
        ..Settings::default()
    });
    faults.is_chatty.store(true, Ordering::Relaxed);
    faults.holds_commits.send_replace(true);
    (core, faults)
}

fn set(core: &Core, value: i32) -> Result<Written> {
    let request = Request::Put {
        value: Unsealed::encode(&value).unwrap(),
        ttl: None,
    };
    let key = Arc::from("k");
    let write = core.write(&key, request, WritePolicy::Through);
    block_on(write).map(|answer| answer.written)
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Deadline::after(DEADLINE);
    while !condition() {
        assert!(!deadline.remaining().is_zero(), "not in time: {what}");
        thread::yield_now();
    }
}

fn queued(core: &Core) -> usize {
    core.shared().state().outbox.entries().count()
}

#[test]
fn a_write_behind_one_that_is_answered_too_late_is_sent_then() {
    let (core, faults) = unanswered(Duration::from_millis(100));
    assert_eq!(set(&core, 1).unwrap(), Written::Queued);
    assert_eq!(set(&core, 2).unwrap(), Written::Queued);
    assert_eq!(queued(&core), 2);
    assert_eq!(faults.commits.load(Ordering::Relaxed), 1);
    faults.holds_commits.send_replace(false);
    eventually("both are delivered", || queued(&core) == 0);
    assert_eq!(faults.commits.load(Ordering::Relaxed), 2);
    assert_eq!(faults.connects.load(Ordering::Relaxed), 1);
}

#[test]
fn a_write_that_nobody_waits_for_is_sent_again_if_its_connection_ends() {
    let (core, faults) = unanswered(Duration::from_millis(100));
    assert_eq!(set(&core, 1).unwrap(), Written::Queued);
    let connection = core.shared().connection(Shard::FIRST).unwrap();
    faults.holds_commits.send_replace(false);
    connection.end(BackendError::connection_lost("on purpose"));
    eventually("it is delivered", || queued(&core) == 0);
}

#[test]
fn a_caller_whose_write_is_under_way_when_the_io_thread_ends_does_not_wait_for_its_time() {
    let (core, faults) = unanswered(3 * DEADLINE);
    let (answers, answer) = mpsc::channel();
    let caller = Arc::clone(&core);
    thread::spawn(move || answers.send(set(&caller, 1)));
    eventually("it is sent", || faults.commits.load(Ordering::Relaxed) == 1);
    let closed = block_on(core.close(Duration::from_millis(1)));
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Timeout);
    let written = answer.recv_timeout(DEADLINE).expect("it returns");
    assert_eq!(written.unwrap(), Written::Queued);
}

#[test]
fn what_is_abandoned_after_the_end_keeps_nothing_alive() {
    let shared = Arc::new(Shared::new(Settings::default(), "test", None).unwrap());
    let (held, is_alive) = (Arc::clone(&shared), Arc::downgrade(&shared));
    shared.stop();
    shared.abandon(async move { drop(held) });
    drop(shared);
    assert!(is_alive.upgrade().is_none());
}

/// Another process stores a long list of so many items.
fn foreign_list(core: &Core, writer: Writer, items: usize) {
    let list = vec!["x".repeat(LONG); items];
    let stamp = Stamp::new(writer);
    let envelope = Unsealed::encode(&list).unwrap().seal(stamp);
    let attempt = Attempt {
        key: "k".into(),
        writer,
        sequence: 1,
        stamp,
        change: KeyChange::Put {
            envelope,
            ttl: TimeToLive::Keep,
        },
        expects: Expects::Anything,
        retry: None,
        recorded: None,
        asking: false,
    };
    let connection = core.shared().connection(Shard::FIRST).unwrap();
    let made = block_on(connection.session.commit(&[attempt], 0)).unwrap();
    assert!(
        matches!(made[..], [Ok(Outcome::Applied { .. })]),
        "{made:?}"
    );
}

fn push(core: &Core, item: &str) -> Result<Written> {
    let items = vec![Json::parse(format!("\"{item}\"")).unwrap()];
    let append = Operation {
        path: Vec::new(),
        action: Action::Append { items },
    };
    let origin = Json::parse("[]".to_owned()).unwrap();
    let request = Request::Mutate {
        mutation: Mutation::new(Some(origin), vec![append]),
        ttl: None,
        exact: None,
        take: None,
    };
    let key = Arc::from("k");
    let write = core.write(&key, request, WritePolicy::Through);
    block_on(write).map(|answer| answer.written)
}

/// The list that a read shows, without what is long.
fn shown(core: &Core) -> Vec<String> {
    let shared = core.shared();
    let view = shared.state().view("k", shared.clock.mono());
    let list: Vec<String> = serde_json::from_str(view.value().unwrap().as_str()).unwrap();
    list.into_iter().filter(|item| item.len() < LONG).collect()
}

/// While a read is on its way that has not taken effect, something happens and then a process adds
/// to what it does not know.
fn pushes_during_a_read(
    (core, faults): (&Core, &Faults),
    is_large: bool,
    meanwhile: impl FnOnce(),
) {
    foreign_list(core, 1, 1);
    let keys = ["k".into()];
    let _version = core.shared().state().cache.hold(&keys[0]);
    assert!(block_on(core.load(&keys)).unwrap());
    foreign_list(core, 2, 2);
    faults.are_large.store(is_large, Ordering::Relaxed);
    faults.holds_reads.send_replace(true);
    let mut read = Box::pin(core.load(&keys));
    let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    meanwhile();
    assert_eq!(push(core, "a").unwrap(), Written::Stored);
    assert_eq!(shown(core), ["a"]);
    faults.holds_reads.send_replace(false);
    assert!(block_on(read).unwrap());
    assert_eq!(shown(core), ["a"]);
    assert!(block_on(core.load(&keys)).unwrap());
    assert_eq!(shown(core), ["a"]);
}

#[test]
fn a_read_that_is_answered_over_a_connection_that_was_given_up_shows_no_push_twice() {
    let (core, faults) = connected(Settings::default());
    pushes_during_a_read((&core, &faults), false, || {
        let given_up = core.shared().connection(Shard::FIRST).unwrap();
        given_up.end(BackendError::connection_lost("on purpose"));
        eventually("there is another one", || {
            let other = core
                .shared()
                .connection_other_than(Shard::FIRST, Some(&given_up));
            other.is_some()
        });
    });
}

#[test]
fn a_large_value_that_is_read_late_shows_no_push_twice() {
    let (core, faults) = connected(Settings::default());
    pushes_during_a_read((&core, &faults), true, || {});
}
