//! Waiting for a lock that another process holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Error;

use super::error::is_busy;
use crate::base::clock::Deadline;

/// How long to wait for a lock if the last wait for it was in vain.
const AFTER_TIMEOUT: Duration = Duration::from_millis(20);

/// The longest pause between two tries to get a lock; each is drawn between half of it and all of
/// it. Pauses do not grow: growing ones would leave the lock to those who have just come.
const PAUSE: Duration = Duration::from_micros(100);

/// How long to wait for one kind of lock.
///
/// SQLite's own busy handler would sleep for up to 100 ms at a time, in intervals that are the same
/// in every process.
#[derive(Debug)]
pub(super) struct BusyTimeout {
    limit: Duration,
    /// The last wait was in vain. What queues behind this thread (reads, too) must not wait for the
    /// full time again and again.
    has_timed_out: AtomicBool,
}

impl BusyTimeout {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            has_timed_out: AtomicBool::new(false),
        }
    }

    /// Calls `ask` until nobody else holds the lock, or the time is over. Returns the last answer.
    pub(super) fn wait<T>(&self, mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut end = None;
        loop {
            let answer = ask();
            if !answer.as_ref().is_err_and(is_busy) {
                self.has_timed_out.store(false, Ordering::Relaxed);
                return answer;
            }
            let end = end.get_or_insert_with(|| {
                let has_timed_out = self.has_timed_out.load(Ordering::Relaxed);
                Deadline::after(if has_timed_out {
                    AFTER_TIMEOUT.min(self.limit)
                } else {
                    self.limit
                })
            });
            let left = end.remaining();
            if left.is_zero() {
                self.has_timed_out.store(true, Ordering::Relaxed);
                return answer;
            }
            sleep(PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0).min(left));
        }
    }
}
