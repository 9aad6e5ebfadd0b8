//! Calls of lists, maps and sets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use fastrand::Rng;

use super::any::{Any, Name};
use super::calls::{Call, Tested, change, checked, checked_presence, index_in, view};
use super::collections::in_order;

/// Some of the items, chosen by a seed.
fn some<T: Any>(items: Vec<T>, seed: u64) -> Vec<T> {
    let mut rng = Rng::with_seed(seed);
    items.into_iter().filter(|_| rng.u8(..3) == 0).collect()
}

fn is_in<T: Any>(items: &[T], item: &T) -> bool {
    items.iter().any(|other| other.same(item))
}

fn new<T: Any>(seed: u64) -> T {
    T::any(&mut Rng::with_seed(seed))
}

macro_rules! list_calls {
    ($($of_any:ident $of_sorted:ident $list:ident $push:ident $slice:ident)*) => { $(
        pub(super) fn $of_any<T: Tested>() -> Vec<Call<$list<T>>> {
            vec![
                Call::closure(
                    "retain",
                    |memory, before, seed| {
                        let gone = some(before.iter().cloned().collect(), seed);
                        checked(view::<$list<T>>(memory).retain(|item| !is_in(&gone, item)))
                    },
                    |list, seed| {
                        let gone = some(list.iter().cloned().collect(), seed);
                        list.retain(|item| !is_in(&gone, item));
                    },
                ),
                Call::plain(
                    "splice",
                    |memory, before, seed| {
                        let at = index_in(before.len() + 1, seed);
                        let items = [new(seed), new(seed + 1)];
                        checked(view::<$list<T>>(memory).splice(at..at + 2, items))
                    },
                    |list, seed| {
                        let at = index_in(list.len() + 1, seed);
                        let mut items: Vec<T> = list.drain(..).collect();
                        items.splice(at..items.len().min(at + 2), [new(seed), new(seed + 1)]);
                        list.extend(items);
                    },
                ),
                Call::closure(
                    "at(i).update",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => {
                            let element = view::<$list<T>>(memory).at(index_in(len, seed));
                            checked(element.update(|item| change(item, seed)))
                        }
                    },
                    |list, seed| match list.len() {
                        0 => {}
                        len => change(&mut list[index_in(len, seed)], seed),
                    },
                ),
                Call::closure(
                    "reverse",
                    |memory, _, _| checked(view::<$list<T>>(memory).reverse()),
                    |list, _| list.$slice().reverse(),
                ),
                Call::closure(
                    "truncate",
                    |memory, before, seed| {
                        let len = index_in(before.len() + 1, seed);
                        checked(view::<$list<T>>(memory).truncate(len))
                    },
                    |list, seed| list.truncate(index_in(list.len() + 1, seed)),
                ),
                Call::plain(
                    "push",
                    |memory, _, seed| checked(view::<$list<T>>(memory).push(new(seed))),
                    |list, seed| list.$push(new(seed)),
                ),
                Call::<$list<T>>::plain(
                    "remove_item",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => {
                            let item = &before[index_in(len, seed)];
                            checked_presence(view::<$list<T>>(memory).remove_item(item), true)
                        }
                    },
                    |list, seed| match list.len() {
                        0 => {}
                        len => {
                            let item = list[index_in(len, seed)].clone();
                            let first = list.iter().position(|other| other.same(&item)).expect("it is there");
                            drop(list.remove(first));
                        }
                    },
                )
                // Of several equal elements it may remove another one: that in the type's spelling.
                .or(|before, left| {
                    (0..before.len()).any(|gone| {
                        let mut rest = before.clone();
                        drop(rest.remove(gone));
                        let is_equal = |other: &&T| other.same(&before[gone]);
                        before.iter().filter(is_equal).count() > 1 && rest.same(left)
                    })
                }),
            ]
        }

        pub(super) fn $of_sorted<T: Tested + Ord>() -> Call<$list<T>> {
            Call::closure(
                "sort",
                |memory, _, _| checked(view::<$list<T>>(memory).sort()),
                |list, _| list.$slice().sort(),
            )
        }
    )* };
}

list_calls!(of_vec of_sorted_vec Vec push as_mut_slice of_deque of_sorted_deque VecDeque push_back make_contiguous);

macro_rules! map_calls {
    ($($of_any:ident $map:ident)*) => { $(
        pub(super) fn $of_any<K: Tested + Name, V: Tested>() -> Vec<Call<$map<K, V>>> {
            vec![
                Call::closure(
                    "retain",
                    |memory, before, seed| {
                        let gone = some(in_order(before.keys()), seed);
                        let keeps = |key: &K, value: &mut V| {
                            change(value, seed);
                            !gone.contains(key)
                        };
                        checked(view::<$map<K, V>>(memory).retain(keeps))
                    },
                    |map, seed| {
                        let gone = some(in_order(map.keys()), seed);
                        for value in map.values_mut() {
                            change(value, seed);
                        }
                        map.retain(|key, _| !gone.contains(key));
                    },
                ),
                Call::closure(
                    "at(k).update",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => {
                            let key = &in_order(before.keys())[index_in(len, seed)];
                            let entry = view::<$map<K, V>>(memory).at(key);
                            checked(entry.update(|value| change(value, seed)))
                        }
                    },
                    |map, seed| {
                        if !map.is_empty() {
                            let key = &in_order(map.keys())[index_in(map.len(), seed)];
                            change(map.get_mut(key).expect("it is there"), seed);
                        }
                    },
                ),
                Call::plain(
                    "insert",
                    |memory, _, seed| {
                        checked(view::<$map<K, V>>(memory).insert(new(seed), new(seed)))
                    },
                    |map, seed| _ = map.insert(new(seed), new(seed)),
                ),
                Call::plain(
                    "remove",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => {
                            let key = &in_order(before.keys())[index_in(len, seed)];
                            let removed = view::<$map<K, V>>(memory).remove(key);
                            checked_presence(removed.map(|value| value.is_some()), true)
                        }
                    },
                    |map, seed| {
                        if !map.is_empty() {
                            let key = &in_order(map.keys())[index_in(map.len(), seed)];
                            map.remove(key);
                        }
                    },
                ),
            ]
        }
    )* };
}

map_calls!(of_hash_map HashMap of_btree_map BTreeMap);

macro_rules! set_calls {
    ($($of_any:ident $set:ident)*) => { $(
        pub(super) fn $of_any<T: Tested + Name>() -> Vec<Call<$set<T>>> {
            vec![
                Call::plain(
                    "insert",
                    |memory, before, seed| {
                        let is_new = !before.contains(&new(seed));
                        checked_presence(view::<$set<T>>(memory).insert(new(seed)), is_new)
                    },
                    |set, seed| _ = set.insert(new(seed)),
                ),
                Call::plain(
                    "remove",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => {
                            let item = &in_order(before)[index_in(len, seed)];
                            checked_presence(view::<$set<T>>(memory).remove(item), true)
                        }
                    },
                    |set, seed| {
                        if !set.is_empty() {
                            let item = &in_order(&*set)[index_in(set.len(), seed)];
                            set.remove(item);
                        }
                    },
                ),
            ]
        }
    )* };
}

set_calls!(of_hash_set HashSet of_btree_set BTreeSet);
