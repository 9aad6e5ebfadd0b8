//! Sets: `HashSet` with any hasher, and `BTreeSet`. They are stored as lists whose order does not
//! count.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, Hash};

use super::Synced;
use super::lookup::NamedElement;
use crate::base::error::Result;
use crate::handle::path::{Condition, Freshness, PathChange, ValuePath};
use crate::handle::value::Value;
use crate::pending::outbox::Written;
use crate::value::mutation::{Action, Json};

const EMPTY: &str = "[]";

impl ValuePath {
    /// Has the set contain an element or not; returns whether that changed it.
    fn set_membership(&self, item: &NamedElement, is_member: bool) -> Result<bool> {
        let changed = self.record(
            Freshness::Known,
            Condition::SamePaths,
            Some(EMPTY),
            |location| {
                let spellings = item.spellings(&self.elements(location.found)?);
                let action = match (is_member, spellings.is_empty()) {
                    // It may be there in another spelling, of which this process does not know.
                    (_, true) if !item.has_one_spelling() && !location.is_current => {
                        return Ok((PathChange::Nothing, false));
                    }
                    (true, true) => Action::Include {
                        items: vec![item.text.clone()],
                    },
                    (false, false) => Action::Exclude { items: spellings },
                    (true, false) | (false, true) => return Ok((PathChange::Nothing, false)),
                };
                Ok((PathChange::one(action), true))
            },
        )?;
        Ok(changed.0)
    }

    fn include(&self, items: &[NamedElement]) -> Result<Written> {
        if items.is_empty() {
            return Ok(Written::Stored);
        }
        if items.iter().all(NamedElement::has_one_spelling) {
            let items: Vec<Json> = items.iter().map(|item| item.text.clone()).collect();
            return self.act(Freshness::Any, Some(EMPTY), |_| Action::Include {
                items: items.clone(),
            });
        }
        let include = |found: Option<&str>| {
            let elements = self.elements(found)?;
            let new = items
                .iter()
                .filter(|item| item.spellings(&elements).is_empty());
            let items: Vec<Json> = new.map(|item| item.text.clone()).collect();
            Ok((
                if items.is_empty() {
                    PathChange::Nothing
                } else {
                    PathChange::one(Action::Include { items })
                },
                (),
            ))
        };
        Ok(self
            .record(
                Freshness::Latest,
                Condition::Always,
                Some(EMPTY),
                |location| include(location.found),
            )?
            .1)
    }
}

/// The methods of a set. Each is a change on its own: those of many processes to one set all
/// survive.
macro_rules! sets {
    ($set:ident<T $(, $hasher:ident)?> where $($bounds:tt)*) => {
        impl<T: Value + $($bounds)* $(, $hasher)?> Synced<$set<T $(, $hasher)?>>
        where
            $set<T $(, $hasher)?>: Value,
            $($hasher: BuildHasher + Default + 'static,)?
        {
            /// How many elements there are; none while the set is unset.
            ///
            /// A read decodes the set once after each change, and counts. Of a long one it decodes
            /// what has changed.
            ///
            /// # Errors
            ///
            /// `Unavailable`, `Decode` and `Rejected`, as [`get`](Synced::get).
            pub fn len(&self) -> Result<usize> {
                self.following().look_or(Some($set::default), $set::len)
            }

            /// Whether there is no element.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn is_empty(&self) -> Result<bool> {
                self.following().look_or(Some($set::default), $set::is_empty)
            }

            /// Whether the set has this element.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn contains(&self, item: &T) -> Result<bool> {
                self.following().look_or(Some($set::default), |set| set.contains(item))
            }

            /// The whole set, empty while it is unset.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn to_set(&self) -> Result<$set<T $(, $hasher)?>> {
                self.following().read_or($set::default).map(std::sync::Arc::unwrap_or_clone)
            }

            /// Adds an element; returns `true` if it was not there. If many processes add it at
            /// once while the backend is there, one of them gets `true`.
            ///
            /// # Errors
            ///
            /// `Serialize` for an element that JSON cannot hold, `Conflict` if something other than
            /// a list is stored, `OutboxFull`, `Rejected`. After an error nothing is changed.
            #[allow(clippy::needless_pass_by_value)] // it is moved in, as into a set
            pub fn insert(&self, item: T) -> Result<bool> {
                self.path().set_membership(&NamedElement::of(self.path(), &item)?, true)
            }

            /// Removes an element; returns whether it was there.
            ///
            /// # Errors
            ///
            /// As [`insert`](Self::insert).
            pub fn remove(&self, item: &T) -> Result<bool> {
                self.path().set_membership(&NamedElement::of(self.path(), item)?, false)
            }

            /// Adds elements, all of them or none.
            ///
            /// # Errors
            ///
            /// As [`insert`](Self::insert).
            pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Result<Written> {
                let items = items.into_iter().map(|item| NamedElement::of(self.path(), &item));
                self.path().include(&items.collect::<Result<Vec<_>>>()?)
            }

            /// Assigns an empty set.
            ///
            /// # Errors
            ///
            /// As [`set`](Synced::set).
            pub fn clear(&self) -> Result<Written> {
                self.set($set::default())
            }
        }
    };
}

sets!(HashSet<T, S> where Eq + Hash);
sets!(BTreeSet<T> where Ord);
