//! The value under the one key: a document with everything in it that operations can change.
//!
//! - `log`: items are only ever added to its end, each is there once
//! - `n`: a counter that is only added to
//! - `purse`: two numbers, of which one gives what the other gets, all in one call
//! - `list` with equal elements, `tags` as a set, `map` by name, `rows` of which the parts change,
//!   `deep` two levels down

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::value::mutation::{Encoded, Json, MemberName, PathSegment};
use crate::value::shape::{Children, Shape, ShapeField};

/// What an unset document is taken for.
pub(super) static DEFAULT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "log": [],
        "n": 0,
        "purse": {"a": 100, "b": 100},
        "list": ["a", "b", "a"],
        "tags": [],
        "map": {},
        "rows": [{"id": 0, "v": 0}, {"id": 1, "v": 0}, {"id": 2, "v": 0}],
        "deep": {"user": {"name": "ada", "age": 1}, "roles": []},
    })
});

/// So much is in the purse.
pub(super) const PURSE: i64 = 200;

pub(super) fn as_json(value: &Value) -> Json {
    Json::parse(value.to_string()).expect("a value is JSON")
}

/// A place by the names on the way there; each knows what it is taken for where it is missing.
pub(super) fn places(names: &[&str]) -> Vec<PathSegment> {
    let mut default = Some(&*DEFAULT);
    names
        .iter()
        .map(|name| {
            default = default.and_then(|default| default.get(*name));
            // A name and the entries of a map have no default.
            let origin = default.filter(|default| !default.is_string()).map(as_json);
            PathSegment::Member(MemberName {
                origin,
                ..MemberName::new(name)
            })
        })
        .collect()
}

/// A part of the document as its type writes it, by the name of the part; the whole has none. What
/// is of another type is one part.
pub(super) fn encoded(name: &str, value: &Value) -> Encoded {
    let (text, shape) = written(name, value);
    Encoded::shaped(Json::parse(text).expect("a value is JSON"), shape)
}

fn written(name: &str, value: &Value) -> (String, Shape) {
    let fields: &[&'static str] = match name {
        "" => &["log", "n", "purse", "list", "tags", "map", "rows", "deep"],
        "deep" => &["user", "roles"],
        "user" => &["name", "age"],
        _ => &[],
    };
    let shape = match (name, value) {
        ("" | "deep" | "user", Value::Object(members)) => {
            let there = fields
                .iter()
                .filter_map(|name| Some((*name, members.get(*name)?)));
            let (texts, shapes): (Vec<_>, Vec<_>) = there
                .map(|(name, member)| {
                    let (text, shape) = written(name, member);
                    (
                        format!("\"{name}\":{text}"),
                        (ShapeField { name, aliases: &[] }, shape),
                    )
                })
                .unzip();
            return (format!("{{{}}}", texts.join(",")), Shape::Fields(shapes));
        }
        ("log" | "list" | "rows" | "roles", Value::Array(_)) => Shape::List(Children::default()),
        ("tags", Value::Array(_)) => Shape::Set(Children::default()),
        ("map", Value::Object(_)) => Shape::Map(Children::default()),
        _ => Shape::default(),
    };
    (value.to_string(), shape)
}

/// The same document with what its missing members are taken for.
pub(super) fn completed(value: Option<&Value>) -> Value {
    let mut whole = value.cloned().unwrap_or_else(|| DEFAULT.clone());
    if let (Some(members), Some(defaults)) = (whole.as_object_mut(), DEFAULT.as_object()) {
        for (name, default) in defaults {
            members
                .entry(name.clone())
                .or_insert_with(|| default.clone());
        }
    }
    if let Some(deep) = whole.get_mut("deep").and_then(Value::as_object_mut) {
        for name in ["user", "roles"] {
            deep.entry(name)
                .or_insert_with(|| DEFAULT["deep"][name].clone());
        }
        if let Some(user) = deep.get_mut("user").and_then(Value::as_object_mut) {
            user.entry("age")
                .or_insert_with(|| DEFAULT["deep"]["user"]["age"].clone());
        }
    }
    whole
}

/// Whether two documents read the same. Calls that come to nothing together write nothing, where
/// one by one they write what it is taken for anyway; and sets have no order.
pub(super) fn read_same(one: Option<&Value>, other: Option<&Value>) -> bool {
    one == other || canonical(one) == canonical(other)
}

fn canonical(document: Option<&Value>) -> Value {
    let mut document = completed(document);
    if let Some(map) = document.get_mut("map").and_then(Value::as_object_mut) {
        map.retain(|_, entry| *entry != 0);
    }
    if let Some(tags) = document.get_mut("tags").and_then(Value::as_array_mut) {
        tags.sort_by_key(ToString::to_string);
    }
    document
}

/// A whole document that one of the processes assigns; `mark` makes it its own.
pub(super) fn assigned(mark: u64) -> Value {
    let mut document = DEFAULT.clone();
    document["n"] = mark.into();
    document["list"] = json!(["b", mark, "a", "a"]);
    document["map"] = json!({"k": mark, "l": 1});
    document
}

/// A document as a stranger may store it: with everything, with little, with a part of another
/// type, or none.
pub(super) fn foreign(mark: u64, random: &mut fastrand::Rng) -> Value {
    let mut document = assigned(mark);
    match random.u8(0..10) {
        0 => return json!(5),
        1 => return json!({"foreign": mark}),
        2 => document["purse"]["b"] = json!("broken"),
        3 => document["log"] = json!({"broken": mark}),
        4 => document["n"] = json!("broken"),
        5 => document["list"] = json!(mark),
        6 => document["deep"] = json!([mark]),
        7 => document["map"] = json!([]),
        8 => document["list"] = json!([mark, "a", "c", "b", "a", "c"]),
        _ => {}
    }
    document
}
