//! What is stored can be read: values with too many levels, and values that their own type cannot
//! read, are refused by every call that would store them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synced_memory::{Error, ErrorKind, Key, Memory, SyncedMemory};

/// How many lists and objects may be nested in each other, as the README says.
const LEVELS: usize = 126;

#[derive(SyncedMemory)]
struct State {
    #[synced(value)]
    whole: Value,
    tree: Value,
    list: Vec<Value>,
    map: BTreeMap<String, Value>,
    lists: Vec<Vec<Value>>,
    #[synced(nested, default)]
    part: Part,
}

#[derive(Clone, Default, Serialize, Deserialize, SyncedMemory)]
#[serde(default)]
struct Part {
    #[synced(value)]
    inner: Value,
    list: Vec<Value>,
}

/// A value with so many levels.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, level| {
        if level % 2 == 0 {
            json!([inner])
        } else {
            json!({ "[": inner })
        }
    })
}

/// A call that stores a value below so many levels, and the name of what it changes.
type Call = (
    &'static str,
    usize,
    fn(&SyncedState, Value) -> Result<(), Error>,
);

const CALLS: &[Call] = &[
    ("whole", 0, |state, value| state.set_whole(value).map(drop)),
    ("whole", 0, |state, value| {
        state.set_whole(json!(1))?;
        state.synced_whole().try_update(|whole| {
            *whole = value.clone();
            Ok(())
        })
    }),
    ("whole", 0, |state, value| {
        let key = SyncedState::WHOLE;
        state
            .memory()
            .update(&key, |whole| *whole = Some(value.clone()))
    }),
    ("whole", 0, |state, value| {
        let whole = State {
            whole: value,
            tree: json!({}),
            list: Vec::new(),
            map: BTreeMap::new(),
            lists: Vec::new(),
            part: Part::default(),
        };
        state.restore(whole).map(drop)
    }),
    ("tree", 0, |state, value| state.tree().set(value).map(drop)),
    ("tree", 1, |state, value| {
        state.tree().set(json!({}))?;
        state.tree().insert("a", value).map(drop)
    }),
    ("tree", 2, |state, value| {
        state.tree().set(json!({"a": {}}))?;
        state.tree().at("a").at("b").set(value).map(drop)
    }),
    ("list", 1, |state, value| state.list().push(value).map(drop)),
    ("list", 1, |state, value| {
        state.list().extend([json!(1), value]).map(drop)
    }),
    ("list", 1, |state, value| {
        state.list().set(vec![json!(1)])?;
        state.list().insert(0, value).map(drop)
    }),
    ("list", 1, |state, value| {
        state.list().set(vec![json!(1)])?;
        state.list().at(0).set(value).map(drop)
    }),
    ("list", 1, |state, value| {
        state.update_list(|list| list.push(value.clone()))
    }),
    ("list", 1, |state, value| {
        state.list().set(vec![json!(1)])?;
        state.list().splice(0..1, [value]).map(drop)
    }),
    ("lists", 2, |state, value| {
        state.lists().set(vec![vec![json!(1)]])?;
        state.lists().at(0).push(value).map(drop)
    }),
    ("map", 1, |state, value| {
        state.map().insert("a".to_owned(), value).map(drop)
    }),
    ("map", 1, |state, value| {
        state.map().get_or_insert("a".to_owned(), value).map(drop)
    }),
    ("map", 1, |state, value| {
        state.map().extend([("a".to_owned(), value)]).map(drop)
    }),
    ("map", 1, |state, value| {
        state.map().at("a").set(value).map(drop)
    }),
    ("part", 1, |state, value| {
        state.part().set_inner(value).map(drop)
    }),
    ("part", 2, |state, value| {
        state.part().list().push(value).map(drop)
    }),
    ("part", 1, |state, value| {
        let (inner, list) = (value, Vec::new());
        state.part().restore(Part { inner, list }).map(drop)
    }),
];

/// What is stored under a name, with all queued writes on top.
fn shown(state: &SyncedState, name: &str) -> Option<Value> {
    let key = Key::<Value>::named(name.to_owned());
    state.memory().get(&key).unwrap()
}

#[test]
fn what_has_more_levels_than_can_be_read_is_refused_by_every_call() {
    for (at, (name, above, call)) in CALLS.iter().enumerate() {
        let state = State::open("memory:").unwrap();
        call(&state, nested(LEVELS - above)).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(shown(&state, name).is_some(), "{at}");

        let state = State::open("memory:").unwrap();
        let error = call(&state, nested(LEVELS - above + 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialize, "{at}: {error}");
        let text = error.to_string();
        assert!(text.contains("126 levels"), "{at}: {text}");
        assert!(text.contains(&format!("`memory:{name}")), "{at}: {text}");
        let levels_left = shown(&state, name).map_or(0, |value| levels(&value));
        assert!(levels_left <= 3, "{at}: {levels_left} levels were stored");
    }
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or_default(),
        _ => 0,
    }
}

#[test]
fn what_has_too_many_levels_is_not_queued_while_the_backend_is_away() {
    let memory = Memory::builder()
        .url("redis://127.0.0.1:1")
        .write_policy(synced_memory::WritePolicy::Behind)
        .build()
        .unwrap();
    let state = State::attach(&memory);
    let pushed = state.list().push(nested(LEVELS)).unwrap_err();
    let set = state.set_whole(nested(LEVELS + 1)).unwrap_err();
    assert_eq!(
        (pushed.kind(), set.kind()),
        (ErrorKind::Serialize, ErrorKind::Serialize)
    );
    assert_eq!(memory.status().pending, 0);
}

/// serde writes the keys as strings, and reads no numbers out of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    by_number: BTreeMap<u32, u8>,
}

/// serde reads no 128-bit integers inside a tagged enum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Large { number: i128 },
}

/// A type that writes more than it reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Short(String);

impl TryFrom<String> for Short {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() < 4 {
            Ok(Self(text))
        } else {
            Err("too long".to_owned())
        }
    }
}

fn refused<T: Debug>(result: Result<T, Error>, written: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialize, "{error}");
    let text = error.to_string();
    assert!(
        text.contains(written) && text.contains("cannot read back"),
        "{text}"
    );
}

/// Every way of storing a value that its type cannot read, at keys where nothing was written yet:
/// so that it is found in release builds, too.
fn is_refused_everywhere<T>(unreadable: &T, name: &str)
where
    T: Debug + Clone + PartialEq + Serialize + for<'de> Deserialize<'de> + Send + Sync + 'static,
{
    let memory = Memory::open("memory:").unwrap();
    let value = memory.synced(&Key::<T>::new("value"));
    let list = memory.synced(&Key::<Vec<T>>::new("list"));
    let map = memory.synced(&Key::<HashMap<String, T>>::new("map"));
    let new = || unreadable.clone();
    refused(value.set(new()), name);
    refused(value.set(new()), name);
    refused(memory.set(&Key::<T>::new("other"), new()), name);
    refused(
        memory.update(&Key::<T>::new("third"), |value| *value = Some(new())),
        name,
    );
    refused(list.push(new()), name);
    let list = memory.synced(&Key::<Vec<T>>::new("extended"));
    refused(list.extend([new()]), name);
    let list = memory.synced(&Key::<Vec<T>>::new("inserted"));
    refused(list.insert(0, new()), name);
    refused(map.insert("a".to_owned(), new()), name);
    let map = memory.synced(&Key::<HashMap<String, T>>::new("maps"));
    refused(map.at("a").set(new()), name);
    let closed = Key::<HashMap<String, T>>::new("closed");
    refused(
        memory.update(&closed, |map| {
            *map = Some(HashMap::from([("a".to_owned(), new())]));
        }),
        "`HashMap<String, ",
    );
    assert_eq!(memory.names().unwrap(), [""; 0]);
}

#[test]
fn a_value_that_its_type_cannot_read_is_refused_before_it_is_lost_to_all() {
    is_refused_everywhere(
        &Flat {
            by_number: BTreeMap::from([(1, 1)]),
        },
        "`Flat`",
    );
    is_refused_everywhere(&Tagged::Large { number: 1 }, "`Tagged`");
    is_refused_everywhere(&Short("four".to_owned()), "`Short`");
}

#[test]
fn a_key_that_its_type_cannot_read_is_refused_before_the_map_is_lost_to_all() {
    let memory = Memory::open("memory:").unwrap();
    let map = memory.synced(&Key::<BTreeMap<Short, u8>>::new("map"));
    let long = || Short("four".to_owned());
    map.insert(Short("one".to_owned()), 1).unwrap();
    refused(map.insert(long(), 2), "`Short`");
    refused(map.get_or_insert(long(), 2), "`Short`");
    refused(map.extend([(long(), 2)]), "`Short`");
    assert_eq!(map.to_map().unwrap().len(), 1);
}

/// In debug builds a mistake is found wherever it is, and not at the first value alone.
#[cfg(debug_assertions)]
#[test]
fn in_debug_builds_every_value_is_read_back() {
    let memory = Memory::open("memory:").unwrap();
    let list = memory.synced(&Key::<Vec<Short>>::new("list"));
    list.push(Short("one".to_owned())).unwrap();
    refused(list.push(Short("four".to_owned())), "`Short`");
    assert_eq!(list.len().unwrap(), 1);
}
