//! `serde_json::Value`: any JSON, with the methods of lists and of maps.

use std::fmt;

use serde_json::Value;

use super::Synced;
use super::lookup::EntryKey;
use super::whole::PartLookup;
use crate::base::error::Result;
use crate::handle::path::ValuePath;
use crate::pending::outbox::Written;
use crate::value::mutation::{MemberName, PathSegment};

mod sealed {
    pub trait SealedIndex {}
    impl SealedIndex for usize {}
    impl SealedIndex for &str {}
    impl SealedIndex for String {}
    impl SealedIndex for &String {}
}

/// What a [`serde_json::Value`] is indexed by: a `usize` in a list, a string in an object.
pub trait ValueIndex: sealed::SealedIndex {
    #[doc(hidden)]
    fn into_segment(self) -> AnySegment;
}

#[doc(hidden)]
pub struct AnySegment(PathSegment);

impl fmt::Debug for AnySegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ValueIndex for usize {
    fn into_segment(self) -> AnySegment {
        AnySegment(PathSegment::Index(self))
    }
}

impl ValueIndex for &str {
    fn into_segment(self) -> AnySegment {
        AnySegment(PathSegment::Member(MemberName::new(self)))
    }
}

impl ValueIndex for String {
    fn into_segment(self) -> AnySegment {
        self.as_str().into_segment()
    }
}

impl ValueIndex for &String {
    fn into_segment(self) -> AnySegment {
        self.as_str().into_segment()
    }
}

impl Synced<Value> {
    /// The element or member at `index`, as a live view. If there is none, it reads as `Unset`, and
    /// a set below an object stores it.
    ///
    /// If this view has decoded the value since its last change, a read of the part clones it from
    /// there. Otherwise it parses the text of the value; the second such read of a near key decodes
    /// the value.
    #[must_use]
    pub fn at(&self, index: impl ValueIndex) -> Self {
        let segment = index.into_segment().0;
        let find = segment.clone();
        self.part(segment, move |value| match (&find, value) {
            (PathSegment::Index(index), Value::Array(list)) => list.get(*index).into(),
            (
                PathSegment::Member(member) | PathSegment::Entry(member, _),
                Value::Object(object),
            ) => object.get(&*member.name).into(),
            _ => PartLookup::Unclear,
        })
    }

    /// How many elements or members there are; zero if it is neither a list nor an object.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Decode` and `Rejected`, as [`get`](Synced::get).
    pub fn len(&self) -> Result<usize> {
        self.look_or(Some(Value::default), |value| match value {
            Value::Array(list) => list.len(),
            Value::Object(object) => object.len(),
            _ => 0,
        })
    }

    /// Whether there are no elements or members.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The names of the members; none if it is not an object.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn keys(&self) -> Result<Vec<String>> {
        self.look_or(Some(Value::default), |value| {
            let object = value.as_object();
            object.map_or_else(Vec::new, |object| object.keys().cloned().collect())
        })
    }

    /// Whether there is a member with this name.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn contains_key(&self, name: &str) -> Result<bool> {
        self.look_or(Some(Value::default), |value| value.get(name).is_some())
    }

    /// Adds an element to the end of the list that this is.
    ///
    /// # Errors
    ///
    /// `Conflict` if something other than a list is stored, `OutboxFull`, `Rejected`. After an
    /// error nothing is changed.
    pub fn push(&self, item: impl Into<Value>) -> Result<Written> {
        self.path().append(&[self.path().encode(&item.into())?])
    }

    /// Adds elements to the end of the list that this is, all of them or none.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn extend<V: Into<Value>>(&self, items: impl IntoIterator<Item = V>) -> Result<Written> {
        self.path().append(
            &self
                .path()
                .encode_all(items.into_iter().map(Into::<Value>::into))?,
        )
    }

    /// Stores a member of the object that this is, and returns the one that was there.
    ///
    /// # Errors
    ///
    /// `Decode` if something other than an object is stored, `OutboxFull`, `Rejected`. After an
    /// error nothing is changed.
    pub fn insert(
        &self,
        name: impl Into<String>,
        value: impl Into<Value>,
    ) -> Result<Option<Value>> {
        self.path().put(
            &EntryKey::plain(&name.into()),
            &self.path().encode(&value.into())?,
        )
    }

    /// Removes the element or member at `index` and returns it. For an element the result is a
    /// fact, as that of `Vec`'s [`remove`](Synced::<Vec<Value>>::remove); for a member it is what
    /// this process knows.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert). For an element also `Unavailable` if the backend does not
    /// answer within `timeout` and nothing was taken, `InDoubt` if nobody knows whether it was
    /// taken (if so, it goes back by itself), and `Conflict` if others changed the list again and
    /// again.
    pub fn remove(&self, index: impl ValueIndex) -> Result<Option<Value>> {
        let path: &ValuePath = self.path();
        match index.into_segment().0 {
            PathSegment::Index(index) => {
                path.take_element(|list| (index < list.len()).then_some(index))
            }
            PathSegment::Member(member) | PathSegment::Entry(member, _) => {
                path.remove_named(&EntryKey::plain(&member.name))
            }
        }
    }

    /// Removes the last element of the list that this is and returns it.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove) for an element.
    pub fn pop(&self) -> Result<Option<Value>> {
        self.path().take_element(|list| list.len().checked_sub(1))
    }
}
