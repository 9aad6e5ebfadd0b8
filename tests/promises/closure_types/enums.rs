//! Enums in each of serde's representations.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::any::{any_enum, any_struct};
use super::structs::Plain;

/// Declares enums of which this test makes random values.
macro_rules! enums {
    ($($(#[$attribute:meta])* $name:ident { $($variants:tt)+ } = { $($any:tt)+ })+) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        $(#[$attribute])*
        pub(super) enum $name { $($variants)+ }

        any_enum!($name { $($any)+ });
    )+ };
}

enums! {
    External {
        Unit,
        Newtype(i64),
        Tuple(i64, String),
        Struct { name: String, sizes: Vec<i64> },
        Set(HashSet<i64>),
        Map(HashMap<String, i64>),
    } = {
        Unit {},
        Newtype { 0: number },
        Tuple { 0: number, 1: text },
        Struct { name: name, sizes: sizes },
        Set { 0: set },
        Map { 0: map },
    }

    #[serde(tag = "kind")]
    Internal {
        Unit,
        Newtype(Plain),
        Struct { count: i64, tags: HashSet<String> },
        Map(BTreeMap<String, i64>),
        #[serde(rename = "renamed variant", alias = "older")]
        Renamed { x: f64, y: f64 },
    } = {
        Unit {},
        Newtype { 0: plain },
        Struct { count: count, tags: tags },
        Map { 0: map },
        Renamed { x: x, y: y },
    }

    #[serde(tag = "t", content = "c")]
    Adjacent {
        Unit,
        Newtype(String),
        Tuple(i64, bool),
        Struct { list: Vec<i64>, set: HashSet<i64> },
        Set(HashSet<String>),
    } = {
        Unit {},
        Newtype { 0: text },
        Tuple { 0: number, 1: flag },
        Struct { list: list, set: set },
        Set { 0: set },
    }

    #[serde(untagged)]
    Untagged {
        Whole(i64),
        Float(f64),
        Text(String),
        List(Vec<i64>),
        Now { size: i64, names: HashSet<String> },
        Map(BTreeMap<String, i64>),
    } = {
        Whole { 0: number },
        Float { 0: number },
        Text { 0: text },
        List { 0: list },
        Now { size: size, names: names },
        Map { 0: map },
    }

    #[serde(rename_all = "SCREAMING-KEBAB-CASE", rename_all_fields = "camelCase")]
    CasedNames {
        FirstCase,
        SecondCase { some_field: i64, other_field: Option<String> },
        LastOfAll(Vec<String>),
    } = {
        FirstCase {},
        SecondCase { some_field: some, other_field: other },
        LastOfAll { 0: list },
    }

    #[serde(tag = "op", rename_all = "lowercase")]
    WithOther {
        Start { at: i64 },
        Stop,
        #[serde(other)]
        Other,
    } = {
        Start { at: at },
        Stop {},
        Other {},
    }

    #[derive(Copy, Eq, Hash, PartialOrd, Ord)]
    #[serde(rename_all = "snake_case")]
    Level {
        #[serde(alias = "lowest")]
        VeryLow,
        Middle,
        #[serde(rename = "top")]
        High,
    } = {
        VeryLow {},
        Middle {},
        High {},
    }

    Nested {
        Leaf(i64),
        Inner(External),
        Pair(Internal, Adjacent),
        Many(Vec<Adjacent>),
    } = {
        Leaf { 0: number },
        Inner { 0: inner },
        Pair { 0: one, 1: other },
        Many { 0: list },
    }
}

/// Can be read from any of its versions, and is written as the newest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Versions", into = "Versions")]
pub(super) struct Versioned {
    first: String,
    counts: HashMap<String, i64>,
    tags: HashSet<i64>,
}

any_struct!(Versioned {
    first,
    counts,
    tags
});

#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Versions {
    #[serde(rename = "1")]
    One { name: String },
    #[serde(rename = "2")]
    Two {
        first: String,
        counts: Vec<(String, i64)>,
    },
    #[serde(rename = "3")]
    Three {
        first: String,
        counts: HashMap<String, i64>,
        tags: HashSet<i64>,
    },
}

impl From<Versions> for Versioned {
    fn from(versions: Versions) -> Self {
        match versions {
            Versions::One { name } => Self {
                first: name,
                counts: HashMap::new(),
                tags: HashSet::new(),
            },
            Versions::Two { first, counts } => Self {
                first,
                counts: counts.into_iter().collect(),
                tags: HashSet::new(),
            },
            Versions::Three {
                first,
                counts,
                tags,
            } => Self {
                first,
                counts,
                tags,
            },
        }
    }
}

impl From<Versioned> for Versions {
    fn from(
        Versioned {
            first,
            counts,
            tags,
        }: Versioned,
    ) -> Self {
        Self::Three {
            first,
            counts,
            tags,
        }
    }
}

/// A struct whose older form is a number of cents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "PriceForms")]
pub(super) struct Price {
    cents: i64,
    currency: String,
}

any_struct!(Price { cents, currency });

#[derive(Deserialize)]
#[serde(untagged)]
enum PriceForms {
    Now { cents: i64, currency: String },
    Cents(i64),
}

impl From<PriceForms> for Price {
    fn from(forms: PriceForms) -> Self {
        match forms {
            PriceForms::Now { cents, currency } => Self { cents, currency },
            PriceForms::Cents(cents) => Self {
                cents,
                currency: String::new(),
            },
        }
    }
}
