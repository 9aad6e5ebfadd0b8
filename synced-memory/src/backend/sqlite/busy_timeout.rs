//! Waiting for a lock that another process holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Error;

use super::error::is_busy;
use crate::base::backoff::{Backoff, Jitter};
use crate::base::clock::Deadline;
use crate::base::random;

/// The busy timeout after the last wait for the lock ended without it.
const SHORT_LIMIT: Duration = Duration::from_millis(20);

/// The pause between two tries to get a lock. It does not grow: longer and longer pauses would
/// leave the lock to those who came last.
const PAUSE: Duration = Duration::from_micros(100);

/// At least half of the pause is certain: each try costs the one who holds the lock something.
const JITTER: Jitter = Jitter::between(0.5, 1.0);

/// How long to wait for one kind of lock.
///
/// SQLite's own busy handler would sleep for up to 100 ms at a time, in intervals that are the same
/// in every process.
#[derive(Debug)]
pub(super) struct BusyTimeout {
    limit: Duration,
    /// The last wait ended without the lock: somebody holds it for longer than anybody should. What
    /// waits behind this thread (reads too) must not wait that long again and again.
    has_timed_out: AtomicBool,
}

impl BusyTimeout {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            has_timed_out: AtomicBool::new(false),
        }
    }

    /// Calls `ask` until it returns anything else than that somebody else has the lock, or until
    /// the time is over.
    pub(super) fn wait<T>(&self, mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut contended = None;
        loop {
            let answer = ask();
            if !answer.as_ref().is_err_and(is_busy) {
                self.has_timed_out.store(false, Ordering::Relaxed);
                return answer;
            }

            let (deadline, backoff) = contended.get_or_insert_with(|| {
                let limit = self.current_limit();
                (Deadline::after(limit), backoff(random::rng()))
            });
            let remaining = deadline.remaining();
            if remaining.is_zero() {
                self.has_timed_out.store(true, Ordering::Relaxed);
                return answer;
            }
            sleep(backoff.next_wait().min(remaining));
        }
    }

    fn current_limit(&self) -> Duration {
        if self.has_timed_out.load(Ordering::Relaxed) {
            SHORT_LIMIT.min(self.limit)
        } else {
            self.limit
        }
    }
}

fn backoff(random: fastrand::Rng) -> Backoff {
    Backoff::with_random((PAUSE, PAUSE), JITTER, random)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_pauses_between_tries_neither_grow_nor_are_all_the_same() {
        let mut backoff = backoff(fastrand::Rng::with_seed(1));
        let waits: HashSet<Duration> = (0..100).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().all(|wait| (PAUSE / 2..=PAUSE).contains(wait)));
        assert!(waits.len() > 90, "{} different", waits.len());
    }
}
