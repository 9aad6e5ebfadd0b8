//! A key can be spelled in several ways: maps find it by its decoded value, not by its text.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;

use serde_json::Value;
use synced_memory::{Key, Memory, Synced};

use crate::closure_merges::store;
use crate::closure_spellings::{Spelled, WithEach, address, each_type};
use crate::line::{DEADLINE, Line, on_every_backend};

/// A call on a map, given a key that is stored in another spelling and a key that is absent.
type MapCall<K> = (
    &'static str,
    fn(&Synced<HashMap<K, i64>>, &K, &K) -> Option<i64>,
    fn(&mut HashMap<K, i64>, &K, &K) -> Option<i64>,
);

fn map_calls<K: Spelled>() -> Vec<MapCall<K>> {
    vec![
        (
            "contains_key",
            |map, key, new| {
                Some(map.contains_key(key).unwrap().into())
                    .filter(|_| !map.contains_key(new).unwrap())
            },
            |_, _, _| Some(1),
        ),
        (
            "at and get",
            |map, key, new| map.at(key).find().unwrap().or(map.at(new).find().unwrap()),
            |map, key, _| map.get(key).copied(),
        ),
        (
            "at and add",
            |map, key, _| {
                map.at(key).add(1).unwrap();
                None
            },
            |map, key, _| {
                *map.get_mut(key).unwrap() += 1;
                None
            },
        ),
        (
            "at and set",
            |map, key, _| {
                map.at(key).set(9).unwrap();
                None
            },
            |map, key, _| {
                map.insert(key.clone(), 9);
                None
            },
        ),
        (
            "at and update",
            |map, key, _| {
                map.at(key)
                    .update(|n| {
                        *n += 1;
                        Some(*n)
                    })
                    .unwrap()
            },
            |map, key, _| {
                *map.get_mut(key).unwrap() += 1;
                map.get(key).copied()
            },
        ),
        (
            "at and delete",
            |map, key, _| {
                assert!(map.at(key).delete().unwrap());
                None
            },
            |map, key, _| {
                map.remove(key);
                None
            },
        ),
        (
            "insert",
            |map, key, _| map.insert(key.clone(), 9).unwrap(),
            |map, key, _| map.insert(key.clone(), 9),
        ),
        (
            "remove",
            |map, key, _| map.remove(key).unwrap(),
            |map, key, _| map.remove(key),
        ),
        (
            "get_or_insert",
            |map, key, _| Some(map.get_or_insert(key.clone(), 9).unwrap()),
            |map, key, _| map.get(key).copied(),
        ),
        (
            "extend",
            |map, key, new| {
                map.extend([(key.clone(), 9), (new.clone(), 10)]).unwrap();
                None
            },
            |map, key, new| {
                map.extend([(key.clone(), 9), (new.clone(), 10)]);
                None
            },
        ),
    ]
}

fn map_closures<K: Spelled>() -> Vec<MapCall<K>> {
    vec![
        (
            "retain",
            |map, key, _| {
                map.retain(|k, _| k != key).unwrap();
                None
            },
            |map, key, _| {
                map.retain(|k, _| k != key);
                None
            },
        ),
        (
            "a closure that inserts",
            |map, key, new| {
                map.update(|map| {
                    map.insert(new.clone(), 1);
                    map.insert(key.clone(), 9)
                })
                .unwrap()
            },
            |map, key, new| {
                map.insert(new.clone(), 1);
                map.insert(key.clone(), 9)
            },
        ),
        (
            "a closure that removes",
            |map, key, _| map.update(|map| map.remove(key)).unwrap(),
            |map, key, _| map.remove(key),
        ),
        (
            "a closure that counts",
            |map, key, _| {
                map.update(|map| *map.entry(key.clone()).or_default() += 1)
                    .unwrap();
                None
            },
            |map, key, _| {
                *map.entry(key.clone()).or_default() += 1;
                None
            },
        ),
    ]
}

/// As keys of a map. The first process has read the current map if `is_known`, else only an older
/// one.
struct Maps<'a> {
    one: &'a Memory,
    other: &'a Memory,
    is_known: bool,
}

impl WithEach for Maps<'_> {
    fn with<T: Spelled>(&self, texts: [&str; 2], [item, neighbour, new]: [T; 3]) {
        let (key, mut wrong) = (Key::<HashMap<T, i64>>::new("map"), Vec::new());
        for (name, by_view, by_value) in map_calls::<T>().into_iter().chain(map_closures()) {
            self.other.set(&key, HashMap::new()).unwrap();
            assert_eq!(self.one.get(&key).unwrap(), Some(HashMap::new()));
            store(
                self.other,
                "map",
                &format!("{{{}: 7, {}: 8}}", texts[0], texts[1]),
            );
            if self.is_known {
                self.one.get(&key).unwrap();
            }
            let mut left = HashMap::from([(item.clone(), 7), (neighbour.clone(), 8)]);
            let expected = by_value(&mut left, &item, &new);
            let returned = by_view(&self.one.synced(&key), &item, &new);
            let stored = self.other.get(&Key::<Value>::new("map")).unwrap().unwrap();
            let is_left = |memory: &Memory| memory.get(&key).unwrap().as_ref() == Some(&left);
            let is_single = stored.as_object().unwrap().len() == left.len();
            if returned != expected || !is_single || !is_left(self.one) || !is_left(self.other) {
                wrong.push(format!("{name} of {item:?}: {returned:?}, then {stored}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn a_map_finds_a_key_that_another_program_spelled_differently() {
    on_every_backend("keys-known", |one, other| {
        each_type(&Maps {
            one,
            other,
            is_known: true,
        });
    });
}

#[test]
fn a_map_finds_a_key_that_another_program_respelled_after_the_last_read() {
    on_every_backend("keys-unknown", |one, other| {
        each_type(&Maps {
            one,
            other,
            is_known: false,
        });
    });
}

#[test]
fn a_sorted_map_finds_a_key_that_another_program_spelled_differently() {
    on_every_backend("keys-sorted", |one, other| {
        let map = one.synced(&Key::<BTreeMap<Ipv6Addr, i64>>::new("map"));
        store(other, "map", r#"{"0:0:0:0:0:0:0:1": 7, "2001:DB8::5": 8}"#);
        let [first, second] = ["::1", "2001:db8::5"].map(address);
        assert_eq!(
            (
                map.len().unwrap(),
                map.insert(first, 9).unwrap(),
                map.len().unwrap()
            ),
            (2, Some(7), 2)
        );
        assert_eq!(
            (map.remove(&first).unwrap(), map.remove(&second).unwrap()),
            (Some(9), Some(8))
        );
        assert!(map.is_empty().unwrap());
    });
}

#[test]
fn a_queued_change_of_an_entry_is_made_once_even_if_its_key_is_respelled_meanwhile() {
    let line = Line::new();
    let (mine, theirs) = (line.open(), line.open_directly());
    let key = Key::<HashMap<Ipv6Addr, i64>>::new("map");
    let item = address("::1");
    // Another process keeps the stored spelling, or writes the map in the type's own spelling.
    for is_rewritten in [false, true] {
        store(&theirs, "map", r#"{"0:0:0:0:0:0:0:1": 7}"#);
        assert_eq!(mine.get(&key).unwrap(), Some(HashMap::from([(item, 7)])));
        line.down(&mine);
        mine.synced(&key).at(&item).add(1).unwrap();
        if is_rewritten {
            theirs.set(&key, HashMap::from([(item, 17)])).unwrap();
        } else {
            theirs.synced(&key).at(&item).add(10).unwrap();
        }
        line.up();
        mine.flush(DEADLINE).unwrap();
        let stored = theirs.get(&Key::<Value>::new("map")).unwrap().unwrap();
        assert_eq!(
            theirs.get(&key).unwrap(),
            Some(HashMap::from([(item, 18)])),
            "{stored}"
        );
        assert_eq!(stored.as_object().unwrap().len(), 1, "{stored}");
    }
}
