//! A map may hold one key in several spellings, each with a value of its own. What is read is the
//! last of them, and every call means that one.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;

use synced_memory::{Key, Synced};

use crate::closure_merges::store;
use crate::closure_spellings::address;
use crate::line::{Line, on_every_backend};

/// As which the key `::1` is read with the value 2, beside another key.
const FORMS: [&str; 5] = [
    r#"{"::2": 5, "::1": 1, "0:0:0:0:0:0:0:1": 2}"#,
    r#"{"0:0:0:0:0:0:0:1": 1, "::2": 5, "::1": 2}"#,
    r#"{"::2": 5, "0:0:0:0:0:0:0:1": 1, "::0:1": 2}"#,
    r#"{"::1": 1, "::2": 5, "0:0:0:0:0:0:0:1": 3, "::1": 2}"#,
    r#"{"0:0:0:0:0:0:0:1": 1, "::1": 3, "::2": 5, "\u003a:0:1": 2}"#,
];

/// What a call returns, as far as it says what is stored.
type Said = Vec<Option<i64>>;

/// Calls that mean the key, on a view of a stored map and on a map; and the form of the map.
macro_rules! calls {
    ($map:ident) => {{
        type Stored = Synced<$map<Ipv6Addr, i64>>;
        type Plain = $map<Ipv6Addr, i64>;
        type Call = (
            &'static str,
            fn(&Stored, Ipv6Addr) -> Said,
            fn(&mut Plain, Ipv6Addr) -> Said,
        );
        let calls: Vec<Call> = vec![
            (
                "reads",
                |map, key| {
                    assert_eq!(
                        map.contains_key(&key).unwrap(),
                        map.at(&key).find().unwrap().is_some()
                    );
                    vec![map.at(&key).find().unwrap()]
                },
                |map, key| vec![map.get(&key).copied()],
            ),
            (
                "insert",
                |map, key| vec![map.insert(key, 9).unwrap()],
                |map, key| vec![map.insert(key, 9)],
            ),
            (
                "remove",
                |map, key| vec![map.remove(&key).unwrap(), map.remove(&key).unwrap()],
                |map, key| vec![map.remove(&key), map.remove(&key)],
            ),
            (
                "get_or_insert",
                |map, key| vec![Some(map.get_or_insert(key, 8).unwrap())],
                |map, key| vec![Some(*map.entry(key).or_insert(8))],
            ),
            (
                "extend",
                |map, key| {
                    map.extend([(address("::3"), 4), (key, 7)]).unwrap();
                    vec![]
                },
                |map, key| {
                    map.extend([(address("::3"), 4), (key, 7)]);
                    vec![]
                },
            ),
            (
                "at and set",
                |map, key| {
                    map.at(&key).set(6).unwrap();
                    vec![]
                },
                |map, key| {
                    map.insert(key, 6);
                    vec![]
                },
            ),
            (
                "at and add",
                |map, key| {
                    map.at(&key).add(10).unwrap();
                    vec![]
                },
                |map, key| {
                    *map.entry(key).or_default() += 10;
                    vec![]
                },
            ),
            (
                "at and delete",
                |map, key| vec![Some(map.at(&key).delete().unwrap().into())],
                |map, key| vec![Some(map.remove(&key).is_some().into())],
            ),
            (
                "at and update",
                |map, key| {
                    if map.contains_key(&key).unwrap() {
                        map.at(&key).update(|n| *n += 20).unwrap();
                    }
                    vec![]
                },
                |map, key| {
                    map.entry(key).and_modify(|n| *n += 20);
                    vec![]
                },
            ),
            (
                "the closure of retain",
                |map, key| {
                    map.retain(|other, _| *other != key).unwrap();
                    vec![]
                },
                |map, key| {
                    map.retain(|other, _| *other != key);
                    vec![]
                },
            ),
            (
                "the closure of update",
                |map, key| {
                    map.update(|map| *map.entry(key).or_default() += 30)
                        .unwrap();
                    vec![]
                },
                |map, key| {
                    *map.entry(key).or_default() += 30;
                    vec![]
                },
            ),
        ];
        calls
    }};
}

/// The key and what is read of each form.
macro_rules! doubled {
    ($map:ident) => {
        (
            address("::1"),
            $map::from([(address("::1"), 2), (address("::2"), 5)]),
        )
    };
}

#[test]
fn every_call_means_the_entry_that_is_read_if_a_key_is_stored_in_several_spellings() {
    macro_rules! check {
        ($map:ident, $one:ident, $other:ident) => {
            let key = Key::<$map<Ipv6Addr, i64>>::new("map");
            let (item, read) = doubled!($map);
            let views = [
                ("", $one.synced(&key)),
                ("confirmed ", $one.synced(&key).confirmed()),
            ];
            for (form, (policy, view)) in FORMS
                .into_iter()
                .flat_map(|form| views.iter().map(move |view| (form, view)))
            {
                for (name, by_view, by_value) in calls!($map) {
                    store($other, "map", form);
                    assert_eq!($one.get(&key).unwrap().as_ref(), Some(&read), "{form}");
                    let mut left = read.clone();
                    let expected = by_value(&mut left, item);
                    let case = format!("{policy}{name} on {form}");
                    assert_eq!(by_view(view, item), expected, "{case}");
                    assert_eq!($one.get(&key).unwrap().as_ref(), Some(&left), "{case}");
                    assert_eq!($other.get(&key).unwrap().as_ref(), Some(&left), "{case}");
                }
            }
        };
    }
    on_every_backend("doubled-keys", |one, other| {
        check!(BTreeMap, one, other);
        check!(HashMap, one, other);
    });
}

#[test]
fn pop_hands_out_a_key_once_however_often_it_is_stored() {
    on_every_backend("doubled-pops", |one, other| {
        let key = Key::<BTreeMap<Ipv6Addr, i64>>::new("map");
        let map = one.synced(&key);
        for form in FORMS {
            store(other, "map", form);
            let mut taken = [map.pop().unwrap().unwrap(), map.pop().unwrap().unwrap()];
            taken.sort_unstable();
            assert_eq!(taken, [(address("::1"), 2), (address("::2"), 5)], "{form}");
            assert_eq!(
                (map.pop().unwrap(), other.get(&key).unwrap()),
                (None, Some(BTreeMap::new()))
            );
        }
    });
}

#[test]
fn queued_calls_mean_the_entry_that_is_read_if_a_key_is_stored_in_several_spellings() {
    type Entries = BTreeMap<Ipv6Addr, i64>;
    let line = Line::new();
    let (mine, theirs) = (line.open(), line.open_directly());
    let (item, read) = doubled!(BTreeMap);
    let calls = calls!(BTreeMap);
    let mut cases = Vec::new();
    for form in FORMS {
        for first in &calls {
            for second in &calls {
                let name = format!("{}, then {}, on {form}", first.0, second.0);
                let key = Key::<Entries>::named(format!("map{}", cases.len()));
                theirs
                    .synced(&Key::<Box<serde_json::value::RawValue>>::named(
                        key.name().to_owned(),
                    ))
                    .set(serde_json::from_str(form).unwrap())
                    .unwrap();
                assert_eq!(mine.get(&key).unwrap().as_ref(), Some(&read));
                cases.push((name, key, [first, second]));
            }
        }
    }
    line.down(&mine);
    let mut expected = Vec::new();
    for (name, key, calls) in &cases {
        let (map, mut left) = (mine.synced(key), read.clone());
        for (_, by_view, by_value) in calls {
            let said = by_value(&mut left, item);
            assert_eq!(by_view(&map, item), said, "{name}");
            assert_eq!(map.get().unwrap(), left, "{name}");
        }
        expected.push(left);
    }
    // Another process writes the map, so that what is queued is rebased. What a closure did to such
    // a map is compared as a whole.
    let neighbour = address("::2");
    let is_closure = |call: &str| call.starts_with("the closure");
    for ((_, key, calls), left) in cases.iter().zip(&mut expected) {
        if !calls.iter().any(|call| is_closure(call.0)) {
            theirs.synced(key).at(&neighbour).add(100).unwrap();
            left.insert(neighbour, 105);
        }
    }
    line.deliver(&mine);
    for ((name, key, _), left) in cases.iter().zip(&expected) {
        assert_eq!(theirs.get(key).unwrap().as_ref(), Some(left), "{name}");
        assert_eq!(mine.get(key).unwrap().as_ref(), Some(left), "{name}");
    }
    let letters = mine.dead_letters();
    assert!(letters.is_empty(), "{letters:?}");
    assert_eq!(mine.status().superseded, 0);
}

type QueuedCall = fn(&Synced<BTreeMap<Ipv6Addr, i64>>, &Ipv6Addr);

#[test]
fn a_queued_call_means_the_entry_that_is_read_if_another_spelling_is_stored_meanwhile() {
    let line = Line::new();
    let (mine, theirs) = (line.open(), line.open_directly());
    let key = Key::<BTreeMap<Ipv6Addr, i64>>::new("map");
    let (map, item) = (mine.synced(&key), address("::1"));
    for (meanwhile, read) in [
        (r#"{"0:0:0:0:0:0:0:1": 1, "::1": 2}"#, 2),
        (r#"{"::1": 2, "0:0:0:0:0:0:0:1": 1}"#, 1),
    ] {
        let calls: [(QueuedCall, Option<i64>); 3] = [
            (|map, key| _ = map.at(key).add(10).unwrap(), Some(read + 10)),
            // The other process was last, so that what it stored stays if it is not what was seen.
            (
                |map, key| _ = map.insert(*key, 9).unwrap(),
                Some(if read == 1 { 9 } else { 2 }),
            ),
            (
                |map, key| _ = map.remove(key).unwrap(),
                Some(2).filter(|_| read == 2),
            ),
        ];
        for (call, left) in calls {
            store(&theirs, "map", r#"{"0:0:0:0:0:0:0:1": 1}"#);
            assert_eq!(map.get().unwrap(), BTreeMap::from([(item, 1)]));
            line.down(&mine);
            call(&map, &item);
            store(&theirs, "map", meanwhile);
            assert_eq!(
                theirs.get(&key).unwrap(),
                Some(BTreeMap::from([(item, read)]))
            );
            line.deliver(&mine);
            assert_eq!(
                theirs.synced(&key).at(&item).find().unwrap(),
                left,
                "{meanwhile}"
            );
            assert_eq!(theirs.get(&key).unwrap().unwrap().get(&item).copied(), left);
        }
    }
}

#[test]
fn calls_below_an_entry_mean_the_one_that_is_read_if_its_key_is_stored_in_several_spellings() {
    on_every_backend("doubled-lists", |one, other| {
        let key = Key::<HashMap<Ipv6Addr, BTreeMap<Ipv6Addr, Vec<i64>>>>::new("map");
        let map = one.synced(&key);
        let (outer, inner) = (address("::1"), address("::2"));
        store(
            other,
            "map",
            r#"{"::1": {}, "::0:1": {"::2": [1], "::0:2": [2, 3], "0::2": [4]}}"#,
        );
        let list = map.at(&outer).at(&inner);
        assert_eq!(list.to_vec().unwrap(), [4]);
        list.push(5).unwrap();
        list.at(0).add(10).unwrap();
        let expected =
            |list: &[i64]| HashMap::from([(outer, BTreeMap::from([(inner, list.to_vec())]))]);
        assert_eq!(other.get(&key).unwrap(), Some(expected(&[14, 5])));
        assert_eq!(
            map.at(&outer).insert(inner, vec![6]).unwrap(),
            Some(vec![14, 5])
        );
        assert_eq!(other.get(&key).unwrap(), Some(expected(&[6])));
        assert!(list.delete().unwrap() && !list.delete().unwrap());
        assert_eq!(
            other.get(&key).unwrap(),
            Some(HashMap::from([(outer, BTreeMap::new())]))
        );
        assert!(map.remove(&outer).unwrap().is_some());
        assert_eq!(other.get(&key).unwrap(), Some(HashMap::new()));
    });
}
