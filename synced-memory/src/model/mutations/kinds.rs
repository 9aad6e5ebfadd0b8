//! What users call, and what that is to do to a document that nobody else changes.

use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Adds items to the log, each of which is there once.
    Log(Vec<Value>),
    Add(i64),
    AddInMap(&'static str, i64),
    Age(i64),
    Row(usize, i64),
    Role(Value),
    Extend(Vec<Value>),
    Include(Vec<Value>),
    Exclude(Value),
    /// From one part of the purse to the other.
    Transfer(i64),
    /// Both or neither.
    LogAndAdd(Value, i64),
    Insert(usize, Value),
    RemoveAt(usize),
    RemoveItem(Value),
    Pop,
    SetAt(usize, Value),
    Clear(&'static str),
    ClearMap,
    Truncate(usize),
    /// Replaces so many elements from an index on.
    Splice(usize, usize, Vec<Value>),
    Sort,
    /// A closure that changes several places: an entry of the map, the name, and the list.
    Update(&'static str, Value),
    MapInsert(&'static str, Value),
    MapExtend(Vec<(&'static str, Value)>),
    GetOrInsert(&'static str, Value),
    MapRemove(&'static str),
    Name(Value),
    NoName,
    User(Value),
    NoUser,
    Assign(u64),
    Delete,
    Withdraw,
}

impl Kind {
    /// Any call of process `at`. `mark` is a number that is drawn once. Some themes know only calls that meet each
    /// other often: those on the list, or those on the members.
    pub(super) fn drawn((at, mark): (usize, u64), theme: u64, random: &mut fastrand::Rng) -> Self {
        const NAMES: [&str; 3] = ["k", "l", "m"];
        let own = json!(format!("{at}.{mark}"));
        let name = NAMES[random.usize(0..NAMES.len())];
        // Such that no few of them come to nothing: a sum of nothing is not written where nothing is.
        let by = [10, -1][random.usize(0..2)];
        let index = random.usize(0..5);
        let letter = |random: &mut fastrand::Rng| json!(["a", "b", "c"][random.usize(0..3)]);
        let kinds = match theme % 4 {
            0 | 1 => 0..74,
            2 => 36..54,
            _ => 52..74,
        };
        match random.u8(kinds) {
            0..=8 => {
                let items = (0..random.u64(1..3)).map(|part| json!(format!("{at}.{}", mark + part)));
                Self::Log(items.collect())
            }
            9..=14 => Self::Add(by),
            15..=16 => Self::AddInMap(name, by),
            17..=18 => Self::Age(by),
            19..=21 => Self::Row(random.usize(0..3), by),
            22 => Self::Role(letter(random)),
            23..=25 => Self::Extend((0..random.usize(1..3)).map(|_| letter(random)).collect()),
            26..=28 => Self::Include((0..random.usize(1..3)).map(|_| letter(random)).collect()),
            29..=30 => Self::Exclude(letter(random)),
            31..=33 => Self::Transfer(random.i64(-40..=40)),
            34..=35 => Self::LogAndAdd(own, by),
            36..=38 => Self::Insert(index, if random.bool() { letter(random) } else { own }),
            39..=41 => Self::RemoveAt(index),
            42..=43 => Self::RemoveItem(letter(random)),
            44 => Self::Pop,
            45..=46 => Self::SetAt(index, own),
            47 => Self::Clear("list"),
            48 => Self::Clear("tags"),
            49 => Self::ClearMap,
            50 => Self::Truncate(index),
            51..=52 => {
                Self::Splice(index, random.usize(0..3), (0..random.usize(0..3)).map(|_| letter(random)).collect())
            }
            53 => Self::Sort,
            54..=55 => Self::Update(name, own),
            56..=58 => Self::MapInsert(name, own),
            59 => Self::MapExtend(vec![(name, own.clone()), ("m", own)]),
            60..=61 => Self::GetOrInsert(name, own),
            62..=64 => Self::MapRemove(name),
            65..=66 => Self::Name(own),
            67 => Self::NoName,
            68 => Self::User(json!({"name": own, "age": by})),
            69 => Self::NoUser,
            70 => Self::Assign(mark),
            71..=72 => Self::Delete,
            _ => Self::Withdraw,
        }
    }
}

/// Does to a complete document what the call is to do; whether that can be said.
pub(super) fn plainly(kind: &Kind, document: &mut Value) -> bool {
    if !document.is_object() {
        return false;
    }
    tried(kind, document).is_some()
}

fn tried(kind: &Kind, document: &mut Value) -> Option<()> {
    fn list<'a>(document: &'a mut Value, names: &[&str]) -> Option<&'a mut Vec<Value>> {
        names.iter().try_fold(document, |here, name| here.get_mut(*name))?.as_array_mut()
    }
    fn add(number: &mut Value, by: i64) -> Option<()> {
        *number = (number.as_i64()? + by).into();
        Some(())
    }
    let map = |document: &mut Value| document.get_mut("map").and_then(Value::as_object_mut).map(std::mem::take);
    match kind {
        Kind::Log(items) => list(document, &["log"])?.extend(items.iter().cloned()),
        Kind::Add(by) => add(document.get_mut("n")?, *by)?,
        Kind::AddInMap(name, by) => {
            let map = document.get_mut("map")?.as_object_mut()?;
            add(map.entry(*name).or_insert_with(|| 0.into()), *by)?;
        }
        Kind::Age(by) => add(document.get_mut("deep")?.get_mut("user")?.get_mut("age")?, *by)?,
        Kind::Row(index, by) => add(list(document, &["rows"])?.get_mut(*index)?.get_mut("v")?, *by)?,
        Kind::Role(item) => list(document, &["deep", "roles"])?.push(item.clone()),
        Kind::Extend(items) => list(document, &["list"])?.extend(items.iter().cloned()),
        Kind::Include(items) => {
            let tags = list(document, &["tags"])?;
            for item in items {
                if !tags.contains(item) {
                    tags.push(item.clone());
                }
            }
        }
        Kind::Exclude(item) => list(document, &["tags"])?.retain(|tag| tag != item),
        Kind::Transfer(by) => {
            let purse = document.get_mut("purse")?;
            let left = purse.get("a")?.as_i64()? - by;
            if !(0..=120).contains(&left) {
                return None;
            }
            add(purse.get_mut("b")?, *by)?;
            purse["a"] = left.into();
        }
        Kind::LogAndAdd(item, by) => {
            add(document.get_mut("n")?, *by)?;
            list(document, &["log"])?.push(item.clone());
        }
        Kind::Insert(index, item) => {
            let list = list(document, &["list"])?;
            list.insert((*index).min(list.len()), item.clone());
        }
        Kind::RemoveAt(index) => {
            let list = list(document, &["list"])?;
            if *index < list.len() {
                list.remove(*index);
            }
        }
        Kind::RemoveItem(item) => {
            let list = list(document, &["list"])?;
            if let Some(at) = list.iter().position(|other| other == item) {
                list.remove(at);
            }
        }
        Kind::Pop => _ = list(document, &["list"])?.pop(),
        Kind::SetAt(index, item) => *list(document, &["list"])?.get_mut(*index)? = item.clone(),
        Kind::Clear(name) => document[*name] = json!([]),
        Kind::ClearMap => document["map"] = json!({}),
        Kind::Truncate(len) => list(document, &["list"])?.truncate(*len),
        Kind::Splice(from, count, items) => {
            let list = list(document, &["list"])?;
            let from = (*from).min(list.len());
            let to = (from + count).min(list.len());
            list.splice(from..to, items.iter().cloned());
        }
        Kind::Sort => list(document, &["list"])?.sort_by_key(ToString::to_string),
        Kind::Update(name, value) => {
            if let Some(map) = document.get_mut("map").and_then(Value::as_object_mut) {
                map.insert((*name).to_owned(), value.clone());
            }
            if let Some(list) = list(document, &["list"]) {
                list.reverse();
                list.pop();
            }
        }
        Kind::MapInsert(name, value) => {
            document.get_mut("map")?.as_object_mut()?.insert((*name).to_owned(), value.clone());
        }
        Kind::MapExtend(entries) => {
            let mut entered = map(document)?;
            entered.extend(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            document["map"] = entered.into();
        }
        Kind::GetOrInsert(name, value) => {
            document.get_mut("map")?.as_object_mut()?.entry(*name).or_insert_with(|| value.clone());
        }
        Kind::MapRemove(name) => _ = document.get_mut("map")?.as_object_mut()?.remove(*name),
        Kind::Name(name) => {
            document.get_mut("deep")?.get_mut("user")?.as_object_mut()?.insert("name".to_owned(), name.clone());
        }
        Kind::NoName => _ = document.get_mut("deep")?.get_mut("user")?.as_object_mut()?.remove("name"),
        Kind::User(user) => _ = document.get_mut("deep")?.as_object_mut()?.insert("user".to_owned(), user.clone()),
        Kind::NoUser => _ = document.get_mut("deep")?.as_object_mut()?.remove("user"),
        Kind::Assign(_) | Kind::Delete | Kind::Withdraw => return None,
    }
    Some(())
}
