//! Lists: `Vec` and `VecDeque`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::RangeBounds;

use serde::de::DeserializeOwned;

use super::Synced;
use super::lookup::NamedElement;
use crate::base::error::Result;
use crate::handle::path::{Condition, Freshness, PathChange, ReturnPath, ValuePath};
use crate::handle::value::Value;
use crate::pending::outbox::Written;
use crate::value::mutation::{
    Action, ApplyError, Element, Json, ObservedValue, Operation, PathSegment, PathStep, element,
    elements,
};

const EMPTY: &str = "[]";

fn removal_of_element(element: Element) -> Operation {
    let seen = ObservedValue::Content(element.content);
    Operation {
        path: vec![PathStep::Element(element)],
        action: Action::Remove { seen },
    }
}

impl ValuePath {
    /// Adds to the end of the list.
    pub(super) fn append(&self, items: &[Json]) -> Result<Written> {
        if items.is_empty() {
            return Ok(Written::Stored);
        }
        self.act(Freshness::Any, Some(EMPTY), |_| Action::Append {
            items: items.to_vec(),
        })
    }

    /// Adds before the element that is at `index`, or at the end.
    fn insert_before(&self, index: usize, item: &Json) -> Result<Written> {
        let insert = |found: Option<&str>| {
            let items = vec![item.clone()];
            let list = self.elements(found)?;
            Ok((
                PathChange::one(match element(&list, index) {
                    Some(before) => Action::InsertAt { before, items },
                    None => Action::Append { items },
                }),
                (),
            ))
        };
        Ok(self
            .record(
                Freshness::Latest,
                Condition::Always,
                Some(EMPTY),
                |location| insert(location.found),
            )?
            .1)
    }

    /// Removes the element that `pick` chooses, which the caller named; returns whether there was
    /// one.
    pub(super) fn remove_element(&self, pick: impl Fn(&[&str]) -> Option<usize>) -> Result<bool> {
        let removed = self.record(
            Freshness::Known,
            Condition::SamePaths,
            Some(EMPTY),
            |location| {
                let list = self.elements(location.found)?;
                let Some(element) = pick(&list).and_then(|index| element(&list, index)) else {
                    return Ok((PathChange::Nothing, false));
                };
                Ok((PathChange::Do(vec![removal_of_element(element)]), true))
            },
        )?;
        Ok(removed.0)
    }

    /// Takes out the element that `pick` chooses, which the caller did not name, and hands it to
    /// this caller alone; an element that is not a `T` stays.
    pub(super) fn take_element<T: DeserializeOwned>(
        &self,
        pick: impl Fn(&[&str]) -> Option<usize>,
    ) -> Result<Option<T>> {
        let taken = self.record(
            Freshness::Latest,
            Condition::Take,
            Some(EMPTY),
            |location| {
                let mut list = self.elements(location.found)?;
                let picked = pick(&list).and_then(|index| element(&list, index));
                let Some(picked) = picked else {
                    return Ok((PathChange::Nothing, None));
                };
                let text = list.remove(picked.index);
                let (taken, item) = (self.decode(text)?, self.item(text)?);
                // It goes back before the element that followed it, wherever that is by then.
                let items = vec![item.clone()];
                let action = match element(&list, picked.index) {
                    Some(before) => Action::InsertAt { before, items },
                    None => Action::Append { items },
                };
                let back = ReturnPath::Always(Operation {
                    path: Vec::new(),
                    action,
                });
                Ok((
                    PathChange::Take {
                        operations: vec![removal_of_element(picked)],
                        item,
                        back,
                    },
                    Some(taken),
                ))
            },
        )?;
        Ok(taken.0)
    }

    /// A part of what is stored, as its text there.
    pub(super) fn item(&self, text: &str) -> Result<Json> {
        Json::parse(text.to_owned()).map_err(|_| self.apply_error(ApplyError::Invalid))
    }

    pub(super) fn elements<'a>(&self, found: Option<&'a str>) -> Result<Vec<&'a str>> {
        elements(found.unwrap_or(EMPTY)).map_err(|error| self.apply_error(error))
    }

    pub(super) fn encode_all<T: Value>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Json>> {
        items.into_iter().map(|item| self.encode(&item)).collect()
    }
}

/// The methods of a list. Each is a change on its own: those of many processes to one list all
/// survive.
macro_rules! lists {
    ($($list:ident)*) => { $(
        impl<T: Value> Synced<$list<T>> {
            /// How many elements there are; zero while the list is unset.
            ///
            /// A read decodes the list once after each change, and counts. Of a long one it decodes
            /// what has changed.
            ///
            /// # Errors
            ///
            /// `Unavailable`, `Decode` and `Rejected`, as [`get`](Synced::get).
            pub fn len(&self) -> Result<usize> {
                self.following().look_or(Some($list::new), $list::len)
            }

            /// Whether there are no elements.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn is_empty(&self) -> Result<bool> {
                self.following().look_or(Some($list::new), $list::is_empty)
            }

            /// The elements.
            ///
            /// # Errors
            ///
            /// As [`len`](Self::len).
            pub fn to_vec(&self) -> Result<Vec<T>> {
                self.following().look_or(Some($list::new), |list| list.iter().cloned().collect())
            }

            /// The element at `index`, as a live view: it is whatever is at that index when the
            /// view is used. If there is none, it reads as `Unset`.
            ///
            /// If this view has decoded the list since its last change, a read of the element
            /// clones it from there, in constant time. Otherwise it parses the text of the list
            /// and decodes the element; the second such read of a near key decodes the list.
            pub fn at(&self, index: usize) -> Synced<T> {
                self.following().part(PathSegment::Index(index), move |list: &$list<T>| list.get(index).into())
            }

            /// Adds an element to the end.
            ///
            /// # Errors
            ///
            /// `Serialize` for an element that JSON cannot hold, `Conflict` if something other than
            /// a list is stored, `OutboxFull`, `Rejected`. After an error nothing is changed.
            #[allow(clippy::needless_pass_by_value)] // it is moved in, as into a `Vec`
            pub fn push(&self, item: T) -> Result<Written> {
                self.path().append(&[self.path().encode(&item)?])
            }

            /// Adds elements to the end, all of them or none.
            ///
            /// # Errors
            ///
            /// As [`push`](Self::push).
            pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Result<Written> {
                self.path().append(&self.path().encode_all(items)?)
            }

            /// Adds an element before the one that is at `index`, wherever that has moved to when
            /// the change is sent; at the end if the list is shorter.
            ///
            /// # Errors
            ///
            /// As [`push`](Self::push).
            #[allow(clippy::needless_pass_by_value)]
            pub fn insert(&self, index: usize, item: T) -> Result<Written> {
                self.path().insert_before(index, &self.path().encode(&item)?)
            }

            /// Removes the element at `index` and returns it; `None` if the list is shorter. It is
            /// handed to this caller alone, whatever happens to the backend: an element that was
            /// taken and reached no caller goes back by itself.
            ///
            /// # Errors
            ///
            /// `Unavailable` if the backend does not answer within `timeout` and nothing was taken;
            /// `InDoubt` if nobody knows whether it was taken (if so, it goes back by itself);
            /// `Conflict` if others changed the list again and again; `Decode`, `OutboxFull`,
            /// `Rejected`.
            pub fn remove(&self, index: usize) -> Result<Option<T>> {
                self.path().take_element(|list| (index < list.len()).then_some(index))
            }

            /// Removes an element that equals `item`: the first one that is stored as its type
            /// writes it or, if there is none, the first one in any other spelling. Returns whether
            /// there was one, as far as this process knows.
            ///
            /// # Errors
            ///
            /// `Serialize`, `Decode`, `OutboxFull`, `Rejected`. After an error nothing is changed.
            pub fn remove_item(&self, item: &T) -> Result<bool>
            where
                T: PartialEq,
            {
                let item = NamedElement::of(self.path(), item)?;
                self.path().remove_element(|list| item.position(list))
            }

            /// Removes the last element and returns it; `None` if there is none.
            ///
            /// # Errors
            ///
            /// As [`remove`](Self::remove).
            pub fn pop(&self) -> Result<Option<T>> {
                self.path().take_element(|list| list.len().checked_sub(1))
            }

            /// Removes all elements after the first `len`.
            ///
            /// # Errors
            ///
            /// As [`update`](Synced::update).
            pub fn truncate(&self, len: usize) -> Result<Written> {
                self.edit(|list| list.truncate(len))
            }

            /// Assigns an empty list.
            ///
            /// # Errors
            ///
            /// As [`set`](Synced::set).
            pub fn clear(&self) -> Result<Written> {
                self.set($list::new())
            }

            /// Sorts the elements.
            ///
            /// # Errors
            ///
            /// As [`update`](Synced::update).
            pub fn sort(&self) -> Result<Written>
            where
                T: Ord,
            {
                self.edit(|list| lists!(@slice $list list).sort())
            }

            /// Reverses the order of the elements.
            ///
            /// # Errors
            ///
            /// As [`update`](Synced::update).
            pub fn reverse(&self) -> Result<Written> {
                self.edit(|list| lists!(@slice $list list).reverse())
            }

            /// Keeps the elements for which `keeps` returns `true`. It may be called more than once
            /// for each.
            ///
            /// # Errors
            ///
            /// As [`update`](Synced::update).
            pub fn retain(&self, mut keeps: impl FnMut(&T) -> bool) -> Result<Written> {
                self.edit(|list| list.retain(&mut keeps))
            }

            /// Replaces the elements in `range` (as far as they exist) by `items`, and returns
            /// those that were there, as [`remove`](Self::remove) does. Elements that were taken
            /// and reached no caller become a [dead letter](crate::DeadLetter).
            ///
            /// # Errors
            ///
            /// As [`remove`](Self::remove), and `Serialize`.
            pub fn splice(
                &self,
                range: impl RangeBounds<usize>,
                items: impl IntoIterator<Item = T>,
            ) -> Result<Vec<T>> {
                let items: Vec<T> = items.into_iter().collect();
                let splice = |list: &mut $list<T>| {
                    let (start, end) = bounds_in(&range, list.len());
                    let mut rest = list.split_off(start);
                    let behind = rest.split_off(end - start);
                    list.extend(items.iter().cloned());
                    list.extend(behind);
                    rest.into_iter().collect::<Vec<T>>()
                };
                self.take_by(self.inner.default.of_unset().or(Some($list::new)), splice)
            }

            fn edit(&self, mut edit: impl FnMut(&mut $list<T>)) -> Result<Written> {
                let default = self.inner.default.of_unset().or(Some($list::new));
                Ok(self.change(default, |list| Ok::<(), Infallible>(edit(list)))?.1)
            }
        }
    )* };
    (@slice Vec $list:ident) => { $list };
    (@slice VecDeque $list:ident) => { $list.make_contiguous() };
}

lists!(Vec VecDeque);

/// The part of a range that a list of `len` elements has.
fn bounds_in(range: &impl RangeBounds<usize>, len: usize) -> (usize, usize) {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let start = match range.start_bound() {
        Included(start) => *start,
        Excluded(before) => before.saturating_add(1),
        Unbounded => 0,
    };
    let end = match range.end_bound() {
        Included(last) => last.saturating_add(1),
        Excluded(end) => *end,
        Unbounded => len,
    };
    let end = end.min(len);
    (start.min(end), end)
}
