//! Turns, where many processes change one key: whoever wins lets the one have its turn that was
//! refused.
//!
//! A refused writer has to try again on what is there by then. One that wins and goes on at once
//! would win again and again, since it knows what is there.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::commit::Writer;

/// So long a writer waits at most.
const LONGEST: Duration = Duration::from_millis(10);

/// After so many turns a wait does not double any more.
const DOUBLINGS: u32 = 6;

/// The turns that a memory has had while another writer waited.
#[derive(Debug, Default)]
pub(crate) struct Fairness {
    waiting: AtomicU64,
    /// How many in a row, while that one waited.
    count: AtomicU32,
}

impl Fairness {
    /// How long to wait after a write, of which the last try took `took`, for the writer that
    /// waits. Longer from turn to turn, while it does not get on: it may be slower.
    pub(crate) fn wait(&self, waiting: Writer, took: Duration) -> Duration {
        // Threads that mix up each other's counts wait a little too long or too short.
        let is_same = self.waiting.swap(waiting, Ordering::Relaxed) == waiting;
        let count = if is_same {
            self.count.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            0
        };
        if !is_same {
            self.count.store(0, Ordering::Relaxed);
        }
        let wait = took.mul_f64(0.5 + fastrand::f64()) * (1 << count.min(DOUBLINGS));
        wait.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_while_the_same_writer_waits_and_begins_anew_with_another() {
        let turns = Fairness::default();
        let took = Duration::from_micros(100);
        for turn in 0..10_u32 {
            let wait = turns.wait(7, took);
            let least = (took / 2 * (1 << turn.min(DOUBLINGS))).min(LONGEST);
            assert!(wait >= least && wait <= LONGEST, "turn {turn}: {wait:?}");
        }
        assert!(turns.wait(8, took) <= took * 3 / 2);
    }
}
