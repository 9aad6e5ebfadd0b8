//! Structs with each of serde's attributes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::any::{Any, any_enum};

/// Declares structs of which this test makes random values.
macro_rules! structs {
    ($($(#[$attribute:meta])* struct $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty,)+ })+) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        $(#[$attribute])*
        pub(super) struct $name { $($(#[$of_field])* pub(super) $field: $type,)+ }

        $crate::closure_types::any::any_struct!($name { $($field),+ });
    )+ };
}

pub(super) use structs;

structs! {
    #[derive(Eq, Hash, PartialOrd, Ord)]
    struct Plain {
        name: String,
        size: i64,
        is_open: bool,
    }

    struct Sets {
        name: String,
        tags: HashSet<String>,
        numbers: HashSet<i64>,
        sorted: BTreeSet<String>,
    }

    struct DeepSets {
        inner: Sets,
        groups: HashMap<String, HashSet<i64>>,
        list: Vec<Sets>,
        maybe: Option<HashSet<char>>,
    }

    struct Renamed {
        #[serde(rename = "Full Name")]
        full_name: String,
        #[serde(rename = "größe")]
        size: f64,
        #[serde(rename(serialize = "both", deserialize = "both"))]
        items: Vec<i64>,
    }

    #[serde(rename_all = "camelCase")]
    struct CamelCase {
        first_name: String,
        last_login_at: Option<u64>,
        open_tabs: Vec<String>,
    }

    struct Aliased {
        #[serde(alias = "name", alias = "title")]
        label: String,
        #[serde(alias = "n")]
        count: i64,
        #[serde(alias = "labels")]
        tags: HashSet<String>,
    }

    #[serde(default)]
    struct Defaulted {
        level: i64,
        names: Vec<String>,
        ratio: f64,
    }

    struct DefaultedFields {
        #[serde(default)]
        count: u32,
        #[serde(default = "five")]
        five: i64,
        #[serde(default)]
        set: HashSet<i64>,
        always: String,
    }

    struct Skipping {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        list: Vec<i64>,
        #[serde(default, skip_serializing_if = "HashMap::is_empty")]
        map: HashMap<String, i64>,
    }

    struct Skipped {
        kept: String,
        #[serde(skip)]
        local: i64,
        #[serde(skip_serializing, default)]
        old: Vec<i64>,
    }

    #[serde(deny_unknown_fields)]
    struct Strict {
        x: i64,
        y: i64,
        #[serde(default)]
        z: Option<i64>,
    }

    struct FlatMap {
        id: i64,
        #[serde(flatten)]
        rest: HashMap<String, i64>,
    }

    struct FlatValues {
        id: String,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }

    struct FlatStruct {
        id: u64,
        #[serde(flatten)]
        plain: Plain,
        #[serde(flatten)]
        camel: CamelCase,
    }

    struct FlatEnum {
        id: u64,
        #[serde(flatten)]
        what: What,
    }

    struct With {
        #[serde(with = "seconds")]
        wait: Duration,
        #[serde(with = "pairs")]
        pairs: BTreeMap<i64, String>,
    }

    struct Normalised {
        #[serde(deserialize_with = "lower")]
        name: String,
        #[serde(deserialize_with = "one_or_many")]
        items: Vec<i64>,
        #[serde(deserialize_with = "null_is_empty")]
        set: BTreeSet<i64>,
    }

    #[serde(from = "PersonForms")]
    struct FromOlder {
        first: String,
        last: String,
        tags: HashSet<i64>,
    }

    #[serde(into = "(i64, i64)", from = "(i64, i64)")]
    struct Point {
        x: i64,
        y: i64,
    }

    #[serde(try_from = "u8", into = "u8")]
    struct Percent {
        percent: u8,
    }

    #[serde(transparent)]
    struct Transparent {
        items: Vec<String>,
    }

    #[serde(transparent)]
    struct TransparentSet {
        items: HashSet<i64>,
    }

    #[serde(tag = "type")]
    struct Tagged {
        id: i64,
        names: BTreeSet<String>,
    }

    struct Recursive {
        name: String,
        children: Children,
    }

    struct MixedKinds {
        tuple: (i64, String),
        array: [f64; 3],
        nested: Option<Box<Plain>>,
        unit: (),
        any: Value,
    }
}

fn five() -> i64 {
    5
}

impl Default for Defaulted {
    fn default() -> Self {
        Self {
            level: 3,
            names: vec!["default".to_owned()],
            ratio: 0.5,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum What {
    Number(i64),
    Names(Vec<String>),
}

any_enum!(What { Number { 0: number }, Names { 0: names } });

/// Seldom has elements, so that a recursive value has few levels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Children(Vec<Recursive>);

impl Any for Children {
    fn any(rng: &mut Rng) -> Self {
        Self(
            (0..rng.usize(..8).saturating_sub(5))
                .map(|_| Recursive::any(rng))
                .collect(),
        )
    }

    fn change(&mut self, rng: &mut Rng) {
        self.0.change(rng);
    }
}

mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

/// A map as a list of pairs.
mod pairs {
    use super::{BTreeMap, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<i64, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<i64, String>, D::Error> {
        Vec::<(i64, String)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}

fn lower<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|name| name.to_lowercase())
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Forms {
        One(i64),
        Many(Vec<i64>),
    }
    Ok(match Forms::deserialize(deserializer)? {
        Forms::One(item) => vec![item],
        Forms::Many(items) => items,
    })
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<i64>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PersonForms {
    Now {
        first: String,
        last: String,
        tags: HashSet<i64>,
    },
    One {
        name: String,
        tags: HashSet<i64>,
    },
    Text(String),
}

impl From<PersonForms> for FromOlder {
    fn from(forms: PersonForms) -> Self {
        let split = |name: &str| {
            let (first, last) = name.split_once('|').unwrap_or((name, ""));
            (first.to_owned(), last.to_owned())
        };
        let ((first, last), tags) = match forms {
            PersonForms::Now { first, last, tags } => ((first, last), tags),
            PersonForms::One { name, tags } => (split(&name), tags),
            PersonForms::Text(name) => (split(&name), HashSet::new()),
        };
        Self { first, last, tags }
    }
}

impl From<(i64, i64)> for Point {
    fn from((x, y): (i64, i64)) -> Self {
        Self { x, y }
    }
}

impl From<Point> for (i64, i64) {
    fn from(Point { x, y }: Point) -> Self {
        (x, y)
    }
}

impl TryFrom<u8> for Percent {
    type Error = &'static str;

    fn try_from(percent: u8) -> Result<Self, Self::Error> {
        if percent <= 200 {
            Ok(Self { percent })
        } else {
            Err("more than 200 percent")
        }
    }
}

impl From<Percent> for u8 {
    /// At most 100 percent is written.
    fn from(percent: Percent) -> Self {
        percent.percent.min(100)
    }
}
