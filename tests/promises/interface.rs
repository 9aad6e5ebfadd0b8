//! Every documented method exists with its documented signature, and does what the collections of
//! std do.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synced_memory::{
    DeadLetter, ErrorKind, Key, Memory, Result, Status, Synced, SyncedMemory, Written,
};

/// A hasher that is not the usual one.
type Hasher = BuildHasherDefault<DefaultHasher>;

fn memory() -> Memory {
    Memory::open("memory:").unwrap()
}

macro_rules! list {
    ($test:ident, $list:ident) => {
        #[test]
        fn $test() -> Result<()> {
            let list: Synced<$list<i64>> = memory().synced(&Key::new("list"));
            let mut model: Vec<i64> = Vec::new();
            let same = |model: &[i64]| {
                let got: Vec<i64> = list.to_vec().unwrap();
                assert_eq!(got, model);
                assert_eq!(list.read_or_empty(), model);
            };
            assert!(list.is_empty()?);
            let _: Option<i64> = list.pop()?;
            assert_eq!(
                (list.pop()?, list.remove(0)?, list.remove_item(&1)?),
                (None, None, false)
            );
            let _: Written = list.push(3)?;
            let _: Written = list.extend([1, 2, 1])?;
            model.extend([3, 1, 2, 1]);
            same(&model);
            let _: Written = list.insert(1, 7)?;
            model.insert(1, 7);
            // As in Python, an index beyond the end means the end.
            list.insert(99, 8)?;
            model.push(8);
            same(&model);
            let removed: Option<i64> = list.remove(0)?;
            assert_eq!(removed, Some(model.remove(0)));
            assert_eq!(list.remove(99)?, None);
            let was_there: bool = list.remove_item(&1)?;
            assert!(was_there);
            model.remove(1);
            same(&model);
            let last: Option<i64> = list.pop()?;
            assert_eq!(last, model.pop());
            same(&model);
            for (range, items) in [
                (1..2, vec![5, 5, 4]),
                (0..0, vec![9]),
                (3..99, vec![]),
                (7..9, vec![6, 6]),
            ] {
                let replaced: Vec<i64> = list.splice(range.clone(), items.clone())?;
                let end = range.end.min(model.len());
                let range = range.start.min(end)..end;
                assert_eq!(replaced, model.splice(range, items).collect::<Vec<_>>());
                same(&model);
            }
            assert_eq!(list.splice(.., [4, 2, 4, 1])?, model);
            assert_eq!(
                (list.splice(..=0, [3])?, list.splice(3.., [0])?),
                (vec![4], vec![1])
            );
            model = vec![3, 2, 4, 0];
            same(&model);
            let _: Written = list.sort()?;
            model.sort_unstable();
            same(&model);
            let _: Written = list.reverse()?;
            model.reverse();
            same(&model);
            let _: Written = list.retain(|item| item % 2 == 0)?;
            model.retain(|item| item % 2 == 0);
            same(&model);
            let _: Written = list.truncate(2)?;
            model.truncate(2);
            same(&model);
            let element: Synced<i64> = list.at(1);
            element.add(5)?;
            model[1] += 5;
            assert_eq!(
                (element.get()?, list.at(9).find()?, list.len()?),
                (model[1], None, 2)
            );
            assert_eq!(list.at(9).get().unwrap_err().kind(), ErrorKind::Unset);
            let _: Written = list.clear()?;
            same(&[]);
            assert_eq!(
                list.find()?.map(|list| list.len()),
                Some(0),
                "the key is set, to an empty list"
            );
            Ok(())
        }
    };
}

trait ReadOrEmpty {
    fn read_or_empty(&self) -> Vec<i64>;
}

impl<L: IntoIterator<Item = i64> + Clone + Default> ReadOrEmpty for Synced<L>
where
    L: Serialize + for<'de> Deserialize<'de> + Send + Sync + 'static,
{
    fn read_or_empty(&self) -> Vec<i64> {
        self.find()
            .unwrap()
            .unwrap_or_default()
            .into_iter()
            .collect()
    }
}

list!(a_vec_does_what_a_vec_of_std_does, Vec);
list!(a_deque_does_what_a_deque_of_std_does, VecDeque);

macro_rules! map {
    ($test:ident, $map:ty) => {
        #[test]
        fn $test() -> Result<()> {
            let map: Synced<$map> = memory().synced(&Key::new("map"));
            let mut model: BTreeMap<String, i64> = BTreeMap::new();
            let same = |model: &BTreeMap<String, i64>| {
                let got: $map = map.to_map().unwrap();
                assert_eq!(got.into_iter().collect::<BTreeMap<_, _>>(), *model);
                let mut keys: Vec<String> = map.keys().unwrap();
                keys.sort_unstable();
                assert!(keys.iter().eq(model.keys()));
                assert_eq!(
                    (map.len().unwrap(), map.is_empty().unwrap()),
                    (model.len(), model.is_empty())
                );
            };
            same(&model);
            let nothing: Option<(String, i64)> = map.pop()?;
            assert_eq!(
                (nothing, map.remove("a")?, map.contains_key("a")?),
                (None, None, false)
            );
            for (key, value) in [("a", 1), ("b", 2), ("a", 3)] {
                let before: Option<i64> = map.insert(key.to_owned(), value)?;
                assert_eq!(before, model.insert(key.to_owned(), value));
                same(&model);
            }
            let _: Written = map.extend([
                ("b".to_owned(), 4),
                ("c".to_owned(), 5),
                ("\"\n:{".to_owned(), 6),
            ])?;
            model.extend([
                ("b".to_owned(), 4),
                ("c".to_owned(), 5),
                ("\"\n:{".to_owned(), 6),
            ]);
            same(&model);
            let got: i64 = map.get_or_insert("b".to_owned(), 9)?;
            assert_eq!((got, map.get_or_insert("d".to_owned(), 9)?), (4, 9));
            model.insert("d".to_owned(), 9);
            same(&model);
            // With the borrowed form of a key, and with the key itself.
            let by_key = "b".to_owned();
            assert!(map.contains_key("b")? && map.contains_key(&by_key)?);
            let value: Synced<i64> = map.at("b");
            value.add(1)?;
            assert_eq!((map.at(&by_key).get()?, map.at("x").find()?), (5, None));
            model.insert("b".to_owned(), 5);
            map.at("x").set(1)?;
            model.insert("x".to_owned(), 1);
            same(&model);
            let removed: Option<i64> = map.remove("a")?;
            assert_eq!(removed, model.remove("a"));
            assert_eq!(map.remove(&by_key)?, model.remove("b"));
            let _: Written = map.retain(|key, value| {
                *value += 10;
                key != "c"
            })?;
            model.retain(|key, value| {
                *value += 10;
                key != "c"
            });
            same(&model);
            while let Some((key, value)) = map.pop()? {
                assert_eq!(model.remove(&key), Some(value));
                same(&model);
            }
            assert!(model.is_empty());
            map.insert("a".to_owned(), 1)?;
            let _: Written = map.clear()?;
            same(&model);
            Ok(())
        }
    };
}

map!(a_hash_map_does_what_one_of_std_does, HashMap<String, i64>);
map!(a_hash_map_with_any_hasher_does_what_one_of_std_does, HashMap<String, i64, Hasher>);
map!(a_btree_map_does_what_one_of_std_does, BTreeMap<String, i64>);

/// A key that serde writes as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Colour {
    DarkRed,
    Blue,
}

#[test]
fn a_map_has_keys_of_every_type_that_json_writes_as_a_string() -> Result<()> {
    let memory = memory();
    let numbers: Synced<BTreeMap<u32, String>> = memory.synced(&Key::new("numbers"));
    numbers.insert(7, "seven".to_owned())?;
    numbers.at(&7).update(|text| text.push('!'))?;
    assert_eq!(
        (numbers.remove(&7)?, numbers.keys()?),
        (Some("seven!".to_owned()), vec![])
    );
    let colours: Synced<HashMap<Colour, u8, Hasher>> = memory.synced(&Key::new("colours"));
    colours.insert(Colour::DarkRed, 1)?;
    colours.at(&Colour::Blue).set(2)?;
    assert_eq!(
        memory.get(&Key::<Value>::new("colours"))?,
        Some(json!({"dark-red": 1, "blue": 2}))
    );
    assert_eq!(colours.pop()?, Some((Colour::Blue, 2)));
    // A key that is no string in JSON is refused, and nothing is changed.
    let pairs: Synced<BTreeMap<(u8, u8), u8>> = memory.synced(&Key::new("pairs"));
    let refused = [
        pairs.insert((1, 2), 3).map(drop),
        pairs.at(&(1, 2)).set(3).map(drop),
        pairs.at(&(1, 2)).get().map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Serialize);
    }
    assert_eq!(pairs.find()?, None);
    Ok(())
}

macro_rules! set {
    ($test:ident, $set:ty) => {
        #[test]
        fn $test() -> Result<()> {
            let set: Synced<$set> = memory().synced(&Key::new("set"));
            let mut model: BTreeSet<i64> = BTreeSet::new();
            let same = |model: &BTreeSet<i64>| {
                let got: $set = set.to_set().unwrap();
                assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), *model);
                assert_eq!(
                    (set.len().unwrap(), set.is_empty().unwrap()),
                    (model.len(), model.is_empty())
                );
            };
            same(&model);
            for item in [1, 2, 1] {
                let is_new: bool = set.insert(item)?;
                assert_eq!(is_new, model.insert(item));
                same(&model);
            }
            assert!(set.contains(&2)? && !set.contains(&3)?);
            let _: Written = set.extend([2, 3, 3])?;
            model.extend([2, 3]);
            same(&model);
            for item in [2, 2] {
                let was_in: bool = set.remove(&item)?;
                assert_eq!(was_in, model.remove(&item));
                same(&model);
            }
            let _: Written = set.clear()?;
            same(&BTreeSet::new());
            Ok(())
        }
    };
}

set!(a_hash_set_does_what_one_of_std_does, HashSet<i64>);
set!(a_hash_set_with_any_hasher_does_what_one_of_std_does, HashSet<i64, Hasher>);
set!(a_btree_set_does_what_one_of_std_does, BTreeSet<i64>);

#[test]
fn a_view_of_any_json_does_what_those_of_lists_and_maps_do() -> Result<()> {
    let any: Synced<Value> = memory().synced(&Key::new("any"));
    assert!(any.is_empty()?);
    any.set(json!([]))?;
    let _: Written = any.push(1)?;
    let _: Written = any.extend(["x", "y"])?;
    let last: Option<Value> = any.pop()?;
    let first: Option<Value> = any.remove(0)?;
    assert_eq!((first, last), (Some(json!(1)), Some(json!("y"))));
    any.at(0).set(json!([7]))?;
    assert_eq!(
        (any.get()?, any.len()?, any.keys()?),
        (json!([[7]]), 1, vec![])
    );
    any.set(json!({"a": 1}))?;
    let before: Option<Value> = any.insert("a", 2)?;
    assert_eq!((before, any.insert("b", "x")?), (Some(json!(1)), None));
    assert!(any.contains_key("a")? && !any.contains_key("x")?);
    let mut names: Vec<String> = any.keys()?;
    names.sort_unstable();
    assert_eq!(
        (names, any.len()?, any.is_empty()?),
        (vec!["a".to_owned(), "b".to_owned()], 2, false)
    );
    assert_eq!(
        (any.remove("a")?, any.remove("a")?, any.get()?),
        (Some(json!(2)), None, json!({"b": "x"}))
    );
    Ok(())
}

#[test]
fn every_view_is_read_and_written_as_a_whole() -> Result<()> {
    let view: Synced<String> = memory().synced(&Key::new("text"));
    let unset = view.get().unwrap_err();
    assert_eq!(
        (unset.kind(), view.find()?, view.last_modified()?),
        (ErrorKind::Unset, None, None)
    );
    assert_eq!(
        view.update(|text| text.push('x')).unwrap_err().kind(),
        ErrorKind::Unset
    );
    let written: Written = view.set("a".to_owned())?;
    assert_eq!(written, Written::Stored);
    let (value, shared): (String, Arc<String>) = (view.get()?, view.read()?);
    assert_eq!(
        (value.as_str(), shared.as_str(), view.with(String::len)?),
        ("a", "a", 1)
    );
    let first: Option<u64> = view.last_modified()?;
    let result: usize = view.update(|text| {
        text.push('b');
        text.len()
    })?;
    assert!(result == 2 && view.last_modified()? > first);
    let refused: std::result::Result<u8, Box<dyn std::error::Error>> = view.try_update(|text| {
        text.clear();
        Err("no".into())
    });
    assert_eq!(
        (
            refused.unwrap_err().to_string().as_str(),
            view.get()?.as_str()
        ),
        ("no", "ab")
    );
    let (was_there, again): (bool, bool) = (view.delete()?, view.delete()?);
    assert_eq!((was_there, again, view.find()?), (true, false, None));
    pollster::block_on(async {
        view.set_async("c".to_owned()).await?;
        let length: usize = view.update_async(|text| text.len()).await?;
        assert_eq!((length, view.get_async().await?.as_str()), (1, "c"));
        Ok(())
    })
}

#[derive(SyncedMemory, Debug)]
struct Deep {
    matrix: Vec<Vec<i64>>,
    #[synced(default)]
    any: Value,
    by_name: HashMap<String, Vec<Member>>,
    sets: BTreeMap<u8, HashSet<String, Hasher>>,
}

#[derive(SyncedMemory, Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    name: String,
    #[synced(default)]
    wins: u32,
    #[synced(nested)]
    home: Home,
}

#[derive(SyncedMemory, Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Home {
    rooms: Vec<VecDeque<u8>>,
}

#[test]
fn an_element_of_an_element_is_a_view_to_any_depth() -> Result<()> {
    let deep = Deep::open("memory:")?;
    deep.matrix().extend([vec![1], vec![]])?;
    deep.matrix().at(1).push(5)?;
    deep.matrix().at(1).at(0).add(1)?;
    assert_eq!(deep.matrix().get()?, [vec![1], vec![6]]);

    deep.any()
        .set(json!({"users": [{"name": "ada"}], "n": 1}))?;
    deep.any().at("users").at(0).insert("age", 36)?;
    deep.any().at("users").at(0).at("tags").set(json!([]))?;
    deep.any().at("users").at(0).at("tags").push("x")?;
    deep.any()
        .at("users")
        .at(0)
        .at("tags")
        .at(0)
        .update(|tag| *tag = json!([tag.take()]))?;
    assert_eq!(
        deep.any().at("users").at(0).get()?,
        json!({"name": "ada", "age": 36, "tags": [["x"]]})
    );
    assert_eq!(deep.any().remove("n")?, Some(json!(1)));
    assert!(deep.any().at("users").at(3).at("name").find()?.is_none());

    let home = Home {
        rooms: vec![VecDeque::from([1]), VecDeque::new()],
    };
    deep.by_name().insert(
        "team".to_owned(),
        vec![Member {
            name: "ada".to_owned(),
            wins: 0,
            home,
        }],
    )?;
    let member = deep.by_name().at("team").at(0).fields();
    member.add_wins(2)?;
    member.home().rooms().at(1).push(9)?;
    member.home().rooms().at(1).at(0).sub(2)?;
    assert_eq!(
        (member.wins()?, member.home().snapshot()?.rooms[1][0]),
        (2, 7)
    );
    assert_eq!(deep.by_name().at("team").at(0).get()?, member.snapshot()?);

    deep.sets().at(&3).insert("a".to_owned())?;
    assert!(
        deep.sets().at(&3).contains(&"a".to_owned())? && deep.sets().at(&4).to_set()?.is_empty()
    );
    assert_eq!(deep.sets().keys()?, [3]);
    Ok(())
}

#[test]
fn a_memory_does_by_key_what_a_view_does() -> Result<()> {
    let memory = memory();
    let count = Key::<u64>::new("count");
    assert_eq!(
        (
            memory.get(&count)?,
            memory.contains(&count)?,
            memory.delete(&count)?
        ),
        (None, false, false)
    );
    let written: Written = memory.add(&count, 2)?;
    assert_eq!(
        (written, memory.set(&count, 3)?),
        (Written::Stored, Written::Stored)
    );
    let doubled: u64 = memory.update(&count, |count| {
        let count = count.get_or_insert(0);
        *count *= 2;
        *count
    })?;
    assert_eq!(
        (doubled, memory.synced(&count).get()?, memory.names()?),
        (6, 6, vec!["count".to_owned()])
    );
    // `None` removes it.
    memory.update(&count, |count| *count = None)?;
    assert_eq!(
        (memory.get(&count)?, memory.contains(&count)?),
        (None, false)
    );
    memory.set(&Key::named("at run time".to_owned()), 1)?;
    assert_eq!((memory.purge()?, memory.names()?), (1, vec![]));
    let status: Status = memory.status();
    assert!(
        status.connected
            && status.pending == 0
            && status.oldest_pending.is_none()
            && status.last_error.is_none()
    );
    assert_eq!(
        (status.dead_letters, status.superseded, status.expired),
        (0, 0, 0)
    );
    let letters: Vec<DeadLetter> = memory.dead_letters();
    assert!(letters.is_empty());
    memory.flush(Duration::from_secs(5))?;
    memory.close(Duration::from_secs(5))
}

#[test]
fn a_view_has_a_confirmed_form_and_says_how_old_its_value_may_be() -> Result<()> {
    let memory = Memory::builder()
        .url("memory:")
        .read_policy(synced_memory::ReadPolicy::Near)
        .build()?;
    let number = memory.synced(&Key::<u64>::new("number"));
    assert_eq!(number.confirmed().set(7)?, Written::Stored);
    assert_eq!((number.confirmed().get()?, number.get()?), (7, 7));
    support::eventually(Duration::from_secs(20), "the value is current", || {
        number.staleness() == Some(Duration::ZERO)
    });
    Ok(())
}
