//! A confirmed call returns a fact; if it cannot, it fails and nothing was made.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::Direction::ToClient;
use support::eventually;
use synced_memory::{ErrorKind, Key, Memory, Result, Synced, SyncedMemory, WritePolicy, Written};

use crate::line::{DEADLINE, Line, commits, on_every_backend, wait_connected, wait_disconnected};

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
pub(crate) struct State {
    list: Vec<i64>,
    map: HashMap<String, i64>,
    sorted: BTreeMap<u8, i64>,
    set: HashSet<i64>,
    ordered: BTreeSet<i64>,
    #[synced(default)]
    number: i64,
    #[synced(default)]
    text: String,
    users: HashMap<String, User>,
    any: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct User {
    name: String,
    age: u32,
}

fn initial() -> State {
    State {
        list: vec![1, 2, 3],
        map: HashMap::from([("a".to_owned(), 1)]),
        sorted: BTreeMap::from([(1, 1)]),
        set: HashSet::from([1]),
        ordered: BTreeSet::from([1]),
        number: 10,
        text: "text".to_owned(),
        users: HashMap::from([(
            "ada".to_owned(),
            User {
                name: "Ada".to_owned(),
                age: 36,
            },
        )]),
        any: json!({"list": [1], "map": {"a": 1}}),
    }
}

/// The views of a state, either all confirmed or all with the memory's policy.
struct Views {
    list: Synced<Vec<i64>>,
    map: Synced<HashMap<String, i64>>,
    sorted: Synced<BTreeMap<u8, i64>>,
    set: Synced<HashSet<i64>>,
    ordered: Synced<BTreeSet<i64>>,
    number: Synced<i64>,
    text: Synced<String>,
    users: Synced<HashMap<String, User>>,
    any: Synced<Value>,
}

impl Views {
    fn of(state: &SyncedState) -> Self {
        Self {
            list: state.list().clone(),
            map: state.map().clone(),
            sorted: state.sorted().clone(),
            set: state.set().clone(),
            ordered: state.ordered().clone(),
            number: state.synced_number().clone(),
            text: state.synced_text().clone(),
            users: state.users().clone(),
            any: state.any().clone(),
        }
    }

    fn confirmed(state: &SyncedState) -> Self {
        let Self {
            list,
            map,
            sorted,
            set,
            ordered,
            number,
            text,
            users,
            any,
        } = Self::of(state);
        Self {
            list: list.confirmed(),
            map: map.confirmed(),
            sorted: sorted.confirmed(),
            set: set.confirmed(),
            ordered: ordered.confirmed(),
            number: number.confirmed(),
            text: text.confirmed(),
            users: users.confirmed(),
            any: any.confirmed(),
        }
    }
}

fn formatted(result: Result<impl Debug>) -> Result<String> {
    result.map(|value| format!("{value:?}"))
}

type Call = (&'static str, fn(&Views) -> Result<String>, &'static str);

/// Calls on the initial state, each with the fact that it returns.
const CALLS: &[Call] = &[
    ("push", |v| formatted(v.list.push(9)), "Stored"),
    ("extend", |v| formatted(v.list.extend([8, 9])), "Stored"),
    (
        "insert into a list",
        |v| formatted(v.list.insert(1, 9)),
        "Stored",
    ),
    (
        "remove by index",
        |v| formatted(v.list.remove(0)),
        "Some(1)",
    ),
    (
        "remove of what is there",
        |v| formatted(v.list.remove_item(&2)),
        "true",
    ),
    (
        "remove of what is not there",
        |v| formatted(v.list.remove_item(&7)),
        "false",
    ),
    ("pop", |v| formatted(v.list.pop()), "Some(3)"),
    ("truncate", |v| formatted(v.list.truncate(1)), "Stored"),
    ("clear", |v| formatted(v.list.clear()), "Stored"),
    ("reverse", |v| formatted(v.list.reverse()), "Stored"),
    (
        "retain of a list",
        |v| formatted(v.list.retain(|item| *item != 2)),
        "Stored",
    ),
    ("splice", |v| formatted(v.list.splice(1.., [9])), "[2, 3]"),
    (
        "set of an element",
        |v| formatted(v.list.at(0).set(9)),
        "Stored",
    ),
    (
        "add to an element",
        |v| formatted(v.list.at(0).add(9)),
        "Stored",
    ),
    (
        "insert of a new key",
        |v| formatted(v.map.insert("new".to_owned(), 9)),
        "None",
    ),
    (
        "insert of a known key",
        |v| formatted(v.map.insert("a".to_owned(), 9)),
        "Some(1)",
    ),
    (
        "insert into a sorted map",
        |v| formatted(v.sorted.insert(1, 9)),
        "Some(1)",
    ),
    (
        "get or insert of a new key",
        |v| formatted(v.map.get_or_insert("new".to_owned(), 9)),
        "9",
    ),
    (
        "get or insert of a known key",
        |v| formatted(v.map.get_or_insert("a".to_owned(), 9)),
        "1",
    ),
    (
        "remove of a key",
        |v| formatted(v.map.remove("a")),
        "Some(1)",
    ),
    (
        "remove of an unknown key",
        |v| formatted(v.map.remove("new")),
        "None",
    ),
    (
        "pop of a map",
        |v| formatted(v.sorted.pop()),
        "Some((1, 1))",
    ),
    (
        "extend of a map",
        |v| formatted(v.map.extend([("new".to_owned(), 9)])),
        "Stored",
    ),
    (
        "retain of a map",
        |v| formatted(v.map.retain(|_, value| *value != 1)),
        "Stored",
    ),
    (
        "set of an entry",
        |v| formatted(v.map.at("new").set(9)),
        "Stored",
    ),
    (
        "delete of an entry",
        |v| formatted(v.map.at("a").delete()),
        "true",
    ),
    (
        "delete of no entry",
        |v| formatted(v.map.at("new").delete()),
        "false",
    ),
    (
        "insert of a new member",
        |v| formatted(v.set.insert(9)),
        "true",
    ),
    (
        "insert of a known member",
        |v| formatted(v.set.insert(1)),
        "false",
    ),
    (
        "insert into an ordered set",
        |v| formatted(v.ordered.insert(9)),
        "true",
    ),
    (
        "remove of a member",
        |v| formatted(v.set.remove(&1)),
        "true",
    ),
    (
        "remove of no member",
        |v| formatted(v.set.remove(&9)),
        "false",
    ),
    (
        "extend of a set",
        |v| formatted(v.set.extend([1, 9])),
        "Stored",
    ),
    ("add", |v| formatted(v.number.add(5)), "Stored"),
    ("sub", |v| formatted(v.number.sub(5)), "Stored"),
    (
        "set",
        |v| formatted(v.text.set("other".to_owned())),
        "Stored",
    ),
    ("delete", |v| formatted(v.text.delete()), "true"),
    (
        "update",
        |v| formatted(v.number.update(|number| std::mem::replace(number, 7))),
        "10",
    ),
    (
        "try_update",
        |v| {
            v.number
                .try_update(|number| formatted(Ok(std::mem::replace(number, 7))))
        },
        "10",
    ),
    (
        "set of a field",
        |v| formatted(v.users.at("ada").fields().set_age(37)),
        "Stored",
    ),
    (
        "add to a field",
        |v| formatted(v.users.at("ada").fields().add_age(1)),
        "Stored",
    ),
    (
        "update of a field",
        |v| formatted(v.users.at("ada").fields().update_age(|age| *age)),
        "36",
    ),
    (
        "push in any JSON",
        |v| formatted(v.any.at("list").push(9)),
        "Stored",
    ),
    (
        "insert in any JSON",
        |v| formatted(v.any.at("map").insert("a", 9)),
        "Some(Number(1))",
    ),
    (
        "pop in any JSON",
        |v| formatted(v.any.at("list").pop()),
        "Some(Number(1))",
    ),
];

type Route = (Memory, fn(&SyncedState) -> Views);

/// Memories and views that are confirmed by the view, by the builder or by the URL.
fn routes(line: &Line) -> Vec<Route> {
    let by_url = crate::line::quick(format!("{}?write_policy=confirmed", line.proxy.url()));
    vec![
        (line.open(), Views::confirmed),
        (
            line.builder()
                .write_policy(WritePolicy::Confirmed)
                .build()
                .unwrap(),
            Views::of,
        ),
        (by_url.build().unwrap(), Views::of),
    ]
}

#[test]
fn a_confirmed_call_returns_a_fact_while_the_server_answers() {
    let line = Line::new();
    let other = line.open_directly();
    for (route, (memory, views)) in routes(&line).into_iter().enumerate() {
        for (index, (name, call, fact)) in CALLS.iter().enumerate() {
            let scope = format!("scope{route}_{index}");
            State::attach(&other.scope(&scope))
                .restore(initial())
                .unwrap();
            let state = State::attach(&memory.scope(&scope));
            let got = call(&views(&state)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(got, *fact, "{name}, route {route}");
            assert_eq!(memory.status().pending, 0, "{name}");
        }
    }
}

#[test]
fn a_confirmed_call_returns_a_fact_on_every_backend() {
    on_every_backend("confirmed", |memory, other| {
        for (index, (name, call, fact)) in CALLS.iter().enumerate() {
            let scope = format!("scope{index}");
            let (mine, theirs) = (
                State::attach(&memory.scope(&scope)),
                State::attach(&other.scope(&scope)),
            );
            theirs.restore(initial()).unwrap();
            let got = call(&Views::confirmed(&mine))
                .unwrap_or_else(|error| panic!("{name}: {error}, {memory:?}"));
            assert_eq!(got, *fact, "{name}, {memory:?}");
            assert_eq!(
                theirs.snapshot().unwrap(),
                mine.snapshot().unwrap(),
                "{name}: it was made"
            );
        }
        assert_eq!(memory.status().pending, 0);
    });
}

#[test]
fn while_the_line_is_down_a_confirmed_call_is_unavailable_at_once_and_is_never_made() {
    let line = Line::new();
    let other = State::attach(&line.open_directly());
    other.restore(initial()).unwrap();
    for (memory, views) in routes(&line) {
        let state = State::attach(&memory);
        assert_eq!(state.snapshot().unwrap(), initial());
        line.down(&memory);
        for (name, call, _) in CALLS {
            let began = Instant::now();
            let error = call(&views(&state)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{name}: {error}");
            assert!(
                began.elapsed() < Duration::from_millis(250),
                "{name} took {:?}",
                began.elapsed()
            );
            assert_eq!(memory.status().pending, 0, "{name}");
            assert_eq!(
                state.snapshot().unwrap(),
                initial(),
                "{name}: it is not visible"
            );
        }
        line.up();
        wait_connected(&memory);
        memory.flush(DEADLINE).unwrap();
        assert_eq!(other.snapshot().unwrap(), initial());
        let status = memory.status();
        assert_eq!(
            (status.pending, status.dead_letters, status.superseded),
            (0, 0, 0),
            "{status:?}"
        );
    }
}

#[derive(SyncedMemory)]
#[synced(confirmed)]
struct ConfirmedStruct {
    list: Vec<i64>,
    #[synced(default)]
    number: i64,
    #[synced(nested)]
    user: User,
    #[synced(behind)]
    behind: Vec<i64>,
}

#[derive(SyncedMemory)]
struct ConfirmedField {
    #[synced(confirmed)]
    list: Vec<i64>,
    #[synced(default)]
    number: i64,
}

/// The list of a state, written behind.
#[derive(SyncedMemory)]
struct Behind {
    #[synced(behind)]
    list: Vec<i64>,
}

#[test]
fn a_struct_or_a_field_is_confirmed_by_its_attribute() {
    let line = Line::new();
    let memory = line.open();
    let (whole, partly) = (
        ConfirmedStruct::attach(&memory),
        ConfirmedField::attach(&memory.scope("partly")),
    );
    assert_eq!(whole.list().push(1).unwrap(), Written::Stored);
    assert_eq!(
        whole
            .set_user(User {
                name: "Ada".to_owned(),
                age: 36
            })
            .unwrap(),
        Written::Stored
    );
    assert_eq!(partly.list().push(1).unwrap(), Written::Stored);
    line.down(&memory);
    let refused = [
        whole.list().push(2),
        whole.set_number(1),
        whole.add_number(1),
        whole.user().set_age(37),
        partly.list().push(2),
        partly.list().at(0).set(2),
        memory.set(&SyncedConfirmedStruct::NUMBER, 5),
        memory.add(&SyncedConfirmedStruct::NUMBER, 5),
        partly.restore(ConfirmedField {
            list: vec![],
            number: 3,
        }),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(
        memory
            .delete(&SyncedConfirmedStruct::NUMBER)
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(memory.status().pending, 0);
    assert_eq!(
        whole.behind().push(1).unwrap(),
        Written::Queued,
        "the attribute of the field wins"
    );
    assert_eq!(
        partly.set_number(1).unwrap(),
        Written::Queued,
        "no other field is confirmed"
    );
    assert_eq!(memory.status().pending, 2);
    line.up();
    memory.flush(DEADLINE).unwrap();
    let other = ConfirmedField::attach(&line.open_directly().scope("partly"));
    assert_eq!(
        (other.list().to_vec().unwrap(), other.number().unwrap()),
        (vec![1], 1)
    );
}

#[test]
fn a_confirmed_view_reads_what_the_backend_has_without_queued_writes() {
    let line = Line::new();
    let memory = line.builder().timeout(DEADLINE).build().unwrap();
    let other = State::attach(&line.open_directly());
    other.restore(initial()).unwrap();
    let state = State::attach(&memory);
    let behind = Behind::attach(&memory);
    let behind = behind.list();
    state.snapshot().unwrap();
    line.proxy.delay(ToClient, Duration::from_millis(300));
    assert_eq!(behind.push(4).unwrap(), Written::Queued);
    eventually(DEADLINE, "the first write is under way", || {
        other.list().len().unwrap() == 4
    });
    // This write waits for the answer to the first one.
    assert_eq!(behind.push(5).unwrap(), Written::Queued);
    assert_eq!(state.list().confirmed().to_vec().unwrap(), [1, 2, 3, 4]);
    line.proxy.delay(ToClient, Duration::ZERO);
    memory.flush(DEADLINE).unwrap();
    line.down(&memory);
    assert_eq!(behind.push(6).unwrap(), Written::Queued);
    assert_eq!(state.list().to_vec().unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_confirmed_view_reads_nothing_while_the_line_is_down() {
    let line = Line::new();
    let memory = line.open();
    let state = State::attach(&memory);
    state.restore(initial()).unwrap();
    assert_eq!(state.snapshot().unwrap(), initial());
    let ada = state.users().confirmed().at("ada");
    assert_eq!(
        (
            ada.fields().name().unwrap(),
            ada.fields().snapshot().unwrap().age
        ),
        ("Ada".to_owned(), 36)
    );
    line.down(&memory);
    let v = Views::confirmed(&state);
    let reads = [
        v.list.get().map(drop),
        v.list.find().map(drop),
        v.list.read().map(drop),
        v.list.len().map(drop),
        v.list.to_vec().map(drop),
        v.list.at(0).get().map(drop),
        v.list.last_modified().map(drop),
        v.map.contains_key("a").map(drop),
        v.map.keys().map(drop),
        v.set.contains(&1).map(drop),
        v.number.get().map(drop),
        v.any.at("list").len().map(drop),
        ada.get().map(drop),
        ada.fields().age().map(drop),
        ada.fields().snapshot().map(drop),
    ];
    for (index, read) in reads.into_iter().enumerate() {
        assert_eq!(
            read.map_err(|error| error.kind()),
            Err(ErrorKind::Unavailable),
            "{index}"
        );
    }
    assert_eq!(
        state.snapshot().unwrap(),
        initial(),
        "other reads return what is known"
    );
}

#[test]
fn a_confirmed_call_does_not_return_a_queued_write_that_may_still_be_superseded() {
    let line = Line::new();
    let memory = line.builder().timeout(DEADLINE).build().unwrap();
    let (mine, theirs) = (State::attach(&memory), State::attach(&line.open_directly()));
    theirs.map().insert("a".to_owned(), 0).unwrap();
    mine.map().to_map().unwrap();
    // The first write is in doubt, and the second one waits behind it.
    line.proxy.lose_answer_to(commits);
    line.proxy.refuse(true);
    mine.map().insert("first".to_owned(), 0).unwrap();
    wait_disconnected(&memory);
    mine.map().insert("b".to_owned(), 1).unwrap();
    line.proxy.delay(ToClient, Duration::from_millis(300));
    let reads = || line.server.command_count("get") + line.server.command_count("mget");
    let before = reads();
    line.up();
    wait_connected(&memory);
    let fact = thread::scope(|scope| {
        let call = scope.spawn(|| mine.map().confirmed().get_or_insert("b".to_owned(), 3));
        eventually(
            DEADLINE,
            "the call has read, behind the first write",
            || reads() >= before + 2,
        );
        // This is newer than the queued write.
        theirs.map().insert("b".to_owned(), 2).unwrap();
        call.join().unwrap().unwrap()
    });
    line.proxy.delay(ToClient, Duration::ZERO);
    memory.flush(DEADLINE).unwrap();
    assert_eq!(theirs.map().at("b").get().unwrap(), 2);
    assert_eq!((fact, memory.status().superseded), (2, 1));
}

/// The closure may rely on what a confirmed read has just returned: here, that there is a job.
#[test]
fn a_confirmed_closure_starts_from_what_the_backend_has() {
    on_every_backend("confirmed_closures", |one, other| {
        let [mine, theirs] =
            [one, other].map(|memory| memory.synced(&Key::<Vec<u64>>::new("jobs")));
        mine.set(Vec::new()).unwrap();
        theirs.push(7).unwrap();
        let jobs = mine.confirmed();
        assert!(!jobs.is_empty().unwrap());
        assert_eq!(jobs.update(|jobs| jobs.remove(0)).unwrap(), 7);
    });
}
