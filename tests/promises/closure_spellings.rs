//! A value can be spelled in several ways: elements of sets and lists are found by their decoded
//! value, not by their text.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::net::Ipv6Addr;

use ordered_float::OrderedFloat;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use synced_memory::{Key, Memory, Synced};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::closure_merges::{leaves, store};
use crate::line::on_every_backend;

/// A point in time, which may be written with any offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct Moment(#[serde(with = "time::serde::rfc3339")] OffsetDateTime);

fn moment(seconds: i64) -> Moment {
    Moment(OffsetDateTime::from_unix_timestamp(seconds).unwrap())
}

pub(crate) fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A value with several spellings.
pub(crate) trait Spelled:
    Debug + Clone + Eq + Hash + Ord + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<T: Debug + Clone + Eq + Hash + Ord + Serialize + DeserializeOwned + Send + Sync + 'static>
    Spelled for T
{
}

/// A check with three values of one type: two that are stored in another spelling than the type's
/// own, and one that is absent.
pub(crate) trait WithEach {
    /// `texts`: the JSON in which the first two are stored.
    fn with<T: Spelled>(&self, texts: [&str; 2], items: [T; 3]);
}

pub(crate) fn each_type(check: &impl WithEach) {
    check.with(
        [r#""0:0:0:0:0:0:0:1""#, r#""2001:DB8::5""#],
        ["::1", "2001:db8::5", "::2"].map(address),
    );
    check.with(
        [
            r#""ABCDEF00-0000-4000-8000-0000000000A0""#,
            r#""abcdef00000040008000000000000001""#,
        ],
        [0xa0, 0x01, 0x02].map(|n| Uuid::from_u128(0xabcd_ef00_0000_4000_8000_0000_0000_0000 + n)),
    );
    check.with(
        [
            r#""2001-09-09T03:46:40+02:00""#,
            r#""2001-09-09T01:46:41.000Z""#,
        ],
        [
            moment(1_000_000_000),
            moment(1_000_000_001),
            moment(1_000_000_002),
        ],
    );
    check.with(
        [r#""\u00e9\u0074\u00e9""#, r#""a\/b""#],
        ["été", "a/b", "c"].map(str::to_owned),
    );
    check.with([r#""\u00e9""#, r#""\n""#], ['é', '\n', 'c']);
}

/// As members of a set.
struct Sets<'a>([&'a Memory; 2]);

impl WithEach for Sets<'_> {
    fn with<T: Spelled>(&self, texts: [&str; 2], items: [T; 3]) {
        let ([one, other], [item, neighbour, new]) = (self.0, items);
        let text = format!("[{}, {}]", texts[0], texts[1]);
        let count = |memory: &Memory| {
            let stored = memory.get(&Key::<Value>::new("set")).unwrap().unwrap();
            stored.as_array().unwrap().len()
        };
        macro_rules! with {
            ($set:ident) => {
                let key = Key::<$set<T>>::new("set");
                let set = one.synced(&key);
                store(other, "set", &text);
                assert!(set.contains(&item).unwrap() && !set.contains(&new).unwrap());
                assert!(!set.insert(item.clone()).unwrap(), "it is there");
                set.extend([item.clone(), neighbour.clone()]).unwrap();
                assert_eq!(
                    (set.len().unwrap(), count(other)),
                    (2, 2),
                    "no member is doubled"
                );
                set.update(|set| set.extend([item.clone(), new.clone()]))
                    .unwrap();
                assert_eq!((set.len().unwrap(), count(other)), (3, 3));
                assert!(set.remove(&item).unwrap() && !set.contains(&item).unwrap());
                assert!(!set.remove(&item).unwrap(), "it is gone");
                assert!(set.update(|set| set.remove(&neighbour)).unwrap());
                assert_eq!(other.get(&key).unwrap(), Some($set::from([new.clone()])));
                assert_eq!(count(other), 1);
            };
        }
        with!(HashSet);
        with!(BTreeSet);
    }
}

#[test]
fn a_set_finds_a_member_that_another_program_spelled_differently() {
    on_every_backend("spellings-sets", |one, other| {
        each_type(&Sets([one, other]));
    });
}

/// A call on a set, given a member that is stored in another spelling and one that is absent.
type SetCall = fn(&Synced<HashSet<Ipv6Addr>>, Ipv6Addr, Ipv6Addr) -> bool;

#[test]
fn a_set_finds_a_member_that_another_program_respelled_after_the_last_read() {
    on_every_backend("spellings-unread-sets", |one, other| {
        let key = Key::<HashSet<Ipv6Addr>>::new("set");
        let (set, item, new) = (one.synced(&key), address("::1"), address("::2"));
        let calls: [(&str, SetCall, bool, usize); 6] = [
            ("insert", |set, item, _| set.insert(item).unwrap(), false, 1),
            ("remove", |set, item, _| set.remove(&item).unwrap(), true, 0),
            (
                "extend",
                |set, item, new| set.extend([item, new]).is_ok(),
                true,
                2,
            ),
            (
                "contains",
                |set, item, _| set.contains(&item).unwrap(),
                true,
                1,
            ),
            (
                "a closure that removes",
                |set, item, _| set.update(|set| set.remove(&item)).unwrap(),
                true,
                0,
            ),
            (
                "a closure that inserts",
                |set, item, new| {
                    set.update(|set| set.insert(item) || set.insert(new))
                        .unwrap()
                },
                true,
                2,
            ),
        ];
        for (name, call, expected, count) in calls {
            other.set(&key, HashSet::new()).unwrap();
            assert!(set.is_empty().unwrap());
            store(other, "set", r#"["0:0:0:0:0:0:0:1"]"#);
            assert_eq!(call(&set, item, new), expected, "{name}");
            let stored = other.get(&Key::<Value>::new("set")).unwrap().unwrap();
            assert_eq!(stored.as_array().unwrap().len(), count, "{name}: {stored}");
        }
    });
}

/// As elements of a list.
struct Lists<'a>([&'a Memory; 2]);

impl WithEach for Lists<'_> {
    fn with<T: Spelled>(&self, texts: [&str; 2], items: [T; 3]) {
        let ([one, other], [item, neighbour, new]) = (self.0, items);
        let (key, [first, second]) = (Key::<Vec<T>>::new("list"), texts);
        let list = one.synced(&key);
        store(other, "list", &format!("[{first}, {second}, {first}]"));
        assert!(
            list.remove_item(&item).unwrap() && list.remove_item(&item).unwrap(),
            "{item:?}"
        );
        assert!(!list.remove_item(&item).unwrap() && !list.remove_item(&new).unwrap());
        assert_eq!(
            other.get(&key).unwrap().unwrap(),
            std::slice::from_ref(&neighbour)
        );
        let text = format!("[{first}, {second}]");
        leaves(one, other, &text, |list: &mut Vec<T>| {
            list.retain(|it| *it != item);
        });
        leaves(one, other, &text, |list: &mut Vec<T>| {
            list.insert(1, new.clone());
        });
        leaves(one, other, &text, |list: &mut Vec<T>| list.reverse());
        leaves(one, other, &text, |list: &mut Vec<T>| {
            list[1] = item.clone();
        });
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Doc {
    tags: HashSet<u32>,
    counts: HashMap<String, i64>,
}

fn doc() -> Doc {
    Doc {
        tags: (0..6).collect(),
        counts: (0..6).map(|n| (format!("k{n}"), n)).collect(),
    }
}

#[test]
fn a_list_finds_an_element_that_another_program_spelled_differently() {
    on_every_backend("spellings-lists", |one, other| {
        each_type(&Lists([one, other]));
    });
}

#[test]
fn a_list_of_floats_finds_the_integers_that_another_program_wrote() {
    on_every_backend("spellings-floats", |one, other| {
        let key = Key::<Vec<f64>>::new("floats");
        let floats = one.synced(&key);
        store(other, "floats", "[1, 2, 3, 1e1, 2.50]");
        assert!(
            [1.0, 10.0, 2.5]
                .iter()
                .all(|item| floats.remove_item(item).unwrap())
        );
        assert!(!floats.remove_item(&1.0).unwrap());
        floats.at(0).add(0.5).unwrap();
        assert_eq!(other.get(&key).unwrap().unwrap(), [2.5, 3.0]);
        let changes: [fn(&mut Vec<f64>); 5] = [
            |list| {
                list.remove(1);
                list.push(4.5);
            },
            |list| list.sort_by(f64::total_cmp),
            |list| list[2] = 2.0,
            |list| list.retain(|item| *item > 1.0),
            |list| list.insert(0, 1.0),
        ];
        for change in changes {
            leaves(one, other, "[3, 1, 2, 1]", change);
        }
        let ordered = Key::<HashSet<OrderedFloat<f64>>>::new("set");
        store(other, "set", "[1, 2.50]");
        let set = one.synced(&ordered);
        assert_eq!(set.len().unwrap(), 2);
        assert!(!set.insert(OrderedFloat(1.0)).unwrap() && set.remove(&OrderedFloat(2.5)).unwrap());
        assert_eq!(
            other.get(&ordered).unwrap(),
            Some(HashSet::from([OrderedFloat(1.0)]))
        );
        let by_float = Key::<BTreeMap<OrderedFloat<f64>, i64>>::new("by_float");
        store(other, "by_float", r#"{"1": 1, "2.50": 2}"#);
        let map = one.synced(&by_float);
        assert_eq!(map.len().unwrap(), 2);
        assert_eq!(
            (
                map.insert(OrderedFloat(1.0), 5).unwrap(),
                map.remove(&OrderedFloat(2.5)).unwrap()
            ),
            (Some(1), Some(2))
        );
        assert_eq!(
            other.get(&by_float).unwrap(),
            Some(BTreeMap::from([(OrderedFloat(1.0), 5)]))
        );
    });
}

#[test]
fn a_list_finds_elements_that_contain_sets_and_maps_in_any_order() {
    const ROUNDS: usize = 20;
    on_every_backend("spellings-holders", |one, other| {
        let (sets, maps) = (
            Key::<Vec<HashSet<u32>>>::new("sets"),
            Key::<Vec<HashMap<String, i64>>>::new("maps"),
        );
        let docs = Key::<Vec<Doc>>::new("docs");
        for _ in 0..ROUNDS {
            other.set(&sets, vec![doc().tags, HashSet::new()]).unwrap();
            other
                .set(&maps, vec![HashMap::new(), doc().counts])
                .unwrap();
            other.set(&docs, vec![doc(), doc()]).unwrap();
            let read = one.get(&docs).unwrap().unwrap();
            assert!(one.synced(&sets).remove_item(&doc().tags).unwrap());
            assert!(one.synced(&maps).remove_item(&doc().counts).unwrap());
            assert!(one.synced(&docs).remove_item(&doc()).unwrap());
            assert!(
                one.synced(&docs).remove_item(&read[0]).unwrap(),
                "an element that was just read"
            );
            assert!(!one.synced(&docs).remove_item(&doc()).unwrap());
            assert_eq!(other.get(&sets).unwrap().unwrap(), [HashSet::new()]);
            assert_eq!(other.get(&maps).unwrap().unwrap(), [HashMap::new()]);
            assert_eq!(other.get(&docs).unwrap().unwrap(), []);
        }
        let nested = Key::<BTreeSet<BTreeMap<String, u8>>>::new("nested");
        store(other, "nested", r#"[{"b": 1, "a": 2}, {"c": 3}]"#);
        let member = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let nested = one.synced(&nested);
        assert!(!nested.insert(member.clone()).unwrap() && nested.remove(&member).unwrap());
        assert_eq!(nested.len().unwrap(), 1);
    });
}
