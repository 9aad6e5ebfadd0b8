//! What a closure made of a value, as operations.

use super::apply::apply_one;
use super::text::{self, elements, is_space, kind, members};
use super::{Action, Content, Element, Json, Member, Operation, Seen, Step};
use std::collections::{HashMap, HashSet};

/// What differs deeper is replaced as a whole.
const DEPTH: usize = 32;

/// What changed from `before` to `after`, as operations on `stored`.
///
/// `stored` is the text that is there, and `before` the same value as its type writes it: what the
/// type does not know, or does not write the same, was changed by nobody. Each member and element is
/// compared and replaced where it differs; a list of which nothing was kept, or most was moved, as a
/// whole.
pub(crate) fn diff(stored: &str, before: &str, after: &str) -> Vec<Operation> {
    let [stored, before, after] = [stored, before, after].map(|text| text.trim_matches(is_space));
    value(Some(stored), before, after, 0)
}

/// The same for lists that are sets: order does not count.
pub(crate) fn diff_of_sets(before: &str, after: &str) -> Vec<Operation> {
    let (Ok(old), Ok(new)) = (elements(before), elements(after)) else { return diff(before, before, after) };
    let missing = |of: &[&str], from: &[&str]| -> Vec<Json> {
        let contents: HashSet<Content> = from.iter().map(|item| Content::of(item)).collect();
        of.iter().filter(|item| !contents.contains(&Content::of(item))).map(|item| json(item)).collect()
    };
    let actions = [Action::Exclude { items: missing(&old, &new) }, Action::Include { items: missing(&new, &old) }];
    let changes =
        |action: &Action| matches!(action, Action::Exclude { items } | Action::Include { items } if !items.is_empty());
    actions.into_iter().filter(changes).map(here).collect()
}

/// A part of a valid text.
fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).expect("a part of valid JSON is valid")
}

fn here(action: Action) -> Operation {
    Operation { path: Vec::new(), action }
}

fn set(stored: Option<&str>, after: &str) -> Operation {
    here(Action::Set { value: json(after), seen: stored.map(Content::of).into() })
}

fn below(step: &Step, operations: Vec<Operation>) -> impl Iterator<Item = Operation> {
    operations.into_iter().map(move |mut operation| {
        operation.path.insert(0, step.clone());
        operation
    })
}

/// The paths are from here.
fn value(stored: Option<&str>, before: &str, after: &str, depth: usize) -> Vec<Operation> {
    if before == after || Content::as_read(before) == Content::as_read(after) {
        return Vec::new();
    }
    let kinds = (kind(before), kind(after), stored.map_or(kind(before), kind));
    let parts = match kinds {
        _ if depth == DEPTH => None,
        (text::OBJECT, text::OBJECT, text::OBJECT) => object(stored, before, after, depth),
        (text::LIST, text::LIST, text::LIST) => list(stored.unwrap_or(before), before, after, depth),
        _ => None,
    };
    parts.unwrap_or_else(|| vec![set(stored, after)])
}

fn object(stored: Option<&str>, before: &str, after: &str, depth: usize) -> Option<Vec<Operation>> {
    let has_stored = stored.is_some();
    let stored = stored.map_or(Some(Vec::new()), read_members)?;
    let (before, after) = (read_members(before)?, read_members(after)?);
    let [in_stored, in_before, in_after] = [&stored, &before, &after].map(|members| by_name(members));
    let mut operations = Vec::new();
    for (name, old) in &before {
        let found = in_stored.get(&**name).copied();
        let mut member = Member::new(name);
        match in_after.get(&**name) {
            // What was not stored is made from what it was taken for.
            Some(new) => {
                let changes = value(found, old, new, depth + 1);
                member.origin = found.is_none().then(|| json(old));
                operations.extend(below(&Step::Member(member), changes));
            }
            None if found.is_none() && has_stored => {}
            // Where the whole is only taken to be there, so is what goes from it.
            None => {
                let removal = here(Action::Remove { seen: Some(Content::of(found.unwrap_or(old))).into() });
                operations.extend(below(&Step::Member(member), vec![removal]));
            }
        }
    }
    for (name, new) in after.iter().filter(|(name, _)| !in_before.contains_key(&**name)) {
        let found = in_stored.get(&**name).copied();
        operations.extend(below(&Step::Member(Member::new(name)), vec![set(found, new)]));
    }
    Some(operations)
}

/// The members by name, the last one of each.
fn read_members(object: &str) -> Option<Vec<(String, &str)>> {
    let mut read: Vec<(String, &str)> = Vec::new();
    let mut seen = HashSet::new();
    for (name, value) in members(object).ok()?.into_iter().rev() {
        let name: String = serde_json::from_str(name).ok()?;
        if seen.insert(name.clone()) {
            read.push((name, value));
        }
    }
    read.reverse();
    Some(read)
}

fn by_name<'a>(members: &'a [(String, &'a str)]) -> HashMap<&'a str, &'a str> {
    members.iter().map(|(name, value)| (&**name, *value)).collect()
}

fn list(stored: &str, before: &str, after: &str, depth: usize) -> Option<Vec<Operation>> {
    let [stored, old, new] = [stored, before, after].map(|list| elements(list).ok());
    let (stored, old, new) = (stored?, old?, new?);
    if stored.len() != old.len() {
        return None;
    }
    let [before, after] =
        [&old, &new].map(|list| list.iter().map(|element| Content::as_read(element)).collect::<Vec<_>>());
    let kept = kept(&before, &after);
    let most = old.len().max(new.len());
    let replaced = kept.is_empty() && old.len() != new.len() && !old.is_empty() && !new.is_empty();
    if replaced || (kept.len() * 2 < most && is_permutation(&before, &after)) {
        return None;
    }
    let mut editor =
        Editor { contents: stored.iter().map(|element| Content::of(element)).collect(), operations: Vec::new() };
    // From the end, so that the indexes before stay what they are.
    let mut end = (old.len(), new.len());
    for start in kept.into_iter().rev().map(Some).chain([None]) {
        let first = start.map_or((0, 0), |(old, new)| (old + 1, new + 1));
        let pairs = (end.0 - first.0).min(end.1 - first.1);
        let items: Vec<Json> = new[first.1 + pairs..end.1].iter().map(|item| json(item)).collect();
        for at in (first.0 + pairs..end.0).rev() {
            editor.remove(at);
        }
        editor.insert(first.0 + pairs, items);
        for at in (0..pairs).rev() {
            let (from, to) = (first.0 + at, first.1 + at);
            editor.change(from, stored[from], old[from], new[to], depth);
        }
        end = start.unwrap_or_default();
    }
    Some(editor.operations)
}

/// Records operations on a list that changes with each of them.
struct Editor {
    contents: Vec<Content>,
    operations: Vec<Operation>,
}

impl Editor {
    fn element(&self, at: usize) -> Option<Element> {
        Element::of(&self.contents, at)
    }

    fn remove(&mut self, at: usize) {
        let Some(element) = self.element(at) else { return };
        let removal = here(Action::Remove { seen: Seen::Content(element.content) });
        self.operations.extend(below(&Step::Element(element), vec![removal]));
        self.contents.remove(at);
    }

    fn insert(&mut self, at: usize, items: Vec<Json>) {
        if items.is_empty() {
            return;
        }
        let contents: Vec<Content> = items.iter().map(|item| Content::of(item.as_str())).collect();
        let action = match self.element(at) {
            Some(before) => Action::InsertAt { before, items },
            None => Action::Append { items },
        };
        self.operations.push(here(action));
        self.contents.splice(at..at, contents);
    }

    fn change(&mut self, at: usize, stored: &str, before: &str, after: &str, depth: usize) {
        let changes = value(Some(stored), before, after, depth + 1);
        let mut now = stored.to_owned();
        let first = self.operations.len();
        for change in changes {
            let Some(result) = apply_one(&now, &change) else {
                // The type writes it in a way that its text does not follow: replaced as a whole.
                self.operations.truncate(first);
                self.contents[at] = Content::of(stored);
                return self.replace(at, stored, after);
            };
            if let Some(element) = self.element(at) {
                self.operations.extend(below(&Step::Element(element), vec![change]));
            }
            self.contents[at] = Content::of(&result);
            now = result;
        }
    }

    fn replace(&mut self, at: usize, stored: &str, after: &str) {
        if let Some(element) = self.element(at) {
            self.operations.extend(below(&Step::Element(element), vec![set(Some(stored), after)]));
        }
        self.contents[at] = Content::of(after);
    }
}

/// The elements that stay, as pairs of indexes, both rising.
fn kept(before: &[Content], after: &[Content]) -> Vec<(usize, usize)> {
    let prefix = before.iter().zip(after).take_while(|(old, new)| old == new).count();
    let suffix =
        before[prefix..].iter().rev().zip(after[prefix..].iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (before.len() - suffix, after.len() - suffix);
    let middle = kept_between(&before[prefix..old], &after[prefix..new]);
    (0..prefix)
        .map(|at| (at, at))
        .chain(middle.into_iter().map(|(from, to)| (prefix + from, prefix + to)))
        .chain((0..suffix).map(|at| (old + at, new + at)))
        .collect()
}

fn kept_between(before: &[Content], after: &[Content]) -> Vec<(usize, usize)> {
    // Where elements were only removed, or only added, each pair is found in one walk.
    if let Some(pairs) = places_of(after, before) {
        return pairs.into_iter().enumerate().map(|(to, from)| (from, to)).collect();
    }
    if let Some(pairs) = places_of(before, after) {
        return pairs.into_iter().enumerate().collect();
    }
    // Else each element goes with its like (equal ones by occurrence), and the longest run of pairs
    // in which both sides rise is kept.
    let mut counts = HashMap::new();
    let mut places = HashMap::new();
    for (to, content) in after.iter().enumerate() {
        let count = counts.entry(*content).or_insert(0_usize);
        places.insert((*content, *count), to);
        *count += 1;
    }
    counts.clear();
    let mut pairs = Vec::new();
    for (from, content) in before.iter().enumerate() {
        let count = counts.entry(*content).or_insert(0_usize);
        pairs.extend(places.get(&(*content, *count)).map(|to| (from, *to)));
        *count += 1;
    }
    longest_rise(&pairs)
}

/// Where the elements of `part` are in `whole`, in order; `None` where one is not.
fn places_of(part: &[Content], whole: &[Content]) -> Option<Vec<usize>> {
    let mut places = whole.iter().enumerate();
    part.iter().map(|content| places.find(|(_, other)| *other == content).map(|(at, _)| at)).collect()
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
    let mut rise: Vec<_> =
        std::iter::successors(tops.last().copied(), |index| before[*index]).map(|index| pairs[index]).collect();
    rise.reverse();
    rise
}

fn is_permutation(before: &[Content], after: &[Content]) -> bool {
    let [mut before, mut after] = [before, after].map(<[_]>::to_vec);
    before.sort_unstable();
    after.sort_unstable();
    before == after
}
