//! At which keys the writes of this process were refused because others wrote first.

use std::sync::Arc;

use super::State;

/// A key at which others often write first; see [`Status::contended`](crate::Status::contended).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContendedKey {
    /// The full key, with prefix and scope.
    pub key: String,
    /// How many attempts of this process to write it were refused, and made again, because somebody
    /// else had written in between; since the memory was opened, and at least so many.
    pub refusals: u64,
}

/// How many keys are counted at a time. A new one takes the place of the one refused least.
const COUNTED: usize = 64;

/// How many of them are reported.
const REPORTED: usize = 8;

/// Refusals by key, of those that are refused most.
///
/// A key that takes another one's place begins with its count, as it may have been counted before
/// and dropped: so a key that is refused more often than one in `COUNTED` refusals is always among
/// them. By how much a count may be too large is kept, and taken off what is reported.
#[derive(Debug, Default)]
pub(super) struct RefusalCounts(Vec<RefusalCount>);

#[derive(Debug)]
struct RefusalCount {
    key: Arc<str>,
    refusals: u64,
    /// What it began with.
    inherited: u64,
}

impl RefusalCount {
    fn certain(&self) -> u64 {
        self.refusals - self.inherited
    }
}

impl RefusalCounts {
    /// An attempt at `key` was refused because somebody else had written.
    pub(super) fn refused(&mut self, key: &Arc<str>) {
        if let Some(counted) = self.0.iter_mut().find(|counted| counted.key == *key) {
            counted.refusals += 1;
            return;
        }
        let mut inherited = 0;
        if self.0.len() == COUNTED {
            let by_count = |(_, counted): &(usize, &RefusalCount)| counted.refusals;
            let least = self.0.iter().enumerate().min_by_key(by_count);
            let least = least.map_or(0, |(index, _)| index);
            inherited = self.0.swap_remove(least).refusals;
        }
        self.0.push(RefusalCount {
            key: Arc::clone(key),
            refusals: inherited + 1,
            inherited,
        });
    }

    fn most_refused(&self) -> Vec<ContendedKey> {
        let reported = |counted: &RefusalCount| ContendedKey {
            key: counted.key.to_string(),
            refusals: counted.certain(),
        };
        let mut all: Vec<_> = self.0.iter().map(reported).collect();
        all.sort_by(|one, other| {
            let by_count = other.refusals.cmp(&one.refusals);
            by_count.then_with(|| one.key.cmp(&other.key))
        });
        all.truncate(REPORTED);
        all
    }
}

impl State {
    /// The keys at which attempts were refused most, most first.
    pub(crate) fn contended(&self) -> Vec<ContendedKey> {
        self.contention.most_refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_refused_most_are_found_among_very_many_and_none_is_counted_too_often() {
        let mut contention = RefusalCounts::default();
        let name = |n: u32| Arc::from(format!("k{n}"));
        let (hot, warm) = (Arc::from("hot"), Arc::from("warm"));
        for n in 0..10_000 {
            contention.refused(&name(n));
            if n % 2 == 0 {
                contention.refused(&hot);
            }
            if n % 4 == 0 {
                contention.refused(&warm);
            }
        }
        let most = contention.most_refused();
        assert_eq!(most.len(), REPORTED);
        assert_eq!((&*most[0].key, &*most[1].key), ("hot", "warm"));
        assert!((4_900..=5_000).contains(&most[0].refusals), "{most:?}");
        assert!((2_400..=2_500).contains(&most[1].refusals), "{most:?}");
        assert!(
            most[2..].iter().all(|other| other.refusals == 1),
            "{most:?}"
        );
        assert_eq!(contention.0.len(), COUNTED);
    }
}
