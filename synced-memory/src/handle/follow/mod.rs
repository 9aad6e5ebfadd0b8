//! Collections that follow what is stored: of a new version only the entries that differ are
//! decoded, and put into the value.
//!
//! What is decoded is the same as from the whole text. So only the collections of the standard
//! library take part, and `serde_json::Value`: these are known to be read entry by entry, each as
//! if it were alone. What a collection cannot say for sure is decoded from the whole text.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::ops::Range;

use serde_json::{Map, Value as Json};

use crate::handle::key::Spec;
use crate::handle::value::Value;
use crate::value::document::{Document, EntryChange, EntryChanges, SomeEntries};
use crate::value::envelope;

/// Entries that were replaced by others.
#[derive(Debug)]
pub struct Replacement<T> {
    /// How many entries are behind them.
    behind: usize,
    removed: usize,
    /// They, if they are found by what they are.
    gone: Option<T>,
    added: T,
}

/// A collection that is stored as the list or the object of its entries.
pub trait Entries: Value {
    /// They are found by what they are, and not by their index: a part that is replaced has to be
    /// known.
    const ARE_KEYED: bool;

    fn count(&self) -> usize;

    /// Makes these replacements, which are in order. `None` if they do not fit: then it is not the
    /// value of anything any more.
    fn replace(&mut self, parts: Vec<Replacement<Self>>) -> Option<()>;
}

/// How the values of a type follow what is stored.
#[derive(Debug)]
pub struct Follow<T> {
    are_keyed: bool,
    count: fn(&T) -> usize,
    replace: fn(&mut T, Vec<Replacement<T>>) -> Option<()>,
}

/// What differs between two versions, decoded.
pub(crate) struct Differences<T> {
    /// Whether what is new is UTF-8.
    pub(crate) are_utf8: bool,
    counts: Option<(usize, usize)>,
    parts: Vec<Replacement<T>>,
}

impl<T: Entries> Follow<T> {
    pub(crate) const OF_ENTRIES: Self = Self {
        are_keyed: T::ARE_KEYED,
        count: T::count,
        replace: T::replace,
    };
}

impl<T: Value> Follow<T> {
    /// That of a type which is known without being named.
    pub(crate) fn known() -> Option<Self> {
        known_by_element::<T, String>()
            .or_else(known_by_element::<T, i64>)
            .or_else(known_by_element::<T, u64>)
            .or_else(known_by_element::<T, i32>)
            .or_else(known_by_element::<T, u32>)
            .or_else(known_by_value::<T, f64>)
            .or_else(known_by_value::<T, Json>)
            .or_else(of_same::<T, Json>)
    }

    /// What differs between two versions. `None` if it has to be decoded from the whole text.
    pub(crate) fn differences(self, older: &Document, newer: &Document) -> Option<Differences<T>> {
        let changes: EntryChanges = newer.changes_since(older)?;
        let are_keyed = self.are_keyed || changes.is_object;
        // Entries that are equal are one: that there are none is seen by the counts.
        if are_keyed && changes.counts.is_none() {
            return None;
        }
        let decode = |entries: &SomeEntries, text: &[u8]| {
            let decoded: T = envelope::decode(text).ok()?;
            ((self.count)(&decoded) == entries.count()).then_some(decoded)
        };
        let mut differences = Differences {
            are_utf8: true,
            counts: changes.counts,
            parts: Vec::with_capacity(changes.changes.len()),
        };
        for EntryChange { behind, old, new } in &changes.changes {
            let gone = if are_keyed {
                Some(decode(old, &changes.text_of(old))?)
            } else {
                None
            };
            let text = changes.text_of(new);
            differences.are_utf8 &= std::str::from_utf8(&text).is_ok();
            differences.parts.push(Replacement {
                behind: *behind,
                removed: old.count(),
                gone,
                added: decode(new, &text)?,
            });
        }
        Some(differences)
    }

    /// Makes the value of the older version that of the newer one. Returns whether it is; if not,
    /// it is the value of anything no more.
    pub(crate) fn apply(self, differences: Differences<T>, value: &mut T) -> bool {
        let Differences { counts, parts, .. } = differences;
        let has = |count: Option<usize>, value: &T| {
            count.is_none_or(|count| (self.count)(value) == count)
        };
        let (before, after) = counts.unzip();
        has(before, value) && (self.replace)(value, parts).is_some() && has(after, value)
    }
}

impl<T> Clone for Follow<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Follow<T> {}

/// That of a `T`, if this is the same as a `C`.
fn of_same<T: Value, C: Entries>() -> Option<Follow<T>> {
    (&Follow::<C>::OF_ENTRIES as &dyn Any)
        .downcast_ref::<Follow<T>>()
        .copied()
}

/// That of a `T`, if this is a list of elements or a map of values of the type `V`.
fn known_by_value<T: Value, V: Value>() -> Option<Follow<T>> {
    of_same::<T, Vec<V>>()
        .or_else(of_same::<T, VecDeque<V>>)
        .or_else(of_same::<T, HashMap<String, V>>)
        .or_else(of_same::<T, BTreeMap<String, V>>)
}

/// The same, or if this is a set.
fn known_by_element<T: Value, E: Value + Hash + Ord>() -> Option<Follow<T>> {
    known_by_value::<T, E>()
        .or_else(of_same::<T, HashSet<E>>)
        .or_else(of_same::<T, BTreeSet<E>>)
}

impl<T: Entries> Spec<T> {
    /// How values of this type follow what is stored.
    pub const FOLLOW: Option<Follow<T>> = Some(Follow::OF_ENTRIES);
}

/// The same of all other types: a constant of the type itself goes before that of a trait. So
/// generated code gets the right one, whatever the type of a field is.
pub trait FollowNothing<T> {
    /// Nothing is known of the type.
    const FOLLOW: Option<Follow<T>> = None;
}

impl<T> FollowNothing<T> for Spec<T> {}

/// The entries of a part, by index.
fn range_of<T>(part: &Replacement<T>, length: usize) -> Option<Range<usize>> {
    // What is before it was replaced already, and what is behind it was not.
    let end = length.checked_sub(part.behind)?;
    Some(end.checked_sub(part.removed)?..end)
}

impl<T: Value> Entries for Vec<T> {
    const ARE_KEYED: bool = false;

    fn count(&self) -> usize {
        self.len()
    }

    fn replace(&mut self, parts: Vec<Replacement<Self>>) -> Option<()> {
        for part in parts {
            let range = range_of(&part, self.len())?;
            if range.len() == part.added.len() {
                self[range].iter_mut().zip(part.added).for_each(assign);
            } else {
                self.splice(range, part.added);
            }
        }
        Some(())
    }
}

impl<T: Value> Entries for VecDeque<T> {
    const ARE_KEYED: bool = false;

    fn count(&self) -> usize {
        self.len()
    }

    fn replace(&mut self, parts: Vec<Replacement<Self>>) -> Option<()> {
        for part in parts {
            let range = range_of(&part, self.len())?;
            if range.len() == part.added.len() {
                self.range_mut(range).zip(part.added).for_each(assign);
            } else if range.start == 0 {
                self.drain(range);
                for element in part.added.into_iter().rev() {
                    self.push_front(element);
                }
            } else {
                let behind = self.split_off(range.end);
                self.truncate(range.start);
                self.extend(part.added);
                self.extend(behind);
            }
        }
        Some(())
    }
}

fn assign<T>((old, new): (&mut T, T)) {
    *old = new;
}

/// Maps and sets: `$keys` makes what is looked up of a collection, and `$has` asks for one.
macro_rules! keyed {
    ($collection:ty, $keys:ident, $has:ident, [$($parameters:tt)*] $($bounds:tt)*) => {
        impl<$($parameters)*> Entries for $collection
        where
            Self: Value,
            $($bounds)*
        {
            const ARE_KEYED: bool = true;

            fn count(&self) -> usize {
                self.len()
            }

            fn replace(&mut self, mut parts: Vec<Replacement<Self>>) -> Option<()> {
                // A key that is removed in one place may be added in another.
                for part in &mut parts {
                    for key in part.gone.take()?.$keys() {
                        self.$has(&key).then_some(())?;
                        self.remove(&key);
                    }
                }
                for part in parts {
                    self.extend(part.added);
                }
                Some(())
            }
        }

    };
}

keyed!(HashMap<K, V, S>, into_keys, contains_key, [K: Value + Eq + Hash, V: Value, S]
    S: BuildHasher + Default + 'static);
keyed!(BTreeMap<K, V>, into_keys, contains_key, [K: Value + Ord, V: Value]);
keyed!(HashSet<T, S>, into_iter, contains, [T: Value + Eq + Hash, S]
    S: BuildHasher + Default + 'static);
keyed!(BTreeSet<T>, into_iter, contains, [T: Value + Ord]);

impl Entries for Json {
    /// Those of an object are.
    const ARE_KEYED: bool = false;

    fn count(&self) -> usize {
        match self {
            Self::Array(list) => list.len(),
            Self::Object(object) => object.len(),
            _ => 0,
        }
    }

    fn replace(&mut self, parts: Vec<Replacement<Self>>) -> Option<()> {
        match self {
            Self::Array(list) => list.replace(replacements(parts, |value| match value {
                Self::Array(list) => Some(list),
                _ => None,
            })?),
            Self::Object(object) if !keeps_order() => {
                let parts = replacements(parts, |value| match value {
                    Self::Object(object) => Some(object),
                    _ => None,
                })?;
                for name in parts
                    .iter()
                    .flat_map(|part| part.gone.iter())
                    .flat_map(Map::keys)
                {
                    object.remove(name)?;
                }
                object.extend(parts.into_iter().flat_map(|part| part.added));
                Some(())
            }
            _ => None,
        }
    }
}

/// The same parts, of what `read` reads in them.
fn replacements<T, U>(
    parts: Vec<Replacement<T>>,
    read: impl Fn(T) -> Option<U>,
) -> Option<Vec<Replacement<U>>> {
    let parts = parts.into_iter().map(|part| {
        let gone = match part.gone {
            Some(gone) => Some(read(gone)?),
            None => None,
        };
        Some(Replacement {
            behind: part.behind,
            removed: part.removed,
            gone,
            added: read(part.added)?,
        })
    });
    parts.collect()
}

/// Whether objects have their members in the order in which they were added: with a feature of
/// `serde_json` that any crate of the build may turn on.
fn keeps_order() -> bool {
    let mut object = Map::new();
    object.insert("b".to_owned(), Json::Null);
    object.insert("a".to_owned(), Json::Null);
    object.keys().next().is_some_and(|first| first == "b")
}
