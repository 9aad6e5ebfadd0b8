//! The log and the sums, which can be computed from the calls alone.

use serde_json::Value;

use super::super::calls::kinds::{COUNTED, CallKind};
use super::super::document::completed;

/// What a call does to the log and the sums.
#[derive(Debug)]
pub(super) enum CountedChange {
    Pushed(Vec<Value>),
    Added(i64),
    AddedInMap(i64),
    ClearedMap,
    Deleted,
}

impl CountedChange {
    pub(super) fn of(kind: &CallKind) -> Vec<Self> {
        match kind {
            CallKind::Log(items) => vec![Self::Pushed(items.clone())],
            CallKind::Add(by) => vec![Self::Added(*by)],
            CallKind::LogAndAdd(item, by) => {
                vec![Self::Pushed(vec![item.clone()]), Self::Added(*by)]
            }
            CallKind::AddInMap(COUNTED, by) | CallKind::Count(COUNTED, by) => {
                vec![Self::AddedInMap(*by)]
            }
            CallKind::Move(COUNTED, _, by) => vec![Self::AddedInMap(-by)],
            CallKind::ClearMap => vec![Self::ClearedMap],
            CallKind::Withdraw => vec![Self::Deleted],
            _ => Vec::new(),
        }
    }
}

/// The log and the sums; `None` if they are something else than a list and numbers.
#[derive(Debug, PartialEq)]
pub(super) struct Sums {
    pub(super) log: Option<Vec<Value>>,
    number: Option<i64>,
    in_map: Option<i64>,
}

impl Sums {
    pub(super) fn of(document: Option<&Value>) -> Self {
        let document = completed(document);
        let map = document.get("map").and_then(Value::as_object);
        Self {
            log: document.get("log").and_then(Value::as_array).cloned(),
            number: document.get("n").and_then(Value::as_i64),
            in_map: map.and_then(|map| map.get(COUNTED).map_or(Some(0), Value::as_i64)),
        }
    }

    pub(super) fn add(&mut self, change: &CountedChange) {
        match change {
            CountedChange::Pushed(items) => self
                .log
                .iter_mut()
                .for_each(|log| log.extend(items.iter().cloned())),
            CountedChange::Added(by) => self.number = self.number.map(|number| number + by),
            CountedChange::AddedInMap(by) => self.in_map = self.in_map.map(|number| number + by),
            CountedChange::ClearedMap => self.in_map = Some(0),
            CountedChange::Deleted => *self = Self::of(None),
        }
    }
}
