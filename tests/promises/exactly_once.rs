//! Rule 6: a change whose answer is lost is made once, whatever kind of change it is.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::Direction::ToClient;
use support::eventually;
use synced_memory::{Memory, Result, SyncedMemory, Written};

use crate::line::{DEADLINE, Line, commits, wait_connected, wait_disconnected};
use crate::sizes::{Size, with_both_sizes};

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct State {
    list: Vec<i64>,
    map: BTreeMap<String, i64>,
    set: BTreeSet<i64>,
    #[synced(default)]
    integer: i64,
    #[synced(default)]
    float: f64,
    #[synced(nested, default)]
    user: User,
    #[synced(default)]
    any: Value,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct User {
    name: String,
    age: u32,
    tags: Vec<String>,
}

fn initial(size: Size) -> State {
    let filler = |count| size.filler(count).map(i64::from);
    let entry = |(key, n): (&str, i64)| (key.to_owned(), n);
    let entries = filler(2_000).map(|n| (format!("filler {n}"), n));
    State {
        list: [5, 3, 3, 4, 3].into_iter().chain(filler(20_000)).collect(),
        map: [("a", 1), ("b", 2), ("c", 3)]
            .map(entry)
            .into_iter()
            .chain(entries)
            .collect(),
        set: [1, 2].into_iter().chain(filler(2_000)).collect(),
        integer: 10,
        float: 1.5,
        user: User {
            name: "ada".to_owned(),
            age: 36,
            tags: vec!["x".to_owned()],
        },
        any: json!({"list": [1, 1], "map": {}, "filler": filler(2_000).collect::<Vec<_>>()}),
    }
}

type Action = fn(&SyncedState) -> Result<()>;

/// A change, and a later one by another process, after which it would be visible if the first one
/// were made again.
type Row = (&'static str, Action, Action);

const PUSHED: Action = |s| s.list().push(77).map(drop);

const ROWS: &[Row] = &[
    ("push", |s| s.list().push(9).map(drop), PUSHED),
    ("extend", |s| s.list().extend([9, 8]).map(drop), PUSHED),
    (
        "insert into a list",
        |s| s.list().insert(1, 8).map(drop),
        PUSHED,
    ),
    ("remove at", |s| s.list().remove(1).map(drop), PUSHED),
    (
        "remove item",
        |s| s.list().remove_item(&3).map(drop),
        PUSHED,
    ),
    ("pop of a list", |s| s.list().pop().map(drop), PUSHED),
    ("truncate", |s| s.list().truncate(3).map(drop), PUSHED),
    ("clear of a list", |s| s.list().clear().map(drop), PUSHED),
    (
        "sort",
        |s| s.list().sort().map(drop),
        |s| s.list().insert(0, 77).map(drop),
    ),
    ("reverse", |s| s.list().reverse().map(drop), PUSHED),
    (
        "retain of a list",
        |s| s.list().retain(|item| *item != 3).map(drop),
        |s| s.list().push(3).map(drop),
    ),
    (
        "splice",
        |s| s.list().splice(1..2, [8, 8]).map(drop),
        PUSHED,
    ),
    (
        "set of an element",
        |s| s.list().at(0).set(9).map(drop),
        |s| s.list().at(0).set(5).map(drop),
    ),
    (
        "add to an element",
        |s| s.list().at(0).add(1).map(drop),
        PUSHED,
    ),
    (
        "update of a list",
        |s| s.update_list(|list| list.push(9)),
        PUSHED,
    ),
    ("assignment", |s| s.set_list(vec![1]).map(drop), PUSHED),
    (
        "assignment with a push on it",
        |s| s.set_list(vec![1]).and_then(|_| s.list().push(2)).map(drop),
        PUSHED,
    ),
    (
        "delete with a push on it",
        |s| s.list().delete().and_then(|_| s.list().push(2)).map(drop),
        PUSHED,
    ),
    ("delete", |s| s.list().delete().map(drop), PUSHED),
    (
        "insert into a map",
        |s| s.map().insert("a".into(), 9).map(drop),
        |s| s.map().insert("a".into(), 5).map(drop),
    ),
    (
        "remove from a map",
        |s| s.map().remove("a").map(drop),
        |s| s.map().insert("a".into(), 5).map(drop),
    ),
    (
        "pop of a map",
        |s| s.map().pop().map(drop),
        |s| s.map().insert("d".into(), 5).map(drop),
    ),
    (
        "get or insert",
        |s| s.map().get_or_insert("new".into(), 9).map(drop),
        |s| s.map().remove("new").map(drop),
    ),
    (
        "extend of a map",
        |s| {
            s.map()
                .extend([("a".into(), 9), ("new".into(), 9)])
                .map(drop)
        },
        |s| s.map().remove("new").map(drop),
    ),
    (
        "retain of a map",
        |s| s.map().retain(|_, value| *value != 1).map(drop),
        |s| s.map().insert("d".into(), 1).map(drop),
    ),
    (
        "clear of a map",
        |s| s.map().clear().map(drop),
        |s| s.map().insert("d".into(), 1).map(drop),
    ),
    (
        "update of a map",
        |s| s.update_map(|map| *map.get_mut("a").unwrap() += 1),
        |s| s.map().insert("d".into(), 1).map(drop),
    ),
    (
        "add to an entry",
        |s| s.map().at("a").add(1).map(drop),
        |s| s.map().insert("d".into(), 1).map(drop),
    ),
    (
        "delete of an entry",
        |s| s.map().at("a").delete().map(drop),
        |s| s.map().insert("a".into(), 5).map(drop),
    ),
    (
        "insert into a set",
        |s| s.set().insert(9).map(drop),
        |s| s.set().remove(&9).map(drop),
    ),
    (
        "remove from a set",
        |s| s.set().remove(&1).map(drop),
        |s| s.set().insert(1).map(drop),
    ),
    (
        "extend of a set",
        |s| s.set().extend([8, 9]).map(drop),
        |s| s.set().remove(&9).map(drop),
    ),
    (
        "clear of a set",
        |s| s.set().clear().map(drop),
        |s| s.set().insert(9).map(drop),
    ),
    (
        "update of a set",
        |s| s.update_set(|set| _ = set.insert(9)),
        |s| s.set().remove(&9).map(drop),
    ),
    (
        "add to an integer",
        |s| s.add_integer(5).map(drop),
        |s| s.add_integer(1_000).map(drop),
    ),
    (
        "sub from an integer",
        |s| s.sub_integer(5).map(drop),
        |s| s.add_integer(1_000).map(drop),
    ),
    (
        "update of an integer",
        |s| s.update_integer(|n| *n *= 2),
        |s| s.add_integer(1_000).map(drop),
    ),
    (
        "add to a float",
        |s| s.add_float(0.25).map(drop),
        |s| s.add_float(1_000.0).map(drop),
    ),
    (
        "update of a float",
        |s| s.update_float(|n| *n *= 2.0),
        |s| s.add_float(1_000.0).map(drop),
    ),
    (
        "nested set",
        |s| s.user().set_name("bob".into()).map(drop),
        |s| s.user().set_name("carol".into()).map(drop),
    ),
    (
        "nested add",
        |s| s.user().add_age(1).map(drop),
        |s| s.user().set_name("carol".into()).map(drop),
    ),
    (
        "nested push",
        |s| s.user().tags().push("y".into()).map(drop),
        |s| s.user().add_age(1).map(drop),
    ),
    (
        "nested update",
        |s| s.update_user(|user| user.age += 1),
        |s| s.user().set_name("carol".into()).map(drop),
    ),
    (
        "push in any JSON",
        |s| s.any().at("list").push(1).map(drop),
        |s| s.any().insert("n", 1).map(drop),
    ),
    (
        "remove in any JSON",
        |s| s.any().at("list").remove(0).map(drop),
        |s| s.any().insert("n", 1).map(drop),
    ),
    (
        "insert in any JSON",
        |s| s.any().at("map").insert("n", 1).map(drop),
        |s| s.any().at("map").remove("n").map(drop),
    ),
];

/// Whether the call takes an element, which goes back if the answer is lost; `takes.rs` tests that.
fn is_take(name: &str) -> bool {
    [
        "remove at",
        "pop of a list",
        "splice",
        "pop of a map",
        "remove in any JSON",
    ]
    .contains(&name)
}

/// The changes that are made to a large value in the short form.
const OF_A_LARGE_VALUE: &[&str] = &[
    "push",
    "insert into a list",
    "remove item",
    "set of an element",
    "add to an element",
    "update of a list",
    "insert into a map",
    "remove from a map",
    "add to an entry",
    "insert into a set",
    "push in any JSON",
];

fn rows(size: Size) -> Vec<Row> {
    let is_made = |name| !is_take(name) && size.scaled(true, OF_A_LARGE_VALUE.contains(&name));
    let rows = ROWS.iter().filter(|row| is_made(row.0));
    rows.copied().collect()
}

/// Each change has its own scope.
fn scoped(memory: &Memory, index: usize) -> SyncedState {
    State::attach(&memory.scope(&format!("row{index}")))
}

/// The state after the first change, and after both, as the `memory:` backend has them. Checks that
/// it would be visible if the first one were made twice.
fn expected((name, change, later): &Row, size: Size) -> (State, State) {
    let open = || {
        let state = State::open("memory:").unwrap();
        state.restore(initial(size)).unwrap();
        state
    };
    let (once, twice) = (open(), open());
    change(&once).unwrap();
    let changed = once.snapshot().unwrap();
    assert_ne!(changed, initial(size), "{name}");
    later(&once).unwrap();
    change(&twice).unwrap();
    later(&twice).unwrap();
    change(&twice).unwrap();
    let both = once.snapshot().unwrap();
    assert_ne!(
        both,
        twice.snapshot().unwrap(),
        "{name}: made twice it would look the same"
    );
    (changed, both)
}

with_both_sizes!(
    a_change_whose_answer_is_lost_is_made_once_whatever_its_kind,
    a_change_that_was_queued_and_whose_answer_is_lost_is_made_once_whatever_its_kind,
    a_push_made_while_the_answer_to_an_earlier_one_is_lost_comes_after_it_and_both_are_made_once,
);

fn a_change_whose_answer_is_lost_is_made_once_whatever_its_kind(size: Size) {
    let line = Line::new();
    let memory = line.builder().timeout(DEADLINE).build().unwrap();
    let other = line.open_patiently();
    for (index, row @ (name, change, later)) in rows(size).iter().enumerate() {
        let (changed, both) = expected(row, size);
        let (mine, theirs) = (scoped(&memory, index), scoped(&other, index));
        theirs.restore(initial(size)).unwrap();
        wait_connected(&memory);
        assert_eq!(mine.snapshot().unwrap(), initial(size));
        // The server makes the change, but its answer never arrives.
        let cuts = line.proxy.cuts();
        line.proxy.lose_answer_to(commits);
        line.proxy.refuse(true);
        change(&mine).unwrap_or_else(|error| panic!("{name}: {error}"));
        wait_disconnected(&memory);
        eventually(DEADLINE, "the answer is lost", || line.proxy.cuts() > cuts);
        assert_eq!(memory.status().pending, 1, "{name}");
        assert_eq!(
            mine.snapshot().unwrap(),
            changed,
            "{name}: it is visible once"
        );
        // A row that makes two calls is skipped here: the second call waits behind the first.
        let is_one_call = !name.ends_with("on it");
        if is_one_call {
            assert_eq!(theirs.snapshot().unwrap(), changed, "{name}: it was made");
            later(&theirs).unwrap();
        }
        line.up();
        memory.flush(DEADLINE).unwrap();
        let expected = if is_one_call { both } else { changed };
        assert_eq!(theirs.snapshot().unwrap(), expected, "{name}");
        assert_eq!(mine.snapshot().unwrap(), expected, "{name}");
    }
    assert_eq!(
        memory.status().dead_letters,
        0,
        "{:?}",
        memory.dead_letters()
    );
}

fn a_change_that_was_queued_and_whose_answer_is_lost_is_made_once_whatever_its_kind(size: Size) {
    // The keys of one chunk are sent in one call, which the server executes at once; a large value
    // is alone in its call.
    let keys_of_a_call = match size {
        Size::Small => 30,
        Size::Large => 1,
    };
    for (chunk, rows) in rows(size).chunks(keys_of_a_call).enumerate() {
        let line = Line::new();
        let memory = line.builder().timeout(DEADLINE).build().unwrap();
        let other = line.open_patiently();
        let handles: Vec<_> = (0..rows.len())
            .map(|index| (scoped(&memory, index), scoped(&other, index)))
            .collect();
        for (mine, theirs) in &handles {
            theirs.restore(initial(size)).unwrap();
            assert_eq!(mine.snapshot().unwrap(), initial(size));
        }
        line.down(&memory);
        for ((name, change, _), (mine, _)) in rows.iter().zip(&handles) {
            change(mine).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        // The handshake takes so long that the proxy refuses new connections before the answer is
        // lost.
        line.proxy.delay(ToClient, Duration::from_millis(50));
        let (cuts, connections) = (line.proxy.cuts(), line.proxy.connections());
        line.proxy.lose_answer_to(commits);
        line.up();
        eventually(DEADLINE, "the flush begins", || {
            line.proxy.connections() > connections
        });
        line.proxy.refuse(true);
        eventually(DEADLINE, "the answer is lost", || line.proxy.cuts() > cuts);
        line.proxy.delay(ToClient, Duration::ZERO);
        wait_disconnected(&memory);
        for ((row, (_, theirs)), index) in rows.iter().zip(&handles).zip(0..) {
            let (name, _, later) = row;
            assert_eq!(
                theirs.snapshot().unwrap(),
                expected(row, size).0,
                "{name}: it was made ({chunk}, {index})"
            );
            later(theirs).unwrap();
        }
        line.up();
        memory.flush(DEADLINE).unwrap();
        for (row, (mine, theirs)) in rows.iter().zip(&handles) {
            let (_, both) = expected(row, size);
            assert_eq!(theirs.snapshot().unwrap(), both, "{}", row.0);
            assert_eq!(mine.snapshot().unwrap(), both, "{}", row.0);
        }
        assert_eq!(
            memory.status().dead_letters,
            0,
            "{:?}",
            memory.dead_letters()
        );
    }
}

fn a_push_made_while_the_answer_to_an_earlier_one_is_lost_comes_after_it_and_both_are_made_once(
    size: Size,
) {
    let line = Line::new();
    let memory = line.open_for(size);
    let state = State::attach(&memory);
    let other = State::attach(&line.open_patiently());
    let filler = || size.filler(20_000).map(i64::from);
    if size == Size::Large {
        other.list().set(filler().collect()).unwrap();
    }
    state.list().push(1).unwrap();
    // The line stays up, but no more answers arrive.
    line.proxy.swallow_answers(true);
    thread::scope(|scope| {
        let first = scope.spawn(|| state.list().push(2).unwrap());
        eventually(DEADLINE, "the first push is made", || {
            other.list().len().unwrap() == 2 + filler().len()
        });
        let second = scope.spawn(|| state.list().push(3).unwrap());
        assert_eq!(first.join().unwrap(), Written::Queued);
        assert_eq!(second.join().unwrap(), Written::Queued);
    });
    other.list().push(4).unwrap();
    assert_eq!(state.list().push(5).unwrap(), Written::Queued);
    line.proxy.swallow_answers(false);
    memory.flush(DEADLINE).unwrap();
    let expected: Vec<_> = filler().chain([1, 2, 4, 3, 5]).collect();
    assert_eq!(other.list().to_vec().unwrap(), expected);
    assert_eq!(state.list().to_vec().unwrap(), expected);
}
