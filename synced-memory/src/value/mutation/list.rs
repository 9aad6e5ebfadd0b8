//! What was done to a list: the elements that stay, and operations that each name an element in the
//! list as the ones before have left it.

use std::collections::HashMap;

use super::apply::apply_one;
use super::diff::{at_root, prefixed, set_operation};
use super::{Action, Content, Element, Json, ObservedValue, Operation, PathStep};
use crate::value::shape::Shape;

/// Records operations on a list, which changes with each of them.
pub(super) struct Editor {
    contents: Vec<Content>,
    /// How many elements have each content.
    counts: HashMap<Content, usize>,
    pub(super) operations: Vec<Operation>,
}

impl Editor {
    pub(super) fn new(contents: Vec<Content>) -> Self {
        let mut editor = Self {
            contents: Vec::new(),
            counts: HashMap::new(),
            operations: Vec::new(),
        };
        editor.count(&contents);
        editor.contents = contents;
        editor
    }

    fn element(&self, at: usize) -> Option<Element> {
        let content = self.contents.get(at)?;
        // Most lists are of unequal elements: then there is nothing to count.
        if self.counts.get(content) == Some(&1) {
            Element::unique(&self.contents, at)
        } else {
            Element::of(&self.contents, at)
        }
    }

    fn set_content(&mut self, at: usize, content: Content) {
        let before = std::mem::replace(&mut self.contents[at], content);
        self.uncount(before);
        self.count(&[content]);
    }

    fn count(&mut self, contents: &[Content]) {
        for content in contents {
            *self.counts.entry(*content).or_default() += 1;
        }
    }

    fn uncount(&mut self, content: Content) {
        if let Some(count) = self.counts.get_mut(&content) {
            *count -= 1;
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        let Some(element) = self.element(at) else {
            return;
        };
        let removal = at_root(Action::Remove {
            seen: ObservedValue::Content(element.content),
        });
        self.operations
            .extend(prefixed(&PathStep::Element(element), vec![removal]));
        let removed = self.contents.remove(at);
        self.uncount(removed);
    }

    pub(super) fn insert(&mut self, at: usize, items: Vec<Json>) {
        if items.is_empty() {
            return;
        }
        let contents: Vec<Content> = items
            .iter()
            .map(|item| Content::of(item.as_str()))
            .collect();
        let action = match self.element(at) {
            Some(before) => Action::InsertAt { before, items },
            None => Action::Append { items },
        };
        self.operations.push(at_root(action));
        self.count(&contents);
        self.contents.splice(at..at, contents);
    }

    /// Makes these changes, with paths from the element.
    pub(super) fn change(
        &mut self,
        at: usize,
        stored: &str,
        (before, after): (&Shape, &str),
        changes: Vec<Operation>,
    ) {
        let first = self.operations.len();
        if self.apply_changes(at, stored, changes).is_none() {
            // The stored text is not what the type writes: the element is replaced as a whole.
            self.operations.truncate(first);
            self.set_content(at, Content::of(stored));
            self.replace(at, stored, before, after);
        }
    }

    /// `None` if one of them does not apply.
    pub(super) fn apply_changes(
        &mut self,
        at: usize,
        stored: &str,
        changes: Vec<Operation>,
    ) -> Option<()> {
        let mut now = stored.to_owned();
        for change in changes {
            let result = apply_one(&now, &change)?;
            let element = self.element(at)?;
            self.operations
                .extend(prefixed(&PathStep::Element(element), vec![change]));
            self.set_content(at, Content::of(&result));
            now = result;
        }
        Some(())
    }

    fn replace(&mut self, at: usize, stored: &str, before: &Shape, after: &str) {
        if let Some(element) = self.element(at) {
            self.operations.extend(prefixed(
                &PathStep::Element(element),
                vec![set_operation(stored, before, after)],
            ));
        }
        self.set_content(at, Content::of(after));
    }
}

/// The elements that stay, as pairs of indexes, of which both rise.
pub(super) fn kept(before: &[Content], after: &[Content]) -> Vec<(usize, usize)> {
    let prefix = before
        .iter()
        .zip(after)
        .take_while(|(old, new)| old == new)
        .count();
    let suffix = before[prefix..]
        .iter()
        .rev()
        .zip(after[prefix..].iter().rev())
        .take_while(|(old, new)| old == new)
        .count();
    let (old, new) = (before.len() - suffix, after.len() - suffix);
    let middle = kept_between(&before[prefix..old], &after[prefix..new]);
    (0..prefix)
        .map(|at| (at, at))
        .chain(
            middle
                .into_iter()
                .map(|(from, to)| (prefix + from, prefix + to)),
        )
        .chain((0..suffix).map(|at| (old + at, new + at)))
        .collect()
}

fn kept_between(before: &[Content], after: &[Content]) -> Vec<(usize, usize)> {
    // If elements were only removed, or only added, each pair is found in one walk.
    if let Some(pairs) = indexes_of(after, before) {
        return pairs
            .into_iter()
            .enumerate()
            .map(|(to, from)| (from, to))
            .collect();
    }
    if let Some(pairs) = indexes_of(before, after) {
        return pairs.into_iter().enumerate().collect();
    }
    // Otherwise equal elements are paired by occurrence, and the longest run of pairs in which both
    // indexes rise is kept.
    let mut counts = HashMap::new();
    let mut targets = HashMap::new();
    for (to, content) in after.iter().enumerate() {
        let count = counts.entry(*content).or_insert(0_usize);
        targets.insert((*content, *count), to);
        *count += 1;
    }
    counts.clear();
    let mut pairs = Vec::new();
    for (from, content) in before.iter().enumerate() {
        let count = counts.entry(*content).or_insert(0_usize);
        pairs.extend(targets.get(&(*content, *count)).map(|to| (from, *to)));
        *count += 1;
    }
    longest_rise(&pairs)
}

/// The indexes of the elements of `part` in `whole`, in order; `None` if one is missing.
fn indexes_of(part: &[Content], whole: &[Content]) -> Option<Vec<usize>> {
    let mut indexed = whole.iter().enumerate();
    part.iter()
        .map(|content| {
            indexed
                .find(|(_, other)| *other == content)
                .map(|(at, _)| at)
        })
        .collect()
}

/// The longest part of `pairs` whose second numbers rise (patience sorting).
fn longest_rise(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut tops: Vec<usize> = Vec::new();
    let mut before = vec![None; pairs.len()];
    for (index, (_, to)) in pairs.iter().enumerate() {
        let pile = tops.partition_point(|top| pairs[*top].1 < *to);
        before[index] = pile.checked_sub(1).map(|pile| tops[pile]);
        if pile == tops.len() {
            tops.push(index);
        } else {
            tops[pile] = index;
        }
    }
    let mut rise: Vec<_> = std::iter::successors(tops.last().copied(), |index| before[*index])
        .map(|index| pairs[index])
        .collect();
    rise.reverse();
    rise
}

pub(super) fn is_permutation(before: &[Content], after: &[Content]) -> bool {
    let [mut before, mut after] = [before, after].map(<[_]>::to_vec);
    before.sort_unstable();
    after.sort_unstable();
    before == after
}
