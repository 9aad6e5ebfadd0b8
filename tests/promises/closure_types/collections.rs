//! Random collections, and which results two concurrent changes of one may have.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use fastrand::Rng;
use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use super::any::{Any, Name, one_part};

/// How many times JSON values are compared to judge one case. Each level of lists in lists is
/// compared in some hundred ways.
const MOST_COMPARED: u32 = 200_000;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(MOST_COMPARED) };
}

/// The verdict, unless it takes too many comparisons.
pub(super) fn decided<R>(judge: impl FnOnce() -> R) -> Option<R> {
    LEFT.set(MOST_COMPARED);
    let verdict = judge();
    (LEFT.get() > 0).then_some(verdict)
}

/// The keys in an order that does not depend on the map.
pub(super) fn in_order<'a, K: Name + 'a>(keys: impl IntoIterator<Item = &'a K>) -> Vec<K> {
    let mut keys: Vec<K> = keys.into_iter().cloned().collect();
    keys.sort();
    keys
}

fn picked<T: Clone>(items: &[T], rng: &mut Rng) -> Option<T> {
    rng.choice(items).cloned()
}

fn several<T: Any>(most: usize, rng: &mut Rng) -> impl Iterator<Item = T> {
    let len = rng.usize(..=most);
    (0..len).map(|_| T::any(rng))
}

macro_rules! lists {
    ($($list:ident $push:ident)*) => { $(
        impl<T: Any> Any for $list<T> {
            const MERGES: bool = true;

            fn any(rng: &mut Rng) -> Self {
                several(5, rng).collect()
            }

            fn change(&mut self, rng: &mut Rng) {
                let len = self.len();
                match rng.u8(..16) {
                    0..=4 if len > 0 => self[rng.usize(..len)].change(rng),
                    5 | 6 if len > 0 => _ = self.remove(rng.usize(..len)),
                    7 | 8 => self.insert(rng.usize(..=len), T::any(rng)),
                    9 | 10 if len > 1 => self.swap(rng.usize(..len), rng.usize(..len)),
                    11 => self.rotate_left(rng.usize(..=len)),
                    12 => self.truncate(rng.usize(..=len)),
                    13 => {
                        let mut at = 0;
                        self.retain(|_| {
                            at += 1;
                            at % 2 == 0
                        });
                    }
                    14 if rng.bool() => self.clear(),
                    _ => self.$push(T::any(rng)),
                }
            }

            fn same(&self, other: &Self) -> bool {
                self.len() == other.len() && self.iter().zip(other).all(|(one, other)| one.same(other))
            }

            fn merged(start: &Self, mine: &Self, theirs: &Self, end: &Self) -> bool {
                let [all_start, all_mine, all_theirs, all_end] =
                    [start, mine, theirs, end].map(|list| list.iter().collect::<Vec<_>>());
                one_part(start, mine, theirs, end)
                    || lists_merged(T::MERGES, &all_start, &all_mine, &all_theirs, &all_end)
            }
        }
    )* };
}

lists!(Vec push VecDeque push_back);

fn has<T: Any>(list: &[&T], item: &T) -> bool {
    list.iter().any(|other| other.same(item))
}

fn count<T: Any>(list: &[&T], item: &T) -> usize {
    list.iter().filter(|other| other.same(item)).count()
}

/// Whether each element that only one of both changed is as that one left it. If `merge` is set,
/// elements may also be the merge of both changes.
fn lists_merged<T: Any>(merge: bool, start: &[&T], mine: &[&T], theirs: &[&T], end: &[&T]) -> bool {
    if !merge {
        // If both changed the order, the result may have the order of either.
        let both_moved = is_moved(start, mine) && is_moved(start, theirs);
        return counts_merged(start, mine, theirs, end)
            && (both_moved || orders_merged(start, mine, theirs, end));
    }
    if each_merged(start, mine, theirs, end) {
        return true;
    }
    let merges = |from: &[&T], mine: &[&T], theirs: &[&T], end: &[&T]| {
        let of = |from: &T, mine: &T, theirs: &T| {
            end.iter().any(|end| T::merged(from, mine, theirs, end))
        };
        from.iter().any(|from| {
            mine.iter()
                .any(|mine| theirs.iter().any(|theirs| of(from, mine, theirs)))
        })
    };
    // Of several equal elements each may have changed a different one.
    let is_left = |item: &T| count(mine, item) + count(theirs, item) > count(start, item);
    let is_known = |item: &T| [start, mine, theirs].iter().any(|list| has(list, item));
    end.iter()
        .all(|item| is_known(item) || merges(start, mine, theirs, &[item]))
        && start.iter().all(|item| !is_left(item) || has(end, item))
        && mine
            .iter()
            .all(|item| has(start, item) || has(end, item) || merges(start, &[item], theirs, end))
        && theirs
            .iter()
            .all(|item| has(start, item) || has(end, item) || merges(start, mine, &[item], end))
}

/// Whether each element is the merge of both changes at its index. An element that was moved there
/// counts as a change of the one that was there before, if the two can be merged.
fn each_merged<T: Any>(start: &[&T], mine: &[&T], theirs: &[&T], end: &[&T]) -> bool {
    let lengths = [mine.len(), theirs.len(), end.len()];
    lengths == [start.len(); 3]
        && (0..start.len()).all(|at| T::merged(start[at], mine[at], theirs[at], end[at]))
}

/// Whether each element occurs as often as the two changes allow. An element that one removed and
/// the other moved may be mistaken for another one.
fn counts_merged<T: Any>(start: &[&T], mine: &[&T], theirs: &[&T], end: &[&T]) -> bool {
    let is_moved = is_moved(start, theirs);
    [start, mine, theirs, end]
        .iter()
        .flat_map(|list| list.iter())
        .all(|item| {
            let [start, mine, theirs, end] =
                [start, mine, theirs, end].map(|list| count(list, item));
            match (mine == start, theirs == start) {
                (true, _) => end == theirs,
                (_, true) => end == mine || (is_moved && mine < start && end == start),
                _ => {
                    // Of several equal elements the two may have removed different ones, the same
                    // ones, or some of both.
                    let both_removed = mine < start && theirs < start;
                    let least = (mine + theirs).saturating_sub(start);
                    end + start == mine + theirs
                        || end == mine.max(theirs)
                        || end == mine.min(theirs)
                        || both_removed && (least..=mine.min(theirs)).contains(&end)
                }
            }
        })
}

/// Whether elements of `start` have another order in `list`.
fn is_moved<T: Any>(start: &[&T], list: &[&T]) -> bool {
    let mut rest = start.iter().filter(|item| has(list, **item));
    let kept = list.iter().filter(|item| has(start, **item));
    kept.into_iter()
        .any(|item| !rest.by_ref().any(|other| other.same(item)))
}

/// Whether elements that neither changed the order of are still in order.
fn orders_merged<T: Any>(start: &[&T], mine: &[&T], theirs: &[&T], end: &[&T]) -> bool {
    let only_index = |list: &[&T], item: &T| {
        let indices: Vec<usize> = (0..list.len()).filter(|at| list[*at].same(item)).collect();
        (indices.len() == 1).then(|| indices[0])
    };
    let indices: Vec<[usize; 4]> = start
        .iter()
        .filter_map(|item| {
            Some([
                only_index(start, item)?,
                only_index(mine, item)?,
                only_index(theirs, item)?,
                only_index(end, item)?,
            ])
        })
        .collect();
    indices.iter().all(|one| {
        indices
            .iter()
            .all(|other| !(0..3).all(|list| one[list] < other[list]) || one[3] < other[3])
    })
}

/// Whether an entry of a map, which may be absent, is the merge of both changes.
fn entry_merged<T: Any>(
    start: Option<&T>,
    mine: Option<&T>,
    theirs: Option<&T>,
    end: Option<&T>,
) -> bool {
    if let (Some(start), Some(mine), Some(theirs), Some(end)) = (start, mine, theirs, end) {
        return T::merged(start, mine, theirs, end);
    }
    if let (Some(start), Some(mine), None, None) = (start, mine, theirs, end)
        && are_all_removed_by_both(start, mine, None)
    {
        return true;
    }
    let same = |one: Option<&T>, other: Option<&T>| match (one, other) {
        (Some(one), Some(other)) => one.same(other),
        (None, None) => true,
        _ => false,
    };
    (same(mine, start) && same(end, theirs))
        || (same(theirs, start) && same(end, mine))
        || (same(mine, theirs) && same(end, mine))
}

/// Whether the first change only removed parts, and the second one removed all of these too.
pub(super) fn are_all_removed_by_both<T: Any>(start: &T, first: &T, second: Option<&T>) -> bool {
    let json = |value: &T| serde_json::to_value(value).expect("it is JSON");
    is_gone(&json(start), &json(first), second.map(json).as_ref())
}

fn is_gone(start: &Value, first: &Value, second: Option<&Value>) -> bool {
    match (start, first) {
        (Value::Object(start), Value::Object(first)) => {
            let second = second.map(|second| second.as_object().cloned().unwrap_or_default());
            first.keys().all(|name| start.contains_key(name))
                && start.iter().all(|(name, start)| {
                    let there = second.as_ref().and_then(|second| second.get(name));
                    first
                        .get(name)
                        .map_or(there.is_none(), |first| is_gone(start, first, there))
                })
        }
        (Value::Array(start), Value::Array(first)) => {
            let second = second
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            // An element of which only a part was removed.
            let lost_a_part = |item: &Value| {
                let mut gone = start.iter().filter(|start| !first.contains(start));
                gone.any(|start| is_gone(start, item, None))
            };
            first
                .iter()
                .all(|item| start.contains(item) || lost_a_part(item))
                && start
                    .iter()
                    .all(|item| first.contains(item) || !second.contains(item))
        }
        (start, first) => start == first,
    }
}

fn entry_apart<T: Any>(start: Option<&T>, mine: Option<&T>, theirs: Option<&T>) -> bool {
    match (start, mine, theirs) {
        (Some(start), Some(mine), Some(theirs)) => T::apart(start, mine, theirs),
        (None, None, _) | (None, _, None) => true,
        (Some(start), Some(other), None) | (Some(start), None, Some(other)) => other.same(start),
        _ => false,
    }
}

macro_rules! maps {
    ($($map:ident)*) => { $(
        impl<K: Name, V: Any> Any for $map<K, V> {
            const MERGES: bool = true;

            fn any(rng: &mut Rng) -> Self {
                several::<(K, V)>(5, rng).collect()
            }

            fn change(&mut self, rng: &mut Rng) {
                let keys = in_order(self.keys());
                let Some(key) = picked(&keys, rng) else {
                    self.insert(K::any(rng), V::any(rng));
                    return;
                };
                match rng.u8(..12) {
                    0..=4 => self.get_mut(&key).expect("it is there").change(rng),
                    5 | 6 => _ = self.remove(&key),
                    7 => {
                        let value = self.remove(&key).expect("it is there");
                        self.insert(K::any(rng), value);
                    }
                    8 => self.retain(|key, _| keys.binary_search(key).is_ok_and(|at| at % 2 == 0)),
                    9 if rng.bool() => self.clear(),
                    _ => _ = self.insert(K::any(rng), V::any(rng)),
                }
            }

            fn same(&self, other: &Self) -> bool {
                self.len() == other.len()
                    && self.iter().all(|(key, one)| other.get(key).is_some_and(|other| one.same(other)))
            }

            fn merged(start: &Self, mine: &Self, theirs: &Self, end: &Self) -> bool {
                [start, mine, theirs, end].iter().flat_map(|map| map.keys()).all(|key| {
                    entry_merged(start.get(key), mine.get(key), theirs.get(key), end.get(key))
                })
            }

            fn apart(start: &Self, mine: &Self, theirs: &Self) -> bool {
                let mut keys = [start, mine, theirs].into_iter().flat_map(|map| map.keys());
                keys.all(|key| entry_apart(start.get(key), mine.get(key), theirs.get(key)))
            }
        }
    )* };
}

maps!(HashMap BTreeMap);

macro_rules! sets {
    ($($set:ident)*) => { $(
        impl<T: Name> Any for $set<T> {
            const MERGES: bool = true;

            fn any(rng: &mut Rng) -> Self {
                several(8, rng).collect()
            }

            fn change(&mut self, rng: &mut Rng) {
                let items = in_order(self.iter());
                let Some(item) = picked(&items, rng) else {
                    self.insert(T::any(rng));
                    return;
                };
                match rng.u8(..12) {
                    0..=3 => _ = self.remove(&item),
                    4 | 5 => {
                        self.remove(&item);
                        self.insert(T::any(rng));
                    }
                    6 => self.retain(|item| items.binary_search(item).is_ok_and(|at| at % 2 == 0)),
                    7 if rng.bool() => self.clear(),
                    _ => _ = self.insert(T::any(rng)),
                }
            }

            fn merged(start: &Self, mine: &Self, theirs: &Self, end: &Self) -> bool {
                [start, mine, theirs, end].into_iter().flatten().all(|item| {
                    let [start, mine, theirs, end] = [start, mine, theirs, end].map(|set| set.contains(item));
                    if mine == start { end == theirs } else { end == mine }
                })
            }

            fn apart(start: &Self, mine: &Self, theirs: &Self) -> bool {
                let mut items = [start, mine, theirs].into_iter().flatten();
                items.all(|item| {
                    mine.contains(item) == start.contains(item) || theirs.contains(item) == start.contains(item)
                })
            }
        }
    )* };
}

sets!(HashSet BTreeSet);

impl<K: Name, V: Any> Any for IndexMap<K, V> {
    fn any(rng: &mut Rng) -> Self {
        several::<(K, V)>(5, rng).collect()
    }

    fn change(&mut self, rng: &mut Rng) {
        let len = self.len();
        match rng.u8(..10) {
            0..=2 if len > 0 => self[rng.usize(..len)].change(rng),
            3 if len > 0 => _ = self.shift_remove_index(rng.usize(..len)),
            4 if len > 0 => _ = self.swap_remove_index(rng.usize(..len)),
            5 | 6 if len > 0 => self.move_index(rng.usize(..len), rng.usize(..len)),
            7 => self.reverse(),
            8 => self.sort_keys(),
            _ => _ = self.insert(K::any(rng), V::any(rng)),
        }
    }

    fn same(&self, other: &Self) -> bool {
        let pairs = || self.iter().zip(other);
        self.len() == other.len()
            && pairs().all(|((key, one), (name, other))| key == name && one.same(other))
    }
}

impl<T: Name> Any for IndexSet<T> {
    fn any(rng: &mut Rng) -> Self {
        several(6, rng).collect()
    }

    fn change(&mut self, rng: &mut Rng) {
        let len = self.len();
        match rng.u8(..8) {
            0 if len > 0 => _ = self.shift_remove_index(rng.usize(..len)),
            1 if len > 0 => _ = self.swap_remove_index(rng.usize(..len)),
            2 | 3 if len > 0 => self.move_index(rng.usize(..len), rng.usize(..len)),
            4 => self.reverse(),
            5 => self.sort(),
            _ => _ = self.insert(T::any(rng)),
        }
    }

    fn same(&self, other: &Self) -> bool {
        self.iter().eq(other)
    }
}

impl Any for Value {
    const MERGES: bool = true;

    fn any(rng: &mut Rng) -> Self {
        match rng.u8(..12) {
            0 => Value::Null,
            1 => bool::any(rng).into(),
            2 => i64::any(rng).into(),
            3 => f64::any(rng).into(),
            4 | 5 => String::any(rng).into(),
            6 | 7 => several::<Value>(2, rng).collect(),
            _ => several::<(String, Value)>(3, rng).collect(),
        }
    }

    fn change(&mut self, rng: &mut Rng) {
        match self {
            Value::Array(list) if rng.u8(..8) > 0 => list.change(rng),
            Value::Object(map) if rng.u8(..8) > 0 => {
                let mut members: BTreeMap<String, Value> =
                    std::mem::take(map).into_iter().collect();
                members.change(rng);
                map.extend(members);
            }
            _ => *self = Self::any(rng),
        }
    }

    fn merged(start: &Self, mine: &Self, theirs: &Self, end: &Self) -> bool {
        let left = LEFT.get().saturating_sub(1);
        LEFT.set(left);
        if left == 0 || one_part(start, mine, theirs, end) {
            return true;
        }
        match (start, mine, theirs, end) {
            (Value::Array(start), Value::Array(mine), Value::Array(theirs), Value::Array(end)) => {
                let can_merge = [start, mine, theirs]
                    .into_iter()
                    .flatten()
                    .any(|item| item.is_array() || item.is_object());
                let [start, mine, theirs, end] =
                    [start, mine, theirs, end].map(|list| list.iter().collect::<Vec<_>>());
                lists_merged(can_merge, &start, &mine, &theirs, &end)
            }
            (
                Value::Object(start),
                Value::Object(mine),
                Value::Object(theirs),
                Value::Object(end),
            ) => {
                let mut names = [start, mine, theirs, end]
                    .into_iter()
                    .flat_map(|map| map.keys());
                names.all(|name| {
                    entry_merged(
                        start.get(name),
                        mine.get(name),
                        theirs.get(name),
                        end.get(name),
                    )
                })
            }
            _ => false,
        }
    }

    fn apart(start: &Self, mine: &Self, theirs: &Self) -> bool {
        match (start, mine, theirs) {
            (Value::Object(start), Value::Object(mine), Value::Object(theirs)) => {
                let mut names = [start, mine, theirs].into_iter().flat_map(|map| map.keys());
                names.all(|name| entry_apart(start.get(name), mine.get(name), theirs.get(name)))
            }
            _ => mine.same(start) || theirs.same(start),
        }
    }
}
