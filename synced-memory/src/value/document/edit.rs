//! Changes of a document: bytes are replaced, items are added. Only the chunks that are touched are
//! looked at and copied.

use std::ops::Range;

use bytes::Bytes;

use super::chunks::ChunkList;
use super::outline::{Fragment, Outline, RootKind};
use super::{Document, looked_at};
use crate::base::clock::Stamp;
use crate::value::envelope;
use crate::value::mutation::is_space;

/// Some bytes, and what is put in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByteEdit {
    /// Where they begin, in what was stored before all edits.
    pub(crate) start: usize,
    /// How many they are.
    pub(crate) old_len: usize,
    pub(crate) new: Bytes,
}

impl ByteEdit {
    pub(super) fn end(&self) -> usize {
        self.start.saturating_add(self.old_len)
    }
}

/// An edit, with what must be there still when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuardedEdit {
    pub(crate) edit: ByteEdit,
    pub(crate) guard: Guard,
}

/// What is there before an edit: the bytes that it replaces, and some on each side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) found: Bytes,
    /// How many of the bytes are before and behind what is replaced.
    pub(crate) beside: [usize; 2],
}

impl GuardedEdit {
    /// How many bytes it carries.
    pub(crate) fn size(&self) -> usize {
        self.edit.new.len()
    }
}

/// How long a text of `length` bytes is after these edits. `None` if they are not in order,
/// overlap, or are out of range.
pub(crate) fn length_after(length: usize, edits: &[ByteEdit]) -> Option<usize> {
    let mut end = 0;
    let mut after = length;
    for edit in edits {
        if edit.start < end || edit.end() > length {
            return None;
        }
        end = edit.end();
        after = after - edit.old_len + edit.new.len();
    }
    Some(after)
}

/// The most of a head that is looked at again if what is behind the value changes.
const SHORT_HEAD: usize = 1024;

impl Document {
    /// Adds items, which are JSON, to the end of the root list, without looking at what is there.
    ///
    /// `None` unless it is an envelope as this library writes it, whose value is a list. A caller
    /// must know that of an envelope whose entries were not looked at yet: only both ends are
    /// checked.
    pub(crate) fn appended(&self, items: &[&str], stamp: Stamp) -> Option<Self> {
        let tail = sealed_tail(self.stamp());
        let outline = self.outline();
        let unparsed;
        let outline = if let Some(outline) = &outline {
            &**outline
        } else {
            unparsed = Outline::unparsed(self.0.given.as_ref()?, &tail)?;
            &unparsed
        };
        let is_list = matches!(outline.kind, RootKind::List | RootKind::Unparsed);
        if !is_list || outline.tail != tail {
            return None;
        }

        let mut body = outline.body.clone();
        let last = body.in_reverse().next();
        let last = last.map_or(&outline.head, |(_, piece)| piece.chunk.text());
        let is_first = match last.last()? {
            b' ' | b'\t' | b'\n' | b'\r' => return None,
            // Of a list that was not looked at, this is the end of no element.
            b'[' if body.count() == 0 => true,
            _ => false,
        };
        let fragment = Fragment::of_items(items, is_first);
        if !items.is_empty() {
            let end = body.count()..body.count();
            body.replace(end, &fragment.text, &fragment.starts);
        }
        let mut appended = outline.changed(body, sealed_tail(stamp).into());
        appended.padding += fragment.spaces();
        Some(Self::of_outline(appended))
    }

    /// Replaces bytes: edits that are in order and do not overlap.
    ///
    /// `None` if one is out of range, if what they make has another stamp or length than announced,
    /// or is no JSON any more.
    pub(crate) fn edited(&self, edits: &[ByteEdit], after: Stamp, length: usize) -> Option<Self> {
        if length_after(self.len(), edits) != Some(length) {
            return None;
        }
        let edited = match self.parsed().edited(edits) {
            Some(outline) => Self::of_outline(outline),
            None => self.spliced(edits)?,
        };
        (edited.stamp() == after).then_some(edited)
    }

    /// The edits with what is there now, and up to so many bytes on each side.
    pub(crate) fn guarded(&self, edits: Vec<ByteEdit>) -> Vec<GuardedEdit> {
        const BESIDE: usize = 8;
        let guarded = edits.into_iter().map(|edit| {
            let before = edit.start.min(BESIDE);
            let after = BESIDE.min(self.len().saturating_sub(edit.end()));
            let guard = Guard {
                found: self.bytes_in(edit.start - before..edit.end() + after),
                beside: [before, after],
            };
            GuardedEdit { edit, guard }
        });
        guarded.collect()
    }

    /// Some of the bytes that are stored.
    fn bytes_in(&self, range: Range<usize>) -> Bytes {
        if let Some(given) = &self.0.given {
            return given.slice(range);
        }
        self.parsed().bytes_in(range).into()
    }

    /// Whether it is an envelope of ours whose value is a list, with nothing around that.
    pub(crate) fn is_own_list(&self) -> bool {
        self.is_own(RootKind::List, &sealed_tail(self.stamp()))
    }

    fn is_own(&self, kind: RootKind, tail: &str) -> bool {
        let outline = self.parsed();
        outline.kind == kind
            && outline.value_start == envelope::PREFIX.len()
            && outline.head.starts_with(envelope::PREFIX.as_bytes())
            && outline.tail == tail
    }

    /// Whether the first of these edits adds members at the end of an object that has some, and
    /// the other one changes the stamp; with nothing around the object.
    pub(crate) fn is_added_to_by(&self, edits: &[ByteEdit]) -> bool {
        let [added, stamp] = edits else {
            return false;
        };
        let tail = format!(r#"}},"last_modified": {}}}"#, self.stamp());
        added.old_len == 0
            && added.new.starts_with(b",")
            && added.start + tail.len() == self.len()
            && stamp.start > added.start
            && self.is_own(RootKind::Object, &tail)
    }

    /// The whole text with these edits, of which the outline is made anew.
    fn spliced(&self, edits: &[ByteEdit]) -> Option<Self> {
        let mut text = Vec::new();
        splice(&self.to_bytes(), 0, edits, &mut text);
        let edited = Self::of(text.into());
        (!edited.parsed().value_range().is_empty()).then_some(edited)
    }
}

/// What is behind the elements of a list in an envelope of ours.
pub(crate) fn sealed_tail(stamp: Stamp) -> String {
    format!(r#"],"last_modified": {stamp}}}"#)
}

/// Writes a text, which begins at `offset`, with edits of which the offsets count from zero.
pub(super) fn splice(text: &[u8], offset: usize, edits: &[ByteEdit], out: &mut Vec<u8>) {
    looked_at(text.len());
    let mut at = 0;
    for edit in edits {
        let start = edit.start.saturating_sub(offset);
        out.extend_from_slice(&text[at..start.max(at)]);
        out.extend_from_slice(&edit.new);
        at = edit.end() - offset;
    }
    out.extend_from_slice(&text[at..]);
}

/// Entries that are touched by edits, which are replaced together.
pub(super) struct Touched<'a> {
    pub(super) entries: Range<usize>,
    pub(super) edits: Vec<&'a ByteEdit>,
}

impl Outline {
    /// Of an envelope of ours with this tail, with nothing looked at but its ends.
    pub(super) fn unparsed(given: &Bytes, tail: &str) -> Option<Self> {
        let list = given
            .strip_prefix(envelope::PREFIX.as_bytes())?
            .strip_prefix(b"[")?;
        let items = list.strip_suffix(tail.as_bytes())?;
        let head = given.slice(..given.len() - tail.len());
        // A list of which the last byte opens another one is no list.
        if !items.is_empty() && items.ends_with(b"[") {
            return None;
        }
        Some(Self {
            kind: RootKind::Unparsed,
            whole: Some(given.clone()),
            head,
            body: ChunkList::default(),
            tail: Bytes::copy_from_slice(tail.as_bytes()),
            value_start: envelope::PREFIX.len(),
            behind: tail.len() - 1,
            names: super::names::NameIndex::default(),
            padding: 0,
        })
    }

    /// The same with other entries, and with another end.
    fn changed(&self, body: ChunkList, tail: Bytes) -> Self {
        Self {
            kind: self.kind,
            whole: None,
            head: self.head.clone(),
            body,
            value_start: self.value_start,
            behind: tail.len() - 1,
            tail,
            names: self.names.clone(),
            padding: self.padding,
        }
    }

    /// `None` if the edits are not of whole entries, or reach beyond what is between the brackets
    /// of the root and the stamp: then the whole has to be looked at.
    fn edited(&self, edits: &[ByteEdit]) -> Option<Self> {
        let has_entries = matches!(self.kind, RootKind::List | RootKind::Object);
        if !has_entries || self.has_empty_space() || !envelope::has_tail(&self.tail) {
            return None;
        }
        let begin = self.head.len();
        let end = begin + self.body.bytes();
        let behind = edits.partition_point(|edit| edit.end() <= end);
        let (inside, behind) = edits.split_at(behind);
        let mut inside: Vec<ByteEdit> = inside.to_vec();
        let mut tail = self.tail.clone();
        if let Some(first) = behind.first() {
            let mut ending = Vec::new();
            splice(&self.tail, end, behind, &mut ending);
            // An edit that writes the closing bracket anew writes entries before it.
            let close = if first.start <= end {
                closing_bracket(&ending)?
            } else {
                0
            };
            let ending = Bytes::from(ending);
            if first.start <= end {
                inside.push(ByteEdit {
                    start: first.start,
                    old_len: end - first.start,
                    new: ending.slice(..close),
                });
            }
            tail = Bytes::copy_from_slice(&ending[close..]);
            self.is_tail(&tail).then_some(())?;
        }
        if inside.first().is_some_and(|edit| edit.start < begin) {
            return None;
        }

        let mut changed = self.changed(self.body.clone(), tail);
        // From the end: what is before a change stays where it is.
        for touched in self.touched(&inside).into_iter().rev() {
            changed.replace(&touched)?;
        }
        Some(changed)
    }

    /// Whether an envelope whose value is this root may end in this way.
    fn is_tail(&self, tail: &[u8]) -> bool {
        let close = self.kind.brackets()[1];
        let Some((_, digits)) = envelope::tail_of(tail) else {
            return false;
        };
        let compact = [&[close], &br#","last_modified": "#[..]].concat();
        let has_zeros = tail[digits.clone()].starts_with(b"0") && digits.len() > 1;
        if tail[..digits.start] == compact && digits.end + 1 == tail.len() && !has_zeros {
            return true;
        }
        if self.head.len() > SHORT_HEAD {
            return false;
        }
        let without_entries = Bytes::from([&self.head, tail].concat());
        let outline = Self::parse(&without_entries);
        outline.kind == self.kind && outline.head == self.head && outline.tail == tail
    }

    /// Which entries the edits touch. What lies between two of these stays as it is.
    pub(super) fn touched<'e>(&self, edits: &'e [ByteEdit]) -> Vec<Touched<'e>> {
        let mut all: Vec<Touched<'_>> = Vec::new();
        for edit in edits {
            let entries = self.entries_of(edit);
            match all.last_mut() {
                Some(last) if entries.start <= last.entries.end => {
                    last.entries.end = last.entries.end.max(entries.end);
                    last.edits.push(edit);
                }
                _ => all.push(Touched {
                    entries,
                    edits: vec![edit],
                }),
            }
        }
        all
    }

    fn entries_of(&self, edit: &ByteEdit) -> Range<usize> {
        let start = edit.start - self.head.len();
        let end = start + edit.old_len;
        let count = self.body.count();
        let entry_at = |offset| self.body.entry_at(offset).unwrap_or(count);
        if start == 0 {
            let last = end.checked_sub(1).map_or(0, entry_at);
            return 0..(last + 1).min(count);
        }
        let next = entry_at(start);
        // What begins with a comma, or is nothing, changes nothing in the entry before it.
        let is_whole = edit.new.first().is_none_or(|first| *first == b',');
        let first = if self.body.start(next) == start && is_whole {
            next
        } else {
            entry_at(start - 1)
        };
        if edit.old_len == 0 && first == next {
            let is_between = self.body.start(next) == start;
            return first..if is_between { first } else { first + 1 };
        }
        first..entry_at(end - 1) + 1
    }

    /// Replaces the entries that are touched.
    fn replace(&mut self, touched: &Touched<'_>) -> Option<()> {
        let Touched { entries, edits } = touched;
        let is_first = entries.start == 0;
        let start = self.entry_start(entries.start);
        let old = self.text_of(entries.start, entries.end);
        let edits: Vec<ByteEdit> = edits.iter().copied().cloned().collect();
        let mut text = Vec::with_capacity(old.len());
        splice(&old, start, &edits, &mut text);

        let fragment = Fragment::parse(self.kind, text, is_first)?;
        if is_first && fragment.starts.is_empty() && entries.end < self.body.count() {
            return None;
        }
        self.padding = self.padding - self.spaces_in(entries.clone()) + fragment.spaces();
        let rewritten = self
            .body
            .replace(entries.clone(), &fragment.text, &fragment.starts);
        if self.kind == RootKind::Object {
            self.names = self.names.after(&self.body, &rewritten, &fragment);
        }
        Some(())
    }
}

/// Where the bracket is that an envelope's value ends with, if only the stamp is behind it.
fn closing_bracket(ending: &[u8]) -> Option<usize> {
    let (start, _) = envelope::tail_of(ending)?;
    let trimmed = |end: usize| {
        let is_space = |byte: &u8| is_space(char::from(*byte));
        let spaces = ending[..end].iter().rev().take_while(|byte| is_space(byte));
        end - spaces.count()
    };
    let comma = trimmed(start).checked_sub(1)?;
    (ending[comma] == b',')
        .then(|| trimmed(comma))?
        .checked_sub(1)
}

/// Whether two texts in pieces are equal.
pub(super) fn are_equal<'a>(
    one: impl Iterator<Item = &'a Bytes>,
    other: impl Iterator<Item = &'a Bytes>,
) -> bool {
    let (mut one, mut other) = (one.map(|text| &text[..]), other.map(|text| &text[..]));
    let (mut left, mut right): (&[u8], &[u8]) = (&[], &[]);
    loop {
        while left.is_empty() {
            match one.next() {
                Some(next) => left = next,
                None => return right.is_empty() && other.all(<[u8]>::is_empty),
            }
        }
        while right.is_empty() {
            match other.next() {
                Some(next) => right = next,
                None => return false,
            }
        }
        let length = left.len().min(right.len());
        if left[..length] != right[..length] {
            return false;
        }
        (left, right) = (&left[length..], &right[length..]);
    }
}
