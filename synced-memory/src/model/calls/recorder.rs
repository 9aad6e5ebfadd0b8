//! Records operations on a value that a process reads, as `Synced` does.

use serde_json::Value;

use super::super::document::{completed, encoded, segments};
use super::kinds::CallKind;
use super::plainly::plainly;
use crate::handle::path::seen;
use crate::value::mutation::{
    Action, Content, Json, ObservedValue, Operation, PathSegment, PathStep, diff, element,
    elements, locate,
};

/// A call in the form in which the state accepts it.
#[derive(Debug)]
pub(in crate::model) enum RecordedWrite {
    /// There is nothing to write.
    Nothing,
    Assign(Value),
    Delete,
    Change(Vec<Operation>, RecordedOn),
}

impl RecordedWrite {
    pub(super) fn change(operations: Vec<Operation>, recorded_on: RecordedOn) -> Self {
        if operations.is_empty() {
            Self::Nothing
        } else {
            Self::Change(operations, recorded_on)
        }
    }
}

/// What must be stored as it was observed; otherwise the call is recorded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum RecordedOn {
    /// Nothing: the call applies to any value.
    Anything,
    /// The values that it changes.
    Paths,
    /// The whole value.
    Whole,
}

/// Records calls on the value that a process reads, if there is one, or else on its default.
pub(super) struct CallRecorder<'a> {
    pub(super) visible: Option<&'a str>,
    pub(super) origin: &'a Json,
}

/// A value that was located by its path.
pub(super) struct LocatedPath {
    pub(super) path: Vec<PathStep>,
    pub(super) text: Option<String>,
    exists: bool,
    observed: ObservedValue,
}

impl LocatedPath {
    pub(super) fn operation(&self, action: Action) -> Operation {
        Operation {
            path: self.path.clone(),
            action,
        }
    }
}

impl CallRecorder<'_> {
    pub(super) fn located(&self, segments: &[PathSegment]) -> Option<LocatedPath> {
        let location = locate(self.visible, Some(self.origin), segments).ok()?;
        let observed = seen(&location);
        Some(LocatedPath {
            path: location.path,
            text: location.found.map(str::to_owned),
            exists: location.exists,
            observed,
        })
    }

    /// One operation on what is located by these names.
    pub(super) fn operation(&self, names: &[&str], action: Action) -> Option<Operation> {
        Some(self.located(&segments(names))?.operation(action))
    }

    /// A call of one operation.
    pub(super) fn one(
        &self,
        segments: &[PathSegment],
        action: Action,
        recorded_on: RecordedOn,
    ) -> Option<RecordedWrite> {
        let operation = self.located(segments)?.operation(action);
        Some(RecordedWrite::Change(vec![operation], recorded_on))
    }

    pub(super) fn set(&self, segments: &[PathSegment], value: &Value) -> Option<RecordedWrite> {
        let located = self.located(segments)?;
        let action = Action::Set {
            value: json(value),
            seen: located.observed,
        };
        let operation = located.operation(action);
        Some(RecordedWrite::Change(vec![operation], RecordedOn::Anything))
    }

    pub(super) fn remove(&self, segments: &[PathSegment]) -> Option<RecordedWrite> {
        let located = self.located(segments)?;
        if !located.exists {
            return Some(RecordedWrite::Nothing);
        }
        let seen = located.observed;
        let operation = located.operation(Action::Remove { seen });
        Some(RecordedWrite::Change(vec![operation], RecordedOn::Paths))
    }

    /// Removes the element of the list that is picked.
    pub(super) fn remove_picked(
        &self,
        pick: impl Fn(&[&str]) -> Option<usize>,
    ) -> Option<RecordedWrite> {
        let located = self.located(&segments(&["list"]))?;
        let list = elements(located.text.as_deref()?).ok()?;
        let Some(element) = pick(&list).and_then(|index| element(&list, index)) else {
            return Some(RecordedWrite::Nothing);
        };
        let seen = ObservedValue::Content(element.content);
        let path = [&located.path[..], &[PathStep::Element(element)]].concat();
        let operation = Operation {
            path,
            action: Action::Remove { seen },
        };
        Some(RecordedWrite::Change(vec![operation], RecordedOn::Paths))
    }

    pub(super) fn closure(&self, kind: &CallKind) -> Option<RecordedWrite> {
        let name = match kind {
            CallKind::Truncate(_) | CallKind::Splice(..) | CallKind::Sort | CallKind::Swap(..) => {
                "list"
            }
            CallKind::Retain(name, _) => name,
            CallKind::Count(..) | CallKind::Move(..) => "map",
            CallKind::Tag(..) => "tags",
            CallKind::EditRow(..) => "rows",
            CallKind::Update(..) | CallKind::Person(..) | CallKind::Spend(_) => "",
            CallKind::Withdraw => return Some(self.deleted_by_closure()),
            _ => return None,
        };
        self.difference(name, kind)
    }

    fn deleted_by_closure(&self) -> RecordedWrite {
        let Some(visible) = self.visible else {
            return RecordedWrite::Nothing;
        };
        let seen = ObservedValue::Content(Content::of(visible));
        let operation = Operation {
            path: Vec::new(),
            action: Action::Remove { seen },
        };
        RecordedWrite::Change(vec![operation], RecordedOn::Whole)
    }

    /// The difference that a closure makes to a member of the document; to all of it without a
    /// name.
    fn difference(&self, name: &str, kind: &CallKind) -> Option<RecordedWrite> {
        let path = if name.is_empty() {
            Vec::new()
        } else {
            segments(&[name])
        };
        let located = self.located(&path)?;
        let stored = located.text.as_deref()?;
        let before: Value = serde_json::from_str(stored).ok()?;

        // The closure gets the document with the defaults of what is missing.
        let mut whole = completed(name.is_empty().then_some(&before));
        if !name.is_empty() {
            whole[name] = before;
        }
        let before = whole.clone();
        if !plainly(kind, &mut whole) {
            return None;
        }

        let [before, after] =
            [&before, &whole].map(|whole| if name.is_empty() { whole } else { &whole[name] });
        let operations = diff(stored, &encoded(name, before), &encoded(name, after), &[]);
        let operations = operations
            .into_iter()
            .map(|Operation { path, action }| Operation {
                path: [&located.path[..], &path].concat(),
                action,
            });
        Some(RecordedWrite::change(
            operations.collect(),
            RecordedOn::Whole,
        ))
    }
}

pub(super) fn json(value: &Value) -> Json {
    Json::parse(value.to_string()).expect("a value is JSON")
}

pub(super) fn jsons(items: &[Value]) -> Vec<Json> {
    items.iter().map(json).collect()
}
