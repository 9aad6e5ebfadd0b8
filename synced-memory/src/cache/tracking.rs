//! Whether the backend notifies this process of changes, and whether its table has room for that.

use std::time::Duration;

use crate::base::clock::Monotonic;

/// How long after the last sign of it the server's table counts as too small. While it is, there
/// are signs more often.
const OVERFLOW_LASTS: Duration = Duration::from_secs(5);

/// Whether the backend notifies this process of changes of the keys that it reads near or watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tracking {
    /// It was not asked to: nothing was read near or watched yet, or there is no connection.
    #[default]
    Off,
    /// It does: near reads are local.
    On,
    /// It does, but reports keys again and again whose values stay the same. Such keys are read
    /// again less and less often, down to once a second, so that near reads and watches of them may
    /// be up to a second late.
    ///
    /// Most often its table of tracked keys is too small for what all processes hold near or watch,
    /// and it drops keys from it. On Redis and Valkey the setting is `tracking-table-max-keys`, by
    /// default a million keys: raise it if `tracking_total_keys` in `INFO stats` is close to it. If
    /// it is not, a program stores the same bytes under a key again and again, or writes a key of
    /// the same name in another database of the server.
    Overflowing,
    /// It refuses `CLIENT TRACKING` or `CLIENT CACHING`: the user may not call them, or a proxy
    /// does not know them. Each near read asks the backend, and what is watched is read once a
    /// second.
    ///
    /// Grant both (`+client|tracking +client|caching`). They are tried again at the next
    /// connection.
    Refused,
}

impl Tracking {
    /// Which of several shards' says most.
    pub(super) fn severity(self) -> u8 {
        match self {
            Self::On => 0,
            Self::Off => 1,
            Self::Overflowing => 2,
            Self::Refused => 3,
        }
    }
}

/// The same, as the cache keeps it.
#[derive(Debug, Default)]
pub(super) struct TrackingState {
    /// Never `Overflowing`.
    asked: Tracking,
    overflow: Option<Monotonic>,
    /// It is to be said that the table is too small.
    is_alarm_due: bool,
}

impl TrackingState {
    pub(super) fn set(&mut self, tracking: Tracking) {
        *self = Self {
            asked: tracking,
            ..Self::default()
        };
    }

    /// Whether changes are notified.
    pub(super) fn is_on(&self) -> bool {
        self.asked == Tracking::On
    }

    /// A key was reported again and again, and had not changed.
    pub(super) fn overflowed(&mut self, mono: Monotonic) {
        self.is_alarm_due |= !self.is_overflowing(mono);
        self.overflow = Some(mono);
    }

    fn is_overflowing(&self, mono: Monotonic) -> bool {
        self.overflow
            .is_some_and(|last| mono.saturating_sub(last) < OVERFLOW_LASTS)
    }

    /// Whether it is to be said that the table is too small: once for each time that it becomes so.
    pub(super) fn take_alarm(&mut self) -> bool {
        std::mem::take(&mut self.is_alarm_due)
    }

    pub(super) fn at(&self, mono: Monotonic) -> Tracking {
        match self.asked {
            Tracking::On if self.is_overflowing(mono) => Tracking::Overflowing,
            asked => asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Monotonic = Duration::from_secs(1);

    #[test]
    fn an_overflow_is_said_once_and_ends_when_there_are_no_more_signs_of_it() {
        let mut tracking = TrackingState::default();
        assert_eq!(tracking.at(SECOND), Tracking::Off);
        tracking.set(Tracking::On);
        for seconds in 1..20 {
            let mono = seconds * SECOND;
            tracking.overflowed(mono);
            assert_eq!(tracking.take_alarm(), seconds == 1);
            assert_eq!(tracking.at(mono), Tracking::Overflowing);
        }
        assert_eq!(tracking.at(19 * SECOND + OVERFLOW_LASTS), Tracking::On);
        tracking.overflowed(19 * SECOND + OVERFLOW_LASTS);
        assert!(tracking.take_alarm());

        tracking.set(Tracking::Refused);
        assert_eq!(tracking.at(20 * SECOND), Tracking::Refused);
        assert!(!tracking.is_on());
    }
}
