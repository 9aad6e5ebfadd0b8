//! A Python and a Rust process share collections, to three levels of nesting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{Python, Server};
use synced_memory::{Memory, SyncedMemory};

type Map<T> = BTreeMap<String, T>;

#[derive(SyncedMemory)]
struct State {
    list: Vec<i64>,
    lists: Vec<Vec<Vec<i64>>>,
    queue: VecDeque<String>,
    #[synced(collection)]
    map: Map<f64>,
    #[synced(collection)]
    maps: Map<Map<Map<String>>>,
    #[synced(collection)]
    mixed: Map<Vec<Map<i64>>>,
    set: BTreeSet<String>,
    rooms: Vec<Room>,
    any: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Room {
    name: String,
    #[synced(collection)]
    guests: Map<Vec<String>>,
}

fn map<T>(entries: impl IntoIterator<Item = (&'static str, T)>) -> Map<T> {
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Both sides. The Python side uses a new `Memory` each time: a memory of the package does not see
/// what others write to a key that it has read.
fn both(server: &Server) -> (SyncedState, Python) {
    let mut python = Python::against(server);
    python.run("from synced_memory import Memory\nimport json\ndef plain(x):\n  return {k: plain(v) for k, v in x.items()} if hasattr(x, 'items') else [plain(v) for v in x] if hasattr(x, 'append') else x");
    (State::attach(&Memory::open(&server.url()).unwrap()), python)
}

/// The value that Python reads.
#[track_caller]
fn in_python(python: &mut Python, key: &str) -> Value {
    let printed = python.run(&format!("print(json.dumps(plain(Memory().{key})))"));
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn python_reads_the_collections_that_rust_writes() {
    let server = Server::redis().start();
    let (state, mut python) = both(&server);
    state.list().extend([1, 2]).unwrap();
    state.list().insert(0, -1).unwrap();
    state.lists().push(vec![vec![]]).unwrap();
    state.lists().at(0).push(vec![1]).unwrap();
    state.lists().at(0).at(1).push(2).unwrap();
    state
        .queue()
        .extend(["\u{e4}\"".to_owned(), "\u{1F600}\n".to_owned()])
        .unwrap();
    state.map().insert("half".to_owned(), 0.5).unwrap();
    state.map().extend(map([("\u{e4} b", 1e300)])).unwrap();
    state
        .maps()
        .insert("a".to_owned(), map([("b", map([("c", "1".to_owned())]))]))
        .unwrap();
    state
        .maps()
        .at("a")
        .at("b")
        .insert("d".to_owned(), "2".to_owned())
        .unwrap();
    state
        .maps()
        .at("a")
        .insert("e".to_owned(), Map::new())
        .unwrap();
    state
        .mixed()
        .insert("a".to_owned(), vec![map([("b", 1)])])
        .unwrap();
    state
        .mixed()
        .at("a")
        .at(0)
        .insert("c".to_owned(), 2)
        .unwrap();
    state.mixed().at("a").at(0).at("b").add(10).unwrap();
    state
        .set()
        .extend(["x", "y", "x"].map(str::to_owned))
        .unwrap();
    state
        .rooms()
        .push(Room {
            name: "red".to_owned(),
            guests: Map::new(),
        })
        .unwrap();
    state
        .rooms()
        .at(0)
        .fields()
        .guests()
        .insert("monday".to_owned(), vec!["ada".to_owned()])
        .unwrap();
    state
        .rooms()
        .at(0)
        .fields()
        .guests()
        .at("monday")
        .push("bob".to_owned())
        .unwrap();
    state.any().set(json!({"a": [{}]})).unwrap();
    state
        .any()
        .at("a")
        .at(0)
        .insert("b", json!([null, true, 1.5]))
        .unwrap();
    for (key, expected) in [
        ("list", json!([-1, 1, 2])),
        ("lists", json!([[[], [1, 2]]])),
        ("queue", json!(["\u{e4}\"", "\u{1F600}\n"])),
        ("map", json!({"half": 0.5, "\u{e4} b": 1e300})),
        ("maps", json!({"a": {"b": {"c": "1", "d": "2"}, "e": {}}})),
        ("mixed", json!({"a": [{"b": 11, "c": 2}]})),
        ("set", json!(["x", "y"])),
        (
            "rooms",
            json!([{"name": "red", "guests": {"monday": ["ada", "bob"]}}]),
        ),
        ("any", json!({"a": [{"b": [null, true, 1.5]}]})),
    ] {
        assert_eq!(in_python(&mut python, key), expected, "{key}");
    }
}

#[test]
fn rust_reads_the_collections_that_python_writes() {
    let server = Server::redis().start();
    let (state, mut python) = both(&server);
    python.run(
        r"
m = Memory()
m.list = [1]
m.list.append(2)
m.list.insert(0, -1)
m.lists = [[[]]]
m.lists[0].append([1])
m.lists[0][1].append(2)
m.queue = ['\u00e4']
m.queue += ['\U0001F600']
m.map = {'half': 0.5}
m.map['\u00e4 b'] = 1e300
m.maps = {'a': {'b': {'c': '1'}}}
m.maps['a']['b']['d'] = '2'
m.maps['a']['e'] = {}
m.mixed = {'a': [{'b': 1}]}
m.mixed['a'][0]['c'] = 2
m.mixed['a'][0]['b'] += 10
m.set = ['x', 'y']
m.rooms = [{'guests': {}, 'name': 'red'}]
m.rooms[0]['guests']['monday'] = ['ada']
m.rooms[0]['guests']['monday'].append('bob')
m.any = {'a': [{}]}
m.any['a'][0]['b'] = [None, True, 1.5]
",
    );
    assert_eq!(state.list().to_vec().unwrap(), [-1, 1, 2]);
    assert_eq!(state.lists().get().unwrap(), [[vec![], vec![1, 2]]]);
    assert_eq!(state.lists().at(0).at(1).at(0).get().unwrap(), 1);
    assert_eq!(state.queue().to_vec().unwrap(), ["\u{e4}", "\u{1F600}"]);
    assert_eq!(
        state.map().to_map().unwrap(),
        map([("half", 0.5), ("\u{e4} b", 1e300)])
    );
    assert_eq!(
        state.maps().at("a").at("b").to_map().unwrap(),
        map([("c", "1".to_owned()), ("d", "2".to_owned())])
    );
    assert!(state.maps().at("a").at("e").is_empty().unwrap());
    assert_eq!(
        state.mixed().at("a").at(0).get().unwrap(),
        map([("b", 11), ("c", 2)])
    );
    assert!(state.set().contains(&"y".to_owned()).unwrap());
    assert_eq!(
        state
            .rooms()
            .at(0)
            .fields()
            .guests()
            .at("monday")
            .to_vec()
            .unwrap(),
        ["ada", "bob"]
    );
    assert_eq!(
        state.any().at("a").at(0).at("b").at(2).get().unwrap(),
        json!(1.5)
    );
}

#[test]
fn both_change_one_collection_alternately_at_every_level() {
    let server = Server::redis().start();
    let (state, mut python) = both(&server);
    python.run("Memory().mixed = {'a': [{'b': 0}]}");
    for round in 1..=5 {
        state.mixed().at("a").at(0).at("b").add(1).unwrap();
        state.mixed().at("a").push(map([("rust", round)])).unwrap();
        state
            .mixed()
            .insert(format!("rust{round}"), vec![])
            .unwrap();
        python.run(&format!(
            "m = Memory(); m.mixed['a'][0]['b'] += 1; m.mixed['a'].append({{'python': {round}}}); m.mixed['python{round}'] = []"
        ));
        assert_eq!(
            state.mixed().at("a").at(0).at("b").get().unwrap(),
            2 * round
        );
        assert_eq!(
            state.mixed().len().unwrap(),
            1 + 2 * usize::try_from(round).unwrap()
        );
    }
    let expected = state.mixed().to_map().unwrap();
    assert_eq!(expected["a"].len(), 11);
    assert_eq!(
        expected["a"][1..3],
        [map([("rust", 1)]), map([("python", 1)])]
    );
    assert_eq!(
        in_python(&mut python, "mixed"),
        serde_json::to_value(expected).unwrap()
    );
}
