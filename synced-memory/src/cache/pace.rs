//! How often a slot is read again: a state machine that knows nothing of slots, queues or
//! connections.

use std::time::Duration;

use crate::base::clock::Monotonic;

/// The least time from one read of a key that is written all the time to the next. If the reads
/// take long, it is a multiple of what the last one took.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);
const TIMES_OF_A_READ: u32 = 2;

/// After so many reads in a row during which the key was written, it counts as written all the
/// time. One alone may be chance, above all if the read was of many keys.
const HOT: u32 = 2;

/// The time from one read to the next of a key that is reported without having changed: doubled
/// from the second such report on.
const FIRST_BACKOFF: Duration = Duration::from_millis(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// After so many reports in a row without a change, the server's table counts as too small.
const MANY_UNCHANGED: u32 = 5;

/// A report that comes so long after the one before is not in a row with it. A table that is too
/// small reports a key again as soon as it was read, which is at least once in `LONGEST_BACKOFF`.
const ROW_ENDS_AFTER: Duration = Duration::from_secs(5);

/// How fast reports of one key come, and what they are worth.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the read that is under way began.
    reading_since: Option<Monotonic>,
    /// The key was reported since then.
    is_overtaken: bool,
    /// How many reads were overtaken in a row. Such a key is hot from `HOT` on, until a report
    /// comes later than `hot_until`.
    overtaken: u32,
    /// Until then nothing is read again of a key that is hot.
    hot_until: Monotonic,
    /// Until then nothing is read again at all.
    backs_off_until: Monotonic,
    /// The key was reported since the last answer.
    is_reported: bool,
    /// What is stored has changed since the last answer to a read, by a read or by an own write.
    has_changed: bool,
    /// How many reports in a row were of no change.
    unchanged: u32,
    /// When the last of them was answered.
    unchanged_at: Monotonic,
}

impl Pace {
    /// When the slot may be read again.
    pub(super) fn due(&self) -> Monotonic {
        if self.overtaken >= HOT {
            self.hot_until.max(self.backs_off_until)
        } else {
            self.backs_off_until
        }
    }

    /// A read of the slot begins.
    pub(super) fn read_began(&mut self, mono: Monotonic) {
        (self.reading_since, self.is_overtaken) = (Some(mono), false);
    }

    /// The backend has reported the key.
    pub(super) fn reported(&mut self, mono: Monotonic) {
        self.is_reported = true;
        if self.reading_since.is_some() {
            self.is_overtaken = true;
        } else if mono >= self.hot_until {
            self.overtaken = 0;
        }
    }

    /// Whether what is stored has changed since the last answer to a read: by an own write.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// What is stored has changed.
    pub(super) fn changed(&mut self) {
        self.has_changed = true;
    }

    /// The slot was read, whether or not by the read that is under way. Returns whether the key was
    /// reported many times without a change.
    pub(super) fn answered(&mut self, mono: Monotonic) -> bool {
        let has_changed = std::mem::take(&mut self.has_changed);
        let is_reported = std::mem::take(&mut self.is_reported);
        if has_changed {
            self.unchanged = 0;
        } else if is_reported {
            if mono.saturating_sub(self.unchanged_at) > ROW_ENDS_AFTER {
                self.unchanged = 0;
            }
            self.unchanged = self.unchanged.saturating_add(1);
            self.unchanged_at = mono;
        }
        if self.unchanged > 1 && is_reported {
            let doubled = FIRST_BACKOFF.saturating_mul(1 << self.unchanged.min(20));
            self.backs_off_until = mono.saturating_add(doubled.min(LONGEST_BACKOFF));
        }
        is_reported && self.unchanged >= MANY_UNCHANGED
    }

    /// The read that was under way is over.
    pub(super) fn read_ended(&mut self, mono: Monotonic) {
        if let Some(since) = self.reading_since.take() {
            let took = mono.saturating_sub(since);
            let interval = took.saturating_mul(TIMES_OF_A_READ).max(LEAST_INTERVAL);
            self.hot_until = since.saturating_add(interval);
            if self.is_overtaken {
                self.overtaken = self.overtaken.saturating_add(1);
            } else if self.overtaken < HOT {
                self.overtaken = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Monotonic = Duration::from_micros(1);
    const MILLI: Monotonic = Duration::from_millis(1);

    /// A read that takes so long, with a change in its answer.
    fn read(pace: &mut Pace, began: Monotonic, took: Duration, is_overtaken: bool) {
        pace.read_began(began);
        if is_overtaken {
            pace.reported(began + took / 2);
        }
        pace.changed();
        assert!(!pace.answered(began + took));
        pace.read_ended(began + took);
    }

    #[test]
    fn a_key_is_read_at_once_until_it_is_written_faster_than_it_is_read() {
        let mut pace = Pace::default();
        for n in 1..100 {
            let now = 200 * n * MICRO;
            pace.reported(now);
            assert!(pace.due() <= now);
            read(&mut pace, now, 60 * MICRO, false);
        }

        // A write every 30 µs.
        let mut now = 100 * MILLI;
        read(&mut pace, now, 60 * MICRO, true);
        assert!(pace.due() <= now, "once is chance");
        for _ in 0..10 {
            read(&mut pace, now, 60 * MICRO, true);
            assert_eq!(pace.due(), now + LEAST_INTERVAL);
            now = pace.due();
        }
        // Writes that come between the reads, still too fast.
        read(&mut pace, now, 60 * MICRO, false);
        pace.reported(now + 100 * MICRO);
        assert_eq!(pace.due(), now + LEAST_INTERVAL);
        read(&mut pace, now + LEAST_INTERVAL, 60 * MICRO, false);
        // And one that comes later.
        let now = now + 3 * LEAST_INTERVAL;
        pace.reported(now);
        assert!(pace.due() <= now);
    }

    #[test]
    fn a_slow_read_of_a_hot_key_leaves_the_line_to_others_for_as_long_again() {
        let mut pace = Pace::default();
        for _ in 0..HOT {
            read(&mut pace, MILLI, 10 * MILLI, true);
        }
        assert_eq!(pace.due(), 21 * MILLI);
    }

    /// Reports of no change until the backoff is `until`; returns how many said that there were
    /// many.
    fn reports_of_nothing(pace: &mut Pace, now: &mut Monotonic, reports: u32) -> u32 {
        let mut many = 0;
        for _ in 0..reports {
            pace.reported(*now);
            *now = pace.due().max(*now);
            pace.read_began(*now);
            many += u32::from(pace.answered(*now));
            pace.read_ended(*now);
        }
        many
    }

    #[test]
    fn reports_without_a_change_are_followed_less_and_less_often_until_there_is_one() {
        let (mut pace, mut now) = (Pace::default(), MILLI);
        assert_eq!(reports_of_nothing(&mut pace, &mut now, MANY_UNCHANGED), 1);
        assert!(pace.due() > now && pace.due() < now + 100 * MILLI);
        assert_eq!(reports_of_nothing(&mut pace, &mut now, 20), 20);
        assert_eq!(pace.due(), now + LONGEST_BACKOFF);

        pace.reported(now);
        now = pace.due();
        read(&mut pace, now, MILLI, false);
        pace.reported(now + MILLI);
        assert!(pace.due() <= now + MILLI);
    }

    #[test]
    fn reports_without_a_change_that_come_now_and_then_are_nothing() {
        let (mut pace, mut now) = (Pace::default(), MILLI);
        for _ in 0..100 {
            now += 2 * ROW_ENDS_AFTER;
            assert_eq!(reports_of_nothing(&mut pace, &mut now, 1), 0);
            assert!(pace.due() <= now);
        }
    }

    /// The report of an own write, the report of everything, and a read that nobody reported.
    #[test]
    fn what_need_not_have_changed_is_no_report_without_a_change() {
        let (mut pace, mut now) = (Pace::default(), MILLI);
        for n in 0..100 {
            now += MILLI;
            if n % 2 == 0 {
                pace.changed();
                pace.reported(now);
            }
            assert!(pace.due() <= now);
            pace.read_began(now);
            assert!(!pace.answered(now));
            pace.read_ended(now);
        }
    }
}
