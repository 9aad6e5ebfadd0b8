//! The tables of `collections.md`: the equivalent of each method of Python's `SyncedList` and
//! `SyncedDict`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Python, Server};
use synced_memory::{Key, Memory, Result, SyncedMemory};

type Entries = BTreeMap<String, i64>;

#[derive(SyncedMemory)]
struct Mine {
    items: Vec<i64>,
    lists: Vec<Vec<i64>>,
    #[synced(collection)]
    data: Entries,
    nested: BTreeMap<String, Entries>,
}

/// A Python statement, and its equivalent in Rust.
type Row = (&'static str, fn(&SyncedMine) -> Result<()>);

const ROWS: &[Row] = &[
    ("m.items.append(9)", |m| m.items().push(9).map(drop)),
    ("m.items.extend([7, 8])", |m| {
        m.items().extend([7, 8]).map(drop)
    }),
    ("m.items += [7, 8]", |m| m.items().extend([7, 8]).map(drop)),
    ("m.items.insert(1, 5)", |m| m.items().insert(1, 5).map(drop)),
    ("m.items.insert(99, 5)", |m| {
        m.items().insert(99, 5).map(drop)
    }),
    ("m.items.remove(1)", |m| m.items().remove_item(&1).map(drop)),
    ("m.items.pop()", |m| m.items().pop().map(drop)),
    ("m.items.pop(1)", |m| m.items().remove(1).map(drop)),
    ("m.items[1] = 5", |m| m.items().at(1).set(5).map(drop)),
    ("del m.items[0]", |m| m.items().remove(0).map(drop)),
    ("m.items[1:3] = [6, 6, 6]", |m| {
        m.items().splice(1..3, [6, 6, 6]).map(drop)
    }),
    ("del m.items[0:2]", |m| m.items().splice(0..2, []).map(drop)),
    ("m.items[-1] = 5", |m| {
        m.update_items(|items| *items.last_mut().unwrap() = 5)
    }),
    ("m.items[::2] = [8, 9]", |m| {
        m.update_items(|items| {
            items
                .iter_mut()
                .step_by(2)
                .zip([8, 9])
                .for_each(|(item, new)| *item = new);
        })
    }),
    ("del m.items[::2]", |m| {
        m.update_items(|items| *items = items.iter().skip(1).step_by(2).copied().collect())
    }),
    ("m.items.clear()", |m| m.items().clear().map(drop)),
    ("m.items.sort()", |m| m.items().sort().map(drop)),
    ("m.items.reverse()", |m| m.items().reverse().map(drop)),
    ("m.items.sort(key=lambda item: -item)", |m| {
        m.update_items(|items| items.sort_by_key(|item| -item))
    }),
    ("m.items.sort(reverse=True)", |m| {
        m.update_items(|items| items.sort_by(|one, other| other.cmp(one)))
    }),
    ("m.data['a'] += 1\nm.sync('data')", |m| {
        m.data().at("a").add(1).map(drop)
    }),
    ("m.items *= 3", |m| {
        m.update_items(|items| *items = items.repeat(3))
    }),
    ("m.lists[0].append(4)", |m| {
        m.lists().at(0).push(4).map(drop)
    }),
    ("m.data['a'] = 7", |m| {
        m.data().insert("a".to_owned(), 7).map(drop)
    }),
    ("m.data['new'] = 7", |m| {
        m.data().insert("new".to_owned(), 7).map(drop)
    }),
    ("del m.data['a']", |m| m.data().remove("a").map(drop)),
    ("m.data.pop('b')", |m| m.data().remove("b").map(drop)),
    ("m.data.setdefault('a', 9)", |m| {
        m.data().get_or_insert("a".to_owned(), 9).map(drop)
    }),
    ("m.data.setdefault('new', 9)", |m| {
        m.data().get_or_insert("new".to_owned(), 9).map(drop)
    }),
    ("m.data.popitem()", |m| m.data().pop().map(drop)),
    ("m.data.update({'a': 5, 'z': 6})", |m| {
        m.data()
            .extend([("a".to_owned(), 5), ("z".to_owned(), 6)])
            .map(drop)
    }),
    ("m.data |= {'a': 5, 'z': 6}", |m| {
        m.data()
            .extend([("a".to_owned(), 5), ("z".to_owned(), 6)])
            .map(drop)
    }),
    ("m.data.clear()", |m| m.data().clear().map(drop)),
    ("m.nested['a']['c'] = 3", |m| {
        m.nested().at("a").insert("c".to_owned(), 3).map(drop)
    }),
];

#[test]
fn each_row_does_the_same_in_rust_and_in_python() {
    let server = Server::redis().start();
    let memory = Memory::open(&server.url()).unwrap();
    let mine = Mine::attach(&memory);
    let mut python = Python::against(&server);
    python.run("from synced_memory import Memory");
    let initial = json!({
        "items": [3, 1, 2, 1], "lists": [[1], [2]], "data": {"a": 1, "b": 2}, "nested": {"a": {"b": 1}, "c": {}},
    });
    let names = ["items", "lists", "data", "nested"];
    let reset = || {
        for name in names {
            memory
                .set(&Key::<Value>::new(name), initial[name].clone())
                .unwrap();
        }
    };
    let stored = || names.map(|name| memory.get(&Key::<Value>::new(name)).unwrap().unwrap());
    for (statement, equivalent) in ROWS {
        reset();
        // A fresh memory: one that has read a key before does not see what others write to it.
        python.run(&format!(
            "m = Memory()\nm.items, m.lists, m.data, m.nested\n{statement}"
        ));
        let theirs = stored();
        reset();
        equivalent(&mine).unwrap();
        assert_eq!(stored(), theirs, "{statement}");
        let is_changed = stored() != names.map(|name| initial[name].clone());
        assert_eq!(
            is_changed,
            *statement != "m.data.setdefault('a', 9)",
            "{statement}"
        );
    }
}

#[test]
fn reads_return_what_they_return_in_python() -> Result<()> {
    let memory = Memory::open("memory:")?;
    let mine = Mine::attach(&memory);
    mine.set_items(vec![3, 1])?;
    mine.set_data([("a".to_owned(), 1)].into())?;
    assert_eq!(
        (
            mine.items().len()?,
            mine.items().to_vec()?,
            mine.items().at(1).get()?
        ),
        (2, vec![3, 1], 1)
    );
    assert_eq!(
        (
            mine.data().at("a").get()?,
            mine.data().len()?,
            mine.data().keys()?
        ),
        (1, 1, vec!["a".to_owned()])
    );
    assert!(mine.data().contains_key("a")? && !mine.data().contains_key("b")?);
    assert_eq!(mine.data().to_map()?, mine.data().get()?);
    assert!(mine.items().remove_item(&3)? && !mine.items().remove_item(&3)?);
    assert_eq!(
        (
            mine.items().pop()?,
            mine.items().pop()?,
            mine.items().remove(0)?
        ),
        (Some(1), None, None)
    );
    assert_eq!(
        (mine.data().pop()?, mine.data().pop()?),
        (Some(("a".to_owned(), 1)), None)
    );
    Ok(())
}
