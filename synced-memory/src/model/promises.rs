//! The promises by name, each as the shortest history that can break it.
//!
//! A process is a `State`, the server a `Store`; every call is one that the flusher or a caller
//! makes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::server::{KEY, TOMBSTONE_TTL};
use crate::backend::commit::{Attempt, Expects, KeyChange, Outcome, TimeToLive};
use crate::backend::error::BackendError;
use crate::backend::process::Store;
use crate::base::clock::{Moment, Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::cache::{Generation, Ticket};
use crate::client::state::{Accepted, Request, State};
use crate::pending::outbox::{Answer, Written};
use crate::value::envelope::{self, Unsealed};

const NOW: u64 = 1_700_000_000_000_000_000;
const AN_HOUR: u64 = 3_600_000_000_000;

pub(super) struct Server {
    store: Store,
    foreigners: u64,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            store: Store::new(2 * TOMBSTONE_TTL),
            foreigners: 0,
        }
    }

    pub(super) fn commit(&mut self, attempt: &Attempt) -> Outcome {
        self.store.commit(attempt, Monotonic::ZERO)
    }

    pub(super) fn stored(&mut self) -> Option<Bytes> {
        self.store.read(KEY, Monotonic::ZERO)
    }

    fn value(&mut self) -> Option<String> {
        value(self.stored())
    }

    /// A SET by somebody who knows nothing of stamps.
    pub(super) fn set(&mut self, text: &'static str) {
        self.foreigners += 1;
        let change = KeyChange::Put {
            envelope: Bytes::from_static(text.as_bytes()),
            ttl: TimeToLive::Keep,
        };
        let (writer, stamp) = (self.foreigners, Stamp::MAX);
        let (key, expects) = (KEY.into(), Expects::Anything);
        let outcome = self.commit(&Attempt {
            key,
            writer,
            sequence: 1,
            stamp,
            change,
            expects,
            retry: None,
            recorded: None,
        });
        assert!(matches!(outcome, Outcome::Applied { .. }));
    }
}

pub(super) struct Process {
    pub(super) state: State,
    key: Arc<str>,
    tickets: Ticket,
    pub(super) mono: Monotonic,
    pub(super) now: u64,
}

impl Process {
    /// A process that has not met the server yet.
    pub(super) fn offline(seed: u64) -> Self {
        let mut state = State::new(1 << 20, TOMBSTONE_TTL, fastrand::Rng::with_seed(seed));
        let key: Arc<str> = KEY.into();
        state.cache.hold(&key);
        Self {
            state,
            key,
            tickets: 0,
            mono: Monotonic::ZERO,
            now: NOW,
        }
    }

    pub(super) fn connected(seed: u64) -> Self {
        let mut process = Self::offline(seed);
        process.state.connected(None);
        process
    }

    pub(super) fn write(&mut self, request: Request) -> Accepted {
        self.write_as(request, WritePolicy::Through)
    }

    pub(super) fn write_as(&mut self, request: Request, policy: WritePolicy) -> Accepted {
        self.now += 1_000_000;
        let at = Moment {
            mono: self.mono,
            now: self.now,
        };
        self.state
            .write(&self.key, request, policy, at)
            .expect("there is room in the outbox")
    }

    fn put(&mut self, value: &str, ttl: Option<Duration>) -> Accepted {
        self.write(Request::Put {
            value: Unsealed::encode(&value).expect("text is JSON"),
            ttl,
        })
    }

    fn set(&mut self, value: &str) -> Accepted {
        self.put(value, None)
    }

    fn delete(&mut self) -> Accepted {
        self.write(Request::Delete)
    }

    /// The next attempt, on its way under the ticket.
    pub(super) fn send(&mut self) -> Option<(Attempt, Ticket)> {
        let batch = self.state.next_batch(512, 1 << 20, self.mono);
        assert!(batch.len() < 2, "one attempt per key");
        self.tickets += 1;
        self.state.sent(&batch, self.tickets, self.mono);
        Some((batch.into_iter().next()?, self.tickets))
    }

    /// Sends all that waits, and takes in the answers.
    pub(super) fn deliver(&mut self, server: &mut Server) {
        while let Some((attempt, ticket)) = self.send() {
            let outcome = server.store.commit(&attempt, self.mono);
            self.state.answered(&attempt, ticket, Ok(outcome));
        }
    }

    pub(super) fn lose_the_connection(&mut self) {
        self.state
            .lost(Error::new(ErrorKind::Unavailable, "lost"), self.mono);
    }

    pub(super) fn read(&mut self, server: &mut Server) {
        self.tickets += 1;
        self.state.cache.asked(KEY, self.tickets, self.mono);
        self.state.read(
            &self.key,
            self.tickets,
            Generation::default(),
            server.store.read(KEY, self.mono),
        );
    }

    fn shows(&self) -> Option<String> {
        value(self.state.view(KEY, self.mono).stored)
    }

    fn is_done(&self) -> bool {
        self.state.outbox.len() == 0
    }
}

fn value(stored: Option<Bytes>) -> Option<String> {
    stored.map(|stored| envelope::decode(&stored).expect("it is text"))
}

fn told(accepted: &mut Accepted) -> Option<Result<Written, ErrorKind>> {
    let answer: Result<Answer> = accepted.answer.try_recv().ok()?;
    Some(
        answer
            .map(|answer| answer.written)
            .map_err(|error| error.kind()),
    )
}

#[test]
fn a_retry_never_erases_what_another_process_stored_meanwhile() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _accepted = process.set("ours");
    let (first, _) = process.send().unwrap();
    assert!(matches!(server.commit(&first), Outcome::Applied { .. }));
    process.lose_the_connection();
    // Without a stamp: by the stamps alone, the retry would be the newer one.
    server.set(r#""theirs""#);
    process.state.connected(None);
    process.deliver(&mut server);
    assert!(process.is_done());
    assert_eq!(server.value().as_deref(), Some("theirs"));
    assert_eq!(process.shows().as_deref(), Some("theirs"));
}

#[test]
fn a_late_attempt_of_a_dead_connection_erases_nothing() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _accepted = process.set("ours");
    let (late, _) = process.send().unwrap();
    process.lose_the_connection();
    process.state.connected(None);
    process.deliver(&mut server);
    server.set(r#""theirs""#);
    assert!(matches!(server.commit(&late), Outcome::AlreadyApplied(_)));
    assert_eq!(server.value().as_deref(), Some("theirs"));
}

#[test]
fn a_write_made_while_an_attempt_is_in_flight_is_neither_lost_nor_doubled() {
    for answer_is_lost in [false, true] {
        let (mut server, mut process) = (Server::new(), Process::connected(1));
        let _first = process.set("first");
        let (attempt, ticket) = process.send().unwrap();
        let mut second = process.set("second");
        assert!(
            process.send().is_none(),
            "the second waits for the answer to the first"
        );
        let outcome = server.commit(&attempt);
        if answer_is_lost {
            process.lose_the_connection();
            process.state.connected(None);
        } else {
            process.state.answered(&attempt, ticket, Ok(outcome));
        }
        assert_eq!(process.shows().as_deref(), Some("second"));
        let mut applied = Vec::new();
        while let Some((attempt, ticket)) = process.send() {
            let outcome = server.commit(&attempt);
            if matches!(outcome, Outcome::Applied { .. }) {
                applied.push(attempt.sequence);
            }
            process.state.answered(&attempt, ticket, Ok(outcome));
        }
        assert_eq!(applied, [second.sequence]);
        assert_eq!(server.value().as_deref(), Some("second"));
        let expected = if answer_is_lost {
            Written::Queued
        } else {
            Written::Stored
        };
        assert_eq!(told(&mut second), Some(Ok(expected)));
    }
}

#[test]
fn a_slot_follows_the_server_backwards() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _accepted = process.set("new");
    process.deliver(&mut server);
    server.set(r#"{"value": "old", "last_modified": 5}"#);
    process.read(&mut server);
    assert_eq!(process.shows().as_deref(), Some("old"));
    let mut flushed = Server::new();
    process.read(&mut flushed);
    assert_eq!(process.shows(), None);
    // And what is written then is stored, though the server once had a newer stamp.
    let mut accepted = process.set("again");
    process.deliver(&mut flushed);
    assert_eq!(told(&mut accepted), Some(Ok(Written::Stored)));
    assert_eq!(flushed.value().as_deref(), Some("again"));
}

#[test]
fn an_online_write_wins_against_a_clock_that_is_ahead() {
    let (mut server, mut process, mut ahead) =
        (Server::new(), Process::connected(1), Process::connected(2));
    ahead.now += AN_HOUR;
    for their_last_is_a_delete in [false, true] {
        let _theirs = if their_last_is_a_delete {
            ahead.delete()
        } else {
            ahead.set("theirs")
        };
        ahead.deliver(&mut server);
        let mut accepted = process.set("ours");
        process.deliver(&mut server);
        assert_eq!(told(&mut accepted), Some(Ok(Written::Stored)));
        assert_eq!(server.value().as_deref(), Some("ours"));
        ahead.now += AN_HOUR;
    }
}

#[test]
fn a_write_that_waited_out_an_outage_is_superseded_by_a_newer_one() {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::connected(1), Process::connected(2));
    process.lose_the_connection();
    let mut accepted = process.set("older");
    assert_eq!(told(&mut accepted), Some(Ok(Written::Queued)));
    other.now += AN_HOUR;
    let _newer = other.set("newer");
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert!(process.is_done());
    assert_eq!(process.state.superseded, 1);
    assert_eq!(process.shows().as_deref(), Some("newer"));
}

#[test]
fn an_older_queued_write_does_not_resurrect_a_deleted_key() {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::connected(1), Process::connected(2));
    let _first = other.set("first");
    other.deliver(&mut server);
    process.lose_the_connection();
    let _queued = process.set("queued");
    other.now += AN_HOUR;
    let _delete = other.delete();
    other.deliver(&mut server);
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(server.stored(), None);
    assert_eq!(process.shows(), None);
}

#[test]
fn an_error_means_that_the_write_was_withdrawn() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _first = process.set("first");
    process.deliver(&mut server);
    let mut accepted = process.set("second");
    let (attempt, ticket) = process.send().unwrap();
    process
        .state
        .answered(&attempt, ticket, Err(BackendError::rejected("NOPERM")));
    assert_eq!(told(&mut accepted), Some(Err(ErrorKind::Rejected)));
    assert_eq!(process.shows().as_deref(), Some("first"));
    process.lose_the_connection();
    process.state.connected(None);
    assert!(process.send().is_none());
}

#[test]
fn stamps_that_were_issued_before_the_first_connect_are_shifted() {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::offline(1), Process::connected(2));
    process.now += AN_HOUR; // its clock is wrong
    let _older = process.set("older");
    other.now += AN_HOUR / 2;
    let _newer = other.set("newer");
    other.deliver(&mut server);
    process.state.connected(Some(-AN_HOUR.cast_signed()));
    process.deliver(&mut server);
    assert_eq!(server.value().as_deref(), Some("newer"));
}

/// A batch is drawn from the outbox before it is sent; meanwhile a caller may give the connection
/// up.
#[test]
fn a_write_that_was_drawn_and_never_sent_is_not_lost() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _accepted = process.set("ours");
    let batch = process.state.next_batch(512, 1 << 20, Monotonic::ZERO);
    process.state.requeue_batch(&batch);
    process.lose_the_connection();
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(server.value().as_deref(), Some("ours"));
}

// What follows was found by the model.

/// Rule 8: the stamps of one process rise. The first write was stamped anew, above somebody's clock
/// that is ahead; the second, which was queued behind it, must not be older for that.
#[test]
fn a_write_is_not_superseded_by_an_earlier_one_of_its_own_process() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    server.set(r#"{"value": "ahead", "last_modified": 1800000000000000000}"#);
    let _first = process.set("first");
    let (attempt, ticket) = process.send().unwrap();
    let _second = process.set("second");
    let refused = server.commit(&attempt);
    process.state.answered(&attempt, ticket, Ok(refused));
    let (anew, ticket) = process.send().unwrap();
    let applied = server.commit(&anew);
    process.state.answered(&anew, ticket, Ok(applied));
    // An outage before the second is sent: it is not stamped anew any more.
    process.lose_the_connection();
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(process.state.superseded, 0);
    assert_eq!(server.value().as_deref(), Some("second"));
}

/// Rule 1: a process reads its own writes. A value whose time to live was over must not take its
/// successor, which has none, along.
#[test]
fn a_write_after_one_whose_time_to_live_is_over_is_seen() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _for_a_while = process.put("for a while", Some(Duration::from_secs(1)));
    process.deliver(&mut server);
    process.mono += Duration::from_secs(2);
    let _for_ever = process.set("for ever");
    process.deliver(&mut server);
    assert_eq!(
        server
            .store
            .read(KEY, process.mono)
            .map(|stored| value(Some(stored))),
        Some(Some("for ever".into()))
    );
    assert_eq!(process.shows().as_deref(), Some("for ever"));
    process.read(&mut server);
    assert_eq!(process.shows().as_deref(), Some("for ever"));
}

/// Rule 1: a slot shows what the server answered. The time to live of what this process stored once
/// says nothing of the value that somebody has put in its place since.
#[test]
fn a_time_to_live_ends_with_the_value_that_it_was_given_to() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _for_a_while = process.put("for a while", Some(Duration::from_secs(10)));
    process.deliver(&mut server);
    let mut other = Process::connected(2);
    other.now += 5_000_000;
    let _longer = other.put("longer", Some(Duration::from_secs(3_600)));
    other.deliver(&mut server);
    process.now += 10_000_000;
    let _ours = process.set("ours");
    process.deliver(&mut server);
    process.mono += Duration::from_secs(20);
    process.read(&mut server);
    assert_eq!(process.shows().as_deref(), Some("ours"));
}

/// Rule 1: a read shows the unanswered writes. One that is over does not hide the one before it.
#[test]
fn a_queued_write_that_is_over_does_not_hide_the_one_before_it() {
    let mut process = Process::connected(1);
    let _first = process.set("first");
    let _on_its_way = process.send().unwrap();
    let _second = process.put("second", Some(Duration::from_secs(1)));
    assert_eq!(process.shows().as_deref(), Some("second"));
    process.mono += Duration::from_secs(2);
    assert_eq!(process.shows().as_deref(), Some("first"));
}

/// Rules 4 and 6: an attempt is applied once. A process that closes leaves its record where an
/// attempt in doubt may yet arrive, also when a later write was answered for without any doubt.
#[test]
fn a_record_that_a_late_attempt_must_find_outlives_its_process() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _first = process.set("first");
    let (_late, _) = process.send().unwrap();
    process.lose_the_connection();
    process.state.connected(None);
    process.deliver(&mut server);
    let _second = process.set("second");
    process.deliver(&mut server);
    assert!(process.is_done());
    assert!(process.state.take_recorded().is_empty());
}

/// Rule 6: a record goes with the last use of its key, but not under a write that came since, and
/// not where an attempt in doubt may yet arrive.
#[test]
fn a_record_is_dropped_with_the_last_use_of_its_key_and_not_under_a_write_that_came_since() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    let _first = process.set("first");
    process.deliver(&mut server);
    process.state.release(KEY);
    assert_eq!(process.state.take_unused(), [Arc::from(KEY)]);
    for is_sent in [false, true] {
        process.state.cache.hold(&process.key);
        let _second = process.set("second");
        process.deliver(&mut server);
        process.state.release(KEY);
        process.state.cache.hold(&process.key);
        let _third = process.set("third");
        if is_sent {
            process.deliver(&mut server);
        }
        assert!(process.state.take_unused().is_empty());
        process.deliver(&mut server);
        process.state.release(KEY);
        assert_eq!(process.state.take_unused(), [Arc::from(KEY)]);
    }
    process.state.cache.hold(&process.key);
    let _fourth = process.set("fourth");
    let _late = process.send().unwrap();
    process.lose_the_connection();
    process.state.connected(None);
    process.deliver(&mut server);
    process.state.release(KEY);
    assert!(process.state.take_unused().is_empty());
}

/// Rules 3 and 15: merged or not, the writes of one process come to the same. A value that is set
/// after a delete is a new one, without the time to live of the one that was deleted.
#[test]
fn a_write_after_a_queued_delete_has_no_time_to_live_of_before() {
    let (mut server, mut process, mut other) =
        (Server::new(), Process::connected(1), Process::connected(2));
    let _for_a_while = other.put("for a while", Some(Duration::from_secs(10)));
    other.deliver(&mut server);
    process.lose_the_connection();
    process.now += 5_000_000;
    let _delete = process.delete();
    let _for_ever = process.set("for ever");
    process.state.connected(None);
    process.deliver(&mut server);
    assert_eq!(server.value().as_deref(), Some("for ever"));
    assert_eq!(
        value(server.store.read(KEY, Duration::from_secs(20))).as_deref(),
        Some("for ever")
    );
}

/// Rule 10: the bound of the outbox counts what is in it, also when the first connect moved the
/// stamps of a host that was never told the time, and they have become longer.
#[test]
fn what_the_outbox_holds_is_counted_also_after_the_stamps_were_shifted() {
    let (mut server, mut process) = (Server::new(), Process::offline(1));
    process.now = 0;
    let _first = process.set("first");
    process.state.connected(Some(NOW.cast_signed()));
    process.now += NOW;
    process.deliver(&mut server);
    let mut second = process.set("second");
    process.deliver(&mut server);
    assert_eq!(told(&mut second), Some(Ok(Written::Stored)));
}

/// Rule 8: stamps above 2^62 count as 0, those of tombstones too: a write that is refused for the
/// sake of a stamp that nobody counts could be stamped anew for ever.
#[test]
fn a_tombstone_beyond_2_to_62_counts_as_zero() {
    let (mut server, mut process) = (Server::new(), Process::connected(1));
    server.set(r#"{"value": "theirs", "last_modified": 4611686018427387904}"#);
    let _delete = process.delete();
    process.deliver(&mut server);
    assert_eq!(server.stored(), None);
    let mut other = Process::connected(2);
    let mut accepted = other.set("ours");
    let (attempt, ticket) = other.send().unwrap();
    let outcome = server.commit(&attempt);
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    other.state.answered(&attempt, ticket, Ok(outcome));
    assert_eq!(told(&mut accepted), Some(Ok(Written::Stored)));
}
