//! Which shard has which key.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::backend::layout::{SLOTS, SlotNumber, slot_of};

/// A primary with its slots, and the connection to it. A backend that is one server has one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shard(u16);

impl Shard {
    /// The only one, if there is one server. In a cluster that of the keys which nobody serves: it
    /// is never connected.
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    #[cfg(test)]
    pub(crate) const fn numbered(number: u16) -> Self {
        Self(number)
    }

    /// That of this number. There are fewer servers than slots.
    pub(crate) fn of_index(index: usize) -> Self {
        Self(u16::try_from(index).unwrap_or(u16::MAX))
    }
}

/// Which shard has which key, now. Its clones are one map.
#[derive(Debug, Clone, Default)]
pub(crate) enum ShardMap {
    /// One server has all of them.
    #[default]
    One,
    /// For each slot its shard.
    Cluster(Arc<[AtomicU16]>),
}

impl ShardMap {
    /// Of a cluster of which nothing is known yet: nobody serves any key.
    pub(crate) fn cluster() -> Self {
        Self::Cluster((0..SLOTS).map(|_| AtomicU16::default()).collect())
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    pub(crate) fn shard_of(&self, key: &str) -> Shard {
        match self {
            Self::One => Shard::FIRST,
            Self::Cluster(_) => self.shard_of_slot(slot_of(key)),
        }
    }

    pub(crate) fn shard_of_slot(&self, slot: SlotNumber) -> Shard {
        match self {
            Self::One => Shard::FIRST,
            Self::Cluster(slots) => {
                let slot = slots.get(usize::from(slot));
                Shard(slot.map_or(0, |shard| shard.load(Ordering::Relaxed)))
            }
        }
    }

    /// The keys of each shard.
    pub(crate) fn by_shard(
        &self,
        keys: impl IntoIterator<Item = Arc<str>>,
    ) -> BTreeMap<Shard, Vec<Arc<str>>> {
        let mut shards: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for key in keys {
            shards.entry(self.shard_of(&key)).or_default().push(key);
        }
        shards
    }

    /// How many slots of a cluster are those of such shards.
    pub(crate) fn slots_of(&self, is_such: impl Fn(Shard) -> bool) -> usize {
        match self {
            Self::One => 0,
            Self::Cluster(slots) => {
                let shards = slots
                    .iter()
                    .map(|shard| Shard(shard.load(Ordering::Relaxed)));
                shards.filter(|shard| is_such(*shard)).count()
            }
        }
    }

    /// Gives a slot to a shard.
    pub(crate) fn assign(&self, slot: SlotNumber, shard: Shard) {
        if let Self::Cluster(slots) = self
            && let Some(slot) = slots.get(usize::from(slot))
        {
            slot.store(shard.0, Ordering::Relaxed);
        }
    }
}

/// Something for each shard.
#[derive(Debug)]
pub(crate) struct ByShard<T> {
    of_first: T,
    of_others: Vec<T>,
}

impl<T: Default> Default for ByShard<T> {
    fn default() -> Self {
        Self {
            of_first: T::default(),
            of_others: Vec::new(),
        }
    }
}

impl<T> ByShard<T> {
    /// That of each shard for which there is something.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Shard, &T)> {
        let all = std::iter::once(&self.of_first).chain(&self.of_others);
        (0..).map(Shard).zip(all)
    }

    pub(crate) fn into_all(self) -> impl Iterator<Item = (Shard, T)> {
        let all = std::iter::once(self.of_first).chain(self.of_others);
        (0..).map(Shard).zip(all)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Shard, &mut T)> {
        let all = std::iter::once(&mut self.of_first).chain(&mut self.of_others);
        (0..).map(Shard).zip(all)
    }
}

/// Of a shard for which nothing was set, that of [`Shard::FIRST`].
impl<T> Index<Shard> for ByShard<T> {
    type Output = T;

    fn index(&self, shard: Shard) -> &T {
        let other = shard.index().checked_sub(1);
        other
            .and_then(|other| self.of_others.get(other))
            .unwrap_or(&self.of_first)
    }
}

impl<T: Default> IndexMut<Shard> for ByShard<T> {
    fn index_mut(&mut self, shard: Shard) -> &mut T {
        let Some(other) = shard.index().checked_sub(1) else {
            return &mut self.of_first;
        };
        if other >= self.of_others.len() {
            self.of_others.resize_with(other + 1, T::default);
        }
        &mut self.of_others[other]
    }
}
