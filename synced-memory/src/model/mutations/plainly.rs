//! What each call is to do to a document that nobody else changes.

use serde_json::{Value, json};

use super::kinds::Kind;

/// Does to a complete document what the call is to do; whether that can be said.
pub(super) fn plainly(kind: &Kind, document: &mut Value) -> bool {
    if !document.is_object() {
        return false;
    }
    tried(kind, document).is_some()
}

fn tried(kind: &Kind, document: &mut Value) -> Option<()> {
    let map = |document: &mut Value| {
        document
            .get_mut("map")
            .and_then(Value::as_object_mut)
            .map(std::mem::take)
    };
    match kind {
        Kind::Log(items) => list(document, &["log"])?.extend(items.iter().cloned()),
        Kind::Add(by) => add(document.get_mut("n")?, *by)?,
        Kind::AddInMap(name, by) => {
            let map = document.get_mut("map")?.as_object_mut()?;
            add(map.entry(*name).or_insert_with(|| 0.into()), *by)?;
        }
        Kind::Age(by) => add(
            document.get_mut("deep")?.get_mut("user")?.get_mut("age")?,
            *by,
        )?,
        Kind::Row(index, by) => add(
            list(document, &["rows"])?.get_mut(*index)?.get_mut("v")?,
            *by,
        )?,
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
        Kind::Transfer(by) => spend(document.get_mut("purse")?, *by)?,
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
        Kind::MapInsert(name, value) => {
            document
                .get_mut("map")?
                .as_object_mut()?
                .insert((*name).to_owned(), value.clone());
        }
        Kind::MapExtend(entries) => {
            let mut entered = map(document)?;
            entered.extend(
                entries
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.clone())),
            );
            document["map"] = entered.into();
        }
        Kind::GetOrInsert(name, value) => {
            document
                .get_mut("map")?
                .as_object_mut()?
                .entry(*name)
                .or_insert_with(|| value.clone());
        }
        Kind::MapRemove(name) => _ = document.get_mut("map")?.as_object_mut()?.remove(*name),
        Kind::Name(name) => {
            document
                .get_mut("deep")?
                .get_mut("user")?
                .as_object_mut()?
                .insert("name".to_owned(), name.clone());
        }
        Kind::NoName => {
            _ = document
                .get_mut("deep")?
                .get_mut("user")?
                .as_object_mut()?
                .remove("name");
        }
        Kind::User(user) => {
            _ = document
                .get_mut("deep")?
                .as_object_mut()?
                .insert("user".to_owned(), user.clone());
        }
        Kind::NoUser => _ = document.get_mut("deep")?.as_object_mut()?.remove("user"),
        Kind::Assign(_) | Kind::Delete => return None,
        _ => return closure(kind, document),
    }
    Some(())
}

/// What closures do.
fn closure(kind: &Kind, document: &mut Value) -> Option<()> {
    match kind {
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
        Kind::Count(name, by) => {
            let map = document.get_mut("map")?.as_object_mut()?;
            add(map.entry(*name).or_insert_with(|| 0.into()), *by)?;
        }
        Kind::Person(name, by) => {
            let user = document.get_mut("deep")?.get_mut("user")?.as_object_mut()?;
            add(user.get_mut("age")?, *by)?;
            user.insert("name".to_owned(), name.clone());
        }
        Kind::Tag(gone, come) => {
            let tags = list(document, &["tags"])?;
            tags.retain(|tag| tag != gone);
            if !tags.contains(come) {
                tags.push(come.clone());
            }
        }
        Kind::Retain(name, gone) => list(document, &[name])?.retain(|item| item != gone),
        Kind::EditRow(index, by) => add(
            list(document, &["rows"])?.get_mut(*index)?.get_mut("v")?,
            *by,
        )?,
        Kind::Swap(one, other) => {
            let list = list(document, &["list"])?;
            if (*one).max(*other) >= list.len() {
                return None;
            }
            list.swap(*one, *other);
        }
        Kind::Move(from, to, by) => {
            let map = document.get_mut("map")?.as_object_mut()?;
            add(map.entry(*from).or_insert_with(|| 0.into()), -by)?;
            add(map.entry(*to).or_insert_with(|| 0.into()), *by)?;
        }
        Kind::Spend(by) => spend(document.get_mut("purse")?, *by)?,
        _ => return None,
    }
    Some(())
}

fn list<'a>(document: &'a mut Value, names: &[&str]) -> Option<&'a mut Vec<Value>> {
    names
        .iter()
        .try_fold(document, |here, name| here.get_mut(*name))?
        .as_array_mut()
}

fn add(number: &mut Value, by: i64) -> Option<()> {
    *number = (number.as_i64()? + by).into();
    Some(())
}

fn spend(purse: &mut Value, by: i64) -> Option<()> {
    let left = purse.get("a")?.as_i64()? - by;
    if !(0..=120).contains(&left) {
        return None;
    }
    add(purse.get_mut("b")?, by)?;
    purse["a"] = left.into();
    Some(())
}
