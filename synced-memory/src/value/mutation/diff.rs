//! What a closure made of a value, as operations on what is stored.
//!
//! The difference is cut along what the type declares to be merged, and no deeper. If something is
//! stored in another form than its type writes (an older name, another spelling), the smallest part
//! around it that can be named for certain is replaced as a whole.

use std::collections::{HashMap, HashSet};

use super::encoded::{Encoded, EncodedPart};
use super::list::{Editor, is_permutation, kept};
use super::locate::{PathSegment, locate};
use super::text::{self, elements, is_space, kind, members};
use super::{Action, Content, Json, MemberName, ObservedValue, Operation, PathStep};
use crate::value::shape::{PLAIN, Shape, ShapeField};

/// How deep values are read.
const DEPTH: usize = 128;

/// The path of a part in what a closure left.
pub(crate) type ChildPath = Vec<ChildKey>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ChildKey {
    Name(String),
    Index(usize),
}

/// What changed from `before` to `after`, as operations on `stored`, from which `before` was read.
/// `whole`: parts that are replaced as a whole, whether they have changed or not.
pub(crate) fn diff(
    stored: &str,
    before: &Encoded,
    after: &Encoded,
    whole: &[ChildPath],
) -> Vec<Operation> {
    let mut diff = Diff {
        whole,
        here: Vec::new(),
    };
    diff.value(stored.trim_matches(is_space), before.view(), after.view())
}

/// The smallest part in which `applied` is not what was expected.
pub(crate) fn first_difference(applied: &Encoded, expected: &Encoded) -> Option<ChildPath> {
    let mut location = Vec::new();
    differs(applied.view(), expected.view(), &mut location).then_some(location)
}

/// Operations on what is at `path` in `text`, as operations on `text`. Each names the elements on
/// its path as the operations before it have left them.
pub(crate) fn within(text: &str, path: &[PathStep], operations: Vec<Operation>) -> Vec<Operation> {
    let to_element = path
        .iter()
        .position(|step| matches!(step, PathStep::Element(_)));
    let named = to_element
        .filter(|_| operations.len() > 1)
        .and_then(|at| within_element(text, path, at, &operations));
    named.unwrap_or_else(|| {
        operations
            .into_iter()
            .map(|operation| operation.below(path))
            .collect()
    })
}

/// The same if the step `at` of the path is the first to an element.
fn within_element(
    text: &str,
    path: &[PathStep],
    at: usize,
    operations: &[Operation],
) -> Option<Vec<Operation>> {
    let (parents, rest) = path.split_at(at);
    let Some(PathStep::Element(element)) = rest.first() else {
        return None;
    };
    let segments: Vec<PathSegment> = parents.iter().map(PathStep::segment).collect();
    let list = elements(locate(Some(text), None, &segments).ok()?.found?).ok()?;
    let stored = *list.get(element.index)?;
    let contents = list.iter().map(|element| Content::of(element)).collect();
    let mut editor = Editor::new(contents);
    editor.apply_changes(
        element.index,
        stored,
        within(stored, &rest[1..], operations.to_vec()),
    )?;
    Some(within(text, parents, editor.operations))
}

/// A slice of valid JSON.
fn json_part(text: &str) -> Json {
    Json::parse(text.to_owned()).expect("a part of valid JSON is valid")
}

pub(super) fn at_root(action: Action) -> Operation {
    Operation {
        path: Vec::new(),
        action,
    }
}

/// `before`: the shape of what was read from `stored`.
pub(super) fn set_operation(stored: &str, before: &Shape, after: &str) -> Operation {
    // In an unknown type the order of members may be what was changed.
    let has_order = *before == PLAIN && stored.contains('{');
    let seen = if has_order {
        ObservedValue::Ordered(Content::with_order(stored))
    } else {
        ObservedValue::Content(Content::of(stored))
    };
    at_root(Action::Set {
        value: json_part(after),
        seen,
    })
}

fn removal(stored: &str) -> Operation {
    at_root(Action::Remove {
        seen: ObservedValue::Content(Content::of(stored)),
    })
}

fn addition(after: &str) -> Operation {
    at_root(Action::Set {
        value: json_part(after),
        seen: ObservedValue::Absent,
    })
}

pub(super) fn prefixed(
    step: &PathStep,
    operations: Vec<Operation>,
) -> impl Iterator<Item = Operation> {
    operations.into_iter().map(move |mut operation| {
        operation.path.insert(0, step.clone());
        operation
    })
}

struct Diff<'w> {
    whole: &'w [ChildPath],
    here: ChildPath,
}

impl Diff<'_> {
    /// Operations with paths from here.
    fn value(
        &mut self,
        stored: &str,
        before: EncodedPart<'_>,
        after: EncodedPart<'_>,
    ) -> Vec<Operation> {
        let parts = if self.is_replaced() {
            None
        } else {
            self.parts(stored, before, after)
        };
        parts.unwrap_or_else(|| vec![set_operation(stored, before.shape, after.text)])
    }

    /// `None` if it is one part.
    fn parts(
        &mut self,
        stored: &str,
        before: EncodedPart<'_>,
        after: EncodedPart<'_>,
    ) -> Option<Vec<Operation>> {
        if !self.is_replaced_below() && before.is_same(after) {
            return Some(Vec::new());
        }
        if self.here.len() >= DEPTH {
            return None;
        }
        match (
            before.shape,
            after.shape,
            [kind(stored), kind(before.text), kind(after.text)],
        ) {
            (Shape::Fields(old), Shape::Fields(new), [text::OBJECT, ..]) => {
                self.fields(stored, (before.text, old), (after.text, new))
            }
            (Shape::Map(old), Shape::Map(new), [text::OBJECT, ..]) => self.map(
                stored,
                (before.text, &|at| old.at(at)),
                (after.text, &|at| new.at(at)),
            ),
            (Shape::List(old), Shape::List(new), [text::LIST, ..]) => self.list(
                stored,
                (before.text, &|at| old.at(at)),
                (after.text, &|at| new.at(at)),
            ),
            (Shape::Set(_), Shape::Set(_), [text::LIST, ..]) => set_members(stored, before, after),
            (Shape::Json, Shape::Json, [text::OBJECT, text::OBJECT, text::OBJECT]) => self.map(
                stored,
                (before.text, &|_| &Shape::Json),
                (after.text, &|_| &Shape::Json),
            ),
            (Shape::Json, Shape::Json, [text::LIST, text::LIST, text::LIST]) => self.list(
                stored,
                (before.text, &|_| &Shape::Json),
                (after.text, &|_| &Shape::Json),
            ),
            _ => None,
        }
    }

    fn is_replaced(&self) -> bool {
        self.whole.contains(&self.here)
    }

    fn is_replaced_below(&self) -> bool {
        self.whole.iter().any(|whole| whole.starts_with(&self.here))
    }

    fn child(
        &mut self,
        key: ChildKey,
        stored: &str,
        before: EncodedPart<'_>,
        after: EncodedPart<'_>,
    ) -> Vec<Operation> {
        self.here.push(key);
        let operations = self.value(stored, before, after);
        self.here.pop();
        operations
    }

    fn is_untouched(
        &mut self,
        key: ChildKey,
        before: EncodedPart<'_>,
        after: EncodedPart<'_>,
    ) -> bool {
        self.here.push(key);
        let is_replaced = self.is_replaced_below();
        self.here.pop();
        !is_replaced && before.is_same(after)
    }

    /// A struct that is merged by field. Its members are found under their older names too; a
    /// missing one counts as what the type reads for it.
    fn fields(
        &mut self,
        stored: &str,
        (before, old): (&str, &[(ShapeField, Shape)]),
        (after, new): (&str, &[(ShapeField, Shape)]),
    ) -> Option<Vec<Operation>> {
        let (stored, before, after) = (
            read_members(stored)?,
            read_members(before)?,
            read_members(after)?,
        );
        let [stored, before, after] = [&stored, &before, &after].map(|members| by_name(members));
        let mut operations = Vec::new();
        for (field, shape) in old {
            let mut member = MemberName::aliased(field.name, field.aliases);
            let found = member.names().find_map(|name| stored.get(name).copied());
            let old = EncodedPart::new(before.get(field.name)?, shape);
            let now = new.iter().find(|(other, _)| other.name == field.name);
            let changes = match now {
                Some((_, shape)) => {
                    let new = EncodedPart::new(after.get(field.name)?, shape);
                    member.origin = found.is_none().then(|| json_part(old.text));
                    self.child(
                        ChildKey::Name(field.name.to_owned()),
                        found.unwrap_or(old.text),
                        old,
                        new,
                    )
                }
                None => found.map(removal).into_iter().collect(),
            };
            operations.extend(prefixed(&PathStep::Member(member), changes));
        }
        for (field, _) in new
            .iter()
            .filter(|(field, _)| !before.contains_key(field.name))
        {
            let member = MemberName::aliased(field.name, field.aliases);
            let found = member.names().find_map(|name| stored.get(name).copied());
            let new = after.get(field.name)?;
            let change =
                found.map_or_else(|| addition(new), |found| set_operation(found, &PLAIN, new));
            operations.extend(prefixed(&PathStep::Member(member), vec![change]));
        }
        Some(operations)
    }

    /// `None` if an entry that has changed is stored under another spelling of its key.
    fn map<'s>(
        &mut self,
        stored: &str,
        (before, old_shape): (&str, &dyn Fn(usize) -> &'s Shape),
        (after, new_shape): (&str, &dyn Fn(usize) -> &'s Shape),
    ) -> Option<Vec<Operation>> {
        let (stored, before, after) = (
            read_members(stored)?,
            read_members(before)?,
            read_members(after)?,
        );
        let stored = by_name(&stored);
        let (in_before, in_after) = (indexes_by_name(&before), indexes_by_name(&after));
        let mut operations = Vec::new();
        for (at, (name, old)) in before.iter().enumerate() {
            let old = EncodedPart::new(old, old_shape(at));
            let changes = match in_after.get(name) {
                Some(to) => {
                    let (new, key) = (
                        EncodedPart::new(after[*to].1, new_shape(*to)),
                        ChildKey::Name(name.clone()),
                    );
                    if self.is_untouched(key.clone(), old, new) {
                        continue;
                    }
                    self.child(key, stored.get(&**name)?, old, new)
                }
                None => vec![removal(stored.get(&**name)?)],
            };
            operations.extend(prefixed(&PathStep::Member(MemberName::new(name)), changes));
        }
        for (name, new) in after
            .iter()
            .filter(|(name, _)| !in_before.contains_key(name))
        {
            if stored.contains_key(&**name) {
                return None;
            }
            operations.extend(prefixed(
                &PathStep::Member(MemberName::new(name)),
                vec![addition(new)],
            ));
        }
        Some(operations)
    }

    fn list<'s>(
        &mut self,
        stored: &str,
        (before, old_shape): (&str, &dyn Fn(usize) -> &'s Shape),
        (after, new_shape): (&str, &dyn Fn(usize) -> &'s Shape),
    ) -> Option<Vec<Operation>> {
        let [stored, old, new] = [stored, before, after].map(|list| elements(list).ok());
        let (stored, old, new) = (stored?, old?, new?);
        if stored.len() != old.len() {
            return None;
        }
        let old = Elements::new(&old, old_shape);
        let new = Elements::new(&new, new_shape);
        let kept = kept(&old.contents, &new.contents);
        if is_list_replaced(&old.contents, &new.contents, kept.len()) {
            return None;
        }

        let anchors = anchors(&old.contents, &new.contents, &kept);
        let contents = stored.iter().map(|element| Content::of(element)).collect();
        let mut editor = Editor::new(contents);
        // Removals first and additions last: an element that only moves is never taken for the one
        // that is added, if another process has removed it. From the end, so that the indexes
        // before it stay the same.
        let mut stays = vec![false; old.views.len()];
        for anchor in &anchors {
            stays[anchor.from] = true;
        }
        for at in (0..stays.len()).rev().filter(|at| !stays[*at]) {
            editor.remove(at);
        }
        for (at, anchor) in anchors.iter().enumerate().rev() {
            // One that has not changed may still have to be replaced as a whole.
            if anchor.is_changed || !self.whole.is_empty() {
                let pair = (old.views[anchor.from], new.views[anchor.to]);
                let indexes = (at, anchor.to);
                self.element(&mut editor, indexes, stored[anchor.from], pair);
            }
        }
        let mut end = new.views.len();
        for at in (0..=anchors.len()).rev() {
            let before = at.checked_sub(1).map(|before| anchors[before].to);
            let first = before.map_or(0, |before| before + 1);
            let items = new.views[first..end].iter();
            editor.insert(at, items.map(|item| json_part(item.text)).collect());
            end = before.unwrap_or(0);
        }
        Some(editor.operations)
    }

    /// Records what changed in an element that stays, from the first index to the second.
    fn element(
        &mut self,
        editor: &mut Editor,
        (from, to): (usize, usize),
        stored: &str,
        (old, new): (EncodedPart<'_>, EncodedPart<'_>),
    ) {
        let changes = self.child(ChildKey::Index(to), stored, old, new);
        editor.change(from, stored, (old.shape, new.text), changes);
    }
}

/// An element that is in the list before and after.
struct Anchor {
    from: usize,
    to: usize,
    is_changed: bool,
}

/// The elements that stay, and those that are changed in their place, in order. What is removed
/// from a gap between those that stay, and what is added there, are one element that is changed,
/// unless one of the two has only moved.
fn anchors(old: &[Content], new: &[Content], kept: &[(usize, usize)]) -> Vec<Anchor> {
    let (mut before, mut after) = (HashSet::new(), HashSet::new());
    before.extend(unkept(old, kept.iter().map(|(from, _)| *from)));
    after.extend(unkept(new, kept.iter().map(|(_, to)| *to)));
    let is_moved =
        |(from, to): (usize, usize)| after.contains(&old[from]) || before.contains(&new[to]);

    let mut anchors = Vec::new();
    let mut first = (0, 0);
    for stop in kept.iter().copied().map(Some).chain([None]) {
        let end = stop.unwrap_or((old.len(), new.len()));
        let changed = (first.0..end.0).zip(first.1..end.1);
        anchors.extend(
            changed
                .filter(|pair| !is_moved(*pair))
                .map(|(from, to)| Anchor {
                    from,
                    to,
                    is_changed: true,
                }),
        );
        if let Some((from, to)) = stop {
            anchors.push(Anchor {
                from,
                to,
                is_changed: false,
            });
            first = (from + 1, to + 1);
        }
    }
    anchors
}

/// The contents that are not at these rising indexes.
fn unkept(
    contents: &[Content],
    kept: impl Iterator<Item = usize>,
) -> impl Iterator<Item = Content> {
    let mut kept = kept.peekable();
    let contents = contents.iter().enumerate();
    contents
        .filter(move |(at, _)| kept.next_if_eq(at).is_none())
        .map(|(_, content)| *content)
}

/// Whether a list has become another one, or was reordered: it is then replaced as a whole. `kept`:
/// how many of its elements stay.
fn is_list_replaced(old: &[Content], new: &[Content], kept: usize) -> bool {
    let has_new_length = old.len() != new.len() && !old.is_empty() && !new.is_empty();
    let is_other = kept == 0 && has_new_length;
    is_other || kept * 2 < old.len().max(new.len()) && is_permutation(old, new)
}

/// The elements of a list, and their contents, by which equal ones are recognized.
struct Elements<'a> {
    views: Vec<EncodedPart<'a>>,
    contents: Vec<Content>,
}

impl<'a> Elements<'a> {
    fn new<'s: 'a>(elements: &[&'a str], shape: &dyn Fn(usize) -> &'s Shape) -> Self {
        let views: Vec<EncodedPart<'a>> = elements
            .iter()
            .enumerate()
            .map(|(at, text)| EncodedPart::new(text, shape(at)))
            .collect();
        Self {
            contents: views.iter().map(|view| view.content()).collect(),
            views,
        }
    }
}

/// What was removed from a set and added to it; `None` if something that was removed is stored in
/// another spelling.
fn set_members(
    stored: &str,
    before: EncodedPart<'_>,
    after: EncodedPart<'_>,
) -> Option<Vec<Operation>> {
    let (Shape::Set(old_shapes), Shape::Set(new_shapes)) = (before.shape, after.shape) else {
        return None;
    };
    let [stored, old, new] = [stored, before.text, after.text].map(|list| elements(list).ok());
    let (stored, old, new) = (stored?, old?, new?);
    let old = Elements::new(&old, &|at| old_shapes.at(at));
    let new = Elements::new(&new, &|at| new_shapes.at(at));
    let stored: HashSet<Content> = stored.iter().map(|text| Content::keyed(text)).collect();
    let missing = |of: &Elements<'_>, from: &Elements<'_>| -> Vec<Json> {
        let there: HashSet<Content> = from.contents.iter().copied().collect();
        let all = of.views.iter().zip(&of.contents);
        all.filter(|(_, content)| !there.contains(content))
            .map(|(view, _)| json_part(view.text))
            .collect()
    };
    let (removed, added) = (missing(&old, &new), missing(&new, &old));
    if removed
        .iter()
        .any(|item| !stored.contains(&Content::keyed(item.as_str())))
    {
        return None;
    }
    let mut operations = Vec::new();
    if !removed.is_empty() {
        operations.push(at_root(Action::Exclude { items: removed }));
    }
    if !added.is_empty() {
        operations.push(at_root(Action::Include { items: added }));
    }
    Some(operations)
}

/// Whether the two differ; `location` becomes the path of the smallest difference.
fn differs(one: EncodedPart<'_>, other: EncodedPart<'_>, location: &mut ChildPath) -> bool {
    if one.text == other.text || one.members() == other.members() {
        return false;
    }
    let (Some(ones), Some(others)) = (children(one), children(other)) else {
        return true;
    };
    let ones: HashMap<ChildKey, EncodedPart<'_>> = ones.into_iter().collect();
    if ones.len() != others.len() || others.iter().any(|(key, _)| !ones.contains_key(key)) {
        return true;
    }
    for (key, child) in others {
        let mine = ones[&key];
        location.push(key);
        if differs(mine, child, location) {
            return true;
        }
        location.pop();
    }
    true
}

/// The children of what is merged by child.
fn children(view: EncodedPart<'_>) -> Option<Vec<(ChildKey, EncodedPart<'_>)>> {
    match (view.shape, kind(view.text)) {
        (Shape::List(children), text::LIST) => listed(view.text, |at| children.at(at)),
        (Shape::Json, text::LIST) => listed(view.text, |_| &Shape::Json),
        (Shape::Map(children), text::OBJECT) => named(view.text, |at| children.at(at)),
        (Shape::Fields(fields), text::OBJECT) => named(view.text, |at| {
            fields.get(at).map_or(&PLAIN, |(_, shape)| shape)
        }),
        (Shape::Json, text::OBJECT) => named(view.text, |_| &Shape::Json),
        _ => None,
    }
}

fn listed<'a>(
    list: &'a str,
    shape: impl Fn(usize) -> &'a Shape,
) -> Option<Vec<(ChildKey, EncodedPart<'a>)>> {
    let elements = elements(list).ok()?.into_iter().enumerate();
    Some(
        elements
            .map(|(at, text)| (ChildKey::Index(at), EncodedPart::new(text, shape(at))))
            .collect(),
    )
}

fn named<'a>(
    object: &'a str,
    shape: impl Fn(usize) -> &'a Shape,
) -> Option<Vec<(ChildKey, EncodedPart<'a>)>> {
    let members = read_members(object)?.into_iter().enumerate();
    Some(
        members
            .map(|(at, (name, text))| (ChildKey::Name(name), EncodedPart::new(text, shape(at))))
            .collect(),
    )
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

fn indexes_by_name(members: &[(String, &str)]) -> HashMap<String, usize> {
    let names = members.iter().map(|(name, _)| name.clone());
    names.zip(0..).collect()
}

fn by_name<'a>(members: &'a [(String, &'a str)]) -> HashMap<&'a str, &'a str> {
    members
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect()
}
