//! Operations and calls in the terms of the reference: no text, no hashes, nothing of the library.

use std::rc::Rc;

use serde_json::Value;

use crate::value::mutation::{Action, Amount, Json, ObservedValue, Operation, PathStep};

#[derive(Debug, Clone)]
pub(in crate::model) enum EditStep {
    /// A member of an object, and its default if it is missing.
    Member(String, Option<Value>),
    Element(ElementMark),
}

/// An element as it was observed: the list, and the index in it.
#[derive(Debug, Clone)]
pub(in crate::model) struct ElementMark {
    pub(in crate::model) list: Vec<Value>,
    pub(in crate::model) index: usize,
}

#[derive(Debug, Clone)]
pub(in crate::model) enum EditAction {
    Set {
        value: Value,
        observed: Option<Value>,
    },
    SetIfAbsent(Value),
    Remove {
        observed: Option<Value>,
    },
    Add {
        by: i128,
        min: i128,
        max: i128,
    },
    Append(Vec<Value>),
    Insert(ElementMark, Vec<Value>),
    Include(Vec<Value>),
    Exclude(Vec<Value>),
}

/// One operation.
#[derive(Debug, Clone)]
pub(in crate::model) struct Edit {
    pub(in crate::model) path: Vec<EditStep>,
    pub(in crate::model) action: EditAction,
}

/// The operations of one call.
#[derive(Debug, Clone, Default)]
pub(in crate::model) struct CallEdits {
    pub(in crate::model) stamp: u64,
    /// They are the difference that a closure made.
    pub(in crate::model) is_compared: bool,
    pub(in crate::model) all: Vec<Edit>,
    /// The document that it was recorded on.
    pub(in crate::model) recorded_on: Option<Rc<Value>>,
    /// The same in the terms of the library.
    pub(in crate::model) operations: Vec<Operation>,
}

impl Edit {
    /// The edit that an operation makes, which was recorded on `root`.
    pub(in crate::model) fn of(
        operation: &Operation,
        root: Option<&Value>,
        origin: Option<&Value>,
    ) -> Self {
        let mut node = root.or(origin).cloned();
        let mut path = Vec::new();
        for step in &operation.path {
            match step {
                PathStep::Member(member) => {
                    let origin = member.origin.as_ref().map(parsed);
                    let child = node.as_ref().and_then(|node| node.get(&*member.name));
                    node = child.cloned().or_else(|| origin.clone());
                    path.push(EditStep::Member(member.name.to_string(), origin));
                }
                PathStep::Element(element) => {
                    let mark = ElementMark::of(node.as_ref(), element.index);
                    node = mark.list.get(mark.index).cloned();
                    path.push(EditStep::Element(mark));
                }
            }
        }
        let action = EditAction::of(&operation.action, node.as_ref());
        Self { path, action }
    }

    pub(in crate::model) fn is_removal(&self) -> bool {
        matches!(self.action, EditAction::Remove { .. })
    }
}

impl ElementMark {
    fn of(list: Option<&Value>, index: usize) -> Self {
        let list = list.and_then(Value::as_array).cloned();
        Self {
            list: list.unwrap_or_default(),
            index,
        }
    }

    pub(in crate::model) fn content(&self) -> &Value {
        &self.list[self.index]
    }
}

impl EditAction {
    /// `node` is what the operation was recorded on, with its default if it was missing.
    fn of(action: &Action, node: Option<&Value>) -> Self {
        // A default counts as observed or as absent: the operation says which.
        let observed =
            |seen: &ObservedValue| node.cloned().filter(|_| *seen != ObservedValue::Absent);
        let all = |items: &[Json]| items.iter().map(parsed).collect::<Vec<_>>();
        match action {
            Action::Set { value, seen } => Self::Set {
                value: parsed(value),
                observed: observed(seen),
            },
            Action::SetIfAbsent { value } => Self::SetIfAbsent(parsed(value)),
            Action::Remove { seen } => Self::Remove {
                observed: observed(seen),
            },
            Action::Add {
                amount: Amount::Integer { by, min, max },
            } => Self::Add {
                by: *by,
                min: *min,
                max: *max,
            },
            Action::Add {
                amount: Amount::Float { .. },
            } => unreachable!("no float is added here"),
            Action::Append { items } => Self::Append(all(items)),
            Action::InsertAt { before, items } => {
                Self::Insert(ElementMark::of(node, before.index), all(items))
            }
            Action::Include { items } => Self::Include(all(items)),
            Action::Exclude { items } => Self::Exclude(all(items)),
        }
    }
}

/// Whether two processes that write this value have done the same. Of a number nobody can say so:
/// both may have counted.
pub(in crate::model) fn is_state(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(_) | Value::String(_))
}

fn parsed(json: &Json) -> Value {
    serde_json::from_str(json.as_str()).expect("it is JSON")
}
