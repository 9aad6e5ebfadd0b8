//! The local document: what is stored under one key, as text in chunks, with where the elements of
//! its root list or the members of its root object begin.
//!
//! A clone is a pointer. A change copies the chunks that it touches, and whoever holds an older
//! version keeps it. What is not touched stays byte for byte.
//!
//! - `apply.rs`: applying a mutation to a document
//! - `mod.rs`: a document
//! - `changes.rs`: what differs between two versions
//! - `contents.rs`: how an element of a long list is named
//! - `edit.rs`: replacing bytes, adding to the end
//! - `padding.rs`: edits that keep the length of what they change
//! - `outline.rs`: where the entries are, found in one walk over the text
//! - `names.rs`: which chunk has a member
//! - `chunks.rs`: the sequence of chunks
//!
//! The chunks are our own since no rope knows where elements end: `crop` and `jumprope` count
//! bytes, letters and lines, so that each element would need a second structure that follows every
//! change, and both copy a text in chunks of 1 KiB or less when it is read, while most values are
//! only read, and then are slices of what came from the backend. `imbl::Vector` would hold the
//! chunks, but has no sums over them, which every lookup by index or offset needs.

mod apply;
mod changes;
mod chunks;
mod contents;
mod edit;
mod names;
mod outline;
mod padding;

#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::base::clock::Stamp;
use crate::value::envelope::{self, Text};
use crate::value::mutation::PathSegment;
pub(crate) use apply::{AppliedToDocument, DocumentEdit, apply_to};
pub(crate) use changes::{EntryChange, EntryChanges, SomeEntries};
#[cfg(feature = "redis")]
pub(crate) use edit::Guard;
#[cfg(feature = "sqlite")]
pub(crate) use edit::sealed_tail;
pub(crate) use edit::{ByteEdit, GuardedEdit, length_after};
use outline::{Outline, RootKind};

/// What is stored under a key: an envelope of ours or of another program, or any other bytes.
#[derive(Clone)]
pub(crate) struct Document(Arc<DocumentText>);

struct DocumentText {
    length: usize,
    stamp: Stamp,
    /// The text as it was given. A document that was made by a change has its text in its outline.
    given: Option<Bytes>,
    /// Found at first need. It is the same for all threads: of several that find it, any may win,
    /// and none waits.
    value: ArcSwapOption<Text>,
    /// Made at first need; for this the same holds.
    outline: ArcSwapOption<Outline>,
}

/// What the root of a document is.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentRoot {
    /// A list of so many elements.
    List(usize),
    /// An object of so many members, counting those with the same name.
    Object(usize),
    /// Another value, or no JSON.
    Other,
}

impl Document {
    /// What is stored. It is not looked at but for its last bytes.
    pub(crate) fn of(stored: Bytes) -> Self {
        let stamp = envelope::stamp_of(&stored);
        Self::with(stored.len(), stamp, Some(stored), None)
    }

    /// An envelope that this process has sealed, of which it knows where the value is.
    pub(crate) fn of_sealed(sealed: Bytes) -> Self {
        let value = envelope::own_value_of(&sealed);
        let document = Self::of(sealed);
        document.remember_value(value);
        document
    }

    fn of_outline(outline: Outline) -> Self {
        let stamp = envelope::stamp_of(&outline.tail);
        Self::with(outline.len(), stamp, None, Some(Arc::new(outline)))
    }

    fn with(
        length: usize,
        stamp: Stamp,
        given: Option<Bytes>,
        outline: Option<Arc<Outline>>,
    ) -> Self {
        Self(Arc::new(DocumentText {
            length,
            stamp,
            given,
            value: ArcSwapOption::empty(),
            outline: ArcSwapOption::new(outline),
        }))
    }

    /// How many bytes are stored.
    pub(crate) fn len(&self) -> usize {
        self.0.length
    }

    /// The stamp of the envelope; zero without one.
    pub(crate) fn stamp(&self) -> Stamp {
        self.0.stamp
    }

    /// What is stored, in one piece. It is put together at most once.
    pub(crate) fn to_bytes(&self) -> Bytes {
        if let Some(given) = &self.0.given {
            return given.clone();
        }
        let Some(outline) = self.outline() else {
            return Bytes::new();
        };
        let whole = outline.join();
        if outline.whole.is_none() {
            // The chunks become slices of it: the text is not kept twice.
            self.remember_outline(outline.of_whole(&whole));
        }
        whole
    }

    /// The value as JSON text, byte for byte. Empty if what is stored is no JSON.
    pub(crate) fn value(&self) -> Text {
        if let Some(value) = &*self.0.value.load() {
            return Text::clone(value);
        }
        let whole = self.to_bytes();
        let value = match self.outline() {
            Some(outline) if outline.kind != RootKind::Unparsed => {
                Text::of_json(whole.slice(outline.value_range()))
            }
            // A short one is read as a whole anyway.
            None if whole.len() <= chunks::ChunkSizes::USUAL.chunk => {
                looked_at(whole.len());
                envelope::value_of(&whole)
            }
            _ => Text::of_json(whole.slice(self.parsed().value_range())),
        };
        self.remember_value(value.clone());
        value
    }

    /// What the root is, and how many entries it has.
    #[cfg(test)]
    pub(crate) fn root(&self) -> DocumentRoot {
        let outline = self.parsed();
        match outline.kind {
            RootKind::List => DocumentRoot::List(outline.body.count()),
            RootKind::Object => DocumentRoot::Object(outline.body.count()),
            RootKind::Plain | RootKind::Unparsed => DocumentRoot::Other,
        }
    }

    /// An element of the root list.
    pub(crate) fn element(&self, index: usize) -> Option<Text> {
        let outline = self.parsed();
        if outline.kind != RootKind::List {
            return None;
        }
        outline.value_at(index)
    }

    /// The value of a member of the root object; of several with this name, that of the last one.
    pub(crate) fn member(&self, name: &str) -> Option<Text> {
        let outline = self.parsed();
        let at = *outline.positions(name).last()?;
        outline.value_at(at)
    }

    /// Where the value of an entry is in what is stored, in bytes.
    #[cfg(test)]
    pub(crate) fn entry_range(&self, index: usize) -> Option<Range<usize>> {
        self.parsed().range_at(index)
    }

    /// The part of a long value that the first of these segments leads to, and the segments from
    /// there; `None` if it has to be looked for in the text.
    pub(crate) fn first_part<'a>(
        &self,
        segments: &'a [PathSegment],
    ) -> Option<(Text, &'a [PathSegment])> {
        let (first, rest) = segments.split_first()?;
        if self.len() < chunks::ChunkSizes::USUAL.chunk {
            return None;
        }
        let part = match first {
            PathSegment::Member(member) if member.also.is_empty() => self.member(&member.name),
            PathSegment::Index(index) => self.element(*index),
            PathSegment::Member(_) | PathSegment::Entry(..) => None,
        };
        Some((part?, rest))
    }

    /// An object with those of these members that a long one has, which stands for it if nothing
    /// else of it is looked at; `None` if all of it has to be.
    pub(crate) fn excerpt<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<Text> {
        if self.len() < chunks::ChunkSizes::USUAL.chunk || self.parsed().kind != RootKind::Object {
            return None;
        }
        let mut excerpt = String::from("{");
        for name in names {
            if let Some(value) = self.member(name) {
                let comma = if excerpt.len() > 1 { "," } else { "" };
                let name = serde_json::Value::from(name);
                excerpt.extend([comma, &name.to_string(), ":", value.as_str()]);
            }
        }
        excerpt.push('}');
        Some(Text::of_json(excerpt.into()))
    }

    /// The change of the stamp in what is stored, if that is an envelope.
    pub(crate) fn stamp_edit(&self, stamp: Stamp) -> Option<ByteEdit> {
        let end = match (&self.0.given, self.outline()) {
            (Some(given), _) => given.slice(given.len().saturating_sub(envelope::TAIL)..),
            (None, Some(outline)) => outline.tail.clone(),
            (None, None) => return None,
        };
        let (_, digits) = envelope::tail_of(&end)?;
        Some(ByteEdit {
            start: self.len() - end.len() + digits.start,
            old_len: digits.len(),
            new: stamp.to_string().into(),
        })
    }

    /// The outline, if there is one.
    fn outline(&self) -> Option<Arc<Outline>> {
        self.0.outline.load_full()
    }

    /// The outline of all entries.
    fn parsed(&self) -> Arc<Outline> {
        match self.outline() {
            Some(outline) if outline.kind != RootKind::Unparsed => outline,
            _ => self.remember_outline(Outline::parse(&self.to_bytes())),
        }
    }

    fn remember_outline(&self, outline: Outline) -> Arc<Outline> {
        let outline = Arc::new(outline);
        self.0.outline.store(Some(Arc::clone(&outline)));
        outline
    }

    fn remember_value(&self, value: Text) {
        self.0.value.store(Some(Arc::new(value)));
    }
}

impl Outline {
    /// The indexes of all members with this name, in order.
    fn positions(&self, name: &str) -> Vec<usize> {
        if self.kind != RootKind::Object {
            return Vec::new();
        }
        self.names.positions(&self.body, name)
    }

    /// The value of an entry.
    fn value_at(&self, index: usize) -> Option<Text> {
        let (place, at) = self.body.find(index)?;
        let entry = self.body.chunk(place).entry(at);
        looked_at(entry.len());
        let value = names::value_in(&entry, self.kind == RootKind::Object);
        Some(Text::of_json(entry.slice(value)))
    }

    /// Where it is in the whole text.
    fn range_at(&self, index: usize) -> Option<Range<usize>> {
        let (place, at) = self.body.find(index)?;
        let chunk = self.body.chunk(place);
        let start = self.head.len() + place.offset + chunk.start(at);
        let value = names::value_in(chunk.entry_bytes(at), self.kind == RootKind::Object);
        Some(start + value.start..start + value.end)
    }
}

/// By text.
impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.0, &other.0) {
            return true;
        }
        self.len() == other.len()
            && self.stamp() == other.stamp()
            && edit::are_equal(self.texts().iter(), other.texts().iter())
    }
}

impl Eq for Document {}

impl Document {
    fn texts(&self) -> Vec<Bytes> {
        match (&self.0.given, self.outline()) {
            (Some(given), _) => vec![given.clone()],
            (None, Some(outline)) => outline.texts().cloned().collect(),
            (None, None) => Vec::new(),
        }
    }
}

/// Without the value.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("length", &self.0.length)
            .field("stamp", &self.0.stamp)
            .finish_non_exhaustive()
    }
}

/// Counts bytes that are looked at or copied, for the tests of what a call costs.
#[cfg(test)]
fn looked_at(bytes: usize) {
    LOOKED_AT.with(|count| count.set(count.get() + bytes));
}

#[cfg(not(test))]
#[inline]
fn looked_at(_: usize) {}

#[cfg(test)]
thread_local! {
    static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
