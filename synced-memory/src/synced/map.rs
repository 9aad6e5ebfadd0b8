//! Maps: `HashMap` with any hasher, and `BTreeMap`.

use super::Synced;
use crate::error::{ErrorKind, Result};
use crate::mutation::{Action, Content, Json, Member, Operation, Place, Seen, Step, member, members};
use crate::outbox::Written;
use crate::part::{Change, How, Part};
use crate::value::Value;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};

const EMPTY: &str = "{}";

impl Part {
    /// Stores a member, and returns what was there; what is no `V` stays.
    pub(super) fn put<V: DeserializeOwned>(&self, name: &str, value: &Json) -> Result<Option<V>> {
        let before = self.record(How::Exact, Some(EMPTY), |spot| {
            let before = self.member_of(spot.found, name)?;
            Ok((set(name, value.clone(), before), before.map(|before| self.decode(before)).transpose()?))
        })?;
        Ok(before.0)
    }

    /// Stores members, all of them or none.
    fn put_all(&self, entries: &[(Box<str>, Json)]) -> Result<Written> {
        let put = |found: Option<&str>| {
            let mut operations = Vec::with_capacity(entries.len());
            let there: HashMap<_, _> = self.members(found)?.into_iter().collect();
            for (name, value) in entries {
                let seen = there.get(&**name).map(|before| Content::of(before)).into();
                operations.push(on(name, Action::Set { value: value.clone(), seen }));
            }
            Ok((if operations.is_empty() { Change::Nothing } else { Change::Do(operations) }, ()))
        };
        Ok(self.record(How::Blind, Some(EMPTY), |spot| put(spot.found))?.1)
    }

    /// Stores a member that is not there yet; returns what is there else.
    fn put_if_absent(&self, name: &str, value: &Json) -> Result<Option<String>> {
        let there = self.record(How::Exact, Some(EMPTY), |spot| {
            Ok(match self.member_of(spot.found, name)? {
                Some(there) => (Change::Nothing, Some(there.to_owned())),
                None => (Change::Do(vec![on(name, Action::SetIfAbsent { value: value.clone() })]), None),
            })
        })?;
        Ok(there.0)
    }

    /// Removes the member that `pick` chooses, and returns what `read` makes of its name and what was there; where
    /// that fails it stays.
    pub(super) fn take_member<R>(
        &self,
        pick: impl Fn(&[(Cow<'_, str>, &str)]) -> Option<usize>,
        read: impl Fn(&str, &str) -> Result<R>,
    ) -> Result<Option<R>> {
        let taken = self.record(How::Exact, Some(EMPTY), |spot| {
            let members = self.members(spot.found)?;
            let Some((name, value)) = pick(&members).and_then(|index| members.get(index)) else {
                return Ok((Change::Nothing, None));
            };
            let taken = read(name, value)?;
            let remove = on(name, Action::Remove { seen: Seen::Content(Content::of(value)) });
            Ok((Change::Do(vec![remove]), Some(taken)))
        })?;
        Ok(taken.0)
    }

    fn member_of<'a>(&self, found: Option<&'a str>, name: &str) -> Result<Option<&'a str>> {
        member(found.unwrap_or(EMPTY), name).map_err(|misfit| self.misfit(misfit))
    }

    fn members<'a>(&self, found: Option<&'a str>) -> Result<Vec<(Cow<'a, str>, &'a str)>> {
        members(found.unwrap_or(EMPTY)).map_err(|misfit| self.misfit(misfit))
    }

    /// The name of the member that a map stores under this key.
    fn name_of<K: Serialize + ?Sized>(&self, key: &K) -> Result<Box<str>> {
        let object = self.encode(&Entry(key, ()))?;
        let name = members(object.as_str()).ok().and_then(|members| members.into_iter().next());
        let name = name.map(|(name, _)| Box::from(&*name));
        name.ok_or_else(|| self.error(ErrorKind::Serialize, "the key of a map cannot be written as JSON"))
    }

    fn entry_at<K: Serialize + ?Sized>(&self, key: &K) -> Self {
        match self.name_of(key) {
            Ok(name) => self.at(Place::Member(Member { name, also: Box::default(), origin: None })),
            Err(error) => self.broken(error),
        }
    }
}

fn on(name: &str, action: Action) -> Operation {
    Operation { path: vec![Step::Member(Member::new(name))], action }
}

fn set(name: &str, value: Json, before: Option<&str>) -> Change {
    let seen = before.map(Content::of).into();
    Change::Do(vec![on(name, Action::Set { value, seen })])
}

/// A map of one entry.
struct Entry<'a, K: ?Sized, V>(&'a K, V);

impl<K: Serialize + ?Sized, V: Serialize> Serialize for Entry<'_, K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

/// The methods of a map. Each is a change on its own: those of many processes to one map all survive.
macro_rules! maps {
    ($map:ident<K, V $(, $hasher:ident)?> where $($bounds:tt)*) => {
        impl<K: Value + $($bounds)*, V: Value $(, $hasher)?> Synced<$map<K, V $(, $hasher)?>>
        where
            $map<K, V $(, $hasher)?>: Value,
            $($hasher: BuildHasher + Default + 'static,)?
        {
            /// How many entries there are; none while the map is unset.
            ///
            /// # Errors
            ///
            /// `Decode` and `Rejected`, as [`get`](Synced::get).
            pub fn len(&self) -> Result<usize> {
                Ok(self.read_or($map::default)?.len())
            }

            /// Whether there is no entry.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn is_empty(&self) -> Result<bool> {
                Ok(self.read_or($map::default)?.is_empty())
            }

            /// Whether there is an entry under `key`.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn contains_key<Q: ?Sized + $($bounds)*>(&self, key: &Q) -> Result<bool>
            where
                K: Borrow<Q>,
            {
                Ok(self.read_or($map::default)?.contains_key(key))
            }

            /// The keys.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn keys(&self) -> Result<Vec<K>> {
                Ok(self.read_or($map::default)?.keys().cloned().collect())
            }

            /// The whole map, empty while it is unset.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn to_map(&self) -> Result<$map<K, V $(, $hasher)?>> {
                self.read_or($map::default).map(std::sync::Arc::unwrap_or_clone)
            }

            /// The value under `key`, as a live view. Where nothing is, it reads as `Unset`, and a set stores it.
            pub fn at<Q: ?Sized + Serialize>(&self, key: &Q) -> Synced<V>
            where
                K: Borrow<Q>,
            {
                Synced::of(self.part().entry_at(key))
            }

            /// Stores a value under `key`, and returns what was there.
            ///
            /// # Errors
            ///
            /// `Serialize` for what JSON cannot hold, `Decode` where what was there is no `V`, `Conflict` where
            /// something else than a map is there, `OutboxFull`, `Rejected`. After an error nothing is changed.
            #[allow(clippy::needless_pass_by_value)] // they are given away, as to a map
            pub fn insert(&self, key: K, value: V) -> Result<Option<V>> {
                let part = self.part();
                part.put(&part.name_of(&key)?, &part.encode(&value)?)
            }

            /// Removes the value under `key` and returns it.
            ///
            /// # Errors
            ///
            /// As [`insert`](Self::insert).
            pub fn remove<Q: ?Sized + Serialize>(&self, key: &Q) -> Result<Option<V>>
            where
                K: Borrow<Q>,
            {
                let part = self.part();
                let name = part.name_of(key)?;
                let find = |members: &[(Cow<'_, str>, &str)]| members.iter().position(|(other, _)| **other == *name);
                part.take_member(find, |_, value| part.decode(value))
            }

            /// Removes the entry that is stored last and returns it.
            ///
            /// # Errors
            ///
            /// As [`insert`](Self::insert).
            pub fn pop(&self) -> Result<Option<(K, V)>> {
                let part = self.part();
                // A map of this one entry: its key is written as a name, and read from one.
                let read = |name: &str, value: &str| {
                    let entry = format!("{{{}:{value}}}", part.encode(name)?.as_str());
                    Ok(part.decode::<$map<K, V $(, $hasher)?>>(&entry)?.into_iter().next())
                };
                Ok(part.take_member(|members| members.len().checked_sub(1), read)?.flatten())
            }

            /// The value under `key`; where there is none, stores `value`. Of many processes that do so at
            /// once, one stores its own, and all get that.
            ///
            /// # Errors
            ///
            /// As [`insert`](Self::insert).
            pub fn get_or_insert(&self, key: K, value: V) -> Result<V> {
                let part = self.part();
                match part.put_if_absent(&part.name_of(&key)?, &part.encode(&value)?)? {
                    Some(there) => part.decode(&there),
                    None => Ok(value),
                }
            }

            /// Stores entries, all of them or none.
            ///
            /// # Errors
            ///
            /// As [`insert`](Self::insert).
            pub fn extend(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<Written> {
                let part = self.part();
                let encoded = entries.into_iter().map(|(key, value)| Ok((part.name_of(&key)?, part.encode(&value)?)));
                part.put_all(&encoded.collect::<Result<Vec<_>>>()?)
            }

            /// Keeps the entries for which `keeps` holds. It may be called more than once for each.
            ///
            /// # Errors
            ///
            /// As [`update`](Synced::update).
            pub fn retain(&self, mut keeps: impl FnMut(&K, &mut V) -> bool) -> Result<Written> {
                let retain = |map: &mut $map<K, V $(, $hasher)?>| {
                    map.retain(|key, value| keeps(key, value));
                    Ok::<(), Infallible>(())
                };
                Ok(self.change(self.inner.default.or(Some($map::default)), retain)?.1)
            }

            /// Assigns an empty map.
            ///
            /// # Errors
            ///
            /// As [`set`](Synced::set).
            pub fn clear(&self) -> Result<Written> {
                self.set($map::default())
            }
        }
    };
}

maps!(HashMap<K, V, S> where Eq + Hash);
maps!(BTreeMap<K, V> where Ord);
