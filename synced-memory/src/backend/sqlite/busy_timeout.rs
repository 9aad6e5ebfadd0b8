//! Waiting for a lock that another process holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Error;

use super::error::is_busy;
use crate::base::clock::Deadline;

/// How long it is waited for a lock while it was last had in vain.
const BRIEFLY: Duration = Duration::from_millis(20);

/// Between two tries to get a lock: drawn between the half and the whole of that. Always the same,
/// since waits that grow would leave the lock to those who have just come.
const PAUSE: Duration = Duration::from_micros(100);

/// How long to wait for one kind of lock.
///
/// SQLite's own busy handler sleeps for up to 100 ms at a time, in steps that are the same in each
/// process.
#[derive(Debug)]
pub(super) struct BusyTimeout {
    limit: Duration,
    /// Somebody holds the lock for longer than anybody should: what waits behind this thread
    /// (reads, too) must not wait for that again and again.
    is_lost: AtomicBool,
}

impl BusyTimeout {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            is_lost: AtomicBool::new(false),
        }
    }

    /// Asks until the answer is another than that somebody else has the lock, or the time is over.
    pub(super) fn wait<T>(&self, mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut end = None;
        loop {
            let answer = ask();
            if !answer.as_ref().is_err_and(is_busy) {
                self.is_lost.store(false, Ordering::Relaxed);
                return answer;
            }
            let end = end.get_or_insert_with(|| {
                let is_lost = self.is_lost.load(Ordering::Relaxed);
                Deadline::after(if is_lost {
                    BRIEFLY.min(self.limit)
                } else {
                    self.limit
                })
            });
            let left = end.remaining();
            if left.is_zero() {
                self.is_lost.store(true, Ordering::Relaxed);
                return answer;
            }
            sleep(PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0).min(left));
        }
    }
}
