//! How each call is recorded.

use serde_json::Value;

use super::super::document::{assigned, completed, segments};
use super::super::reference::edits::{CallEdits, Edit};
use super::super::reference::routes::{RouteRule, routes};
use super::kinds::CallKind;
use super::plainly::plainly;
use super::recorder::{CallRecorder, json, jsons};
pub(in crate::model) use super::recorder::{RecordedOn, RecordedWrite};
use crate::value::mutation::{
    Action, Amount, Content, Json, Operation, PathSegment, element, elements, member, members,
};

impl CallKind {
    /// Records the call on what its process reads; `None` if it does not apply to that.
    pub(in crate::model) fn recorded(
        &self,
        visible: Option<&str>,
        origin: &Json,
    ) -> Option<RecordedWrite> {
        let recorder = CallRecorder { visible, origin };
        match self {
            Self::Log(_)
            | Self::Add(_)
            | Self::AddInMap(..)
            | Self::Age(_)
            | Self::Row(..)
            | Self::Role(_)
            | Self::Extend(_)
            | Self::Transfer(_)
            | Self::LogAndAdd(..) => recorder.addition(self),
            Self::Insert(..)
            | Self::RemoveAt(_)
            | Self::Pop
            | Self::RemoveItem(_)
            | Self::SetAt(..)
            | Self::Clear(_) => recorder.list_call(self),
            Self::Include(_) | Self::Exclude(_) => recorder.set_call(self),
            Self::ClearMap
            | Self::MapInsert(..)
            | Self::MapExtend(_)
            | Self::GetOrInsert(..)
            | Self::MapRemove(_) => recorder.map_call(self),
            Self::Name(_) | Self::NoName | Self::User(_) | Self::NoUser => recorder.user_call(self),
            Self::Assign(serial) => Some(RecordedWrite::Assign(assigned(*serial))),
            Self::Delete => Some(RecordedWrite::Delete),
            _ => recorder.closure(self),
        }
    }

    /// The element that it takes out of the list, and the operation that returns it; nothing if it
    /// takes none.
    pub(in crate::model) fn taken(
        &self,
        visible: Option<&str>,
        origin: &Json,
    ) -> Option<(Json, Operation)> {
        let located = CallRecorder { visible, origin }.located(&segments(&["list"]))?;
        let mut list = elements(located.text.as_deref()?).ok()?;
        let index = match self {
            Self::RemoveAt(index) => *index,
            Self::Pop => list.len().checked_sub(1)?,
            _ => return None,
        };
        let item = Json::parse(list.remove(index).to_owned()).ok()?;
        let action = insertion(&list, index, vec![item.clone()]);
        Some((item, located.operation(action)))
    }

    /// The operations in the terms of the reference, after checking that they do what the call is
    /// to do to the document that it was recorded on.
    pub(in crate::model) fn edits(
        &self,
        operations: &[Operation],
        visible: Option<&Value>,
        origin: &Value,
    ) -> Result<Vec<Edit>, String> {
        let mut document = visible.cloned();
        let mut edits = Vec::new();
        for operation in operations {
            let edit = Edit::of(operation, document.as_ref(), Some(origin));
            let one = CallEdits {
                all: vec![edit.clone()],
                ..CallEdits::default()
            };
            let routes = routes(document, Some(origin), &[&one], RouteRule::Latest);
            let last = routes.and_then(|mut routes| routes.pop());
            document = last.and_then(|route| route.value);
            edits.push(edit);
        }

        let mut expected = completed(visible);
        let is_known = plainly(self, &mut expected);
        let result = completed(document.as_ref());
        if is_known && result != completed(Some(&expected)) {
            return Err(format!(
                "{self:?} on {visible:?} is recorded as what makes {result} instead of {expected}"
            ));
        }
        Ok(edits)
    }
}

impl CallRecorder<'_> {
    fn addition(&self, kind: &CallKind) -> Option<RecordedWrite> {
        let (segments, action) = match kind {
            CallKind::Log(items) => (segments(&["log"]), append(items)),
            CallKind::Add(by) => (segments(&["n"]), add(*by)),
            CallKind::AddInMap(name, by) => {
                // As `map.at(name).add(by)`: the default of an entry is zero.
                let mut segments = segments(&["map", name]);
                if let Some(PathSegment::Member(last)) = segments.last_mut() {
                    last.origin = Some(json(&0.into()));
                }
                (segments, add(*by))
            }
            CallKind::Age(by) => (segments(&["deep", "user", "age"]), add(*by)),
            CallKind::Row(index, by) => {
                let index = PathSegment::Index(*index);
                let segments = [segments(&["rows"]), vec![index], segments(&["v"])].concat();
                (segments, add(*by))
            }
            CallKind::Role(item) => (
                segments(&["deep", "roles"]),
                append(std::slice::from_ref(item)),
            ),
            CallKind::Extend(items) => (segments(&["list"]), append(items)),
            CallKind::Transfer(by) => {
                let give = self.operation(&["account", "a"], add_within(-by, 0, 120))?;
                let get = self.operation(&["account", "b"], add(*by))?;
                return Some(RecordedWrite::Change(vec![give, get], RecordedOn::Anything));
            }
            CallKind::LogAndAdd(item, by) => {
                let log = self.operation(&["log"], append(std::slice::from_ref(item)))?;
                let number = self.operation(&["n"], add(*by))?;
                let operations = vec![log, number];
                return Some(RecordedWrite::Change(operations, RecordedOn::Anything));
            }
            _ => return None,
        };
        self.one(&segments, action, RecordedOn::Anything)
    }

    fn list_call(&self, kind: &CallKind) -> Option<RecordedWrite> {
        match kind {
            CallKind::Insert(index, item) => {
                let located = self.located(&segments(&["list"]))?;
                let list = elements(located.text.as_deref()?).ok()?;
                let operation = located.operation(insertion(&list, *index, vec![json(item)]));
                Some(RecordedWrite::Change(vec![operation], RecordedOn::Anything))
            }
            CallKind::RemoveAt(index) => {
                self.remove_picked(|list| (*index < list.len()).then_some(*index))
            }
            CallKind::Pop => self.remove_picked(|list| list.len().checked_sub(1)),
            CallKind::RemoveItem(item) => {
                let content = Content::of(&item.to_string());
                let is_equal = |element: &&str| Content::of(element) == content;
                self.remove_picked(|list| list.iter().position(is_equal))
            }
            CallKind::SetAt(index, item) => {
                let index = PathSegment::Index(*index);
                self.set(&[segments(&["list"]), vec![index]].concat(), item)
            }
            CallKind::Clear(name) => self.set(&segments(&[name]), &Value::Array(Vec::new())),
            _ => None,
        }
    }

    fn set_call(&self, kind: &CallKind) -> Option<RecordedWrite> {
        match kind {
            CallKind::Include(items) => {
                let items = jsons(items);
                let tags = segments(&["tags"]);
                self.one(&tags, Action::Include { items }, RecordedOn::Anything)
            }
            CallKind::Exclude(item) => {
                let located = self.located(&segments(&["tags"]))?;
                let tags = elements(located.text.as_deref()?).ok()?;
                let item = json(item);
                if !tags.contains(&item.as_str()) {
                    return Some(RecordedWrite::Nothing);
                }
                let operation = located.operation(Action::Exclude { items: vec![item] });
                Some(RecordedWrite::Change(vec![operation], RecordedOn::Paths))
            }
            _ => None,
        }
    }

    fn map_call(&self, kind: &CallKind) -> Option<RecordedWrite> {
        let map = self.located(&segments(&["map"]));
        let text = || map.as_ref()?.text.as_deref();
        match kind {
            CallKind::ClearMap => {
                let empty = Value::Object(serde_json::Map::new());
                self.set(&segments(&["map"]), &empty)
            }
            CallKind::MapInsert(name, value) => {
                let before = member(text()?, name).ok()?;
                let action = insert(value, before);
                self.one(&segments(&["map", name]), action, RecordedOn::Paths)
            }
            CallKind::MapExtend(entries) => {
                let stored = members(text()?).ok()?;
                let operations = entries.iter().map(|(name, value)| {
                    let before = stored.iter().find(|(other, _)| other == name);
                    let action = insert(value, before.map(|(_, before)| *before));
                    let located = self.located(&segments(&["map", name]));
                    Operation {
                        path: located.map(|located| located.path).unwrap_or_default(),
                        action,
                    }
                });
                let operations = operations.collect();
                Some(RecordedWrite::change(operations, RecordedOn::Anything))
            }
            CallKind::GetOrInsert(name, value) => {
                if member(text()?, name).ok()?.is_some() {
                    return Some(RecordedWrite::Nothing);
                }
                let action = Action::SetIfAbsent { value: json(value) };
                self.one(&segments(&["map", name]), action, RecordedOn::Paths)
            }
            CallKind::MapRemove(name) => self.remove(&segments(&["map", name])),
            _ => None,
        }
    }

    fn user_call(&self, kind: &CallKind) -> Option<RecordedWrite> {
        match kind {
            CallKind::Name(name) => self.set(&segments(&["deep", "user", "name"]), name),
            CallKind::NoName => self.remove(&segments(&["deep", "user", "name"])),
            CallKind::User(user) => self.set(&segments(&["deep", "user"]), user),
            CallKind::NoUser => self.remove(&segments(&["deep", "user"])),
            _ => None,
        }
    }
}

fn add(by: i64) -> Action {
    add_within(by, i64::MIN.into(), i64::MAX.into())
}

fn add_within(by: i64, min: i128, max: i128) -> Action {
    let by = by.into();
    Action::Add {
        amount: Amount::Integer { by, min, max },
    }
}

fn append(items: &[Value]) -> Action {
    Action::Append {
        items: jsons(items),
    }
}

/// Inserts items before the element with this index, or at the end.
fn insertion(list: &[&str], index: usize, items: Vec<Json>) -> Action {
    match element(list, index) {
        Some(before) => Action::InsertAt { before, items },
        None => Action::Append { items },
    }
}

/// Inserts an entry into a map. `before` is its text in the map that the call was recorded on.
fn insert(value: &Value, before: Option<&str>) -> Action {
    Action::Set {
        value: json(value),
        seen: before.map(Content::of).into(),
    }
}
