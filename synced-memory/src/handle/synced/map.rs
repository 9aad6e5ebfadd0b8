//! Maps: `HashMap` with any hasher, and `BTreeMap`.

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Synced;
use super::lookup::{EntryKey, group_names, unless_single};
use super::whole::KeyOfEntry;
use crate::base::error::Result;
use crate::handle::path::{Condition, Freshness, PathChange, ReturnPath, ValuePath};
use crate::handle::value::Value;
use crate::pending::outbox::Written;
use crate::value::mutation::{
    Action, Content, Json, Location, MemberName, ObservedValue, Operation, PathStep, Spelling,
    member, members,
};

const EMPTY: &str = "{}";

impl ValuePath {
    /// Stores a member, and returns the one that was there; one that is not a `V` stays.
    pub(super) fn put<V: DeserializeOwned>(
        &self,
        name: &EntryKey,
        value: &Json,
    ) -> Result<Option<V>> {
        let before = name.looked_at_in(self).record(
            Freshness::Known,
            Condition::SamePaths,
            Some(EMPTY),
            |location| {
                let (member, before) = self.entry_of(location.found, name)?;
                if before.is_none() && name.may_be_missed(location) {
                    return Ok((PathChange::Nothing, None));
                }
                let seen = before.map(Content::of).into();
                let set = at_member(
                    member,
                    Action::Set {
                        value: value.clone(),
                        seen,
                    },
                );
                Ok((
                    PathChange::Do(vec![set]),
                    before.map(|before| self.decode(before)).transpose()?,
                ))
            },
        )?;
        Ok(before.0)
    }

    /// Stores members, all of them or none.
    fn put_all(&self, entries: &[(EntryKey, Json)]) -> Result<Written> {
        let put = |location: &Location<'_>| {
            let members = self.members(location.found)?;
            let located = EntryKey::locate_all(entries.iter().map(|(name, _)| name), &members);
            let mut operations = Vec::with_capacity(entries.len());
            for ((name, value), (at, member)) in entries.iter().zip(located) {
                if at.is_none() && name.may_be_missed(location) {
                    return Ok((PathChange::Nothing, ()));
                }
                let seen = at.map(|at| Content::of(members[at].1)).into();
                operations.push(at_member(
                    member,
                    Action::Set {
                        value: value.clone(),
                        seen,
                    },
                ));
            }
            Ok((
                if operations.is_empty() {
                    PathChange::Nothing
                } else {
                    PathChange::Do(operations)
                },
                (),
            ))
        };
        let names = || entries.iter().map(|(name, _)| name);
        let path = if names().all(|name| name.spelling.is_none()) {
            self.with_members(names().map(|name| &*name.own))
        } else {
            self.clone()
        };
        Ok(path
            .record(Freshness::Known, Condition::Always, Some(EMPTY), put)?
            .1)
    }

    /// Stores a member unless there is one, which is returned.
    fn put_if_absent(&self, name: &EntryKey, value: &Json) -> Result<Option<String>> {
        let existing = name.looked_at_in(self).record(
            Freshness::Known,
            Condition::SamePaths,
            Some(EMPTY),
            |location| {
                Ok(match self.entry_of(location.found, name)? {
                    (_, Some(existing)) => (PathChange::Nothing, Some(existing.to_owned())),
                    (_, None) if name.may_be_missed(location) => (PathChange::Nothing, None),
                    (member, None) => (
                        PathChange::Do(vec![at_member(
                            member,
                            Action::SetIfAbsent {
                                value: value.clone(),
                            },
                        )]),
                        None,
                    ),
                })
            },
        )?;
        Ok(existing.0)
    }

    /// Removes the member with this name, and returns it; one that is not a `V` stays.
    pub(super) fn remove_named<V: DeserializeOwned>(&self, name: &EntryKey) -> Result<Option<V>> {
        let removed = name.looked_at_in(self).record(
            Freshness::Known,
            Condition::SamePaths,
            Some(EMPTY),
            |location| {
                let members = self.members(location.found)?;
                let (Some(at), member) = name.locate_in(&members) else {
                    return Ok((PathChange::Nothing, None));
                };
                let value = members[at].1;
                Ok((
                    PathChange::Do(vec![removal_of_member(member, value)]),
                    Some(self.decode(value)?),
                ))
            },
        )?;
        Ok(removed.0)
    }

    /// Takes out the member that is stored last, and hands what `read` makes of its name and value
    /// to this caller alone; if `read` fails, the member stays.
    fn take_last<R>(
        &self,
        spelling: Option<Spelling>,
        read: impl Fn(&str, &str) -> Result<R>,
    ) -> Result<Option<R>> {
        let taken = self.record(
            Freshness::Latest,
            Condition::Take,
            Some(EMPTY),
            |location| {
                let members = self.members(location.found)?;
                let Some((name, value)) = members.last() else {
                    return Ok((PathChange::Nothing, None));
                };
                let entry = self.item(&format!(
                    "{{{}:{value}}}",
                    self.encode_unread(&**name)?.as_str()
                ))?;
                let set = Action::Set {
                    value: self.item(value)?,
                    seen: ObservedValue::Absent,
                };
                let last = EntryKey {
                    own: Box::from(&**name),
                    spelling,
                };
                let (_, member) = last.locate_in(&members);
                let back = ReturnPath::IfAbsent(at_member(member.clone(), set));
                let change = PathChange::Take {
                    operations: vec![removal_of_member(member, value)],
                    item: entry,
                    back,
                };
                Ok((change, Some(read(name, value)?)))
            },
        )?;
        Ok(taken.0)
    }

    /// The value of the entry with this name, and as which member it is changed.
    fn entry_of<'a>(
        &self,
        found: Option<&'a str>,
        name: &EntryKey,
    ) -> Result<(MemberName, Option<&'a str>)> {
        if name.spelling.is_none() {
            let value = member(found.unwrap_or(EMPTY), &name.own);
            return Ok((
                name.member_name(),
                value.map_err(|error| self.apply_error(error))?,
            ));
        }
        let members = self.members(found)?;
        let (at, member) = name.locate_in(&members);
        Ok((member, at.map(|at| members[at].1)))
    }

    fn members<'a>(&self, found: Option<&'a str>) -> Result<Vec<(Cow<'a, str>, &'a str)>> {
        members(found.unwrap_or(EMPTY)).map_err(|error| self.apply_error(error))
    }
}

fn removal_of_member(member: MemberName, value: &str) -> Operation {
    at_member(
        member,
        Action::Remove {
            seen: ObservedValue::Content(Content::of(value)),
        },
    )
}

fn at_member(member: MemberName, action: Action) -> Operation {
    Operation {
        path: vec![PathStep::Member(member)],
        action,
    }
}

/// The methods of a map. Each is a change on its own: those of many processes to one map all
/// survive.
macro_rules! maps {
    ($map:ident<K, V $(, $hasher:ident)?> where $($bounds:tt)*) => {
        impl<K: Value + $($bounds)*, V: Value $(, $hasher)?> Synced<$map<K, V $(, $hasher)?>>
        where
            $map<K, V $(, $hasher)?>: Value,
            $($hasher: BuildHasher + Default + 'static,)?
        {
            /// How many entries there are; zero while the map is unset.
            ///
            /// A read decodes the map once after each change, and counts. Of a long one it decodes
            /// what has changed.
            ///
            /// # Errors
            ///
            /// `Unavailable`, `Decode` and `Rejected`, as [`get`](Synced::get).
            pub fn len(&self) -> Result<usize> {
                self.following().look_or(Some($map::default), $map::len)
            }

            /// Whether there are no entries.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn is_empty(&self) -> Result<bool> {
                self.following().look_or(Some($map::default), $map::is_empty)
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
                self.following().look_or(Some($map::default), |map| map.contains_key(key))
            }

            /// The keys.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn keys(&self) -> Result<Vec<K>> {
                self.following().look_or(Some($map::default), |map| map.keys().cloned().collect())
            }

            /// The whole map, empty while it is unset.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn to_map(&self) -> Result<$map<K, V $(, $hasher)?>> {
                self.following().read_or($map::default).map(std::sync::Arc::unwrap_or_clone)
            }

            /// The value under `key`, as a live view. If there is none, it reads as `Unset`, and a
            /// set stores it.
            ///
            /// If this view has decoded the map since its last change, a read of the value looks
            /// the key up there and clones the value. Otherwise it parses the text of the map and
            /// decodes the value; the second such read of a near key decodes the map.
            pub fn at<Q: ?Sized + Serialize>(&self, key: &Q) -> Synced<V>
            where
                K: Borrow<Q>,
            {
                match self.path().name_of::<K, Q>(key, Self::group_keys) {
                    Ok(name) => {
                        let key = KeyOfEntry::<K>::named(&name.own);
                        self.following().part(name.segment(), move |map: &$map<K, V $(, $hasher)?>| {
                            key.find_by(|key| map.get::<K>(key))
                        })
                    }
                    Err(error) => Synced::of(self.path().broken(error)),
                }
            }

            /// Stores a value under `key`, and returns the one that was there.
            ///
            /// # Errors
            ///
            /// `Serialize` for an entry that JSON cannot hold, `Decode` if what was there is not a
            /// `V`, `Conflict` if something other than a map is stored, `OutboxFull`, `Rejected`.
            /// After an error nothing is changed.
            #[allow(clippy::needless_pass_by_value)] // they are moved in, as into a map
            pub fn insert(&self, key: K, value: V) -> Result<Option<V>> {
                let path = self.path();
                path.put(&path.new_name_of(&key, Self::group_keys)?, &path.encode(&value)?)
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
                let path = self.path();
                path.remove_named(&path.name_of::<K, Q>(key, Self::group_keys)?)
            }

            /// Removes the entry that is stored last and returns it. It is handed to this caller
            /// alone, whatever happens to the backend: an entry that was taken and reached no
            /// caller goes back by itself, if its key is free.
            ///
            /// # Errors
            ///
            /// `Unavailable` if the backend does not answer within `timeout` and nothing was taken;
            /// `InDoubt` if nobody knows whether it was taken (if so, it goes back by itself);
            /// `Conflict` if others changed the map again and again; `Decode`, `OutboxFull`,
            /// `Rejected`.
            pub fn pop(&self) -> Result<Option<(K, V)>> {
                let path = self.path();
                // A map of this one entry: its key is written as a name, and read from one.
                let read = |name: &str, value: &str| {
                    let entry = format!("{{{}:{value}}}", path.encode_unread(name)?.as_str());
                    Ok(path.decode::<$map<K, V $(, $hasher)?>>(&entry)?.into_iter().next())
                };
                let spelling = unless_single::<K>(Self::group_keys);
                Ok(path.take_last(spelling, read)?.flatten())
            }

            /// The value under `key`; if there is none, stores `value` and returns it. If many
            /// processes do so at once, one stores its own, and all get that.
            ///
            /// # Errors
            ///
            /// As [`insert`](Self::insert).
            pub fn get_or_insert(&self, key: K, value: V) -> Result<V> {
                let path = self.path();
                let name = path.new_name_of(&key, Self::group_keys)?;
                match path.put_if_absent(&name, &path.encode(&value)?)? {
                    Some(existing) => path.decode(&existing),
                    None => Ok(value),
                }
            }

            /// Stores entries, all of them or none.
            ///
            /// # Errors
            ///
            /// As [`insert`](Self::insert).
            pub fn extend(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<Written> {
                let path = self.path();
                let encode = |(key, value): (K, V)| {
                    Ok((path.new_name_of(&key, Self::group_keys)?, path.encode(&value)?))
                };
                path.put_all(&entries.into_iter().map(encode).collect::<Result<Vec<_>>>()?)
            }

            /// Keeps the entries for which `keeps` returns `true`. It may be called more than once
            /// for each.
            ///
            /// # Errors
            ///
            /// As [`update`](Synced::update).
            pub fn retain(&self, mut keeps: impl FnMut(&K, &mut V) -> bool) -> Result<Written> {
                let retain = |map: &mut $map<K, V $(, $hasher)?>| {
                    map.retain(|key, value| keeps(key, value));
                    Ok::<(), Infallible>(())
                };
                Ok(self.change(self.inner.default.of_unset().or(Some($map::default)), retain)?.1)
            }

            fn group_keys(names: &[&str]) -> Vec<usize> {
                let mut first = $map::<K, usize>::new();
                group_names(names, |key, at| *first.entry(key).or_insert(at))
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
