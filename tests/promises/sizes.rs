//! Fault tests that hold for a small value and for a large one, which other code sends and keeps.

use std::ops::Range;
use std::time::Duration;

use synced_memory::Synced;

/// How large the value is to which a test makes its changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Size {
    Small,
    Large,
}

impl Size {
    /// So many numbers that a large value has besides those that the test names.
    pub(crate) fn filler(self, count: u32) -> Range<u32> {
        const FIRST: u32 = 100_000;
        match self {
            Self::Small => FIRST..FIRST,
            Self::Large => FIRST..FIRST + count,
        }
    }

    /// The items of a large list besides those that the test names.
    pub(crate) fn items(self) -> Vec<String> {
        let number = |n| format!("filler {n}");
        self.filler(20_000).map(number).collect()
    }

    /// Makes a list large, if it is to be.
    pub(crate) fn fill(self, list: &Synced<Vec<String>>) {
        if self == Self::Large {
            list.set(self.items()).unwrap();
        }
    }

    /// A time that is enough to send and read the value if `for_small` is enough for a small one.
    pub(crate) fn timeout(self, for_small: Duration) -> Duration {
        match self {
            Self::Small => for_small,
            Self::Large => 3 * for_small,
        }
    }

    /// How much a test does: less to a large value, but as much in the long form.
    pub(crate) fn scaled<T>(self, small: T, large: T) -> T {
        match self {
            Self::Large if std::env::var_os("SYNCED_MEMORY_SOAK").is_none() => large,
            _ => small,
        }
    }
}

/// Makes two tests of each of these functions: with a small value, and with a large one.
macro_rules! with_both_sizes {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            use crate::sizes::Size;

            #[test]
            fn small() {
                super::$test(Size::Small);
            }

            #[test]
            fn large() {
                super::$test(Size::Large);
            }
        }
    )*};
}
pub(crate) use with_both_sizes;
