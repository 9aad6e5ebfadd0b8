//! What calls do to a value, in plain Rust, and what must hold for every value.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::check::{RuleResult, ensure};
use super::super::server::ModelServer;
use crate::base::clock::Stamp;

/// What the processes of a schedule add to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddedTo {
    List,
    /// With the bounds of all adds.
    Integer {
        min: i64,
        max: i64,
    },
}

impl AddedTo {
    pub(super) fn of_seed(seed: u64) -> Self {
        match seed % 5 {
            0 => Self::Integer {
                min: i64::MIN,
                max: i64::MAX,
            },
            1 => Self::Integer { min: -40, max: 40 },
            _ => Self::List,
        }
    }

    /// What an unset key counts as.
    pub(super) fn origin(self) -> Value {
        match self {
            Self::List => json!([]),
            Self::Integer { .. } => json!(0),
        }
    }

    /// A value with these additions, of which all are made or none; `None` if they do not apply.
    pub(super) fn with(self, value: Option<&Value>, adds: &[Value]) -> Option<Value> {
        let mut value = value.cloned().unwrap_or_else(|| self.origin());
        match self {
            Self::List => value.as_array_mut()?.extend_from_slice(adds),
            Self::Integer { min, max } => {
                let sum: i64 = adds.iter().filter_map(Value::as_i64).sum();
                let sum = value.as_i64()?.checked_add(sum)?;
                value = (min..=max).contains(&sum).then(|| sum.into())?;
            }
        }
        Some(value)
    }
}

/// An item that names its writer and its place among the items of that.
pub(super) fn own_item(at: usize, serial: u64) -> Value {
    format!("{at}.{serial}").into()
}

/// The writer and the place of an own item.
fn names(item: &Value) -> Option<(usize, u64)> {
    let (at, serial) = item.as_str()?.split_once('.')?;
    Some((at.parse().ok()?, serial.parse().ok()?))
}

/// Items that were taken out of the list, and may be returned to its end.
#[derive(Debug, Default)]
pub(super) struct TakenItems {
    pub(super) items: HashSet<String>,
    /// The server has lost data: an item that was taken may be back, and be returned as well.
    pub(super) may_be_twice: bool,
    /// It has lost what it has refused: any item may be pushed twice.
    pub(super) any_may_be_twice: bool,
}

impl TakenItems {
    pub(super) fn follow(&mut self, server: &ModelServer) {
        self.may_be_twice = server.has_lost_data();
        self.any_may_be_twice = server.has_lost_refusals();
    }
}

/// No item is in a list twice, and those of each writer are in its order.
pub(super) fn check_items(value: Option<&Value>, taken: &TakenItems) -> RuleResult {
    if taken.any_may_be_twice {
        return Ok(());
    }
    let Some(items) = value.and_then(Value::as_array) else {
        return Ok(());
    };
    let (mut seen, mut last) = (HashSet::new(), [0; 3]);
    for item in items {
        let Some((at, serial)) = names(item) else {
            continue;
        };
        let was_taken = item.as_str().is_some_and(|item| taken.items.contains(item));
        ensure!(
            seen.insert((at, serial)) || was_taken && taken.may_be_twice,
            "{item} is in the list twice: {items:?}"
        );
        ensure!(
            last[at] <= serial || was_taken,
            "{item} is not in the order of its writer: {items:?}"
        );
        if !was_taken {
            last[at] = serial;
        }
    }
    Ok(())
}

/// What a foreign client stores: mostly a value of the subject, in any layout.
pub(super) fn foreign(
    subject: AddedTo,
    serial: u64,
    stamp: Option<u64>,
    random: &mut fastrand::Rng,
) -> String {
    let value = match (subject, random.u8(0..6)) {
        (_, 0) => other_type(serial, random),
        (AddedTo::List, kind) => list(serial, kind, random),
        (AddedTo::Integer { .. }, 1) => (serial * 1_000).to_string(),
        (AddedTo::Integer { .. }, _) => random.i64(-30..30).to_string(),
    };
    let Some(stamp) = stamp else {
        return value;
    };
    match random.u8(0..8) {
        0 => format!(r#"{{"value": {value}, "last_modified": {stamp}}}"#),
        1 => format!(r#"{{"value":{value},"last_modified":{stamp}}}"#),
        2 => format!(r#"{{"last_modified": {stamp}, "value": {value}}}"#),
        3 => format!(r#"{{ "value" : {value} , "last_modified": {stamp} }}"#),
        4 => format!(r#"{{"value": {value},"by": "]","last_modified": {stamp}}}"#),
        _ => format!(r#"{{"value": {value},"last_modified": {stamp}}}"#),
    }
}

fn list(serial: u64, kind: u8, random: &mut fastrand::Rng) -> String {
    match kind {
        1 => "[]".to_owned(),
        2 => format!(r#"[ "f{serial}", {serial} ]"#),
        3 => format!(r#"["f{serial}", ["],", []]]"#),
        4 => format!(r#"[{{"f": [{serial}]}},"],\"last_modified\": 5}}"]"#),
        _ => {
            let items = (0..random.u64(1..6)).map(|item| format!("\"f{serial}_{item}\""));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }
    }
}

fn other_type(serial: u64, random: &mut fastrand::Rng) -> String {
    match random.u8(0..6) {
        0 => format!(r#"{{"f": [{serial}]}}"#),
        1 => format!("\"f{serial}],\""),
        2 => format!("{serial}.5"),
        3 => "null".to_owned(),
        4 => "18446744073709551615".to_owned(),
        _ => format!("[{serial}]"),
    }
}

/// Whether an addition has to be made to this, and must not be refused: it is laid out as the
/// library does it.
pub(super) fn takes_additions(subject: AddedTo, stored: &str, adds: &[Value]) -> bool {
    let Some((value, stamp)) = stored
        .strip_prefix("{\"value\": ")
        .and_then(|rest| rest.strip_suffix('}'))
        .and_then(|rest| rest.rsplit_once(",\"last_modified\": "))
    else {
        return false;
    };
    let is_far_from_last = |stamp: u64| stamp < Stamp::MAX.get() / 2;
    let is_list_as_ours = value == "[]" || !value.ends_with([' ', ']']) || value.ends_with("\"]");
    let is_as_ours = subject != AddedTo::List || is_list_as_ours && value.ends_with(']');
    let Ok(value) = serde_json::from_str::<Value>(value) else {
        return false;
    };
    stamp.parse().is_ok_and(is_far_from_last)
        && is_as_ours
        && subject.with(Some(&value), adds).is_some()
}
