//! Applying a mutation to a document: what [`apply`] makes of its text, as edits.
//!
//! Most operations lead to a few entries of the root. A [`Draft`] has those alone as trees, and the
//! rest is not looked at. What is not like that is applied to the text as a whole.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::edit::ByteEdit;
use super::outline::{Outline, RootKind};
use super::{Document, looked_at, names};
use crate::value::mutation::{
    Action, Applied, ApplyError, Comparison, ConflictRule, Content, Edited, Element, ElementSearch,
    Json, MemberName, Mutation, NodeEdit, NotApplied, Operation, PathStep, TreeNode, apply,
    apply_below, apply_calls, is_space, read_name,
};

/// What a mutation made of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppliedToDocument {
    pub(crate) made: DocumentEdit,
    /// The calls that met something newer, by index, and were skipped.
    pub(crate) superseded: Vec<usize>,
    /// The calls that do not apply, by index, and were skipped.
    pub(crate) failed: Vec<(usize, ApplyError)>,
}

/// How a mutation changes what is stored, but for the stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DocumentEdit {
    /// Nothing was changed.
    Nothing,
    /// These edits of what is stored, all of them inside the value.
    Edits(Vec<ByteEdit>),
    /// What is stored is no JSON, and this is the new value.
    Whole(String),
    /// The whole is removed.
    Removed,
}

/// Applies the calls of a mutation one by one to the value of a document.
pub(crate) fn apply_to(
    document: &Document,
    mutation: &Mutation,
    rule: ConflictRule,
) -> AppliedToDocument {
    let outline = document.parsed();
    apply_to_entries(&outline, mutation, rule)
        .unwrap_or_else(|| apply_to_text(document, mutation, rule))
}

fn apply_to_text(
    document: &Document,
    mutation: &Mutation,
    rule: ConflictRule,
) -> AppliedToDocument {
    let value = document.value();
    looked_at(value.as_bytes().len());
    let Applied {
        made,
        superseded,
        failed,
    } = apply(Some(value.as_str()), mutation, rule);
    let made = match made {
        Edited::Nothing => DocumentEdit::Nothing,
        Edited::Removed => DocumentEdit::Removed,
        Edited::Text(text) if value.as_bytes().is_empty() => DocumentEdit::Whole(text),
        Edited::Text(text) => {
            let edit = ByteEdit {
                start: document.parsed().value_start,
                old_len: value.as_bytes().len(),
                new: text.into(),
            };
            DocumentEdit::Edits(vec![edit.without_equal_ends(value.as_bytes())])
        }
    };
    AppliedToDocument {
        made,
        superseded,
        failed,
    }
}

/// `None` if the operations need more than a few entries.
pub(super) fn apply_to_entries(
    outline: &Outline,
    mutation: &Mutation,
    rule: ConflictRule,
) -> Option<AppliedToDocument> {
    let has_entries = matches!(outline.kind, RootKind::List | RootKind::Object);
    if !has_entries || outline.has_empty_space() {
        return None;
    }
    let mut draft = Draft {
        outline,
        changes: BTreeMap::new(),
        end: Vec::new(),
    };
    let mut is_supported = true;
    let applied = apply_calls(
        &mut draft,
        mutation,
        rule,
        |draft, operation, comparison| {
            let outcome = if is_supported {
                draft.apply(operation, comparison)
            } else {
                None
            };
            is_supported = outcome.is_some();
            // What is decided after that does not count.
            outcome.unwrap_or(Err(NotApplied::Superseded))
        },
    );
    is_supported.then(|| {
        let edits = draft.edits();
        AppliedToDocument {
            made: if edits.is_empty() || changes_nothing(outline, &edits) {
                DocumentEdit::Nothing
            } else {
                DocumentEdit::Edits(edits)
            },
            superseded: applied.superseded,
            failed: applied.failed,
        }
    })
}

/// How many elements of a list may be changed: an index is found by a walk over the changes.
const MANY_CHANGES: usize = 128;

/// A root with changes of some entries.
#[derive(Clone)]
struct Draft<'a> {
    outline: &'a Outline,
    /// By the index of an entry in the document.
    changes: BTreeMap<usize, DraftChange<'a>>,
    /// What is added behind all entries.
    end: Vec<NewEntry<'a>>,
}

#[derive(Clone, Default)]
struct DraftChange<'a> {
    /// What is added before it.
    before: Vec<NewEntry<'a>>,
    state: DraftEntry<'a>,
}

#[derive(Clone, Default)]
enum DraftEntry<'a> {
    #[default]
    Kept,
    Loaded(TreeNode<'a>),
    Removed,
}

#[derive(Clone)]
struct NewEntry<'a> {
    /// Of a member, with its quotes.
    name: Option<Box<str>>,
    node: TreeNode<'a>,
}

/// Where an element is now.
#[derive(Clone, Copy)]
enum ElementPlace {
    /// It is one of the document.
    Stored(usize),
    /// It was added before an element of the document, and is one of several there.
    Before(usize, usize),
    AtEnd(usize),
}

impl<'a> Draft<'a> {
    /// Applies an operation. `None` if it needs more than a few entries.
    fn apply(
        &mut self,
        operation: &'a Operation,
        comparison: Comparison,
    ) -> Option<Result<(), NotApplied>> {
        let Operation { path, action } = operation;
        match (self.outline.kind, path.split_first()) {
            (RootKind::Object, Some((PathStep::Member(member), rest))) => {
                Some(self.apply_to_member(member, (rest, action), comparison))
            }
            (RootKind::List, Some((PathStep::Element(element), rest))) => {
                self.apply_to_element(element, (rest, action), comparison)
            }
            (RootKind::List, None) => match action {
                Action::Append { items } => {
                    self.end.extend(items.iter().map(NewEntry::of));
                    Some(Ok(()))
                }
                Action::InsertAt { before, items } => self.insert(before, items),
                _ => None,
            },
            _ => None,
        }
    }

    fn apply_to_member(
        &mut self,
        member: &'a MemberName,
        (path, action): (&'a [PathStep], &'a Action),
        comparison: Comparison,
    ) -> Result<(), NotApplied> {
        let at = member.position(|name| self.last_member(name));
        let node = at.map(|at| self.member_node(at));
        let origin = member.origin.as_ref();
        let elements = &mut ElementSearch::ByName;
        match (
            apply_below(node, origin, (path, action), comparison, elements)?,
            at,
        ) {
            (NodeEdit::Keep, _) => {}
            (NodeEdit::Replace(node), Some(at)) => *self.member_node(at) = node,
            (NodeEdit::Replace(node), None) => self.end.push(NewEntry {
                name: Some(serde_json::Value::from(&*member.name).to_string().into()),
                node,
            }),
            // All that have its name: an earlier one would count once the last one is gone.
            (NodeEdit::Remove, _) => {
                for name in member.names() {
                    for at in self.outline.positions(name) {
                        self.changes.entry(at).or_default().state = DraftEntry::Removed;
                    }
                    self.end.retain(|entry| !entry.has_name(name));
                }
            }
        }
        Ok(())
    }

    /// The index of the last member with a name; of those that are new, counted from the end of the
    /// document.
    fn last_member(&self, name: &str) -> Option<usize> {
        let added = self.end.iter().rposition(|entry| entry.has_name(name));
        if let Some(added) = added {
            return Some(self.outline.body.count() + added);
        }
        let stored = self.outline.positions(name);
        let is_there = |at: &usize| {
            let change = self.changes.get(at);
            !matches!(
                change.map(|change| &change.state),
                Some(DraftEntry::Removed)
            )
        };
        stored.into_iter().rev().find(is_there)
    }

    fn member_node(&mut self, at: usize) -> &mut TreeNode<'a> {
        match at.checked_sub(self.outline.body.count()) {
            Some(added) => &mut self.end[added].node,
            None => self.stored_node(at),
        }
    }

    fn apply_to_element(
        &mut self,
        element: &Element,
        (path, action): (&'a [PathStep], &'a Action),
        comparison: Comparison,
    ) -> Option<Result<(), NotApplied>> {
        let place = self.find(element)?;
        let node = match place {
            ElementPlace::Stored(at) => self.stored_node(at),
            ElementPlace::Before(at, index) => &mut self.changes.get_mut(&at)?.before[index].node,
            ElementPlace::AtEnd(index) => &mut self.end[index].node,
        };
        let elements = &mut ElementSearch::ByName;
        let edit = match apply_below(Some(node), None, (path, action), comparison, elements) {
            Ok(edit) => edit,
            Err(error) => return Some(Err(error)),
        };
        match (edit, place) {
            (NodeEdit::Keep, _) => {}
            (NodeEdit::Replace(new), _) => *node = new,
            (NodeEdit::Remove, ElementPlace::Stored(at)) => {
                self.changes.entry(at).or_default().state = DraftEntry::Removed;
            }
            (NodeEdit::Remove, ElementPlace::Before(at, index)) => {
                self.changes.get_mut(&at)?.before.remove(index);
            }
            (NodeEdit::Remove, ElementPlace::AtEnd(index)) => _ = self.end.remove(index),
        }
        Some(Ok(()))
    }

    fn insert(&mut self, before: &Element, items: &'a [Json]) -> Option<Result<(), NotApplied>> {
        let items = items.iter().map(NewEntry::of);
        match self.find(before)? {
            ElementPlace::Stored(at) => {
                let change = self.changes.entry(at).or_default();
                change.before.extend(items);
            }
            ElementPlace::Before(at, index) => {
                let entries = &mut self.changes.get_mut(&at)?.before;
                entries.splice(index..index, items);
            }
            ElementPlace::AtEnd(index) => _ = self.end.splice(index..index, items),
        }
        Some(Ok(()))
    }

    /// Where an element is that is found where it was, beside the same ones.
    fn find(&self, element: &Element) -> Option<ElementPlace> {
        if self.changes.len() > MANY_CHANGES {
            return None;
        }
        let content = |at| self.content(at);
        let body = &self.outline.body;
        let is_as_stored = self.changes.is_empty() && self.end.is_empty();
        let has_stayed = element.has_stayed(content)
            || is_as_stored
                && element.has_stayed_among_equals(content, |content, at| {
                    body.equal_elements(content, at)
                });
        has_stayed.then(|| self.place(element.index)).flatten()
    }

    fn content(&self, at: usize) -> Option<Content> {
        let added = |entry: &NewEntry<'_>| entry.node.content();
        Some(match self.place(at)? {
            ElementPlace::Stored(at) => match self.changes.get(&at).map(|change| &change.state) {
                Some(DraftEntry::Loaded(node)) => node.content(),
                _ => Content::of(self.stored(at)),
            },
            ElementPlace::Before(at, index) => added(&self.changes[&at].before[index]),
            ElementPlace::AtEnd(index) => added(&self.end[index]),
        })
    }

    /// Where the element with this index is.
    fn place(&self, index: usize) -> Option<ElementPlace> {
        // How many of the stored ones, and of all, are before what is looked at.
        let (mut stored, mut passed) = (0, 0);
        for (at, change) in &self.changes {
            let kept = at - stored;
            if index < passed + kept {
                return Some(ElementPlace::Stored(stored + index - passed));
            }
            passed += kept;
            if index < passed + change.before.len() {
                return Some(ElementPlace::Before(*at, index - passed));
            }
            passed += change.before.len();
            if !matches!(change.state, DraftEntry::Removed) {
                if index == passed {
                    return Some(ElementPlace::Stored(*at));
                }
                passed += 1;
            }
            stored = at + 1;
        }
        let kept = self.outline.body.count() - stored;
        if index < passed + kept {
            return Some(ElementPlace::Stored(stored + index - passed));
        }
        let added = index - passed - kept;
        (added < self.end.len()).then_some(ElementPlace::AtEnd(added))
    }

    fn stored_node(&mut self, at: usize) -> &mut TreeNode<'a> {
        let text = self.stored(at);
        let change = self.changes.entry(at).or_default();
        if !matches!(change.state, DraftEntry::Loaded(_)) {
            change.state = DraftEntry::Loaded(text.into());
        }
        match &mut change.state {
            DraftEntry::Loaded(node) => node,
            DraftEntry::Kept | DraftEntry::Removed => unreachable!("it was loaded just now"),
        }
    }

    /// The value of an entry as it is stored.
    fn stored(&self, at: usize) -> &'a str {
        let outline = self.outline;
        let Some((place, at)) = outline.body.find(at) else {
            return "";
        };
        let entry = outline.body.chunk(place).entry_bytes(at);
        looked_at(entry.len());
        let value = names::value_in(entry, outline.kind == RootKind::Object);
        std::str::from_utf8(&entry[value]).unwrap_or_default()
    }

    /// What was changed, in order.
    fn edits(&self) -> Vec<ByteEdit> {
        let mut edits = EditList::new(self.outline);
        let mut next = 0;
        for (at, change) in &self.changes {
            if next < *at {
                edits.keep(next);
            }
            edits.add(*at, &change.before);
            match &change.state {
                DraftEntry::Kept => edits.keep(*at),
                DraftEntry::Loaded(node) => {
                    edits.keep(*at);
                    edits.change(*at, self.stored(*at), node);
                }
                DraftEntry::Removed => edits.remove(*at),
            }
            next = at + 1;
        }
        let count = self.outline.body.count();
        if next < count {
            edits.keep(next);
        }
        edits.add(count, &self.end);
        edits.finish()
    }
}

impl<'a> NewEntry<'a> {
    fn of(item: &'a Json) -> Self {
        Self {
            name: None,
            node: item.into(),
        }
    }

    fn has_name(&self, name: &str) -> bool {
        let own = self.name.as_deref();
        own.is_some_and(|own| read_name(own) == name)
    }
}

/// Edits of entries, from the first to the last.
struct EditList<'a> {
    outline: &'a Outline,
    edits: Vec<ByteEdit>,
    /// No entry of what is made is before the next one.
    is_first: bool,
}

impl<'a> EditList<'a> {
    fn new(outline: &'a Outline) -> Self {
        Self {
            outline,
            edits: Vec::new(),
            is_first: true,
        }
    }

    /// An entry stays, and so do those behind it. All but the first have a comma before them.
    fn keep(&mut self, at: usize) {
        let was_first = std::mem::replace(&mut self.is_first, false);
        match (was_first, at == 0) {
            (true, false) => self.push(self.outline.entry_start(at), 1, Bytes::new()),
            (false, true) => self.push(self.outline.entry_start(0), 0, Bytes::from_static(b",")),
            (true, true) | (false, false) => {}
        }
    }

    fn remove(&mut self, at: usize) {
        let start = self.outline.entry_start(at);
        let length = self.outline.entry_start(at + 1) - start;
        self.push(start, length, Bytes::new());
    }

    fn add(&mut self, at: usize, entries: &[NewEntry<'_>]) {
        if entries.is_empty() {
            return;
        }
        let mut text = String::new();
        for entry in entries {
            if !std::mem::replace(&mut self.is_first, false) {
                text.push(',');
            }
            if let Some(name) = &entry.name {
                text.push_str(name);
                text.push(':');
            }
            entry.node.write(&mut text);
        }
        self.push(self.outline.entry_start(at), 0, text.into());
    }

    fn change(&mut self, at: usize, stored: &str, node: &TreeNode<'_>) {
        let Some(range) = self.outline.range_at(at) else {
            return;
        };
        if let Some((text, items)) = node.grown()
            && std::ptr::eq(text, stored)
        {
            let inner = &stored[1..stored.len() - 1];
            let mut is_first = inner.trim_start_matches(is_space).is_empty();
            let mut added = String::new();
            for item in items {
                if !std::mem::take(&mut is_first) {
                    added.push(',');
                }
                added.push_str(item);
            }
            self.push(range.end - 1, 0, added.into());
            return;
        }
        if !node
            .unchanged()
            .is_some_and(|text| std::ptr::eq(text, stored))
        {
            let text = node.to_text().into_owned();
            looked_at(text.len());
            let edit = ByteEdit {
                start: range.start,
                old_len: range.len(),
                new: text.into(),
            };
            let ByteEdit {
                start,
                old_len,
                new,
            } = edit.without_equal_ends(stored.as_bytes());
            self.push(start, old_len, new);
        }
    }

    /// Adds an edit to the last one if nothing is between them.
    fn push(&mut self, start: usize, old_len: usize, new: Bytes) {
        match self.edits.last_mut() {
            Some(last) if last.start + last.old_len == start => {
                last.old_len += old_len;
                last.new = [&last.new[..], &new].concat().into();
            }
            _ => self.edits.push(ByteEdit {
                start,
                old_len,
                new,
            }),
        }
    }

    /// Without what is the same before and after an edit.
    fn finish(self) -> Vec<ByteEdit> {
        let outline = self.outline;
        let trimmed = self.edits.into_iter().map(|edit| {
            if edit.old_len == 0 || edit.new.is_empty() {
                return edit;
            }
            let old: Vec<u8> = bytes_from(outline, edit.start).take(edit.old_len).collect();
            edit.without_equal_ends(&old)
        });
        let is_change = |edit: &ByteEdit| edit.old_len > 0 || !edit.new.is_empty();
        trimmed.filter(is_change).collect()
    }
}

impl ByteEdit {
    /// The same without what `old`, which is replaced, begins and ends with after it too. Cuts no
    /// letter.
    fn without_equal_ends(self, old: &[u8]) -> Self {
        let new = &self.new;
        let is_inside = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xc0 == 0x80);
        let equal = |(old, new): &(&u8, &u8)| old == new;
        let mut before = old.iter().zip(new).take_while(equal).count();
        while before > 0 && (is_inside(old.get(before)) || is_inside(new.get(before))) {
            before -= 1;
        }
        let (rest, new_rest) = (&old[before..], &new[before..]);
        let pairs = rest.iter().rev().zip(new_rest.iter().rev());
        let mut behind = pairs.take_while(equal).count();
        while behind > 0 && is_inside(rest.get(rest.len() - behind)) {
            behind -= 1;
        }
        Self {
            start: self.start + before,
            old_len: rest.len() - behind,
            new: new.slice(before..new.len() - behind),
        }
    }
}

/// Whether edits that are all of something come to the same text: an element was removed, and its
/// equal added elsewhere.
fn changes_nothing(outline: &Outline, edits: &[ByteEdit]) -> bool {
    let (Some(first), Some(last)) = (edits.first(), edits.last()) else {
        return true;
    };
    let removed: usize = edits.iter().map(|edit| edit.old_len).sum();
    let added: usize = edits.iter().map(|edit| edit.new.len()).sum();
    if removed != added {
        return false;
    }
    let length = last.start + last.old_len - first.start;
    let mut at = first.start;
    let parts = edits.iter().flat_map(|edit| {
        let kept = bytes_from(outline, at).take(edit.start - at);
        at = edit.start + edit.old_len;
        kept.chain(edit.new.iter().copied())
    });
    parts.eq(bytes_from(outline, first.start).take(length))
}

fn bytes_from(outline: &Outline, offset: usize) -> impl Iterator<Item = u8> {
    let texts = outline.texts_from(offset);
    texts.flatten().copied().inspect(|_| looked_at(1))
}
