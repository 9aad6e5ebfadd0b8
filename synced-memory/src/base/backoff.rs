//! Waits between tries: how they grow, and how they are spread at random.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use crate::base::clock::Monotonic;
use crate::base::hash::KeyMap;
use crate::base::random;

/// Between which parts of its length a wait is drawn at random, so that processes that failed
/// together do not try again together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jitter {
    least: f64,
    most: f64,
}

impl Jitter {
    /// Between nothing and the whole length: spreads many processes over all of it.
    pub(crate) const FULL: Self = Self::between(0.0, 1.0);

    pub(crate) const fn between(least: f64, most: f64) -> Self {
        Self { least, most }
    }

    /// A wait of about this length.
    pub(crate) fn draw(self, length: Duration, random: &mut Rng) -> Duration {
        length.mul_f64(self.least + (self.most - self.least) * random.f64())
    }
}

/// `first`, doubled so many times, and at most `longest`.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// So many refusals of a write come from a few other writers, and need no wait.
const FEW_REFUSALS: u32 = 2;

/// How many waits there were before the one that follows so many refusals of one write, if it is
/// read again after a wait; `None` if it is tried again at once.
pub(crate) fn waits_of_read(refusals: u32) -> Option<u32> {
    refusals.checked_sub(FEW_REFUSALS + 1)
}

/// The same for a write that is not read again: what a refusal has brought is out of date after a
/// wait. The next try brings what is stored, and the one after that follows at once.
pub(crate) fn waits_of_tried(refusals: u32) -> Option<u32> {
    let beyond = refusals
        .checked_sub(FEW_REFUSALS)
        .filter(|beyond| *beyond > 0)?;
    (beyond % 2 == 0).then(|| beyond / 2 - 1)
}

/// Waits that double up to a bound, each with jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    jitter: Jitter,
    /// How many waits there were since the last success.
    waits: u32,
    random: Rng,
}

impl Backoff {
    pub(crate) fn new((first, longest): (Duration, Duration), jitter: Jitter) -> Self {
        Self::with_random((first, longest), jitter, random::rng())
    }

    pub(crate) fn with_random(
        (first, longest): (Duration, Duration),
        jitter: Jitter,
        random: Rng,
    ) -> Self {
        Self {
            first,
            longest,
            jitter,
            waits: 0,
            random,
        }
    }

    /// Begins again with the shortest wait: a try succeeded.
    pub(crate) fn reset(&mut self) {
        self.waits = 0;
    }

    /// How long to wait before the next try.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let length = doubled(self.first, self.waits, self.longest);
        self.waits = self.waits.saturating_add(1);
        self.jitter.draw(length, &mut self.random)
    }
}

/// The keys that fail again and again, each with a pause of its own: what is tried less and less
/// often holds up nothing else.
#[derive(Debug, Default)]
pub(crate) struct KeyPauses {
    /// Until when, and for how long.
    pauses: KeyMap<(Monotonic, Duration)>,
}

impl KeyPauses {
    const FIRST: Duration = Duration::from_millis(200);
    pub(crate) const LONGEST: Duration = Duration::from_secs(60);

    /// A try failed. Returns how long its key pauses, which is twice as long each time, and at most
    /// `longest`.
    pub(crate) fn failed(
        &mut self,
        key: &Arc<str>,
        longest: Duration,
        mono: Monotonic,
    ) -> Duration {
        let last = self.pauses.get(key);
        let length = last.map_or(Self::FIRST, |(_, length)| doubled(*length, 1, longest));
        self.pauses.insert(Arc::clone(key), (mono + length, length));
        length
    }

    /// A try succeeded, or nothing is to be tried any more. Returns whether the key paused.
    pub(crate) fn passed(&mut self, key: &str) -> bool {
        self.pauses.remove(key).is_some()
    }

    /// Whether no key pauses.
    pub(crate) fn is_empty(&self) -> bool {
        self.pauses.is_empty()
    }

    /// Until when the key pauses, if it has failed.
    pub(crate) fn until(&self, key: &str) -> Option<Monotonic> {
        self.pauses.get(key).map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_refusals_need_no_wait_and_what_is_not_read_again_waits_every_other_time() {
        let waits: Vec<_> = (0..7).map(waits_of_read).collect();
        assert_eq!(
            waits,
            [None, None, None, Some(0), Some(1), Some(2), Some(3)]
        );
        let waits: Vec<_> = (0..9).map(waits_of_tried).collect();
        let expected = [
            None,
            None,
            None,
            None,
            Some(0),
            None,
            Some(1),
            None,
            Some(2),
        ];
        assert_eq!(waits, expected);
    }

    #[test]
    fn a_key_that_fails_is_tried_less_and_less_often_until_it_passes() {
        let (mut pauses, key) = (KeyPauses::default(), Arc::from("k"));
        assert_eq!(pauses.until(&key), None);
        let lengths: Vec<_> = (0..12)
            .map(|_| pauses.failed(&key, KeyPauses::LONGEST, LONGEST))
            .collect();
        assert!(lengths[..8].windows(2).all(|pair| pair[1] == 2 * pair[0]));
        assert_eq!(lengths[11], KeyPauses::LONGEST);
        assert_eq!(pauses.until(&key), Some(LONGEST + KeyPauses::LONGEST));
        pauses.passed(&key);
        assert_eq!(pauses.until(&key), None);
    }

    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);

    fn seeded(jitter: Jitter, seed: u64) -> Backoff {
        Backoff::with_random((FIRST, LONGEST), jitter, Rng::with_seed(seed))
    }

    #[test]
    fn a_length_doubles_up_to_its_bound() {
        for (times, millis) in [
            (0, 50),
            (1, 100),
            (6, 3_200),
            (7, 5_000),
            (31, 5_000),
            (u32::MAX, 5_000),
        ] {
            let length = doubled(FIRST, times, LONGEST);
            assert_eq!(length, Duration::from_millis(millis), "{times}");
        }
        assert_eq!(doubled(LONGEST, 0, FIRST), FIRST);
        assert_eq!(doubled(Duration::ZERO, 9, LONGEST), Duration::ZERO);
    }

    #[test]
    fn the_waits_double_up_to_the_bound_and_begin_anew_after_a_success() {
        let mut backoff = seeded(Jitter::between(0.5, 1.0), 1);
        for round in 0..12 {
            let length = (FIRST * (1 << round)).min(LONGEST);
            let wait = backoff.next_wait();
            assert!(wait >= length / 2 && wait <= length, "{round}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }

    #[test]
    fn processes_that_fail_together_do_not_try_again_together() {
        let draw = |seed| {
            let mut backoff = seeded(Jitter::FULL, seed);
            std::array::from_fn::<_, 8, _>(|_| backoff.next_wait())
        };
        assert_eq!(draw(1), draw(1), "the seed decides");
        let mut last_waits: Vec<_> = (0..200).map(|seed| draw(seed)[7]).collect();
        last_waits.sort();
        last_waits.dedup();
        assert!(last_waits.len() > 190, "{} different", last_waits.len());
    }

    #[test]
    fn each_jitter_fills_its_range_and_does_not_leave_it() {
        for jitter in [
            Jitter::FULL,
            Jitter::between(0.5, 1.0),
            Jitter::between(0.5, 1.5),
        ] {
            let Jitter { least, most } = jitter;
            let mut random = Rng::with_seed(3);
            let drawn: Vec<f64> = (0..1_000)
                .map(|_| jitter.draw(LONGEST, &mut random).div_duration_f64(LONGEST))
                .collect();
            let (lowest, highest) = drawn.iter().fold((f64::MAX, 0.0_f64), |(low, high), x| {
                (low.min(*x), high.max(*x))
            });
            assert!(
                (least..least + 0.02).contains(&lowest),
                "{jitter:?}: {lowest}"
            );
            assert!(
                highest <= most && highest > most - 0.02,
                "{jitter:?}: {highest}"
            );
        }
    }
}
