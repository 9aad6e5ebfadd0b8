//! The types: each with the other forms in which it may be stored, and the calls that change it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use fastrand::Rng;
use indexmap::{IndexMap, IndexSet};
use ordered_float::OrderedFloat;
use serde_json::Value;
use uuid::Uuid;

use super::any::Name;
use super::calls::{self, Call, Tested};
use super::collection_calls;
use super::enums::{
    Adjacent, CasedNames, External, Internal, Level, Nested, Price, Untagged, Versioned, WithOther,
};
use super::foreign::{Moment, Visit};
use super::forms::{Aliases, Older, form};
use super::newtypes::{Groups, Nothing, Persistent, Scores, Sorted, Tags, Track, Wrapper};
use super::older::{
    cents, explicit, loose, lowest, older_person, older_variant, older_version, other_variant,
};
use super::one_writer::{OneWriter, Store};
use super::people::{Person, fields_apart, fields_merged};
use super::structs::{
    Aliased, CamelCase, DeepSets, Defaulted, DefaultedFields, FlatEnum, FlatMap, FlatStruct,
    FlatValues, FromOlder, MixedKinds, Normalised, Percent, Plain, Point, Recursive, Renamed, Sets,
    Skipped, Skipping, Strict, Tagged, Transparent, TransparentSet, With,
};
use super::two_writers::{Pair, TwoWriters};

/// One type.
pub(super) struct Kind<T> {
    pub(super) name: String,
    pub(super) calls: Vec<Call<T>>,
    aliases: Aliases,
    older: Vec<Older>,
    pub(super) merged: fn(&T, &T, &T, &T) -> bool,
    pub(super) apart: fn(&T, &T, &T) -> bool,
}

/// One type, without its type parameter.
pub(super) trait AnyKind: Sync + Send {
    fn name(&self) -> &str;

    /// # Errors
    ///
    /// Says what was wrong.
    fn one_writer(&self, store: &Store, seed: u64) -> Result<(), String>;

    fn two_writers(&self, seed: u64) -> Box<dyn Pair + '_>;
}

impl<T: Tested> AnyKind for Kind<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn one_writer(&self, store: &Store, seed: u64) -> Result<(), String> {
        OneWriter::new(self, seed).run(store)
    }

    fn two_writers(&self, seed: u64) -> Box<dyn Pair + '_> {
        Box::new(TwoWriters::new(self, seed))
    }
}

/// The value that is read after `value` was written.
pub(super) fn normal<T: Tested>(value: &T) -> T {
    let json = serde_json::to_string(value).expect("it has a JSON form");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{json} decodes: {error}"))
}

impl<T: Tested> Kind<T> {
    fn new() -> Self {
        let (calls, aliases, older) = (calls::of_any(), [].as_slice(), Vec::new());
        Self {
            name: short_name::<T>(),
            calls,
            aliases,
            older,
            merged: T::merged,
            apart: T::apart,
        }
    }

    fn with(mut self, calls: Vec<Call<T>>) -> Self {
        self.calls.extend(calls);
        self
    }

    fn aliases(self, aliases: Aliases) -> Self {
        Self { aliases, ..self }
    }

    fn older(mut self, older: Older) -> Self {
        self.older.push(older);
        self
    }

    /// A value, the form in which it is stored, and whether that is the form that its type writes.
    pub(super) fn start(&self, rng: &mut Rng) -> (T, String, bool) {
        let value = normal(&T::any(rng));
        let json = serde_json::to_string(&value).expect("it has a JSON form");
        let is_equal =
            |form: &str| serde_json::from_str::<T>(form).is_ok_and(|decoded| decoded.same(&value));
        let stored = form(&json, self.aliases, &self.older, &is_equal, rng);
        let is_plain = stored == json;
        (value, stored, is_plain)
    }
}

/// The name of a type without paths.
fn short_name<T>() -> String {
    let mut name = String::new();
    for part in std::any::type_name::<T>()
        .split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
    {
        name.push_str(part.rsplit("::").next().expect("a last one"));
    }
    name
}

fn one<T: Tested>() -> Kind<T> {
    Kind::new()
}

fn list<T: Tested>() -> Kind<Vec<T>> {
    Kind::new().with(collection_calls::of_vec())
}

fn sorted<T: Tested + Ord>() -> Kind<Vec<T>> {
    list().with(vec![collection_calls::of_sorted_vec()])
}

fn deque<T: Tested + Ord>() -> Kind<VecDeque<T>> {
    Kind::new()
        .with(collection_calls::of_deque())
        .with(vec![collection_calls::of_sorted_deque()])
}

fn hash_map<K: Tested + Name, V: Tested>() -> Kind<HashMap<K, V>> {
    Kind::new().with(collection_calls::of_hash_map())
}

fn btree_map<K: Tested + Name, V: Tested>() -> Kind<BTreeMap<K, V>> {
    Kind::new().with(collection_calls::of_btree_map())
}

fn hash_set<T: Tested + Name>() -> Kind<HashSet<T>> {
    Kind::new().with(collection_calls::of_hash_set())
}

fn btree_set<T: Tested + Name>() -> Kind<BTreeSet<T>> {
    Kind::new().with(collection_calls::of_btree_set())
}

macro_rules! table {
    ($($kind:expr),+ $(,)?) => { vec![$(Box::new($kind) as Box<dyn AnyKind>),+] };
}

pub(super) fn kinds() -> Vec<Box<dyn AnyKind>> {
    [collections(), keys(), structs(), enums(), nested()]
        .into_iter()
        .flatten()
        .collect()
}

fn collections() -> Vec<Box<dyn AnyKind>> {
    table![
        one::<i64>(),
        one::<u64>(),
        one::<f64>(),
        one::<bool>(),
        one::<char>(),
        one::<String>(),
        one::<Duration>(),
        one::<Option<i64>>(),
        one::<Option<Vec<String>>>(),
        one::<Option<HashSet<i64>>>(),
        one::<Box<Plain>>(),
        one::<[f64; 3]>(),
        one::<[HashSet<i64>; 2]>(),
        one::<(i64, String)>(),
        one::<(Vec<i64>, HashSet<String>, bool)>(),
        one::<Result<i64, String>>(),
        sorted::<i64>(),
        sorted::<String>(),
        sorted::<Plain>(),
        sorted::<Vec<i64>>(),
        sorted::<BTreeSet<i64>>(),
        list::<f64>(),
        list::<HashSet<i64>>(),
        list::<HashMap<String, i64>>(),
        list::<Option<bool>>(),
        list::<[i64; 2]>(),
        deque::<u8>(),
        deque::<(i64, String)>(),
        hash_map::<String, i64>(),
        hash_map::<String, HashSet<i64>>(),
        hash_map::<String, HashMap<String, Vec<i64>>>(),
        btree_map::<String, String>(),
        btree_map::<String, Vec<BTreeSet<String>>>(),
        btree_map::<String, (i64, HashSet<i64>)>(),
        hash_set::<i64>(),
        hash_set::<String>(),
        hash_set::<(i64, String)>(),
        hash_set::<BTreeSet<i64>>(),
        hash_set::<Plain>(),
        btree_set::<i64>(),
        btree_set::<String>(),
        btree_set::<Vec<i64>>(),
        one::<Value>(),
        list::<Value>(),
        hash_map::<String, Value>(),
        one::<IndexMap<String, i64>>(),
        one::<IndexSet<String>>(),
        one::<IndexMap<String, HashSet<i64>>>(),
        list::<IndexSet<i64>>(),
        hash_map::<String, IndexMap<String, i64>>(),
    ]
}

fn keys() -> Vec<Box<dyn AnyKind>> {
    table![
        hash_map::<i64, String>(),
        btree_map::<u8, Vec<i64>>(),
        btree_map::<char, i64>(),
        hash_map::<bool, i64>(),
        hash_map::<Level, i64>().aliases(&[("very_low", "lowest")]),
        hash_map::<Ipv6Addr, i64>(),
        hash_map::<Uuid, String>(),
        btree_map::<Moment, i64>(),
        btree_map::<OrderedFloat<f64>, HashSet<i64>>(),
        hash_set::<char>(),
        hash_set::<Ipv6Addr>(),
        btree_set::<IpAddr>(),
        hash_set::<Uuid>(),
        btree_set::<Moment>(),
        hash_set::<OrderedFloat<f64>>(),
        btree_set::<bool>(),
        btree_set::<Level>().older(lowest),
        sorted::<Uuid>(),
        sorted::<Moment>(),
        one::<IndexMap<Uuid, i64>>(),
        one::<Visit>(),
        list::<Visit>(),
    ]
}

fn structs() -> Vec<Box<dyn AnyKind>> {
    const NAMES: Aliases = &[
        ("label", "name"),
        ("label", "title"),
        ("count", "n"),
        ("tags", "labels"),
    ];
    table![
        one::<Plain>(),
        one::<Sets>(),
        one::<DeepSets>(),
        list::<Sets>(),
        hash_map::<String, Sets>(),
        one::<Renamed>(),
        one::<CamelCase>(),
        one::<Aliased>().aliases(NAMES),
        list::<Aliased>().aliases(NAMES),
        hash_map::<String, Aliased>().aliases(NAMES),
        one::<Defaulted>(),
        one::<DefaultedFields>(),
        list::<DefaultedFields>(),
        one::<Skipping>().older(explicit),
        hash_map::<String, Skipping>().older(explicit),
        one::<Skipped>().older(explicit),
        one::<Strict>(),
        one::<FlatMap>(),
        one::<FlatValues>(),
        one::<FlatStruct>(),
        one::<FlatEnum>(),
        one::<With>(),
        one::<Normalised>().older(loose),
        list::<Normalised>().older(loose),
        one::<FromOlder>().older(older_person),
        hash_map::<String, FromOlder>().older(older_person),
        one::<Point>(),
        one::<Percent>(),
        list::<Percent>(),
        one::<Transparent>(),
        one::<TransparentSet>(),
        one::<Tagged>(),
        one::<Recursive>(),
        one::<MixedKinds>(),
        one::<Tags>(),
        one::<Scores>(),
        one::<Track>(),
        one::<Groups>(),
        one::<Sorted>(),
        one::<Wrapper<HashSet<String>>>(),
        list::<Wrapper<Option<i64>>>(),
        one::<Nothing>(),
        one::<Persistent>(),
        hash_map::<String, Persistent>(),
    ]
}

fn enums() -> Vec<Box<dyn AnyKind>> {
    table![
        one::<External>(),
        list::<External>(),
        one::<Internal>().older(older_variant),
        hash_map::<String, Internal>().older(older_variant),
        one::<Adjacent>(),
        list::<Adjacent>(),
        one::<Untagged>(),
        list::<Untagged>(),
        one::<CasedNames>(),
        one::<WithOther>().older(other_variant),
        list::<WithOther>().older(other_variant),
        one::<Level>().older(lowest),
        one::<Nested>(),
        one::<Versioned>().older(older_version),
        list::<Versioned>().older(older_version),
        one::<Price>().older(cents),
        btree_map::<String, Price>().older(cents),
    ]
}

fn nested() -> Vec<Box<dyn AnyKind>> {
    const NAMES: Aliases = &[("years", "age"), ("number", "no")];
    let nested = Kind {
        name: "nested Person".to_owned(),
        calls: calls::of_nested(),
        ..one::<Person>()
    };
    table![
        Kind {
            merged: fields_merged,
            apart: fields_apart,
            ..nested
        }
        .aliases(NAMES),
        one::<Person>().aliases(NAMES),
        list::<Person>().with(calls::of_listed()).aliases(NAMES),
        hash_map::<String, Person>()
            .with(calls::of_mapped())
            .aliases(NAMES),
    ]
}
