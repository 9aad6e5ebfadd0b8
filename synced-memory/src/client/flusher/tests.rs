use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use tokio::task::yield_now;

use super::batches::BATCH;
use super::failing::FailingBackend;
use super::*;
use crate::backend::commit::{KeyState, Outcome};
use crate::backend::error::BackendErrorKind;
use crate::backend::layout::Node;
use crate::backend::process::ProcessBackend;
use crate::backend::shards::Shard;
use crate::base::backoff::doubled;
use crate::base::lock::lock;
use crate::base::policy::WritePolicy;
use crate::base::settings::Settings;
use crate::base::waiting::block_on;
use crate::client::state::{Link, Request};
use crate::value::document::Document;
use crate::value::envelope::Unsealed;

/// The least time that can pass.
const INSTANT: Duration = Duration::from_nanos(1);

/// Runs the I/O thread's loop beside `test`, until that is done.
fn beside(connector: &mut Connector<'_>, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = connector.keep_connected() => {}
            () = test => {}
        }
    });
}

fn only(shared: &Shared) -> Arc<Route> {
    shared.route(Shard::FIRST).unwrap()
}

/// Lets the loop do all that it can do without that time passes.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

fn queue(shared: &Shared, key: &str, ttl: Option<Duration>) {
    let value = Unsealed::encode(&1).unwrap();
    let (policy, at) = (WritePolicy::Behind, shared.clock.at());
    let accepted = shared
        .state()
        .write(&key.into(), Request::Put { value, ttl }, policy, at);
    accepted.unwrap();
    shared.wake([Shard::FIRST]);
}

fn seeded(shared: &Shared) -> Backoff {
    let random = fastrand::Rng::with_seed(1);
    Backoff::with_random(shared.settings.backoff, JITTER, random)
}

#[test]
fn whatever_else_runs_on_the_io_thread_has_its_turn_after_each_batch() {
    let backend = ProcessBackend::open("", Duration::from_secs(1));
    let shared = Shared::new(Settings::default(), backend.target(), None).unwrap();
    let mut connector = Connector::new(&shared, &backend, only(&shared), None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let connection = Arc::new(Connection::new(
            backend.connect(&Node::only()).await.unwrap(),
            Shard::FIRST,
        ));
        for n in 0..4 * BATCH {
            queue(&shared, &n.to_string(), None);
        }
        let turns = Cell::new(0);
        let others = async {
            loop {
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        };
        tokio::select! {
            drained = connector.drain(&connection) => drained.unwrap(),
            () = others => {}
        }
        assert_eq!(shared.state().outbox.entries().count(), 0);
        assert!(turns.get() >= 4, "{} turns", turns.get());
    });
}

#[test]
fn a_backend_that_is_away_is_tried_less_and_less_often() {
    for kind in [
        BackendErrorKind::ConnectionLost,
        BackendErrorKind::Unavailable,
        BackendErrorKind::NotPrimary,
        BackendErrorKind::Retry,
        BackendErrorKind::Rejected,
    ] {
        let backend = FailingBackend::new();
        *lock(&backend.faults.connecting) = Some(kind);
        let shared = backend.shared();
        let (first, longest) = shared.settings.backoff;
        let (outcome, outcome_of_first) = oneshot::channel();
        let mut connector = Connector::new(&shared, &backend, only(&shared), Some(outcome));
        connector.backoff = seeded(&shared);
        let mut waits = Vec::new();
        beside(&mut connector, async {
            for tries in 1..30 {
                settle().await;
                let connects = backend.faults.connects.load(Ordering::Relaxed);
                assert_eq!(connects, tries, "{kind:?}: one try after each wait");
                let wait = shared.clock.until_next_wake().expect("it waits");
                waits.push(wait);
                shared.clock.advance(wait);
            }
        });
        let lengths = (0..).map(|times| doubled(first, times, longest));
        for (wait, length) in waits.iter().zip(lengths) {
            assert!(*wait <= length, "{kind:?}: {waits:?}");
        }
        let longest_drawn = waits.iter().max().unwrap();
        assert!(*longest_drawn > longest / 2, "{kind:?}: {waits:?}");
        let outcome = outcome_of_first.blocking_recv().unwrap();
        assert_eq!(outcome.unwrap_err().kind(), kind.error_kind());
    }
}

#[test]
fn a_silent_connection_is_given_up_when_a_heartbeat_is_not_answered_in_time() {
    let backend = FailingBackend::new();
    let shared = backend.shared();
    let (clock, timeout) = (&shared.clock, shared.settings.timeout);
    let mut connector = Connector::new(&shared, &backend, only(&shared), None);
    beside(&mut connector, async {
        settle().await;
        assert!(shared.is_connected());

        // As long as it answers, it stays.
        for _ in 0..5 {
            clock.advance(HEARTBEAT);
            settle().await;
        }
        assert_eq!(backend.faults.connects.load(Ordering::Relaxed), 1);

        backend.faults.is_silent.store(true, Ordering::Relaxed);
        clock.advance(HEARTBEAT);
        settle().await;
        clock.advance(timeout.saturating_sub(INSTANT));
        settle().await;
        assert!(shared.is_connected());
        clock.advance(INSTANT);
        settle().await;
        assert!(!shared.is_connected());
        let error = shared.state().last_error.clone().unwrap().to_string();
        assert!(error.contains("no answer to a heartbeat"), "{error}");
    });
}

#[test]
fn a_backend_that_takes_no_writes_gets_them_again_after_a_pause() {
    for (kind, reconnects) in [
        (BackendErrorKind::Unavailable, false),
        (BackendErrorKind::NotPrimary, true),
    ] {
        let backend = FailingBackend::new();
        *lock(&backend.faults.committing) = Some(kind);
        let shared = backend.shared();
        let mut connector = Connector::new(&shared, &backend, only(&shared), None);
        connector.backoff = seeded(&shared);
        let (commits, connects) = (&backend.faults.commits, &backend.faults.connects);
        beside(&mut connector, async {
            settle().await;
            queue(&shared, "k", None);
            settle().await;
            assert_eq!(commits.load(Ordering::Relaxed), 1, "{kind:?}");
            assert_eq!(shared.state().link(Shard::FIRST), Link::Paused, "{kind:?}");
            assert!(shared.is_connected(), "{kind:?}: it still reads");

            *lock(&backend.faults.committing) = None;
            settle().await;
            assert_eq!(commits.load(Ordering::Relaxed), 1, "{kind:?}: no pause");
            shared.clock.advance(shared.settings.backoff.0);
            settle().await;
            assert_eq!(commits.load(Ordering::Relaxed), 2, "{kind:?}");
            assert_eq!(shared.state().outbox.entries().count(), 0, "{kind:?}");
            assert_eq!(shared.state().link(Shard::FIRST), Link::Up, "{kind:?}");
        });
        let expected = if reconnects { 2 } else { 1 };
        assert_eq!(connects.load(Ordering::Relaxed), expected, "{kind:?}");
    }
}

#[test]
fn a_queued_write_is_dropped_when_its_time_to_live_is_over() {
    let (backend, key) = (FailingBackend::new(), Arc::from("k"));
    let (shared, ttl) = (backend.shared(), Duration::from_secs(5));
    let is_visible = || {
        let mono = shared.clock.mono();
        shared.state().view(&key, mono).stored.is_some()
    };
    queue(&shared, &key, Some(ttl));
    shared.clock.advance(ttl.saturating_sub(INSTANT));
    assert!(is_visible());
    shared.clock.advance(INSTANT);
    assert!(!is_visible());

    let mut connector = Connector::new(&shared, &backend, only(&shared), None);
    beside(&mut connector, settle());
    assert_eq!(backend.faults.commits.load(Ordering::Relaxed), 0);
    assert_eq!(shared.state().expired, 1);
}

#[test]
fn a_queued_write_that_is_older_than_the_tombstones_becomes_a_dead_letter() {
    let backend = FailingBackend::new();
    let shared = backend.shared();
    let tombstone_ttl = shared.settings.tombstone_ttl;
    queue(&shared, "old", None);
    shared.clock.advance(INSTANT);
    queue(&shared, "young", None);
    shared.clock.advance(tombstone_ttl.saturating_sub(INSTANT));

    let mut connector = Connector::new(&shared, &backend, only(&shared), None);
    beside(&mut connector, settle());
    assert_eq!(backend.faults.commits.load(Ordering::Relaxed), 1);
    let state = shared.state();
    assert_eq!(state.outbox.entries().count(), 0);
    let letters: Vec<_> = state.letters.iter().map(|letter| &*letter.key).collect();
    assert_eq!(letters, ["old"]);
}

#[test]
fn tries_of_many_processes_to_reconnect_are_spread() {
    let backoff = Settings::default().backoff;
    let first = |seed| {
        let random = fastrand::Rng::with_seed(seed);
        Backoff::with_random(backoff, JITTER, random).next_wait()
    };
    let pauses: Vec<Duration> = (0..100).map(first).collect();
    let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
    assert!(
        *least < backoff.0 / 4 && *most > backoff.0 * 3 / 4,
        "{least:?} to {most:?}"
    );
}

#[test]
fn a_hold_that_ends_while_the_flusher_is_about_to_sleep_is_not_slept_through() {
    let shared = Shared::new(Settings::default(), "test", None).unwrap();
    queue(&shared, "k", None);
    let key = Arc::from("k");
    let mono = shared.clock.mono();
    let mut state = shared.state();
    state.hold(&key, mono);
    assert!(
        state.next_batch(Shard::FIRST, 1, 1, mono).is_empty(),
        "it is held"
    );
    let until = state
        .held_until(Shard::FIRST)
        .expect("it is to be sent after that");
    assert_eq!(state.next_batch(Shard::FIRST, 1, 1, until).len(), 1);
    assert_eq!(
        state.held_until(Shard::FIRST),
        None,
        "nothing is ready any more"
    );
}

/// Others write the key each time before this process does.
#[test]
fn a_write_that_is_refused_again_and_again_is_held_longer_each_time() {
    let shared = Shared::new(Settings::default(), "test", None).unwrap();
    shared.state().connected(Shard::FIRST, None);
    queue(&shared, "k", None);
    let key = Arc::from("k");
    let mut mono = shared.clock.mono();
    let mut state = shared.state();
    let mut holds = Vec::new();
    for refusals in 0..14 {
        let mut batch = state.next_batch(Shard::FIRST, 1, 1, mono);
        if batch.is_empty() {
            let until = state.held_until(Shard::FIRST).expect("it is held");
            holds.push((refusals, until.saturating_sub(mono)));
            mono = until;
            batch = state.next_batch(Shard::FIRST, 1, 1, mono);
        }
        let ticket = u64::from(refusals) + 1;
        state.sent(&batch, ticket, mono);
        let theirs = batch[0].stamp.get() + 1;
        let theirs = format!(r#"{{"value": 0,"last_modified": {theirs}}}"#);
        let found = KeyState {
            stored: Some(Document::of(theirs.into())),
            ..KeyState::default()
        };
        assert!(state.answered(&batch[0], ticket, Ok(Outcome::Refused(found)), mono));
        state.retreat(&key, mono);
    }
    let held_after: Vec<u32> = holds.iter().map(|(refusals, _)| *refusals).collect();
    assert_eq!(held_after, [4, 6, 8, 10, 12]);
    for (waits, (_, length)) in (0..).zip(holds) {
        assert!(
            length <= Duration::from_millis(1) * 2_u32.pow(waits),
            "{length:?}"
        );
    }
}

#[test]
fn a_server_that_sends_something_and_never_the_time_is_given_up_and_tried_again() {
    let backend = FailingBackend::new();
    backend.faults.is_silent.store(true, Ordering::Relaxed);
    backend.faults.is_chatty.store(true, Ordering::Relaxed);
    let shared = backend.shared();
    let mut connector = Connector::new(&shared, &backend, only(&shared), None);
    beside(&mut connector, async {
        settle().await;
        shared.clock.advance(shared.settings.timeout);
        settle().await;
        let error = shared.state().last_error.clone().expect("it was given up");
        let error = error.to_string();
        assert!(
            error.contains("no answer to a connection attempt"),
            "{error}"
        );
        shared.clock.advance(shared.settings.backoff.1);
        settle().await;
        assert_eq!(backend.faults.connects.load(Ordering::Relaxed), 2);
    });
}

/// A caller is about to send its write, and `end` is called by the I/O thread in that moment.
fn sent_while(end: fn(&Shared, &FailingBackend, &Connection)) {
    let backend = FailingBackend::new();
    let shared = backend.shared();
    let connection = Connection::new(
        block_on(backend.connect(&Node::only())).unwrap(),
        Shard::FIRST,
    );
    queue(&shared, "k", None);
    let mono = shared.clock.mono();
    let batch = {
        let mut state = shared.state();
        state.connected(Shard::FIRST, None);
        state.next_batch(Shard::FIRST, 1, 1, mono)
    };
    assert_eq!(batch.len(), 1);

    let (ended, has_ended) = mpsc::channel();
    thread::scope(|scope| {
        let on_sent = |ticket| {
            scope.spawn(|| {
                end(&shared, &backend, &connection);
                let _ = ended.send(());
            });
            // It has to wait for this write to be known as sent. If it does not, it is over soon.
            let _ = has_ended.recv_timeout(Duration::from_millis(200));
            shared.state().sent(&batch, ticket, mono);
        };
        let never = Box::pin(std::future::pending::<Result<(), BackendError>>());
        let answer = block_on(shared.issue(&connection, never, on_sent));
        assert!(answer.unwrap_err().is_connection_lost());
    });
    let mut state = shared.state();
    let head = state.outbox.head("k").expect("it is queued");
    assert_eq!(head.attempt.in_flight, None);
    state.connected(Shard::FIRST, None);
    assert_eq!(
        state.next_batch(Shard::FIRST, 1, 1, mono).len(),
        1,
        "it is sent again"
    );
}

#[test]
fn a_write_that_is_sent_while_its_connection_is_given_up_does_not_stay_in_flight() {
    sent_while(|shared, backend, connection| {
        let error = BackendError::connection_lost("on purpose");
        connection.end(error.clone());
        Connector::new(shared, backend, only(shared), None).disconnected(&error);
    });
}

#[test]
fn a_write_that_is_sent_while_the_io_thread_ends_does_not_stay_in_flight() {
    sent_while(|shared, _, connection| {
        connection.end(BackendError::connection_lost("on purpose"));
        drop(EndOnDrop(shared));
    });
}
