//! Faulty backends: each breaks one promise of the contract, and the suite has to notice.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::yield_now;

use super::subjects::process_backends;
use super::{CHECKS, Loss, Subject};
use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::Node;
use crate::backend::process::ProcessBackend;
use crate::backend::{
    Backend, Expiry, Invalidation, KeyRead, LARGE_VALUE, Page, ReadKind, Reply, Session, WithExpiry,
};
use crate::value::document::Document;

/// How long a check waits for what a faulty backend never does.
const DEADLINE: Duration = Duration::from_millis(600);

/// The promise that a backend breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// None of them: it is sound.
    None,
    /// Requests take effect in the order of their first polls.
    Order,
    /// A change that was answered is seen by every later read of every session.
    Visibility,
    /// Records of sequence numbers are kept.
    Records,
    /// Changes are notified.
    Notification,
    /// A tracked read leaves its key tracked, however often it was notified before.
    Tracking,
    /// So do all tracked reads of a request.
    TrackingOfAll,
    /// A through read makes nothing tracked.
    ThroughReads,
    /// And ends no tracking.
    LastingTracking,
    /// A change is notified even while the answer to a read is on its way.
    Races,
    /// A read says when a key expires, or its expiry is notified.
    Expiry,
    /// What is too large to be read with others is read apart.
    LargeValues,
    /// What is stored is read, whatever the reader knows.
    KnownValues,
    /// `ended` is ready once the connection is closed.
    End,
    /// And not before.
    NoOtherEnd,
    /// The heartbeat is not answered once the connection is closed.
    Heartbeat,
}

/// `memory:` over a line that can be closed, with one promise broken.
#[derive(Debug)]
struct FaultyBackend {
    inner: ProcessBackend,
    broken: Promise,
    is_closed: watch::Receiver<bool>,
}

#[derive(Debug)]
struct FaultySession {
    inner: Arc<dyn Session>,
    broken: Promise,
    is_closed: watch::Receiver<bool>,
    state: Arc<Mutex<FaultState>>,
}

#[derive(Debug, Default)]
struct FaultState {
    /// The keys that are not tracked any more, whatever is changed.
    untracked: HashSet<Arc<str>>,
    /// What was read once, and is not read again.
    copies: HashMap<Arc<str>, Option<Document>>,
}

impl FaultySession {
    /// Sends a request, unless the line is closed.
    fn send<T: 'static>(&self, request: Reply<T>) -> Reply<T> {
        let is_closed = self.is_closed.clone();
        Box::pin(async move {
            if *is_closed.borrow() {
                return Err(BackendError::connection_lost("closed"));
            }
            request.await
        })
    }

    /// The reads as they are made: which of them are tracked may be wrong.
    fn made(&self, reads: &[KeyRead]) -> Vec<KeyRead> {
        let (mut reads, mut state) = (reads.to_vec(), self.state.lock().unwrap());
        let mut is_any_tracked = false;
        for read in &mut reads {
            let is_tracked = read.kind == ReadKind::Tracked;
            match self.broken {
                Promise::TrackingOfAll if is_any_tracked => read.kind = ReadKind::Through,
                Promise::ThroughReads => read.kind = ReadKind::Tracked,
                Promise::LastingTracking if is_tracked => _ = state.untracked.remove(&read.key),
                Promise::LastingTracking => _ = state.untracked.insert(Arc::clone(&read.key)),
                _ => {}
            }
            is_any_tracked |= is_tracked;
        }
        reads
    }
}

impl Backend for FaultyBackend {
    fn connect(&self, node: &Node) -> Reply<Box<dyn Session>> {
        let inner = self.inner.connect(node);
        let (broken, is_closed) = (self.broken, self.is_closed.clone());
        Box::pin(async move {
            let session: Box<dyn Session> = Box::new(FaultySession {
                inner: inner.await?.into(),
                broken,
                is_closed,
                state: Arc::default(),
            });
            Ok(session)
        })
    }

    fn target(&self) -> &str {
        self.inner.target()
    }
}

impl Session for FaultySession {
    fn read(&self, reads: &[KeyRead]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        let read = self.send(self.inner.read(&self.made(reads)));
        let (broken, reads) = (self.broken, reads.to_vec());
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        Box::pin(async move {
            let mut answers = read.await?;
            if broken == Promise::LargeValues {
                for answer in &mut answers {
                    if matches!(answer, Ok((Some(stored), _)) if stored.len() > LARGE_VALUE) {
                        *answer = Err(BackendError::new(BackendErrorKind::TooLarge, "too large"));
                    }
                }
            }
            if broken == Promise::Races {
                yield_now().await;
                while inner.invalidations().now_or_never().is_some() {}
            }
            if broken == Promise::Visibility {
                let mut state = state.lock().unwrap();
                for (read, (stored, _)) in reads.iter().zip(answers.iter_mut().flatten()) {
                    let copy = state.copies.entry(Arc::clone(&read.key));
                    stored.clone_from(copy.or_insert_with(|| stored.clone()));
                }
            }
            if broken == Promise::KnownValues {
                for (read, (stored, _)) in reads.iter().zip(answers.iter_mut().flatten()) {
                    if let (Some(known), Some(stored)) = (&read.known, stored) {
                        *stored = known.document.clone();
                    }
                }
            }
            if broken == Promise::Expiry {
                for (_, expiry) in answers.iter_mut().flatten() {
                    *expiry = Expiry::Forever;
                }
            }
            Ok(answers)
        })
    }

    fn read_apart(&self, key: &Arc<str>, asking: bool) -> Reply<WithExpiry> {
        let read = self.send(self.inner.read_apart(key, asking));
        let is_broken = self.broken == Promise::LargeValues;
        Box::pin(async move {
            let (stored, expiry) = read.await?;
            Ok((stored.filter(|_| !is_broken), expiry))
        })
    }

    fn commit(&self, batch: &[Attempt], now: u64) -> Reply<Vec<Result<Outcome, BackendError>>> {
        let commit = self.send(self.inner.commit(batch, now));
        let (broken, batch) = (self.broken, batch.to_vec());
        let inner = Arc::clone(&self.inner);
        for attempt in &batch {
            self.state.lock().unwrap().copies.remove(&attempt.key);
        }
        Box::pin(async move {
            if broken == Promise::Order {
                yield_now().await;
            }
            let outcomes = commit.await?;
            if broken == Promise::Records {
                for attempt in batch {
                    inner.forget(attempt.writer, &[attempt.key]).await?;
                }
            }
            Ok(outcomes)
        })
    }

    fn names(&self, prefix: &str, cursor: Option<String>) -> Reply<Page> {
        self.send(self.inner.names(prefix, cursor))
    }

    fn forget(&self, writer: Writer, keys: &[Arc<str>]) -> Reply<()> {
        self.send(self.inner.forget(writer, keys))
    }

    fn now(&self) -> Reply<u64> {
        match self.broken {
            Promise::Heartbeat => self.inner.now(),
            _ => self.send(self.inner.now()),
        }
    }

    fn eviction_policy(&self) -> Reply<Option<String>> {
        self.send(self.inner.eviction_policy())
    }

    fn track(&self) -> Reply<()> {
        self.send(self.inner.track())
    }

    fn invalidations(&self) -> Reply<Invalidation> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        let broken = self.broken;
        match broken {
            Promise::Notification => Box::pin(pending()),
            Promise::Tracking | Promise::LastingTracking => Box::pin(async move {
                loop {
                    let Invalidation::Keys(mut keys) = inner.invalidations().await? else {
                        return Ok(Invalidation::All);
                    };
                    {
                        let untracked = &mut state.lock().unwrap().untracked;
                        keys.retain(|key| match broken {
                            Promise::Tracking => untracked.insert(Arc::clone(key)),
                            _ => !untracked.contains(key),
                        });
                    }
                    if !keys.is_empty() {
                        return Ok(Invalidation::Keys(keys));
                    }
                }
            }),
            _ => self.send(inner.invalidations()),
        }
    }

    fn ended(&self) -> Reply<()> {
        let mut is_closed = self.is_closed.clone();
        match self.broken {
            Promise::End => Box::pin(pending()),
            Promise::NoOtherEnd => Box::pin(async { Ok(()) }),
            _ => Box::pin(async move {
                let _ = is_closed.wait_for(|is_closed| *is_closed).await;
                Ok(())
            }),
        }
    }
}

fn without(broken: Promise) -> Subject {
    let (close, is_closed) = watch::channel(false);
    let backends = process_backends().map(|inner| FaultyBackend {
        inner,
        broken,
        is_closed: is_closed.clone(),
    });
    let close = move || _ = close.send_replace(true);
    let mut subject = Subject::new(backends, Loss::Closed(Box::new(close)), ());
    subject.deadline = DEADLINE;
    subject
}

/// Runs the checks of one file on a backend that breaks this promise.
fn assert_that_only_these_fail(file: &str, broken: Promise, expected: &[&str]) {
    let fails = |check: fn(&Subject)| {
        let subject = without(broken);
        catch_unwind(AssertUnwindSafe(|| check(&subject))).is_err()
    };
    let failed: Vec<_> = CHECKS
        .iter()
        .filter(|(of, _, check)| *of == file && fails(*check))
        .map(|(_, name, _)| *name)
        .collect();
    assert_eq!(failed, expected, "without {broken:?}");
}

const HISTORY: &str = "any_history_is_answered_as_in_this_process";
const TIME_TO_LIVE: &str = "a_time_to_live_is_kept_set_and_taken_away";
const RECORDS: &str = "what_is_recorded_is_not_made_again_and_what_was_dropped_is_not_guessed";
const LONGEST: &str = "a_record_is_kept_for_as_long_as_its_own_writer_needs_it";
const LAGGING: &str = "a_record_that_lags_is_not_dropped_as_if_it_were_old";
const ORDER: &str = "requests_take_effect_in_the_order_of_their_first_polls";
const CHANGES: &str = "a_change_of_another_session_to_a_tracked_key_is_notified";
const READS: &str = "every_tracked_read_leaves_its_keys_tracked";
const THROUGH: &str = "what_is_read_through_is_not_notified_and_ends_no_tracking";
const RACES: &str = "a_change_while_a_read_is_on_its_way_is_in_the_answer_or_notified";
const EXPIRY: &str = "a_read_says_when_a_key_expires_or_its_expiry_is_notified";
const LARGE: &str = "a_large_value_is_read_whole_beside_others_and_leaves_its_key_tracked";
const WHOLE: &str = "a_large_value_comes_back_byte_for_byte";
const KNOWN: &str = "a_read_of_what_is_known_returns_what_is_stored";
const BY_HAND: &str = "what_was_edited_by_hand_is_found_if_the_stamp_is_not_trusted";
const LARGE_HISTORY: &str = "any_history_of_large_values_is_answered_as_in_this_process";
const LARGE_END: &str = "a_large_value_expires_and_is_removed_as_a_whole";
const END: &str = "a_lost_connection_ends_its_session_and_nothing_else_does";

#[test]
fn a_sound_backend_passes() {
    assert_that_only_these_fail("commits", Promise::None, &[]);
    assert_that_only_these_fail("sessions", Promise::None, &[]);
}

#[test]
fn a_backend_whose_requests_overtake_each_other_fails() {
    assert_that_only_these_fail("sessions", Promise::Order, &[ORDER]);
}

#[test]
fn a_backend_that_answers_from_a_copy_fails() {
    assert_that_only_these_fail("commits", Promise::Visibility, &[HISTORY, TIME_TO_LIVE]);
}

#[test]
fn a_backend_that_forgets_records_fails() {
    assert_that_only_these_fail(
        "commits",
        Promise::Records,
        &[HISTORY, RECORDS, LONGEST, LAGGING],
    );
}

#[test]
fn a_backend_that_never_notifies_fails() {
    let expected = [CHANGES, READS, THROUGH, RACES, EXPIRY, LARGE];
    assert_that_only_these_fail("sessions", Promise::Notification, &expected);
}

#[test]
fn a_backend_whose_reads_do_not_leave_the_key_tracked_fails() {
    assert_that_only_these_fail(
        "sessions",
        Promise::Tracking,
        &[CHANGES, READS, THROUGH, RACES, LARGE],
    );
    assert_that_only_these_fail("sessions", Promise::TrackingOfAll, &[READS, LARGE]);
}

#[test]
fn a_backend_that_tracks_what_is_read_through_or_ends_tracking_by_that_fails() {
    assert_that_only_these_fail("sessions", Promise::ThroughReads, &[THROUGH]);
    assert_that_only_these_fail("sessions", Promise::LastingTracking, &[THROUGH]);
}

#[test]
fn a_backend_that_drops_notifications_while_a_read_is_on_its_way_fails() {
    assert_that_only_these_fail("sessions", Promise::Races, &[RACES]);
}

#[test]
fn a_backend_that_hides_when_a_key_expires_fails() {
    assert_that_only_these_fail("sessions", Promise::Expiry, &[EXPIRY]);
}

#[test]
fn a_backend_that_does_not_read_large_values_fails() {
    assert_that_only_these_fail("commits", Promise::LargeValues, &[WHOLE]);
    assert_that_only_these_fail("sessions", Promise::LargeValues, &[LARGE]);
    assert_that_only_these_fail("large", Promise::None, &[]);
    assert_that_only_these_fail("large", Promise::Visibility, &[LARGE_HISTORY, LARGE_END]);
}

#[test]
fn a_backend_that_answers_with_what_its_reader_knows_fails() {
    assert_that_only_these_fail("known", Promise::None, &[]);
    assert_that_only_these_fail("known", Promise::KnownValues, &[KNOWN, BY_HAND]);
    assert_that_only_these_fail("large", Promise::KnownValues, &[LARGE_HISTORY]);
}

#[test]
fn a_backend_whose_sessions_do_not_end_with_their_connection_or_end_before_it_fails() {
    for broken in [Promise::End, Promise::NoOtherEnd, Promise::Heartbeat] {
        assert_that_only_these_fail("sessions", broken, &[END]);
    }
}
