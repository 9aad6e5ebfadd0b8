//! Where the entries of a root are. Values are skipped, not decoded.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::chunks::ChunkList;
use super::looked_at;
use super::names::NameIndex;
use crate::value::envelope::{self, Text};

/// What kind of value a document holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootKind {
    List,
    Object,
    /// It has no entries: a string, a number, or no JSON at all.
    Plain,
    /// A list to which was added without parsing what is there.
    Unparsed,
}

impl RootKind {
    pub(super) fn brackets(self) -> [u8; 2] {
        if self == Self::Object { *b"{}" } else { *b"[]" }
    }
}

/// A text, divided into what is before the entries of its root, the entries, and what is behind
/// them.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) kind: RootKind,
    /// The text in one piece, if it is in one.
    pub(super) whole: Option<Bytes>,
    /// With the opening bracket of the root and, as long as there is no entry, the white space
    /// behind it. The whole text if the root is plain.
    pub(super) head: Bytes,
    pub(super) body: ChunkList,
    /// From the closing bracket of the root on.
    pub(super) tail: Bytes,
    /// Where the value begins, and how many bytes are behind it.
    pub(super) value_start: usize,
    pub(super) behind: usize,
    pub(super) names: NameIndex,
    /// How many spaces are behind entries.
    pub(super) padding: usize,
}

impl Outline {
    /// Looks at the whole text once.
    pub(super) fn parse(whole: &Bytes) -> Self {
        looked_at(whole.len());
        locate_entries(whole).unwrap_or_else(|| Self::plain(whole))
    }

    fn plain(whole: &Bytes) -> Self {
        let value = range_of(whole, &envelope::value_of(whole));
        Self {
            kind: RootKind::Plain,
            whole: Some(whole.clone()),
            head: whole.clone(),
            body: ChunkList::default(),
            tail: Bytes::new(),
            value_start: value.start,
            behind: whole.len() - value.end,
            names: NameIndex::default(),
            padding: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.bytes() + self.tail.len()
    }

    pub(super) fn value_range(&self) -> Range<usize> {
        self.value_start..self.len() - self.behind
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &Bytes> {
        let ends = [&self.head, &self.tail];
        let [head, tail] = ends.map(std::iter::once);
        head.chain(self.body.texts()).chain(tail)
    }

    /// The text from this offset on.
    pub(super) fn texts_from(&self, offset: usize) -> impl Iterator<Item = &[u8]> {
        let head = self.head.get(offset..).unwrap_or_default();
        let in_body = offset.saturating_sub(self.head.len());
        let in_tail = in_body.saturating_sub(self.body.bytes());
        let tail = self.tail.get(in_tail..).unwrap_or_default();
        let body = self.body.texts_from(in_body);
        std::iter::once(head).chain(body).chain([tail])
    }

    /// Some of the bytes.
    pub(super) fn bytes_in(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(range.len());
        for text in self.texts_from(range.start) {
            let left = range.len() - bytes.len();
            if left == 0 {
                break;
            }
            bytes.extend_from_slice(&text[..left.min(text.len())]);
        }
        bytes
    }

    /// The whole text, copied into one piece if it is not in one.
    pub(super) fn join(&self) -> Bytes {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        looked_at(self.len());
        let mut whole = Vec::with_capacity(self.len());
        self.texts().for_each(|text| whole.extend_from_slice(text));
        whole.into()
    }

    /// The same, with this text in one piece, of which its chunks become slices.
    pub(super) fn of_whole(&self, whole: &Bytes) -> Self {
        let body = self.head.len()..whole.len() - self.tail.len();
        Self {
            kind: self.kind,
            whole: Some(whole.clone()),
            head: if self.kind == RootKind::Unparsed {
                whole.slice(..body.start)
            } else {
                self.head.clone()
            },
            body: self.body.of_text(&whole.slice(body)),
            tail: self.tail.clone(),
            value_start: self.value_start,
            behind: self.behind,
            names: self.names.clone(),
            padding: self.padding,
        }
    }

    /// Whether there is no entry, but white space where entries would be.
    pub(super) fn has_empty_space(&self) -> bool {
        self.body.count() == 0 && !self.head.ends_with(&self.kind.brackets()[..1])
    }

    /// Where an entry begins in the whole text.
    pub(super) fn entry_start(&self, at: usize) -> usize {
        self.head.len() + self.body.start(at)
    }
}

/// `None` if the root has no entries.
fn locate_entries(whole: &Bytes) -> Option<Outline> {
    if let Some(start) = own_value_start(whole)
        && envelope::has_tail(whole)
    {
        let kind = kind_at(whole, start)?;
        let ends = match kind {
            RootKind::List => ends_in_envelope::<ElementEnds>(whole)?,
            _ => ends_in_envelope::<MemberEnds>(whole)?,
        };
        return divide(whole, kind, start, &ends);
    }
    let value = envelope::value_of(whole);
    let Range { start, end } = range_of(whole, &value);
    let kind = kind_at(whole, start)?;
    let ends = ends_of(kind, whole.get(start..end)?)?;
    divide(whole, kind, start, &ends)
}

/// Where the value begins if it is the first member of an envelope, or what looks like one.
fn own_value_start(whole: &[u8]) -> Option<usize> {
    let mut at = 0;
    for token in [&b"{"[..], b"\"value\"", b":"] {
        at += spaces(&whole[at..]);
        whole[at..].starts_with(token).then_some(())?;
        at += token.len();
    }
    Some(at + spaces(&whole[at..]))
}

fn kind_at(whole: &[u8], start: usize) -> Option<RootKind> {
    match whole.get(start)? {
        b'[' => Some(RootKind::List),
        b'{' => Some(RootKind::Object),
        _ => None,
    }
}

/// Divides a text whose root begins at `start`, and whose entries end at these addresses.
fn divide(whole: &Bytes, kind: RootKind, start: usize, ends: &[usize]) -> Option<Outline> {
    let inner = start + 1;
    let offset = |end: &usize| end - whole.as_ptr().addr();
    let (body, starts, padding) = if ends.is_empty() {
        let body = inner + spaces(&whole[inner..]);
        (body..body, Vec::new(), 0)
    } else {
        let starts = starts_behind(whole, ends.iter().map(offset));
        let behind = starts.iter().zip(ends);
        let padding = behind.map(|(start, end)| start - offset(end)).sum();
        let (close, starts) = starts.split_last()?;
        let starts = starts.iter().map(|start| start - inner).collect();
        (inner..*close, starts, padding)
    };
    (whole.get(body.end) == Some(&kind.brackets()[1])).then_some(())?;
    // Copies, so that they keep no long text in memory.
    let copy = |range: Range<usize>| Bytes::copy_from_slice(&whole[range]);
    Some(Outline {
        kind,
        whole: Some(whole.clone()),
        head: copy(0..body.start),
        body: ChunkList::cut(&whole.slice(body.clone()), &starts),
        tail: copy(body.end..whole.len()),
        value_start: start,
        behind: whole.len() - body.end - 1,
        names: NameIndex::default(),
        padding,
    })
}

/// Where each of the values, which end at these offsets, is followed by a comma or a bracket.
fn starts_behind(text: &[u8], ends: impl Iterator<Item = usize>) -> Vec<usize> {
    ends.map(|end| end + spaces(&text[end..])).collect()
}

/// Some entries of a root, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Fragment {
    /// The entries: the first one with a comma before it, unless it is the first of its root.
    pub(super) text: Vec<u8>,
    /// Where each of them begins.
    pub(super) starts: Vec<usize>,
}

impl Fragment {
    /// Looks where the entries of a text are. `None` if it is no JSON.
    pub(super) fn parse(kind: RootKind, text: Vec<u8>, is_first: bool) -> Option<Self> {
        looked_at(text.len());
        let [open, close] = kind.brackets();
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut bracketed = Vec::with_capacity(text.len() + 2);
        bracketed.push(open);
        if is_first {
            bracketed.extend_from_slice(&text);
        } else {
            bracketed.extend_from_slice(text.strip_prefix(b",")?);
        }
        bracketed.push(close);
        let ends = ends_of(kind, &bracketed)?;
        if ends.is_empty() {
            return None;
        }
        // What stands before the first entry in `bracketed` and not in `text`.
        let more = usize::from(is_first);
        let ends = ends.iter().map(|end| end - bracketed.as_ptr().addr());
        let mut starts = starts_behind(&bracketed, ends);
        starts.pop();
        let starts = starts.iter().map(|start| start - more);
        Some(Self {
            starts: std::iter::once(0).chain(starts).collect(),
            text,
        })
    }

    /// Entries that are JSON already, to be added to others.
    pub(super) fn of_items(items: &[&str], is_first: bool) -> Self {
        let length = items.iter().map(|item| item.len() + 1).sum();
        let mut fragment = Self {
            text: Vec::with_capacity(length),
            starts: Vec::with_capacity(items.len()),
        };
        for item in items {
            fragment.starts.push(fragment.text.len());
            if !is_first || fragment.starts.len() > 1 {
                fragment.text.push(b',');
            }
            fragment.text.extend_from_slice(item.as_bytes());
        }
        fragment
    }
}

/// The addresses at which the values end in a list or an object.
fn ends_of(kind: RootKind, text: &[u8]) -> Option<Vec<usize>> {
    match kind {
        RootKind::List => ElementEnds::ends(text),
        RootKind::Object => MemberEnds::ends(text),
        RootKind::Plain | RootKind::Unparsed => None,
    }
}

fn ends_in_envelope<'a, E: EntryParser<'a>>(whole: &'a [u8]) -> Option<Vec<usize>> {
    #[derive(Deserialize)]
    struct Envelope<E> {
        value: E,
    }
    let envelope = serde_json::from_slice::<Envelope<EntryEnds<E>>>(whole).ok()?;
    Some(envelope.value.0)
}

/// How many bytes of white space a text begins with.
pub(super) fn spaces(text: &[u8]) -> usize {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    text.iter().take_while(|byte| is_space(byte)).count()
}

/// Where a part of a text is in it.
fn range_of(whole: &Bytes, part: &Text) -> Range<usize> {
    let part = part.as_bytes();
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// Elements of a list, or members of an object.
trait EntryParser<'a>: Sized {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Vec<usize>, D::Error>;

    fn ends(text: &'a [u8]) -> Option<Vec<usize>> {
        let ends = serde_json::from_slice::<EntryEnds<Self>>(text).ok()?;
        Some(ends.0)
    }
}

/// Where they end.
struct EntryEnds<E>(Vec<usize>, PhantomData<E>);

impl<'de, E: EntryParser<'de>> Deserialize<'de> for EntryEnds<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        E::deserialize(deserializer).map(|ends| Self(ends, PhantomData))
    }
}

struct ElementEnds;
struct MemberEnds;

impl<'a> EntryParser<'a> for ElementEnds {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
        deserializer.deserialize_seq(Self)
    }
}

impl<'a> EntryParser<'a> for MemberEnds {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for ElementEnds {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut ends = Vec::new();
        while let Some(element) = list.next_element::<&RawValue>()? {
            ends.push(end_of(element));
        }
        Ok(ends)
    }
}

impl<'de> Visitor<'de> for MemberEnds {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut ends = Vec::new();
        while let Some((_, value)) = object.next_entry::<&RawValue, &RawValue>()? {
            ends.push(end_of(value));
        }
        Ok(ends)
    }
}

fn end_of(part: &RawValue) -> usize {
    part.get().as_bytes().as_ptr_range().end.addr()
}
