//! A near read of a part looks it up in the decoded whole, and returns what the text of the part
//! says, as a read that parses it does.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::net::Ipv6Addr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use ordered_float::OrderedFloat;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use support::{Server, eventually};
use synced_memory::{Error, ErrorKind, Key, Memory, ReadPolicy, Synced, SyncedMemory};

use crate::closure_merges::store;
use crate::line::{DEADLINE, Line, on_every_backend, quick};

thread_local! {
    static DECODED: Cell<usize> = const { Cell::new(0) };
}

/// An element that counts how often it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Item(u64);

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.set(DECODED.get() + 1);
        u64::deserialize(deserializer).map(Self)
    }
}

/// How many items `read` decodes.
fn decoded_by(read: impl FnOnce()) -> usize {
    let before = DECODED.get();
    read();
    DECODED.get() - before
}

#[derive(SyncedMemory)]
#[synced(near)]
struct Parts {
    list: Vec<Item>,
    map: HashMap<String, Item>,
    table: Vec<HashMap<u32, Item>>,
    set: HashSet<Item>,
}

const COUNT: u64 = 50;

fn name(n: u64) -> String {
    format!("name {n}")
}

fn fill(parts: &SyncedParts) {
    let values = Parts {
        list: (0..COUNT).map(Item).collect(),
        map: (0..COUNT).map(|n| (name(n), Item(n))).collect(),
        table: (0..COUNT).map(|n| HashMap::from([(7, Item(n))])).collect(),
        set: (0..COUNT).map(Item).collect(),
    };
    parts.restore(values).unwrap();
}

/// Reads each part, in every way.
fn read_parts(parts: &SyncedParts) {
    for n in 0..COUNT {
        let index = usize::try_from(n).unwrap();
        let item = parts.list().at(index);
        assert_eq!(item.get().unwrap().0, n);
        assert_eq!(item.find().unwrap().unwrap().0, n);
        assert_eq!(item.with(|item| item.0).unwrap(), n);
        assert_eq!(parts.list().at(index).with(|item| item.0).unwrap(), n);
        assert_eq!(parts.map().at(&name(n)).get().unwrap().0, n);
        assert!(parts.map().contains_key(&name(n)).unwrap());
        let row = parts.table().at(index);
        assert_eq!(row.at(&7).get().unwrap().0, n);
        assert_eq!(row.len().unwrap(), 1);
        assert_eq!(row.at(&8).find().unwrap(), None);
        assert_eq!(row.at(&8).get().unwrap_err().kind(), ErrorKind::Unset);
        assert!(parts.set().contains(&Item(n)).unwrap());
    }
    let count = usize::try_from(COUNT).unwrap();
    assert_eq!(parts.list().len().unwrap(), count);
    assert_eq!(parts.list().at(count).find().unwrap(), None);
    assert_eq!(parts.map().at("none").find().unwrap(), None);
    assert_eq!(parts.table().at(count).at(&7).find().unwrap(), None);
}

#[test]
fn near_reads_of_parts_decode_the_whole_once_after_each_change() {
    on_every_backend("near-parts", |one, other| {
        let (mine, theirs) = (Parts::attach(one), Parts::attach(other));
        fill(&mine);
        let nothing_is_decoded = || decoded_by(|| read_parts(&mine)) == 0;
        eventually(DEADLINE, "nothing is decoded again", nothing_is_decoded);

        theirs.list().at(3).set(Item(99)).unwrap();
        theirs.map().insert(name(3), Item(99)).unwrap();
        theirs.table().at(3).at(&7).set(Item(99)).unwrap();
        eventually(DEADLINE, "the change is seen", || {
            let seen = [
                mine.list().at(3).get().unwrap(),
                mine.map().at(&name(3)).get().unwrap(),
                mine.table().at(3).at(&7).get().unwrap(),
            ];
            seen.iter().all(|item| item.0 == 99)
        });
        assert_eq!(mine.list().at(2).get().unwrap().0, 2);
        fill(&theirs);
        eventually(DEADLINE, "it is as before", || {
            [
                mine.list().at(3).get().unwrap(),
                mine.map().at(&name(3)).get().unwrap(),
                mine.table().at(3).at(&7).get().unwrap(),
            ]
            .iter()
            .all(|item| item.0 == 3)
        });
        eventually(DEADLINE, "nothing is decoded again", nothing_is_decoded);
    });
}

#[test]
fn a_read_of_a_part_that_is_not_near_decodes_that_part_only() {
    on_every_backend("through-parts", |one, _| {
        let list = one.synced(&Key::<Vec<Item>>::new("list"));
        list.set((0..COUNT).map(Item).collect()).unwrap();
        for _ in 0..3 {
            let read = || assert_eq!(list.at(7).get().unwrap().0, 7);
            assert_eq!(decoded_by(read), 1);
        }
        list.read().unwrap();
        assert_eq!(decoded_by(|| assert_eq!(list.at(7).get().unwrap().0, 7)), 0);
    });
}

#[test]
fn a_whole_that_does_not_decode_is_tried_once_and_its_parts_are_read() {
    let memory = near("near-parts-undecodable");
    store(&memory, "list", r#"[1, "x", 3]"#);
    let list = memory.synced(&Key::<Vec<Item>>::new("list"));
    let read = || {
        assert_eq!(list.at(0).get().unwrap().0, 1);
        assert_eq!(list.at(1).get().unwrap_err().kind(), ErrorKind::Decode);
        assert_eq!(list.at(2).get().unwrap().0, 3);
    };
    eventually(DEADLINE, "only the parts are decoded", || {
        decoded_by(|| (0..10).for_each(|_| read())) == 30
    });
    list.at(1).set(Item(2)).unwrap();
    eventually(DEADLINE, "nothing is decoded again", || {
        decoded_by(|| assert_eq!(list.at(1).get().unwrap().0, 2)) == 0
    });
}

#[test]
fn a_view_keeps_one_decoded_copy_however_its_parts_are_read() {
    /// Of a type of its own, since others are counted by tests that run at the same time.
    #[derive(Debug, Serialize)]
    struct Live(u64);

    static LIVE: AtomicIsize = AtomicIsize::new(0);

    impl Clone for Live {
        fn clone(&self) -> Self {
            LIVE.fetch_add(1, Ordering::Relaxed);
            Self(self.0)
        }
    }

    impl Drop for Live {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl<'de> Deserialize<'de> for Live {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let n = u64::deserialize(deserializer)?;
            LIVE.fetch_add(1, Ordering::Relaxed);
            Ok(Self(n))
        }
    }

    let memory = near("near-parts-copies");
    let matrix = memory.synced(&Key::<Vec<Vec<Live>>>::new("matrix"));
    let texts = Key::<Vec<Vec<u64>>>::new("matrix");
    for change in 0..5 {
        memory.set(&texts, vec![vec![change; 10]; 10]).unwrap();
        for n in 0..100 {
            let (row, column) = (n / 10, n % 10);
            assert_eq!(matrix.at(row).at(column).get().unwrap().0, change);
            assert_eq!(matrix.at(row).len().unwrap(), 10);
            assert!(matrix.read().is_ok());
        }
        assert_eq!(LIVE.load(Ordering::Relaxed), 100);
    }
}

#[test]
fn what_this_process_has_queued_is_in_the_parts() {
    let line = Line::new();
    let memory = line.open();
    let parts = Parts::attach(&memory);
    fill(&parts);
    eventually(DEADLINE, "nothing is decoded again", || {
        decoded_by(|| read_parts(&parts)) == 0
    });
    line.down(&memory);

    let (list, map) = (parts.list(), parts.map());
    list.push(Item(100)).unwrap();
    assert_eq!(list.at(50).get().unwrap().0, 100);
    list.at(0).set(Item(200)).unwrap();
    map.insert(name(1), Item(200)).unwrap();
    assert!(map.at(&name(2)).delete().unwrap());
    parts.table().at(1).at(&9).set(Item(200)).unwrap();
    for _ in 0..3 {
        assert_eq!(list.at(0).get().unwrap().0, 200);
        assert_eq!(list.at(50).get().unwrap().0, 100);
        assert_eq!(list.at(51).find().unwrap(), None);
        assert_eq!(map.at(&name(1)).get().unwrap().0, 200);
        assert_eq!(map.at(&name(2)).find().unwrap(), None);
        assert_eq!(parts.table().at(1).at(&9).get().unwrap().0, 200);
        assert_eq!(parts.table().at(1).len().unwrap(), 2);
    }
    line.deliver(&memory);
    assert_eq!(line.open_directly().synced(&list_key()).len().unwrap(), 51);
}

fn list_key() -> Key<Vec<Item>> {
    Key::new("list")
}

#[test]
fn a_part_ends_with_the_whole_and_then_an_older_name_is_shown() {
    #[derive(SyncedMemory)]
    struct Renamed {
        #[synced(near, alias = "old", ttl = "500ms")]
        list: Vec<u64>,
    }
    on_every_backend("near-parts-expiry", |one, _| {
        one.set(&Key::<Vec<u64>>::new("old"), vec![1, 2]).unwrap();
        let renamed = Renamed::attach(one);
        renamed.set_list(vec![3]).unwrap();
        let held = renamed.list().at(0);
        eventually(DEADLINE, "the list has expired", || {
            let (whole, part) = (renamed.list().get().unwrap(), held.get().unwrap());
            assert!([1, 3].contains(&part));
            let again = renamed.list().at(0).get().unwrap();
            // In between it may have expired, and never the other way round.
            assert!(
                whole[0] >= part && part >= again,
                "{whole:?}, {part}, {again}"
            );
            again == 1
        });
        assert_eq!(held.get().unwrap(), 1);
        assert_eq!(renamed.list().at(1).get().unwrap(), 2);
    });
}

#[test]
fn parts_of_what_is_no_text_are_read_as_without_a_decoded_whole() {
    #[derive(Debug, Clone, Serialize, Deserialize)]
    struct Numbered {
        n: u64,
    }
    let server = Server::redis().start();
    let mut connection = redis::Client::open(server.url())
        .and_then(|client| client.get_connection())
        .unwrap();
    let stored = b"{\"value\": [{\"n\": 1, \"other\": \"\xff\"}, {\"n\": 2}],\"last_modified\": 5}";
    let set = redis::cmd("SET")
        .arg("memory:list")
        .arg(&stored[..])
        .exec(&mut connection);
    set.unwrap();

    let memory = quick(server.url())
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap();
    let key = Key::<Vec<Numbered>>::new("list");
    let view = memory.synced(&key);
    // A struct does not look at members that it does not have.
    assert_eq!(view.read().unwrap()[1].n, 2);
    let by_text = memory.synced(&key).at(1).get().map(|numbered| numbered.n);
    for _ in 0..3 {
        let part = view.at(1).get().map(|numbered| numbered.n);
        assert_eq!(said(&part), said(&by_text));
    }
}

#[test]
fn a_part_of_a_closed_memory_is_closed() {
    let memory = near("near-parts-closed");
    let list = memory.synced(&Key::<Vec<u64>>::new("list"));
    list.set(vec![1]).unwrap();
    let held = list.at(0);
    assert_eq!((list.get().unwrap(), held.get().unwrap()), (vec![1], 1));
    memory.close(DEADLINE).unwrap();
    for part in [held, list.at(0)] {
        assert_eq!(part.get().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(
            part.with(|part| *part).unwrap_err().kind(),
            ErrorKind::Closed
        );
    }
}

#[test]
fn a_confirmed_view_of_a_part_asks_the_backend() {
    let line = Line::new();
    let memory = line.open();
    let parts = Parts::attach(&memory);
    fill(&parts);
    eventually(DEADLINE, "nothing is decoded again", || {
        decoded_by(|| read_parts(&parts)) == 0
    });
    let confirmed = [
        parts.list().confirmed().at(1),
        parts.list().at(1).confirmed(),
    ];
    for part in &confirmed {
        assert_eq!(part.get().unwrap().0, 1);
    }
    line.down(&memory);
    assert_eq!(parts.list().at(1).get().unwrap().0, 1);
    for part in &confirmed {
        assert_eq!(part.get().unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

/// A key whose every method makes a call.
#[derive(Debug, Eq, PartialOrd, Ord)]
struct Caller(String);

static CALLED: OnceLock<Memory> = OnceLock::new();

fn call() {
    let memory = CALLED.get().unwrap();
    memory.set(&Key::<u64>::new("called"), 1).unwrap();
    assert_eq!(memory.get(&Key::<u64>::new("called")).unwrap(), Some(1));
}

impl Clone for Caller {
    fn clone(&self) -> Self {
        call();
        Self(self.0.clone())
    }
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        call();
        self.0 == other.0
    }
}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        call();
        self.0.hash(state);
    }
}

impl Serialize for Caller {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Caller {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        call();
        String::deserialize(deserializer).map(Self)
    }
}

#[test]
fn keys_and_elements_may_make_calls_while_a_part_is_looked_up() {
    let memory = CALLED.get_or_init(|| near("near-parts-calls"));
    let map = memory.synced(&Key::<HashMap<Caller, Caller>>::new("map"));
    store(memory, "map", r#"{"a": "b", "c": "d"}"#);
    for _ in 0..3 {
        let found = map.at(&Caller("c".to_owned()));
        assert_eq!(found.get().unwrap().0, "d");
        assert_eq!(found.with(|found| found.0.clone()).unwrap(), "d");
        assert_eq!(map.at(&Caller("e".to_owned())).find().unwrap(), None);
    }
}

#[test]
fn keys_and_elements_may_make_calls_while_a_value_follows_changes() {
    let memory = CALLED.get_or_init(|| near("near-parts-calls"));
    let map = memory.synced(&Key::<HashMap<Caller, Caller>>::new("long"));
    let entry = |n: usize| format!("\"{n}\": \"{}\"", "d".repeat(1_000 + n));
    let entries: Vec<String> = (0..40).map(entry).collect();
    store(memory, "long", &format!("{{{}}}", entries.join(",")));
    assert_eq!(map.len().unwrap(), 40);
    for n in 0..3 {
        let (changed, added) = (Caller(n.to_string()), Caller(format!("new {n}")));
        assert!(
            map.insert(changed, Caller(n.to_string()))
                .unwrap()
                .is_some()
        );
        assert!(map.insert(added, Caller(n.to_string())).unwrap().is_none());
        assert_eq!(map.len().unwrap(), 41 + n);
        let found = map.at(&Caller(format!("new {n}")));
        assert_eq!(found.get().unwrap().0, n.to_string());
    }
}

fn near(name: &str) -> Memory {
    quick(format!("memory:{name}"))
        .read_policy(ReadPolicy::Near)
        .build()
        .unwrap()
}

/// What a call returned, with all that an error says.
fn said<T: Debug>(result: &Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            format!("{:?}: {error}: {cause:?}", error.kind())
        }
    }
}

/// What reads of a part return. Each read asks for a view of the whole.
fn of_part<T, U>(view: &dyn Fn() -> Synced<T>, at: impl Fn(Synced<T>) -> Synced<U>) -> Vec<String>
where
    U: synced_memory::Value + Debug,
{
    vec![
        said(&at(view()).get()),
        said(&at(view()).find()),
        said(&at(view()).with(|part| format!("{part:?}"))),
        said(&at(view()).read()),
        said(&pollster::block_on(at(view()).get_async())),
    ]
}

/// A type of which the parts are read.
trait WithParts: synced_memory::Value {
    fn parts(view: &dyn Fn() -> Synced<Self>) -> Vec<String>;
}

macro_rules! with_parts {
    ($($type:ty: |$view:ident| [$($at:expr),+ $(,)?], $($len:expr),*;)*) => { $(
        impl WithParts for $type {
            fn parts(view: &dyn Fn() -> Synced<Self>) -> Vec<String> {
                let mut said_of_parts = Vec::new();
                $(said_of_parts.extend(of_part(view, |$view| $at));)+
                $(said_of_parts.push({ let $view = view(); said(&$len) });)*
                said_of_parts
            }
        }
    )*

        fn checks() -> Vec<Check> {
            vec![$(check::<$type>),*]
        }
    };
}

with_parts! {
    Vec<i64>: |v| [v.at(0), v.at(1), v.at(2)], v.len(), v.is_empty(), v.to_vec();
    Vec<u8>: |v| [v.at(0), v.at(1)], v.len();
    Vec<Option<f64>>: |v| [v.at(0), v.at(1)], v.len();
    VecDeque<String>: |v| [v.at(0), v.at(1)], v.len(), v.is_empty();
    Vec<Vec<i64>>: |v| [v.at(0).at(0), v.at(0).at(1), v.at(1).at(0)], v.at(0).len(), v.len();
    Vec<HashMap<String, i64>>:
        |v| [v.at(0).at("a"), v.at(1).at("b")], v.at(0).len(), v.at(0).contains_key("a");
    Vec<BTreeSet<u8>>: |v| [v.at(0)], v.at(0).len(), v.at(1).contains(&1), v.at(0).is_empty();
    Vec<Value>: |v| [v.at(0), v.at(1).at("a"), v.at(0).at(1)], v.at(0).len(), v.at(0).keys();
    Value:
        |v| [v.at("a"), v.at(0), v.at("a").at("b"), v.at("1").at(0), v.at(0).at(0)],
        v.len(), v.keys(), v.at("a").len(), v.at("b").contains_key("a");
    HashMap<String, i64>: |v| [v.at("a"), v.at("1"), v.at("none")], v.len(), v.contains_key("a");
    HashMap<String, Value>: |v| [v.at("a").at("b"), v.at("b").at(0)], v.at("a").len();
    HashMap<String, Vec<Option<i64>>>: |v| [v.at("a").at(0), v.at("b").at(1)], v.at("1").len();
    BTreeMap<String, HashMap<String, i64>>: |v| [v.at("a").at("a"), v.at("b").at("1")], v.len();
    BTreeMap<i64, Option<i64>>: |v| [v.at(&1), v.at(&-1), v.at(&0)], v.len(), v.contains_key(&1);
    BTreeMap<u8, Vec<i64>>: |v| [v.at(&1).at(0), v.at(&1).at(1)], v.at(&1).len(), v.keys();
    HashMap<u64, f64>: |v| [v.at(&1), v.at(&u64::MAX)], v.len();
    HashMap<i128, i64>: |v| [v.at(&1), v.at(&0)], v.len();
    HashMap<bool, i64>: |v| [v.at(&true), v.at(&false)], v.len();
    BTreeMap<char, i64>: |v| [v.at(&'a'), v.at(&'1')], v.len();
    HashMap<Ipv6Addr, i64>:
        |v| [v.at(&Ipv6Addr::LOCALHOST), v.at(&Ipv6Addr::UNSPECIFIED)], v.len();
    HashMap<OrderedFloat<f64>, i64>: |v| [v.at(&OrderedFloat(1.0)), v.at(&OrderedFloat(0.0))],
        v.len();
    BTreeMap<Option<u8>, i64>: |v| [v.at(&Some(1))], v.len();
    HashMap<Mark, Mark>: |v| [v.at(&Mark::A), v.at(&Mark::B)], v.len(), v.contains_key(&Mark::A);
    Vec<Pair>: |v| [v.at(0), v.at(1)], v.len();
}

/// An enum whose variant `A` has two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    #[serde(alias = "1")]
    A,
    B,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pair {
    a: i64,
    #[serde(default)]
    b: Option<Vec<u8>>,
}

fn one_of(texts: &'static [&'static str]) -> BoxedStrategy<String> {
    let text = prop::sample::select(texts);
    text.prop_map(str::to_owned).boxed()
}

/// Names of members and strings, as they are written.
fn strings() -> BoxedStrategy<String> {
    one_of(&[
        r#""a""#,
        r#""\u0061""#,
        r#""b""#,
        r#""1""#,
        r#""01""#,
        r#""1.0""#,
        r#""1e0""#,
        r#""-0""#,
        r#""-1""#,
        r#""0""#,
        r#""18446744073709551615""#,
        r#""true""#,
        r#""\u0074rue""#,
        r#""::1""#,
        r#""0:0:0:0:0:0:0:1""#,
        r#""::""#,
        r#""null""#,
        r#""\ud800""#,
        r#""""#,
    ])
}

/// Names that the keys of a type are read from.
fn names_of_one_type() -> BoxedStrategy<Vec<String>> {
    let names: [&[&str]; 6] = [
        &[r#""a""#, r#""\u0061""#, r#""b""#, r#""1""#],
        &[r#""1""#, r#""0""#, r#""-1""#, r#""\u0031""#],
        &[r#""1""#, r#""18446744073709551615""#],
        &[r#""1""#, r#""1.0""#, r#""1e0""#, r#""0.0""#],
        &[r#""true""#, r#""false""#],
        &[r#""::1""#, r#""0:0:0:0:0:0:0:1""#, r#""::""#],
    ];
    let kinds = names.map(|names| names.iter().copied().map(str::to_owned).collect());
    prop::sample::select(kinds.to_vec()).boxed()
}

fn leaves() -> BoxedStrategy<String> {
    let numbers = &["0", "1", "-1", "-0", "1.0", "1e0", "300", "0.1", "1e400"];
    prop_oneof![
        4 => numbers_of_one_type(),
        2 => one_of(numbers),
        1 => one_of(&["null", "true", "18446744073709551616"]),
        2 => strings(),
    ]
    .boxed()
}

fn numbers_of_one_type() -> BoxedStrategy<String> {
    (0..5_i64).prop_map(|n| n.to_string()).boxed()
}

fn list(of: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let parts = prop::collection::vec(of, 0..4);
    let list = parts.prop_map(|parts| format!("[ {} ]", parts.join(" , ")));
    list.boxed()
}

/// An object with names of one kind more often than not, so that types of keys read all of them.
fn object(of: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let names = prop_oneof![4 => names_of_one_type(), 1 => strings().prop_map(|name| vec![name])];
    let members = names.prop_flat_map(move |names| {
        let member = (prop::sample::select(names), of.clone());
        prop::collection::vec(member, 0..5)
    });
    let object = members.prop_map(|members| {
        let members: Vec<_> = members
            .into_iter()
            .map(|(name, value)| format!("{name} : {value}"))
            .collect();
        format!("{{ {} }}", members.join(" , "))
    });
    object.boxed()
}

/// Any JSON, mostly with all of one kind in each list and object.
fn texts() -> BoxedStrategy<String> {
    let numbers = numbers_of_one_type;
    let some = || prop_oneof![3 => numbers(), 1 => Just("null".to_owned())].boxed();
    let flat = || {
        let forms = [
            list(numbers()),
            object(numbers()),
            list(some()),
            object(some()),
        ];
        prop::strategy::Union::new(forms).boxed()
    };
    let any = leaves().prop_recursive(3, 24, 4, |inner| {
        prop::strategy::Union::new([list(inner.clone()), object(inner)])
    });
    let deep = Just(format!("{}1{}", "[".repeat(126), "]".repeat(126)));
    prop_oneof![
        2 => flat(),
        2 => list(flat()),
        2 => object(flat()),
        4 => any,
        1 => deep,
    ]
    .boxed()
}

type Check = fn(&Memory, &str) -> bool;

/// Checks that parts read the same by their text and in the decoded whole; whether that decodes.
fn check<T: WithParts>(memory: &Memory, text: &str) -> bool {
    let key = Key::<T>::new("value");
    // A view that has read nothing has nothing decoded.
    let by_text = T::parts(&|| memory.synced(&key));

    let (read, unread) = (memory.synced(&key), memory.synced(&key));
    let is_read = read.read().is_ok();
    for view in [&read, &read, &unread, &unread] {
        let type_name = std::any::type_name::<T>();
        let parts = T::parts(&|| view.clone());
        assert_eq!(parts, by_text, "{text} as `{type_name}`");
    }
    is_read
}

#[test]
fn a_part_reads_the_same_by_its_text_and_in_the_decoded_whole() {
    const CASES: u32 = 60;
    let memory = near("near-parts-equal");
    let checks = checks();
    let mut decoded = vec![0; checks.len()];
    for text in EXAMPLES {
        store(&memory, "value", text);
        for (check, decoded) in checks.iter().zip(&mut decoded) {
            *decoded += u32::from(check(&memory, text));
        }
    }
    assert!(decoded.iter().all(|decoded| *decoded > 0), "{decoded:?}");

    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let checked = runner.run(&texts(), |text| {
        store(&memory, "value", &text);
        for check in &checks {
            check(&memory, &text);
        }
        Ok(())
    });
    checked.unwrap();
}

/// For each type there is one that it reads.
const EXAMPLES: [&str; 17] = [
    r#"{"1": 1, "0": 2, "1": 3}"#,
    "[1, 2, 3]",
    r#"["a", "\u0061"]"#,
    "[[1, 2], [3]]",
    r#"[{"a": 1, "a": 2}, {"b": 1}]"#,
    r#"{"a": 1, "\u0061": 2}"#,
    r#"{"a": {"a": 1}, "b": {"1": 2}}"#,
    r#"{"a": [1, null], "b": [2, 3]}"#,
    r#"{"1": 1, "-1": null, "0": 3}"#,
    r#"{"1": [1, 2]}"#,
    r#"{"1": 1.5, "18446744073709551615": 2}"#,
    r#"{"true": 1, "true": 2}"#,
    r#"{"::1": 1, "0:0:0:0:0:0:0:1": 2}"#,
    r#"{"1": 1, "1.0": 2, "1e0": 3}"#,
    r#"{"a": "b", "1": "a"}"#,
    r#"[{"a": 1, "b": [1]}, {"a": 2}]"#,
    r#"{"a": {"b": 1, "a": [null]}, "b": [1, {"a": 2}]}"#,
];

#[test]
fn parts_of_an_unset_key_are_those_of_its_default() {
    #[derive(SyncedMemory)]
    struct Defaulted {
        #[synced(near, default = vec![1, 2])]
        list: Vec<u64>,
        #[synced(near)]
        plain: Vec<u64>,
    }
    let defaulted = Defaulted::attach(&near("near-parts-default"));
    for _ in 0..3 {
        assert_eq!(defaulted.list().get().unwrap(), [1, 2]);
        let part = defaulted.list().at(1);
        assert_eq!((part.get().unwrap(), part.find().unwrap()), (2, None));
        assert_eq!(
            defaulted.list().at(2).get().unwrap_err().kind(),
            ErrorKind::Unset
        );
        assert_eq!(
            defaulted.plain().at(0).get().unwrap_err().kind(),
            ErrorKind::Unset
        );
        assert_eq!(defaulted.plain().len().unwrap(), 0);
    }
    defaulted.list().push(3).unwrap();
    eventually(DEADLINE, "it is current", || {
        defaulted.list().at(2).get().unwrap() == 3
            && defaulted.list().staleness() == Some(Duration::ZERO)
    });
    assert_eq!(defaulted.list().at(0).find().unwrap(), Some(1));
}
