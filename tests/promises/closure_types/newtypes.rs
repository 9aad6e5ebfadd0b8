//! Newtypes, mostly around collections.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use fastrand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::any::{Any, any_struct};

/// Newtypes around collections.
macro_rules! newtypes {
    ($($(#[$attribute:meta])* struct $name:ident($type:ty);)+) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        $(#[$attribute])*
        pub(super) struct $name($type);

        any_struct!($name { 0 });
    )+ };
}

newtypes! {
    struct Tags(HashSet<String>);
    struct Scores(HashMap<String, i64>);
    struct Track(Vec<f64>);
    #[serde(transparent)]
    struct Groups(BTreeMap<String, HashSet<i64>>);
    #[serde(from = "Vec<i64>")]
    struct Sorted(Vec<i64>);
}

impl From<Vec<i64>> for Sorted {
    fn from(mut items: Vec<i64>) -> Self {
        items.sort_unstable();
        Self(items)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Wrapper<T> {
    value: T,
    version: u32,
}

any_struct!(Wrapper<T> { value, version });

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Nothing;

impl Any for Nothing {
    fn any(_: &mut Rng) -> Self {
        Self
    }
}

/// A map whose clones share their entries, with its own `Serialize`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Persistent(Arc<HashMap<String, i64>>);

impl Serialize for Persistent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&*self.0)
    }
}

impl<'de> Deserialize<'de> for Persistent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HashMap::deserialize(deserializer).map(|map| Self(Arc::new(map)))
    }
}

impl Any for Persistent {
    fn any(rng: &mut Rng) -> Self {
        Self(Arc::new(Any::any(rng)))
    }

    fn change(&mut self, rng: &mut Rng) {
        Arc::make_mut(&mut self.0).change(rng);
    }
}
