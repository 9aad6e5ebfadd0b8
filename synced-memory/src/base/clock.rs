//! Time: the monotonic clock, the server's clock as estimated, and stamps.
//!
//! The only file that asks the system for the time; everything else has it passed in.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Monotonic time. It begins long before the memory was opened, so that what another process left
/// behind has a time as well.
pub(crate) type Monotonic = Duration;

/// When the memory was opened.
const OPENED: Monotonic = Duration::from_secs(20 * 365 * 24 * 3600);

/// A point in time, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) mono: Monotonic,
    /// The server's clock as estimated, in ns since 1970.
    pub(crate) now: u64,
}

/// The server's clock as estimated at connect and with each heartbeat, run on the monotonic clock
/// in between: a step of this host's wall clock changes nothing (rule 8).
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// This host's wall clock at `origin`, in ns since 1970.
    wall: u64,
    /// What the server's clock is ahead of `wall` + elapsed, in ns.
    ahead: AtomicI64,
}

impl Clock {
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
            wall: wall(),
            ahead: AtomicI64::new(0),
        }
    }

    pub(crate) fn mono(&self) -> Monotonic {
        OPENED + self.origin.elapsed()
    }

    /// This host's wall clock when the monotonic time was zero, in ns since 1970.
    pub(crate) fn zero(&self) -> u64 {
        self.wall.saturating_sub(nanos(OPENED))
    }

    pub(crate) fn at(&self) -> Moment {
        let mono = self.mono();
        Moment {
            mono,
            now: self
                .unadjusted(mono)
                .saturating_add_signed(self.ahead.load(Ordering::Relaxed)),
        }
    }

    /// Takes in that the server's clock stood at `server` (ns since 1970) somewhere between `asked`
    /// and `answered`. Returns by how much that moves `now`, in ns.
    pub(crate) fn adjust(&self, server: u64, asked: Monotonic, answered: Monotonic) -> i64 {
        let ahead_at = |mono| {
            server
                .cast_signed()
                .wrapping_sub(self.unadjusted(mono).cast_signed())
        };
        // TIME is in microseconds.
        let (least, most) = (ahead_at(answered), ahead_at(asked).saturating_add(1_000));
        if (least..=most).contains(&self.ahead.load(Ordering::Relaxed)) {
            // The answer says nothing against what is known, and the middle of a slow round trip is
            // a guess.
            return 0;
        }
        let ahead = ahead_at(asked + answered.saturating_sub(asked) / 2);
        ahead.wrapping_sub(self.ahead.swap(ahead, Ordering::Relaxed))
    }

    fn unadjusted(&self, mono: Monotonic) -> u64 {
        self.zero().saturating_add(nanos(mono))
    }
}

/// This host's wall clock, in ns since 1970.
#[allow(clippy::disallowed_methods)]
pub(crate) fn wall() -> u64 {
    nanos(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// When a wait is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// A wait of `limit` from now. One that no clock can express has no end.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now().checked_add(limit))
    }

    /// What is left of the wait; zero when it is over.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn remaining(self) -> Duration {
        self.0.map_or(Duration::MAX, |end| {
            end.saturating_duration_since(Instant::now())
        })
    }
}

/// The `last_modified` of an envelope: ns since 1970.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// The stamp of what has none.
    pub(crate) const ZERO: Self = Self(0);
    /// A larger one is no time that anybody meant: it counts as zero (rule 8).
    pub(crate) const MAX: Self = Self(1 << 62);

    /// The stamp that stands for `ns`.
    pub(crate) fn new(ns: u64) -> Self {
        if ns > Self::MAX.0 {
            Self::ZERO
        } else {
            Self(ns)
        }
    }

    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// A stamp for a write at `now`: microseconds with three random digits, or just above the last
    /// stamp issued or seen for the key where that is not below it.
    pub(crate) fn issue(now: u64, last: Self, random: &mut fastrand::Rng) -> Self {
        let fresh = Self::new((now / 1_000).saturating_mul(1_000) + random.u64(0..1_000));
        if last < fresh || last > Self::MAX {
            fresh
        } else {
            last.just_above(random)
        }
    }

    /// The least stamp above this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This stamp plus 1 to 999 at random.
    pub(crate) fn just_above(self, random: &mut fastrand::Rng) -> Self {
        Self(self.0.saturating_add(random.u64(1..1_000)))
    }

    /// This stamp on a clock that is `by` ns ahead.
    pub(crate) fn shifted(self, by: i64) -> Self {
        Self(self.0.saturating_add_signed(by).min(Self::MAX.0))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_one_key_rise_strictly_even_when_the_clock_goes_back() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut last = Stamp::ZERO;
        for now in [5_000_000, 5_000_000, 4_000_000, 0, 6_000_000, 5_999_999] {
            let next = Stamp::issue(now, last, &mut random);
            assert!(next > last);
            last = next;
        }
    }

    #[test]
    fn a_stamp_is_the_microsecond_with_three_random_digits() {
        let mut random = fastrand::Rng::with_seed(2);
        let digits: std::collections::HashSet<u64> = (0..100)
            .map(|_| Stamp::issue(7_000_999, Stamp::ZERO, &mut random).get())
            .collect();
        assert!(
            digits
                .iter()
                .all(|stamp| (7_000_000..7_001_000).contains(stamp))
        );
        assert!(digits.len() > 50);
    }

    #[test]
    fn a_stamp_beyond_2_to_62_counts_as_zero() {
        assert_eq!(Stamp::new((1 << 62) + 1), Stamp::ZERO);
        assert_eq!(Stamp::new(1 << 62), Stamp::MAX);
    }

    #[test]
    fn the_clock_follows_the_server() {
        let clock = Clock::start();
        let mono = clock.mono();
        let hour = 3_600_000_000_000;
        let by = clock.adjust(clock.unadjusted(mono) + hour, mono, mono);
        assert_eq!(by, hour.cast_signed());
        assert!(clock.at().now >= clock.unadjusted(mono) + hour);
        assert_eq!(
            clock.adjust(clock.unadjusted(mono), mono, mono),
            -hour.cast_signed()
        );
    }
}
