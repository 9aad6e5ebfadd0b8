//! Maps by key, which each call asks several times, and what they give back.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// Faster than std's, and as that one with a random seed: names of keys may come from outside.
pub(crate) type KeyMap<V> = HashMap<Arc<str>, V, foldhash::fast::RandomState>;

/// Gives back the memory of entries that were removed: there may never be as many again.
pub(crate) fn shrink_sparse<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if is_sparse(map.len(), map.capacity()) {
        map.shrink_to(2 * map.len());
    }
}

/// The same of a set.
pub(crate) fn shrink_sparse_set<K: Eq + Hash, S: BuildHasher>(set: &mut HashSet<K, S>) {
    if is_sparse(set.len(), set.capacity()) {
        set.shrink_to(2 * set.len());
    }
}

fn is_sparse(length: usize, capacity: usize) -> bool {
    const FEW: usize = 16;
    capacity > 4 * length + FEW
}
