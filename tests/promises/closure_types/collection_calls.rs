//! Calls that lists, maps and sets have.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use fastrand::Rng;

use super::any::{Any, Name};
use super::calls::{Call, Tested, change, place, told, told_whether, view};
use super::collections::in_order;

/// Some of these, chosen by a seed.
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
                        told(view::<$list<T>>(memory).retain(|item| !is_in(&gone, item)))
                    },
                    |list, seed| {
                        let gone = some(list.iter().cloned().collect(), seed);
                        list.retain(|item| !is_in(&gone, item));
                    },
                ),
                Call::plain(
                    "splice",
                    |memory, before, seed| {
                        let at = place(before.len() + 1, seed);
                        told(view::<$list<T>>(memory).splice(at..at + 2, [new(seed), new(seed + 1)]))
                    },
                    |list, seed| {
                        let at = place(list.len() + 1, seed);
                        let mut items: Vec<T> = list.drain(..).collect();
                        items.splice(at..items.len().min(at + 2), [new(seed), new(seed + 1)]);
                        list.extend(items);
                    },
                ),
                Call::closure(
                    "at(i).update",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => told(view::<$list<T>>(memory).at(place(len, seed)).update(|item| change(item, seed))),
                    },
                    |list, seed| match list.len() {
                        0 => {}
                        len => change(&mut list[place(len, seed)], seed),
                    },
                ),
                Call::closure(
                    "reverse",
                    |memory, _, _| told(view::<$list<T>>(memory).reverse()),
                    |list, _| list.$slice().reverse(),
                ),
                Call::closure(
                    "truncate",
                    |memory, before, seed| told(view::<$list<T>>(memory).truncate(place(before.len() + 1, seed))),
                    |list, seed| list.truncate(place(list.len() + 1, seed)),
                ),
                Call::plain(
                    "push",
                    |memory, _, seed| told(view::<$list<T>>(memory).push(new(seed))),
                    |list, seed| list.$push(new(seed)),
                ),
                Call::<$list<T>>::plain(
                    "remove_item",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => {
                            told_whether(view::<$list<T>>(memory).remove_item(&before[place(len, seed)]), true)
                        }
                    },
                    |list, seed| match list.len() {
                        0 => {}
                        len => {
                            let item = list[place(len, seed)].clone();
                            let first = list.iter().position(|other| other.same(&item)).expect("it is there");
                            drop(list.remove(first));
                        }
                    },
                )
                // Of several equal elements, another one: the one that is spelled as its type does.
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
                |memory, _, _| told(view::<$list<T>>(memory).sort()),
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
                        told(view::<$map<K, V>>(memory).retain(keeps))
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
                            let key = &in_order(before.keys())[place(len, seed)];
                            told(view::<$map<K, V>>(memory).at(key).update(|value| change(value, seed)))
                        }
                    },
                    |map, seed| {
                        if !map.is_empty() {
                            let key = &in_order(map.keys())[place(map.len(), seed)];
                            change(map.get_mut(key).expect("it is there"), seed);
                        }
                    },
                ),
                Call::plain(
                    "insert",
                    |memory, _, seed| told(view::<$map<K, V>>(memory).insert(new(seed), new(seed))),
                    |map, seed| _ = map.insert(new(seed), new(seed)),
                ),
                Call::plain(
                    "remove",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => {
                            let key = &in_order(before.keys())[place(len, seed)];
                            told_whether(view::<$map<K, V>>(memory).remove(key).map(|value| value.is_some()), true)
                        }
                    },
                    |map, seed| {
                        if !map.is_empty() {
                            let key = &in_order(map.keys())[place(map.len(), seed)];
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
                        told_whether(view::<$set<T>>(memory).insert(new(seed)), !before.contains(&new(seed)))
                    },
                    |set, seed| _ = set.insert(new(seed)),
                ),
                Call::plain(
                    "remove",
                    |memory, before, seed| match before.len() {
                        0 => Ok(()),
                        len => {
                            let item = &in_order(before)[place(len, seed)];
                            told_whether(view::<$set<T>>(memory).remove(item), true)
                        }
                    },
                    |set, seed| {
                        if !set.is_empty() {
                            let item = &in_order(&*set)[place(set.len(), seed)];
                            set.remove(item);
                        }
                    },
                ),
            ]
        }
    )* };
}

set_calls!(of_hash_set HashSet of_btree_set BTreeSet);
