//! The value of the one key: a document with everything in it that operations can change.
//!
//! - `log`: items are only added to its end, each only once
//! - `n`: a counter that is only added to
//! - `account`: two numbers, of which one gives what the other gets, both in one call
//! - `list` with equal elements, `tags` as a set, `map` by name, `rows` whose members change,
//!   `deep` with two levels

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::value::envelope;
use crate::value::mutation::{Encoded, Json, MemberName, PathSegment};
use crate::value::shape::{Children, Shape, ShapeField};

/// The default of an unset document.
pub(super) static DEFAULT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "log": [],
        "n": 0,
        "account": {"a": 100, "b": 100},
        "list": ["a", "b", "a"],
        "tags": [],
        "map": {},
        "rows": [{"id": 0, "v": 0}, {"id": 1, "v": 0}, {"id": 2, "v": 0}],
        "deep": {"user": {"name": "ada", "age": 1}, "roles": []},
    })
});

/// The sum of both numbers of the account.
pub(super) const ACCOUNT_TOTAL: i64 = 200;

pub(super) fn as_json(value: &Value) -> Json {
    Json::parse(value.to_string()).expect("a value is JSON")
}

/// A path by names; each has its default.
pub(super) fn segments(names: &[&str]) -> Vec<PathSegment> {
    let mut default = Some(&*DEFAULT);
    names
        .iter()
        .map(|name| {
            default = default.and_then(|default| default.get(*name));
            // A string and the entries of a map have no default.
            let origin = default.filter(|default| !default.is_string()).map(as_json);
            PathSegment::Member(MemberName {
                origin,
                ..MemberName::new(name)
            })
        })
        .collect()
}

/// A member of the document, by name, as its type encodes it; all of it without a name. A value of
/// another type is encoded as a whole.
pub(super) fn encoded(name: &str, value: &Value) -> Encoded {
    let (text, shape) = written(name, value);
    Encoded::shaped(Json::parse(text).expect("a value is JSON"), shape)
}

fn written(name: &str, value: &Value) -> (String, Shape) {
    let fields: &[&'static str] = match name {
        "" => &["log", "n", "account", "list", "tags", "map", "rows", "deep"],
        "deep" => &["user", "roles"],
        "user" => &["name", "age"],
        _ => &[],
    };
    let shape = match (name, value) {
        ("" | "deep" | "user", Value::Object(members)) => {
            let present = fields
                .iter()
                .filter_map(|name| Some((*name, members.get(*name)?)));
            let (texts, shapes): (Vec<_>, Vec<_>) = present
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

/// The same document with the defaults of its missing members.
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

/// Whether two documents read the same. A default may be stored or missing: calls that together
/// change nothing write nothing, but one by one they write the default. Sets have no order.
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

/// A whole document that a process assigns; `serial` makes it unique.
pub(super) fn assigned(serial: u64) -> Value {
    let mut document = DEFAULT.clone();
    document["n"] = serial.into();
    document["list"] = json!(["b", serial, "a", "a"]);
    document["map"] = json!({"k": serial, "l": 1});
    document
}

/// A document as a foreign client may store it: with all members, with one, with one of another
/// type, or with none.
pub(super) fn foreign(serial: u64, random: &mut fastrand::Rng) -> Value {
    let mut document = assigned(serial);
    match random.u8(0..10) {
        0 => return json!(5),
        1 => return json!({"foreign": serial}),
        2 => document["account"]["b"] = json!("broken"),
        3 => document["log"] = json!({"broken": serial}),
        4 => document["n"] = json!("broken"),
        5 => document["list"] = json!(serial),
        6 => document["deep"] = json!([serial]),
        7 => document["map"] = json!([]),
        8 => document["list"] = json!([serial, "a", "c", "b", "a", "c"]),
        _ => {}
    }
    document
}

/// How many parsed values are kept: each is needed by the server and by three processes.
const KEPT: usize = 12;

/// Values with the bytes that they were parsed from.
type ParsedValues = VecDeque<(Bytes, Rc<Value>)>;

/// The value of what is stored.
pub(super) fn value_of(stored: Option<&Bytes>) -> Option<Rc<Value>> {
    thread_local! {
        static PARSED: RefCell<ParsedValues> = const { RefCell::new(VecDeque::new()) };
    }
    let stored = stored?;
    PARSED.with_borrow_mut(|parsed| {
        let is_same = |(bytes, _): &&(Bytes, Rc<Value>)| {
            bytes.as_ptr() == stored.as_ptr() && bytes.len() == stored.len()
        };
        if let Some((_, value)) = parsed.iter().find(is_same) {
            return Some(Rc::clone(value));
        }
        let value: Value =
            serde_json::from_str(envelope::value_of(stored).as_str()).expect("JSON is stored");
        parsed.truncate(KEPT);
        parsed.push_front((stored.clone(), Rc::new(value)));
        parsed.front().map(|(_, value)| Rc::clone(value))
    })
}
