//! What each call does to a document that nobody else changes.

use serde_json::{Value, json};

use super::kinds::CallKind;

/// Does to a complete document what the call does. Whether that is known.
pub(in crate::model) fn plainly(kind: &CallKind, document: &mut Value) -> bool {
    if !document.is_object() {
        return false;
    }
    perform(kind, document).is_some()
}

fn perform(kind: &CallKind, document: &mut Value) -> Option<()> {
    match kind {
        CallKind::Log(_)
        | CallKind::Add(_)
        | CallKind::AddInMap(..)
        | CallKind::Age(_)
        | CallKind::Row(..)
        | CallKind::Role(_)
        | CallKind::Extend(_)
        | CallKind::Transfer(_)
        | CallKind::LogAndAdd(..) => addition(kind, document),
        CallKind::Insert(..)
        | CallKind::RemoveAt(_)
        | CallKind::RemoveItem(_)
        | CallKind::Pop
        | CallKind::SetAt(..)
        | CallKind::Clear(_) => list_call(kind, document),
        CallKind::Include(_) | CallKind::Exclude(_) => set_call(kind, document),
        CallKind::ClearMap
        | CallKind::MapInsert(..)
        | CallKind::MapExtend(_)
        | CallKind::GetOrInsert(..)
        | CallKind::MapRemove(_) => map_call(kind, document),
        CallKind::Name(_) | CallKind::NoName | CallKind::User(_) | CallKind::NoUser => {
            user_call(kind, document)
        }
        CallKind::Assign(_) | CallKind::Delete => None,
        _ => closure(kind, document),
    }
}

/// What calls do that only add.
fn addition(kind: &CallKind, document: &mut Value) -> Option<()> {
    match kind {
        CallKind::Log(items) => list(document, &["log"])?.extend(items.iter().cloned()),
        CallKind::Add(by) => add(document.get_mut("n")?, *by)?,
        CallKind::AddInMap(name, by) => {
            let map = document.get_mut("map")?.as_object_mut()?;
            add(map.entry(*name).or_insert_with(|| 0.into()), *by)?;
        }
        CallKind::Age(by) => add(
            document.get_mut("deep")?.get_mut("user")?.get_mut("age")?,
            *by,
        )?,
        CallKind::Row(index, by) => add(
            list(document, &["rows"])?.get_mut(*index)?.get_mut("v")?,
            *by,
        )?,
        CallKind::Role(item) => list(document, &["deep", "roles"])?.push(item.clone()),
        CallKind::Extend(items) => list(document, &["list"])?.extend(items.iter().cloned()),
        CallKind::Transfer(by) => transfer(document.get_mut("account")?, *by)?,
        CallKind::LogAndAdd(item, by) => {
            add(document.get_mut("n")?, *by)?;
            list(document, &["log"])?.push(item.clone());
        }
        _ => return None,
    }
    Some(())
}

/// What calls on the list do.
fn list_call(kind: &CallKind, document: &mut Value) -> Option<()> {
    match kind {
        CallKind::Insert(index, item) => {
            let list = list(document, &["list"])?;
            list.insert((*index).min(list.len()), item.clone());
        }
        CallKind::RemoveAt(index) => {
            let list = list(document, &["list"])?;
            if *index < list.len() {
                list.remove(*index);
            }
        }
        CallKind::RemoveItem(item) => {
            let list = list(document, &["list"])?;
            if let Some(at) = list.iter().position(|other| other == item) {
                list.remove(at);
            }
        }
        CallKind::Pop => _ = list(document, &["list"])?.pop(),
        CallKind::SetAt(index, item) => *list(document, &["list"])?.get_mut(*index)? = item.clone(),
        CallKind::Clear(name) => document[*name] = json!([]),
        _ => return None,
    }
    Some(())
}

/// What calls on the set do.
fn set_call(kind: &CallKind, document: &mut Value) -> Option<()> {
    match kind {
        CallKind::Include(items) => {
            let tags = list(document, &["tags"])?;
            for item in items {
                if !tags.contains(item) {
                    tags.push(item.clone());
                }
            }
        }
        CallKind::Exclude(item) => list(document, &["tags"])?.retain(|tag| tag != item),
        _ => return None,
    }
    Some(())
}

/// What calls on the map do.
fn map_call(kind: &CallKind, document: &mut Value) -> Option<()> {
    match kind {
        CallKind::ClearMap => document["map"] = json!({}),
        CallKind::MapInsert(name, value) => {
            document
                .get_mut("map")?
                .as_object_mut()?
                .insert((*name).to_owned(), value.clone());
        }
        CallKind::MapExtend(entries) => {
            let mut map = document
                .get_mut("map")?
                .as_object_mut()
                .map(std::mem::take)?;
            map.extend(
                entries
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.clone())),
            );
            document["map"] = map.into();
        }
        CallKind::GetOrInsert(name, value) => {
            document
                .get_mut("map")?
                .as_object_mut()?
                .entry(*name)
                .or_insert_with(|| value.clone());
        }
        CallKind::MapRemove(name) => _ = document.get_mut("map")?.as_object_mut()?.remove(*name),
        _ => return None,
    }
    Some(())
}

/// What calls on the user do.
fn user_call(kind: &CallKind, document: &mut Value) -> Option<()> {
    match kind {
        CallKind::Name(name) => {
            document
                .get_mut("deep")?
                .get_mut("user")?
                .as_object_mut()?
                .insert("name".to_owned(), name.clone());
        }
        CallKind::NoName => {
            _ = document
                .get_mut("deep")?
                .get_mut("user")?
                .as_object_mut()?
                .remove("name");
        }
        CallKind::User(user) => {
            _ = document
                .get_mut("deep")?
                .as_object_mut()?
                .insert("user".to_owned(), user.clone());
        }
        CallKind::NoUser => _ = document.get_mut("deep")?.as_object_mut()?.remove("user"),
        _ => return None,
    }
    Some(())
}

/// What closures do.
fn closure(kind: &CallKind, document: &mut Value) -> Option<()> {
    match kind {
        CallKind::Truncate(len) => list(document, &["list"])?.truncate(*len),
        CallKind::Splice(from, count, items) => {
            let list = list(document, &["list"])?;
            let from = (*from).min(list.len());
            let to = (from + count).min(list.len());
            list.splice(from..to, items.iter().cloned());
        }
        CallKind::Sort => list(document, &["list"])?.sort_by_key(ToString::to_string),
        CallKind::Update(name, value) => {
            if let Some(map) = document.get_mut("map").and_then(Value::as_object_mut) {
                map.insert((*name).to_owned(), value.clone());
            }
            if let Some(list) = list(document, &["list"]) {
                list.reverse();
                list.pop();
            }
        }
        CallKind::Count(name, by) => {
            let map = document.get_mut("map")?.as_object_mut()?;
            add(map.entry(*name).or_insert_with(|| 0.into()), *by)?;
        }
        CallKind::Person(name, by) => {
            let user = document.get_mut("deep")?.get_mut("user")?.as_object_mut()?;
            add(user.get_mut("age")?, *by)?;
            user.insert("name".to_owned(), name.clone());
        }
        CallKind::Tag(removed, added) => {
            let tags = list(document, &["tags"])?;
            tags.retain(|tag| tag != removed);
            if !tags.contains(added) {
                tags.push(added.clone());
            }
        }
        CallKind::Retain(name, removed) => list(document, &[name])?.retain(|item| item != removed),
        CallKind::EditRow(index, by) => add(
            list(document, &["rows"])?.get_mut(*index)?.get_mut("v")?,
            *by,
        )?,
        CallKind::Swap(one, other) => {
            let list = list(document, &["list"])?;
            if (*one).max(*other) >= list.len() {
                return None;
            }
            list.swap(*one, *other);
        }
        CallKind::Move(from, to, by) => {
            let map = document.get_mut("map")?.as_object_mut()?;
            add(map.entry(*from).or_insert_with(|| 0.into()), -by)?;
            add(map.entry(*to).or_insert_with(|| 0.into()), *by)?;
        }
        CallKind::Spend(by) => transfer(document.get_mut("account")?, *by)?,
        _ => return None,
    }
    Some(())
}

fn list<'a>(document: &'a mut Value, names: &[&str]) -> Option<&'a mut Vec<Value>> {
    names
        .iter()
        .try_fold(document, |node, name| node.get_mut(*name))?
        .as_array_mut()
}

fn add(number: &mut Value, by: i64) -> Option<()> {
    *number = (number.as_i64()? + by).into();
    Some(())
}

fn transfer(account: &mut Value, by: i64) -> Option<()> {
    let left = account.get("a")?.as_i64()? - by;
    if !(0..=120).contains(&left) {
        return None;
    }
    add(account.get_mut("b")?, by)?;
    account["a"] = left.into();
    Some(())
}
