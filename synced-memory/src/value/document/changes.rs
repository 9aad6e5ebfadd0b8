//! What differs between two versions of a document, by entry of the root.
//!
//! A version that was made by changes has the chunks of the older one but for those that were
//! touched. So only these are looked at.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::chunks::{Chunk, Piece, sizes};
use super::outline::{Outline, RootKind};
use super::{Document, edit, looked_at};
use crate::value::envelope;

/// The most of what is around the entries that is read again for each of the changes.
const LONGEST_FRAME: usize = 1024;

/// What differs between two versions of a root list or a root object.
#[derive(Debug)]
pub(crate) struct EntryChanges {
    pub(crate) is_object: bool,
    /// How many entries there were, and are; `None` of a list that was never looked at.
    pub(crate) counts: Option<(usize, usize)>,
    /// In order.
    pub(crate) changes: Vec<EntryChange>,
    /// What is before the first entry, and behind the last one.
    head: Bytes,
    tail: Bytes,
}

/// Entries that were replaced by others.
#[derive(Debug)]
pub(crate) struct EntryChange {
    /// How many entries are behind them in the older version.
    pub(crate) behind: usize,
    pub(crate) old: SomeEntries,
    pub(crate) new: SomeEntries,
}

/// Entries that are one behind the other: of each their text, without the comma before it.
#[derive(Debug)]
pub(crate) struct SomeEntries(Vec<Bytes>);

impl SomeEntries {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// An entry of a chunk.
type Place<'a> = (&'a Chunk, usize);

fn places<'a>(pieces: &[&'a Piece]) -> Vec<Place<'a>> {
    let chunks = pieces.iter().map(|piece| &*piece.chunk);
    looked_at(chunks.clone().map(|chunk| chunk.text().len()).sum());
    let entries = chunks.flat_map(|chunk| (0..chunk.count()).map(move |at| (chunk, at)));
    entries.collect()
}

fn without_comma((chunk, at): Place<'_>) -> &[u8] {
    let entry = chunk.entry_bytes(at);
    entry.strip_prefix(b",").unwrap_or(entry)
}

impl SomeEntries {
    fn of(places: &[Place<'_>]) -> Self {
        let text = |place: &Place<'_>| place.0.text().slice_ref(without_comma(*place));
        Self(places.iter().map(text).collect())
    }
}

impl EntryChanges {
    /// A text like that of the document, whose root has these entries alone.
    pub(crate) fn text_of(&self, entries: &SomeEntries) -> Vec<u8> {
        let length = entries.0.iter().map(|entry| entry.len() + 1).sum::<usize>();
        let mut text = Vec::with_capacity(self.head.len() + length + self.tail.len());
        text.extend_from_slice(&self.head);
        for (at, entry) in entries.0.iter().enumerate() {
            if at > 0 {
                text.push(b',');
            }
            text.extend_from_slice(entry);
        }
        text.extend_from_slice(&self.tail);
        text
    }
}

impl Document {
    /// Whether both are one version of one document.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Which entries differ from those of an older version.
    ///
    /// `None` if that cannot be said without a look at the whole, if most of it is another, or if
    /// the value is short.
    pub(crate) fn changes_since(&self, older: &Self) -> Option<EntryChanges> {
        if self.len() < sizes().chunk {
            return None;
        }
        let new = self.outline()?;
        let old = older.outline().or_else(|| {
            let tail = edit::sealed_tail(older.stamp());
            Outline::unparsed(older.0.given.as_ref()?, &tail).map(Arc::new)
        })?;
        let is_unparsed = new.kind == RootKind::Unparsed;
        let has_entries = is_unparsed || matches!(new.kind, RootKind::List | RootKind::Object);
        // A bare object that ends like an envelope counts as one: entries alone would not show it.
        let are_envelopes = envelope::has_tail(&new.tail) && envelope::has_tail(&old.tail);
        let same_head = if is_unparsed {
            new.head.as_ptr_range() == old.head.as_ptr_range()
        } else {
            new.head == old.head
        };
        if !has_entries || new.kind != old.kind || !are_envelopes || !same_head {
            return None;
        }
        let head = if is_unparsed {
            [envelope::PREFIX.as_bytes(), b"["].concat().into()
        } else {
            new.head.clone()
        };
        if head.len() + new.tail.len() > LONGEST_FRAME {
            return None;
        }

        let (before, after): (Vec<_>, Vec<_>) = (
            old.body.all_pieces().collect(),
            new.body.all_pieces().collect(),
        );
        let changes = changes_of(&before, &after, self.len() / 2)?;
        let counts = (old.body.count(), new.body.count());
        Some(EntryChanges {
            is_object: new.kind == RootKind::Object,
            counts: (!is_unparsed).then_some(counts),
            changes,
            head,
            tail: new.tail.clone(),
        })
    }

    /// Whether all of it is UTF-8.
    pub(crate) fn is_utf8(&self) -> bool {
        // No letter is in two of the texts: each begins with a comma or a bracket.
        let texts = self.texts();
        texts.iter().all(|text| std::str::from_utf8(text).is_ok())
    }
}

/// `None` if more than so many bytes are in chunks that only one of them has.
fn changes_of(old: &[&Piece], new: &[&Piece], most: usize) -> Option<Vec<EntryChange>> {
    let is_same = |(old, new): &(&&Piece, &&Piece)| old.content == new.content;
    let before = old.iter().zip(new).take_while(is_same).count();
    let (old, new) = (&old[before..], &new[before..]);
    let behind = old.iter().rev().zip(new.iter().rev());
    let behind = behind.take_while(is_same).count();
    let (old, same) = old.split_at(old.len() - behind);
    let new = &new[..new.len() - behind];

    // Chunks never change places: one that both have ends a change.
    let places: HashMap<u64, usize> = old.iter().map(|piece| piece.content).zip(0..).collect();
    let mut behind: usize = old.iter().chain(same).map(|piece| piece.count()).sum();
    let (mut changes, mut looked) = (Vec::new(), 0);
    let (mut old_from, mut new_from) = (0, 0);
    for at in 0..=new.len() {
        let place = match new.get(at) {
            None => Some(old.len()),
            Some(piece) => places
                .get(&piece.content)
                .copied()
                .filter(|place| *place >= old_from),
        };
        let Some(place) = place else {
            looked += new[at].bytes();
            continue;
        };
        let (removed, added) = (&old[old_from..place], &new[new_from..at]);
        looked += removed.iter().map(|piece| piece.bytes()).sum::<usize>();
        if looked > most {
            return None;
        }
        behind -= removed.iter().map(|piece| piece.count()).sum::<usize>();
        changes.extend(change_of(removed, added, behind));
        if let Some(shared) = old.get(place) {
            behind -= shared.count();
        }
        (old_from, new_from) = (place + 1, at + 1);
    }
    Some(changes)
}

/// What differs between the entries of some chunks; nothing if these are the same.
fn change_of(old: &[&Piece], new: &[&Piece], behind: usize) -> Option<EntryChange> {
    let (old, new) = (places(old), places(new));
    let is_same =
        |(old, new): &(&Place<'_>, &Place<'_>)| without_comma(**old) == without_comma(**new);
    let same_behind = old.iter().rev().zip(new.iter().rev());
    let same_behind = same_behind.take_while(is_same).count();
    let (old, new) = (
        &old[..old.len() - same_behind],
        &new[..new.len() - same_behind],
    );
    let same_before = old.iter().zip(new).take_while(is_same).count();
    let (old, new) = (&old[same_before..], &new[same_before..]);
    let is_change = !(old.is_empty() && new.is_empty());
    is_change.then(|| EntryChange {
        behind: behind + same_behind,
        old: SomeEntries::of(old),
        new: SomeEntries::of(new),
    })
}
