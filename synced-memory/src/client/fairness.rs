//! Fairness between processes that change the same key: whoever wins waits for the writer that the
//! backend refused, and whoever is refused again and again makes room for the others.
//!
//! A refused writer has to try again on the new value. A winner that goes on at once already has
//! that value, and would win again and again.
//!
//! Of writers that all try at once one wins and the others are refused: the tries for one change
//! are as many as the writers, and the tries for all of them the square of that. If each that has
//! lost a few times waits, longer each time, few try at once, however many there are.

use std::sync::Mutex;
use std::time::Duration;

use crate::backend::commit::Writer;
use crate::base::backoff::{Jitter, doubled};
use crate::base::lock::lock;
use crate::base::random;

/// The longest wait.
const LONGEST: Duration = Duration::from_millis(10);

/// The mean wait is the length, whatever the jitter.
const JITTER: Jitter = Jitter::between(0.5, 1.5);

/// The longest wait of a writer that is refused again and again.
const LONGEST_RETREAT: Duration = Duration::from_millis(50);

/// Those who were refused by the same write try again at different times.
const RETREAT_JITTER: Jitter = Jitter::FULL;

/// After so many waits in a row a wait does not double any more.
const DOUBLINGS: u32 = 6;

/// The writes of this memory that won while another writer was starved.
#[derive(Debug)]
pub(crate) struct Fairness(Mutex<Contention>);

#[derive(Debug)]
struct Contention {
    starved: Option<Writer>,
    /// How many waits for this writer there were, after the first one.
    repeats: u32,
    random: fastrand::Rng,
}

impl Default for Fairness {
    fn default() -> Self {
        Self::with_random(random::rng())
    }
}

impl Fairness {
    fn with_random(random: fastrand::Rng) -> Self {
        Self(Mutex::new(Contention {
            starved: None,
            repeats: 0,
            random,
        }))
    }

    /// How long to wait for `starved` after a write whose last try took `took`. Twice as long each
    /// time in a row, since the starved writer may be slower than this one.
    pub(crate) fn wait_for(&self, starved: Writer, took: Duration) -> Duration {
        let mut contention = lock(&self.0);
        if contention.starved == Some(starved) {
            contention.repeats = (contention.repeats + 1).min(DOUBLINGS);
        } else {
            (contention.starved, contention.repeats) = (Some(starved), 0);
        }
        let length = doubled(took, contention.repeats, Duration::MAX);
        // The bound comes last: the longest waits are all the same.
        let wait = JITTER.draw(length, &mut contention.random);
        wait.min(LONGEST)
    }

    /// How long a writer waits that is refused again and again, if it has waited so many times and
    /// its last try took `took`.
    pub(crate) fn retreat(&self, waits: u32, took: Duration) -> Duration {
        let length = doubled(took, waits, LONGEST_RETREAT);
        RETREAT_JITTER.draw(length, &mut lock(&self.0).random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_while_the_same_writer_waits_and_begins_anew_with_another() {
        let fairness = Fairness::with_random(fastrand::Rng::with_seed(1));
        let took = Duration::from_micros(100);
        for round in 0..10_u32 {
            let wait = fairness.wait_for(7, took);
            let least = (took / 2 * (1 << round.min(DOUBLINGS))).min(LONGEST);
            assert!(wait >= least && wait <= LONGEST, "round {round}: {wait:?}");
        }
        assert!(fairness.wait_for(8, took) <= took * 3 / 2);
    }

    #[test]
    fn who_is_refused_again_and_again_waits_longer_each_time_and_not_in_step_with_others() {
        let took = Duration::from_micros(100);
        let fairness = Fairness::with_random(fastrand::Rng::with_seed(1));
        let mean = |waits| {
            let all: Duration = (0..1_000).map(|_| fairness.retreat(waits, took)).sum();
            all / 1_000
        };
        for waits in 0..8 {
            let expected = took / 2 * (1 << waits);
            let mean = mean(waits);
            assert!(
                mean > expected * 9 / 10 && mean < expected * 11 / 10,
                "{waits}: {mean:?}"
            );
        }
        let longest = (0..1_000).map(|_| fairness.retreat(u32::MAX, took)).max();
        assert!(longest.is_some_and(|longest| longest <= LONGEST_RETREAT));
    }

    #[test]
    fn writers_that_win_in_turns_do_not_wait_in_step() {
        let wait = |seed| {
            let fairness = Fairness::with_random(fastrand::Rng::with_seed(seed));
            fairness.wait_for(7, Duration::from_micros(100))
        };
        assert_eq!(wait(1), wait(1));
        let waits: std::collections::HashSet<_> = (0..100).map(wait).collect();
        assert!(waits.len() > 90, "{} different", waits.len());
    }
}
