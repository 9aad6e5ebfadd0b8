//! After a change of a long collection a near view decodes what has changed, and no more; and what
//! it shows is what is stored.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde::{Deserialize, Deserializer, Serialize};
use support::eventually;
use synced_memory::{ErrorKind, Key, Memory, SyncedMemory};

use crate::line::{DEADLINE, Line, quick};

thread_local! {
    static DECODED: Cell<usize> = const { Cell::new(0) };
}

/// An element that counts how often one is decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
struct Item(String);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.set(DECODED.get() + 1);
        String::deserialize(deserializer).map(Self)
    }
}

fn item(n: usize) -> Item {
    Item(format!("item {n:06}"))
}

fn name(n: usize) -> String {
    format!("name {n:06}")
}

/// How many items `read` decodes.
fn decoded_by(read: impl FnOnce()) -> usize {
    let before = DECODED.get();
    read();
    DECODED.get() - before
}

#[derive(SyncedMemory)]
#[synced(near)]
struct Long {
    list: Vec<Item>,
    queue: VecDeque<Item>,
    map: HashMap<String, Item>,
    table: BTreeMap<Item, u32>,
    tags: BTreeSet<Item>,
}

const COUNT: usize = 20_000;

/// At most so many items are decoded for one change: the one that was, the one that is, and one
/// beside it, which has the spaces that fill up what became shorter.
const FEW: usize = 3;

fn fill(long: &SyncedLong) {
    let values = Long {
        list: (0..COUNT).map(item).collect(),
        queue: (0..COUNT).map(item).collect(),
        map: (0..COUNT).map(|n| (name(n), item(n))).collect(),
        table: (0..COUNT).map(|n| (item(n), 1)).collect(),
        tags: (0..COUNT).map(item).collect(),
    };
    long.restore(values).unwrap();
}

/// A look at each of the views.
fn look(long: &SyncedLong) {
    long.list().with(Vec::len).unwrap();
    long.queue().with(VecDeque::len).unwrap();
    long.map().with(HashMap::len).unwrap();
    long.table().with(BTreeMap::len).unwrap();
    long.tags().with(BTreeSet::len).unwrap();
}

#[test]
fn after_a_change_of_a_long_collection_what_has_changed_is_decoded() {
    let line = Line::new();
    let memory = line.open();
    let long = Long::attach(&memory);
    fill(&long);
    eventually(DEADLINE, "nothing is decoded again", || {
        decoded_by(|| look(&long)) == 0
    });
    // Nobody else changes what this process shows.
    line.down(&memory);

    let changes: [fn(&SyncedLong, usize); 7] = [
        |long, n| _ = long.list().push(item(COUNT + n)).unwrap(),
        |long, n| _ = long.list().at(n).set(item(n + 7)).unwrap(),
        |long, n| _ = long.queue().push(item(COUNT + n)).unwrap(),
        |long, n| _ = long.queue().at(0).set(item(n + 9)).unwrap(),
        |long, n| _ = long.map().insert(name(n), item(n + 9)).unwrap(),
        |long, n| _ = long.map().insert(name(COUNT + n), item(n)).unwrap(),
        |long, n| assert!(long.map().remove(&name(n + 1)).unwrap().is_some()),
    ];
    for (at, change) in changes.iter().enumerate() {
        for n in [5, 10_000] {
            change(&long, n);
            let decoded = decoded_by(|| look(&long));
            assert!((1..=FEW).contains(&decoded), "change {at}: {decoded}");
        }
    }
    assert!(long.table().insert(item(3), 9).unwrap().is_some());
    assert!(long.tags().remove(&item(3)).unwrap());
    let decoded = decoded_by(|| look(&long));
    assert!((1..=2 * FEW).contains(&decoded), "{decoded}");
    assert_eq!(long.table().at(&item(3)).get().unwrap(), 9);
    assert!(!long.tags().contains(&item(3)).unwrap());
    assert_eq!(
        long.list().with(|list| list.last().cloned()).unwrap(),
        Some(item(COUNT + 10_000))
    );

    // What was put together is what is read from the text.
    let anew = Long::attach(&memory);
    assert_eq!(decoded_by(|| _ = anew.list().get().unwrap()), COUNT + 2);
    assert_eq!(anew.list().get().unwrap(), long.list().get().unwrap());
    assert_eq!(anew.queue().get().unwrap(), long.queue().get().unwrap());
    assert_eq!(anew.map().get().unwrap(), long.map().get().unwrap());
    assert_eq!(anew.table().get().unwrap(), long.table().get().unwrap());
    assert_eq!(anew.tags().get().unwrap(), long.tags().get().unwrap());
}

fn near(name: &str) -> Memory {
    let near = quick(format!("memory:{name}")).read_policy(synced_memory::ReadPolicy::Near);
    near.build().unwrap()
}

#[test]
fn an_older_value_that_somebody_holds_stays_as_it_was() {
    let memory = near("followed-held");
    let list = memory.synced(&Key::<Vec<Item>>::new("list"));
    list.set((0..COUNT).map(item).collect()).unwrap();
    let held = list.read().unwrap();
    for n in 0..3 {
        list.push(item(COUNT + n)).unwrap();
        assert_eq!(list.len().unwrap(), COUNT + n + 1);
        list.with(|now| {
            list.push(item(7)).unwrap();
            assert_eq!(list.with(Vec::len).unwrap(), now.len() + 1);
            assert_eq!(now.len(), COUNT + n + 1);
        })
        .unwrap();
        assert_eq!(list.pop().unwrap(), Some(item(7)));
    }
    assert_eq!(held.len(), COUNT);
    assert_eq!(list.len().unwrap(), COUNT + 3);
}

#[test]
fn an_element_that_does_not_decode_fails_as_it_does_anew_and_only_as_long_as_it_is_there() {
    let memory = near("followed-undecodable");
    let list = memory.synced(&Key::<Vec<u8>>::new("list"));
    let numbers = memory.synced(&Key::<Vec<u32>>::new("list"));
    numbers.set(vec![7; COUNT]).unwrap();
    assert_eq!(list.len().unwrap(), COUNT);
    numbers.at(9_000).set(256).unwrap();
    let error = eventually_fails(|| list.len());
    let anew = memory.synced(&Key::<Vec<u8>>::new("list"));
    assert_eq!(error, anew.len().unwrap_err().to_string());
    numbers.at(9_000).set(8).unwrap();
    eventually(DEADLINE, "it decodes", || {
        list.at(9_000).find().ok() == Some(Some(8))
    });
    assert_eq!(list.len().unwrap(), COUNT);
}

fn eventually_fails<T>(read: impl Fn() -> synced_memory::Result<T>) -> String {
    let mut said = None;
    eventually(DEADLINE, "it does not decode", || {
        said = read().err();
        said.is_some()
    });
    let error = said.unwrap();
    assert_eq!(error.kind(), ErrorKind::Decode);
    error.to_string()
}

#[test]
fn threads_that_look_while_others_change_see_whole_values() {
    let memory = near("followed-threads");
    let list = memory.synced(&Key::<Vec<u64>>::new("list"));
    list.set((0..COUNT as u64).collect()).unwrap();
    let is_done = AtomicBool::new(false);
    let is_whole = |list: &Vec<u64>| {
        let (first, end) = (list[0], list[list.len() - 1]);
        end == list.len() as u64 - 1 && list.iter().sum::<u64>() - first == end * (end + 1) / 2
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    assert!(list.with(is_whole).unwrap());
                    assert!(list.at(1).get().unwrap() == 1);
                }
            });
        }
        for n in 0..300 {
            list.push((COUNT + n) as u64).unwrap();
            list.at(0).set(n as u64).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert_eq!(list.len().unwrap(), COUNT + 300);
}
