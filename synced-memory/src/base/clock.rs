//! Time: the monotonic clock, the server's clock as estimated, and stamps.
//!
//! The only file that asks the system for the time. Everything else has it passed in: as a value,
//! or as a [`Clock`], which a test can advance by hand (`Clock::mock`).

use std::fmt;
#[cfg(feature = "redis")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Monotonic time. It begins long before the memory was opened, so that what another process left
/// behind has a time as well.
pub(crate) type Monotonic = Duration;

/// Whether what expires at this time, if ever, has expired by now.
pub(crate) fn has_expired(expires: Option<Monotonic>, now: Monotonic) -> bool {
    expires.is_some_and(|expires| expires <= now)
}

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
    source: TimeSource,
    /// This host's wall clock when the memory was opened, in ns since 1970.
    wall: u64,
    /// How far the server's clock is ahead of `wall` + elapsed, in ns.
    ahead: AtomicI64,
}

/// Where the time since the memory was opened comes from.
#[derive(Debug)]
enum TimeSource {
    System(Instant),
    #[cfg(test)]
    Mock(mock::MockTime),
}

impl Clock {
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn start() -> Self {
        Self {
            source: TimeSource::System(Instant::now()),
            wall: wall(),
            ahead: AtomicI64::new(0),
        }
    }

    /// A clock that stands still until it is [advanced](Self::advance).
    #[cfg(test)]
    pub(crate) fn mock() -> Self {
        Self {
            source: TimeSource::Mock(mock::MockTime::default()),
            wall: 1_700_000_000_000_000_000,
            ahead: AtomicI64::new(0),
        }
    }

    pub(crate) fn mono(&self) -> Monotonic {
        OPENED + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        match &self.source {
            TimeSource::System(origin) => origin.elapsed(),
            #[cfg(test)]
            TimeSource::Mock(time) => time.elapsed(),
        }
    }

    /// Waits for so long, on a runtime with a timer.
    pub(crate) async fn sleep(&self, length: Duration) {
        match &self.source {
            TimeSource::System(_) => tokio::time::sleep(length).await,
            #[cfg(test)]
            TimeSource::Mock(time) => time.sleep(length).await,
        }
    }

    /// What `future` returns; `None` if it is not ready within `limit`.
    pub(crate) async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        match &self.source {
            TimeSource::System(_) => tokio::time::timeout(limit, future).await.ok(),
            #[cfg(test)]
            TimeSource::Mock(time) => tokio::select! {
                biased;
                output = future => Some(output),
                () = time.sleep(limit) => None,
            },
        }
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

    /// Adjusts the estimate: the server's clock showed `server` (ns since 1970) at some time
    /// between `asked` and `answered`. Returns by how much that moves `now`, in ns.
    pub(crate) fn adjust(&self, server: u64, asked: Monotonic, answered: Monotonic) -> i64 {
        let ahead_at = |mono| {
            server
                .cast_signed()
                .wrapping_sub(self.unadjusted(mono).cast_signed())
        };
        // TIME is in microseconds.
        let (least, most) = (ahead_at(answered), ahead_at(asked).saturating_add(1_000));
        if (least..=most).contains(&self.ahead.load(Ordering::Relaxed)) {
            // The answer does not contradict the estimate, and the middle of a slow round trip is a
            // guess.
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

/// The time until which a thread or a task waits at most. It bounds waits in real time, whatever
/// clock a memory has.
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

/// When something last happened, in real time; noted and asked for by any thread.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(crate) struct LastActivity {
    origin: Instant,
    /// In ns since the origin.
    at: AtomicU64,
}

#[cfg(feature = "redis")]
impl LastActivity {
    /// It has just happened.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn now() -> Self {
        Self {
            origin: Instant::now(),
            at: AtomicU64::new(0),
        }
    }

    /// It happens now.
    pub(crate) fn note(&self) {
        self.at
            .fetch_max(nanos(self.origin.elapsed()), Ordering::Relaxed);
    }

    /// How long ago it was.
    pub(crate) fn elapsed(&self) -> Duration {
        let at = Duration::from_nanos(self.at.load(Ordering::Relaxed));
        self.origin.elapsed().saturating_sub(at)
    }
}

/// The `last_modified` of an envelope: ns since 1970.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(from = "u64", into = "u64")]
pub(crate) struct Stamp(u64);

impl From<u64> for Stamp {
    fn from(ns: u64) -> Self {
        Self::new(ns)
    }
}

impl From<Stamp> for u64 {
    fn from(stamp: Stamp) -> Self {
        stamp.0
    }
}

impl Stamp {
    /// The stamp of what has none.
    pub(crate) const ZERO: Self = Self(0);
    /// Nobody can have meant a larger one as a time: it counts as zero (rule 8).
    pub(crate) const MAX: Self = Self(1 << 62);

    /// The stamp of a time, in ns since 1970.
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
    /// stamp issued or seen for the key if that one is not lower.
    pub(crate) fn issue(now: u64, last: Self, random: &mut fastrand::Rng) -> Self {
        let micros = now / 1_000 * 1_000;
        let fresh = Self::new(micros.saturating_add(random.u64(0..1_000)));
        if last < fresh || last > Self::MAX {
            fresh
        } else {
            last.just_above(random)
        }
    }

    /// A step above another stamp is less than this.
    pub(crate) const STEP: u64 = 1_000;

    /// This stamp less `by`.
    pub(crate) fn below(self, by: u64) -> Self {
        Self(self.0.saturating_sub(by))
    }

    /// The least stamp above this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This stamp if it is above `found`, else one that is 1 to 999 above that. Which one is up to
    /// the last digits of this stamp, which are random: of two writes that are made on the same
    /// value, one of them on a server that then goes and the other on its replica, the stamps
    /// differ.
    pub(crate) fn above(self, found: Self) -> Self {
        if self > found {
            self
        } else {
            Self(found.0.saturating_add(1 + self.0 % (Self::STEP - 1)))
        }
    }

    /// This stamp plus 1 to 999 at random.
    pub(crate) fn just_above(self, random: &mut fastrand::Rng) -> Self {
        Self(self.0.saturating_add(random.u64(1..Self::STEP)))
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

/// Time that passes when a test says so.
#[cfg(test)]
mod mock {
    use std::collections::BTreeMap;
    use std::future::poll_fn;
    use std::sync::Mutex;
    use std::task::{Poll, Waker};
    use std::time::Duration;

    use super::{Clock, TimeSource};
    use crate::base::lock::lock;

    #[derive(Debug, Default)]
    pub(super) struct MockTime(Mutex<Timeline>);

    #[derive(Debug, Default)]
    struct Timeline {
        elapsed: Duration,
        last_id: u64,
        /// Who sleeps, by the end of the sleep.
        sleepers: BTreeMap<(Duration, u64), Waker>,
    }

    /// Removes a sleeper that is dropped before its time.
    struct Sleeper<'a> {
        time: &'a MockTime,
        name: (Duration, u64),
    }

    impl MockTime {
        pub(super) fn elapsed(&self) -> Duration {
            lock(&self.0).elapsed
        }

        pub(super) async fn sleep(&self, length: Duration) {
            let name = {
                let mut timeline = lock(&self.0);
                timeline.last_id += 1;
                (timeline.elapsed.saturating_add(length), timeline.last_id)
            };
            let sleeper = Sleeper { time: self, name };
            poll_fn(|context| {
                let mut timeline = lock(&sleeper.time.0);
                if timeline.elapsed >= name.0 {
                    return Poll::Ready(());
                }
                timeline.sleepers.insert(name, context.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    impl Drop for Sleeper<'_> {
        fn drop(&mut self) {
            lock(&self.time.0).sleepers.remove(&self.name);
        }
    }

    impl Clock {
        fn timeline(&self) -> &Mutex<Timeline> {
            match &self.source {
                TimeSource::Mock(MockTime(timeline)) => timeline,
                TimeSource::System(_) => panic!("only a mock clock can be advanced"),
            }
        }

        /// Lets time pass, and wakes those whose sleep is over.
        pub(crate) fn advance(&self, by: Duration) {
            let awake = {
                let mut timeline = lock(self.timeline());
                timeline.elapsed += by;
                let now = timeline.elapsed;
                let later = timeline.sleepers.split_off(&(now, u64::MAX));
                std::mem::replace(&mut timeline.sleepers, later)
            };
            awake.into_values().for_each(Waker::wake);
        }

        /// How long the first sleeper sleeps yet.
        pub(crate) fn until_next_wake(&self) -> Option<Duration> {
            let timeline = lock(self.timeline());
            let ((end, _), _) = timeline.sleepers.first_key_value()?;
            Some(end.saturating_sub(timeline.elapsed))
        }
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
    fn a_server_whose_clock_is_anywhere_between_0_and_584_years_stops_nothing() {
        let (clock, mut random) = (Clock::mock(), fastrand::Rng::with_seed(3));
        let mut last = Stamp::ZERO;
        for server in [
            u64::MAX,
            0,
            1 << 63,
            i64::MAX.cast_unsigned(),
            1 << 62,
            u64::MAX,
        ] {
            clock.adjust(server, clock.mono(), clock.mono());
            let next = Stamp::issue(clock.at().now, last, &mut random);
            assert!(next > last, "{server}");
            last = next;
        }
        assert!(Stamp::issue(u64::MAX, Stamp::ZERO, &mut random) > Stamp::ZERO);
    }

    #[test]
    fn a_stamp_beyond_2_to_62_counts_as_zero() {
        assert_eq!(Stamp::new((1 << 62) + 1), Stamp::ZERO);
        assert_eq!(Stamp::new(1 << 62), Stamp::MAX);
    }

    #[test]
    fn a_mock_clock_wakes_a_sleeper_when_its_time_has_come_and_not_before() {
        let (clock, second) = (Clock::mock(), Duration::from_secs(1));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let start = clock.at();
        let mut sleep = std::pin::pin!(clock.sleep(2 * second));
        let mut limited = std::pin::pin!(clock.timeout(second, std::future::pending::<()>()));
        assert!(sleep.as_mut().poll(&mut context).is_pending());
        assert!(limited.as_mut().poll(&mut context).is_pending());
        assert_eq!(clock.until_next_wake(), Some(second));

        clock.advance(second);
        assert!(sleep.as_mut().poll(&mut context).is_pending());
        assert!(limited.as_mut().poll(&mut context).is_ready());
        assert_eq!(clock.until_next_wake(), Some(second));

        clock.advance(second);
        assert!(sleep.as_mut().poll(&mut context).is_ready());
        assert_eq!(clock.until_next_wake(), None);
        assert_eq!(clock.mono(), start.mono + 2 * second);
        assert_eq!(clock.at().now, start.now + 2_000_000_000);
    }

    #[test]
    fn a_value_expires_at_its_time() {
        let clock = Clock::mock();
        let expires = clock.mono() + Duration::from_secs(5);
        assert!(!has_expired(Some(expires), clock.mono()));
        clock.advance(Duration::from_secs(5));
        assert!(has_expired(Some(expires), clock.mono()));
        assert!(!has_expired(None, clock.mono()));
    }

    #[test]
    fn an_answer_that_took_long_does_not_move_the_estimate_without_need() {
        let clock = Clock::mock();
        let asked = clock.mono();
        let server = clock.at().now + 100_000_000;
        clock.advance(Duration::from_millis(300));
        assert_eq!(clock.adjust(server, asked, clock.mono()), 0);
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
