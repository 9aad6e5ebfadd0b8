//! Finding the key or the element that a caller names by what the stored texts decode to: another
//! program may spell the same value in another way. What has one spelling only is found by its
//! text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::error::{ErrorKind, Result};
use crate::base::type_name::type_name;
use crate::handle::path::ValuePath;
use crate::handle::value::Value;
use crate::value::mutation::{
    Content, Json, Location, MemberName, OwnSpelling, PathSegment, Spelling, locate_all_spelled,
    locate_spelled, members,
};
use crate::value::shape;

/// The name of an entry of a map.
#[derive(Debug, Clone)]
pub(super) struct EntryKey {
    /// As the type of the key writes it.
    pub(super) own: Box<str>,
    /// Whether the type reads the same key from another name; `None` if it has only one spelling.
    pub(super) spelling: Option<Spelling>,
}

impl EntryKey {
    /// The name of a key that has no other spelling.
    pub(super) fn plain(own: &str) -> Self {
        Self {
            own: own.into(),
            spelling: None,
        }
    }

    /// Its position among these members, and as which member it is changed.
    pub(super) fn locate_in(
        &self,
        members: &[(Cow<'_, str>, &str)],
    ) -> (Option<usize>, MemberName) {
        if let Some(spelling) = self.spelling {
            return locate_spelled(&self.own, members, spelling);
        }
        let at = members.iter().position(|(name, _)| **name == *self.own);
        (at, self.member_name())
    }

    /// The same for several keys of one map.
    pub(super) fn locate_all<'k>(
        keys: impl Iterator<Item = &'k Self> + Clone,
        members: &[(Cow<'_, str>, &str)],
    ) -> Vec<(Option<usize>, MemberName)> {
        if let Some(spelling) = keys.clone().find_map(|key| key.spelling) {
            return locate_all_spelled(keys.map(|key| &*key.own), members, spelling);
        }
        let names = members.iter().map(|(name, _)| &**name);
        let by_name: HashMap<&str, usize> = names.zip(0..).collect();
        keys.map(|key| (by_name.get(&*key.own).copied(), key.member_name()))
            .collect()
    }

    /// Whether an entry that is not found may be there in another spelling, of which this process
    /// does not know yet.
    pub(super) fn may_be_missed(&self, location: &Location<'_>) -> bool {
        self.spelling.is_some() && !location.is_current
    }

    /// The path of its map, for a change that looks at this entry alone.
    pub(super) fn looked_at_in(&self, path: &ValuePath) -> ValuePath {
        if self.spelling.is_some() {
            // Another entry may be the same.
            return path.clone();
        }
        path.with_members([&*self.own].into_iter())
    }

    pub(super) fn member_name(&self) -> MemberName {
        MemberName::new(&self.own)
    }

    pub(super) fn segment(&self) -> PathSegment {
        match self.spelling {
            Some(spelling) => PathSegment::Entry(self.member_name(), OwnSpelling(spelling)),
            None => PathSegment::Member(self.member_name()),
        }
    }
}

impl ValuePath {
    /// The name of the entry that a map stores under this key, whose keys are of the type `K`.
    pub(super) fn name_of<K: 'static, Q: Serialize + ?Sized>(
        &self,
        key: &Q,
        spelling: Spelling,
    ) -> Result<EntryKey> {
        // A key that is not a string, or cannot be written, is an error that names this path.
        let object = self.encode_unread(&SingleEntry(key, ()))?;
        let own = only_name(&object).ok_or_else(|| {
            self.error(
                ErrorKind::Serialize,
                "the key of a map cannot be written as JSON",
            )
        })?;
        Ok(EntryKey {
            own,
            spelling: unless_single::<K>(spelling),
        })
    }

    /// The name of the entry that is to be stored under this key.
    ///
    /// # Errors
    ///
    /// `Serialize` if `K` cannot read what it writes: nobody could read the map.
    pub(super) fn new_name_of<K: Value>(&self, key: &K, spelling: Spelling) -> Result<EntryKey> {
        let name = self.name_of::<K, K>(key, spelling)?;
        if name.spelling.is_some() && read_key::<K>(&name.own).is_none() {
            let written = type_name::<K>();
            return Err(self.error(
                ErrorKind::Serialize,
                format!("what `{written}` writes for the key of a map it cannot read back"),
            ));
        }
        Ok(name)
    }
}

/// How keys of the type `K` are found, if they have more than one spelling.
pub(super) fn unless_single<K>(spelling: Spelling) -> Option<Spelling> {
    (!shape::has_one_spelling::<K>()).then_some(spelling)
}

/// A [`Spelling`] for keys of the type `K`. `first` notes the index of a key unless it has one, and
/// returns the one that it has.
pub(super) fn group_names<K: DeserializeOwned>(
    names: &[&str],
    mut first: impl FnMut(K, usize) -> usize,
) -> Vec<usize> {
    let keys: Vec<Option<K>> = match read_keys(names) {
        Some(keys) => keys.into_iter().map(Some).collect(),
        None => names.iter().map(|name| read_key(name)).collect(),
    };
    // What is no key is only the same as the same text.
    let mut unreadable: HashMap<&str, usize> = HashMap::new();
    keys.into_iter()
        .zip(names)
        .enumerate()
        .map(|(at, (key, name))| match key {
            Some(key) => first(key, at),
            None => *unreadable.entry(name).or_insert(at),
        })
        .collect()
}

/// The key with this name; `None` if it is the name of no key.
pub(super) fn read_key<K: DeserializeOwned>(name: &str) -> Option<K> {
    read_keys(&[name])?.pop()
}

/// The keys that have these names; `None` if one of them is the name of no key.
fn read_keys<K: DeserializeOwned>(names: &[&str]) -> Option<Vec<K>> {
    let object = serde_json::to_string(&WithoutValues(names)).ok()?;
    let Keys(keys) = serde_json::from_str(&object).ok()?;
    Some(keys)
}

fn only_name(object: &Json) -> Option<Box<str>> {
    members(object.as_str())
        .ok()?
        .into_iter()
        .next()
        .map(|(name, _)| Box::from(&*name))
}

/// A map of one entry.
struct SingleEntry<'a, K: ?Sized, V>(&'a K, V);

impl<K: Serialize + ?Sized, V: Serialize> Serialize for SingleEntry<'_, K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

/// A map with these names.
struct WithoutValues<'a>(&'a [&'a str]);

impl Serialize for WithoutValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|name| (name, ())))
    }
}

/// The keys of a map as it is written, each as often as it stands there.
struct Keys<K>(Vec<K>);

impl<'de, K: Deserialize<'de>> Deserialize<'de> for Keys<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor<K>(PhantomData<K>);

        impl<'de, K: Deserialize<'de>> Visitor<'de> for KeysVisitor<K> {
            type Value = Keys<K>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys<K>, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }

        deserializer.deserialize_map(KeysVisitor(PhantomData))
    }
}

/// Whether a certain element is read from a text.
type IsReadFrom = Box<dyn Fn(&str) -> bool>;

/// An element that a caller names by its value.
pub(super) struct NamedElement {
    pub(super) text: Json,
    content: Content,
    /// Whether its type reads an equal element from a text; `None` if it has only one spelling.
    is_read_from: Option<IsReadFrom>,
}

impl NamedElement {
    pub(super) fn of<T: Value + PartialEq>(path: &ValuePath, item: &T) -> Result<Self> {
        let text = path.encode(item)?;
        let is_read_from = (!shape::has_one_spelling::<T>()).then(|| {
            let item = item.clone();
            let is_equal =
                move |text: &str| serde_json::from_str::<T>(text).is_ok_and(|other| other == item);
            Box::new(is_equal) as IsReadFrom
        });
        Ok(Self {
            content: Content::keyed(text.as_str()),
            is_read_from,
            text,
        })
    }

    pub(super) fn has_one_spelling(&self) -> bool {
        self.is_read_from.is_none()
    }

    /// The position of the first element that equals it.
    pub(super) fn position(&self, list: &[&str]) -> Option<usize> {
        let by_text = list
            .iter()
            .position(|element| Content::keyed(element) == self.content);
        by_text.or_else(|| {
            let is_read_from = self.is_read_from.as_ref()?;
            list.iter().position(|element| is_read_from(element))
        })
    }

    /// All the texts of elements that equal it.
    pub(super) fn spellings(&self, list: &[&str]) -> Vec<Json> {
        let is_equal = |element: &&&str| {
            Content::keyed(element) == self.content
                || self
                    .is_read_from
                    .as_ref()
                    .is_some_and(|is_read_from| is_read_from(element))
        };
        list.iter()
            .filter(is_equal)
            .filter_map(|element| Json::parse((*element).to_owned()).ok())
            .collect()
    }
}
