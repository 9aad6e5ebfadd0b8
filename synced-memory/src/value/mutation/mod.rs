//! Mutations: operations on a JSON path, as data. No types, no I/O, no clock: text in, text out.
//!
//! A mutation is recorded on what its writer sees, and applied, maybe much later, to what others
//! have made of it (rule 5). [`apply`] does that, [`coalesce`] keeps a queue of them short,
//! [`diff`] makes one of what a closure did, [`locate`] makes the path of one.
//!
//! In the journal a mutation is JSON: `{"origin": [<json>], "calls": [{"stamp": <ns>, "operations":
//! [<operation>, …]}, …]}`, where `origin` may be missing, and an operation is `{"path": [<step>,
//! …], "do": {"<action>": {…}}}`. The names of the fields are those below. Values are embedded as
//! the JSON that they are: that needs `serde_json`, and no `flatten` or `tag` around it.

mod apply;
mod coalesce;
mod content;
mod diff;
mod element;
mod encoded;
mod list;
mod locate;
mod text;
mod tree;

#[cfg(test)]
pub(in crate::value) mod properties;
#[cfg(test)]
mod tests;

pub(crate) use apply::{Applied, ConflictRule, Edited, apply};
pub(crate) use coalesce::{Since, coalesce};
pub(crate) use content::Content;
pub(crate) use diff::{ChildPath, diff, first_difference, within};
pub(crate) use element::Element;
pub(crate) use encoded::Encoded;
pub(crate) use locate::{
    Location, OwnSpelling, PathSegment, Spelling, element, elements, locate, locate_all_spelled,
    locate_spelled, look, member, members,
};
pub(crate) use text::Json;

pub(in crate::value) use apply::{Comparison, ElementSearch, NotApplied, apply_below, apply_calls};
pub(in crate::value) use text::{is_space, read_name};
pub(in crate::value) use tree::{NodeEdit, TreeNode};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::clock::Stamp;

/// Changes to one value, in order.
///
/// Each call is what one call of a user did. Its operations apply together or not at all; a call
/// that does not apply does not keep the others from applying.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Journalled")]
pub(crate) struct Mutation {
    #[serde(with = "text::maybe", skip_serializing_if = "Option::is_none")]
    origin: Option<Json>,
    calls: Vec<RecordedCall>,
    #[serde(skip)]
    size: usize,
}

/// What one call of a user did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordedCall {
    /// When it was made; if it was merged, the last of its calls.
    pub(crate) stamp: Stamp,
    /// A closure made it of what it saw, and it applies only if that is still stored, whoever is
    /// newer.
    #[serde(
        rename = "compared",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub(crate) is_compared: bool,
    pub(crate) operations: Vec<Operation>,
}

/// One change at one path of a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// The steps from the root.
    pub(crate) path: Vec<PathStep>,
    #[serde(rename = "do")]
    pub(crate) action: Action,
}

impl Operation {
    /// Whether it assigns one member of the root, which has one name, whatever else is there.
    pub(crate) fn sets_one_member(&self) -> bool {
        let [PathStep::Member(member)] = &self.path[..] else {
            return false;
        };
        member.also.is_empty()
            && matches!(self.action, Action::Set { .. } | Action::SetIfAbsent { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PathStep {
    /// A member of an object.
    Member(MemberName),
    /// An element of a list.
    Element(Element),
}

/// A member of an object: a field of a struct, or an entry of a map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemberName {
    pub(crate) name: Box<str>,
    /// Other names that it may have; a member that is found keeps its name.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) also: Box<[Box<str>]>,
    /// What decides if an object has several of the names.
    #[serde(default, skip_serializing_if = "Chosen::is_first_name")]
    pub(crate) chosen: Chosen,
    /// The value that it counts as if it is missing. Without one, what is below it is unset.
    #[serde(default, with = "text::maybe", skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Json>,
}

/// Which member is meant if an object has several of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Chosen {
    /// The one with the first name in order: a field that was renamed.
    #[default]
    FirstName,
    /// The one that is stored last: the names are spellings of one key of a map, and a map that is
    /// read keeps the last one.
    LastStored,
}

impl Chosen {
    fn of_spellings(also: &[Box<str>]) -> Self {
        if also.is_empty() {
            Self::FirstName
        } else {
            Self::LastStored
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    fn is_first_name(&self) -> bool {
        *self == Self::FirstName
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Assigns a member (which may be new), an element, or the root.
    Set { value: Json, seen: ObservedValue },
    /// Assigns a member that does not exist yet.
    SetIfAbsent { value: Json },
    /// Removes a member, or the element with the content that the path names. If it is gone
    /// already, the removal is done.
    Remove { seen: ObservedValue },
    /// Adds to a number.
    Add { amount: Amount },
    /// Adds to the end of a list.
    Append { items: Vec<Json> },
    /// Adds to a list before the named element or, if that is gone, at its index.
    InsertAt { before: Element, items: Vec<Json> },
    /// Adds the items that a list does not have.
    Include { items: Vec<Json> },
    /// Removes every element with the content of one of the items from a list.
    Exclude { items: Vec<Json> },
}

/// What a writer saw at a path when it recorded an assignment or a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ObservedForm", into = "ObservedForm")]
pub(crate) enum ObservedValue {
    Absent,
    Content(Content),
    /// With the order of its members, which counts.
    Ordered(Content),
}

/// In a journal: `null`, a number, or `{"ordered": <number>}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ObservedForm {
    Content(Option<Content>),
    Ordered { ordered: Content },
}

impl From<ObservedForm> for ObservedValue {
    fn from(form: ObservedForm) -> Self {
        match form {
            ObservedForm::Content(content) => content.into(),
            ObservedForm::Ordered { ordered } => Self::Ordered(ordered),
        }
    }
}

impl From<ObservedValue> for ObservedForm {
    fn from(seen: ObservedValue) -> Self {
        match seen {
            ObservedValue::Absent => Self::Content(None),
            ObservedValue::Content(content) => Self::Content(Some(content)),
            ObservedValue::Ordered(ordered) => Self::Ordered { ordered },
        }
    }
}

impl From<Option<Content>> for ObservedValue {
    fn from(content: Option<Content>) -> Self {
        content.map_or(Self::Absent, Self::Content)
    }
}

impl Action {
    /// What it stores, and how many levels below its path.
    fn stored(&self) -> (&[Json], usize) {
        match self {
            Self::Set { value, .. } | Self::SetIfAbsent { value } => {
                (std::slice::from_ref(value), 0)
            }
            Self::Append { items } | Self::InsertAt { items, .. } | Self::Include { items } => {
                (items, 1)
            }
            Self::Remove { .. } | Self::Add { .. } | Self::Exclude { .. } => (&[], 0),
        }
    }
}

impl Operation {
    /// Whether it makes a value that has too many levels, whatever is there when it is applied: how
    /// deep a path leads is part of the path.
    fn is_too_deep(&self) -> bool {
        let (stored, below) = self.action.stored();
        let origins = (1..)
            .zip(&self.path)
            .filter_map(|(above, step)| match step {
                PathStep::Member(member) => Some((above, member.origin.as_ref()?)),
                PathStep::Element(_) => None,
            });
        stored
            .iter()
            .map(|stored| (self.path.len() + below, stored))
            .chain(origins)
            .any(|(above, json)| json.is_too_deep(above))
    }
}

impl ObservedValue {
    /// Whether `text`, or its absence, is what was observed.
    fn is(self, text: Option<&str>) -> bool {
        match (self, text) {
            (Self::Absent, None) => true,
            (Self::Content(content), Some(text)) => content == Content::of(text),
            (Self::Ordered(content), Some(text)) => content == Content::with_order(text),
            _ => false,
        }
    }
}

/// What is added to a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Amount {
    /// The sum must be within `min` and `max`, and within what JSON holds exactly: `i64::MIN` to
    /// `u64::MAX`.
    Integer { by: i128, min: i128, max: i128 },
    /// Must be finite. With `single` the number is an `f32`.
    Float { by: f64, single: bool },
}

/// Why operations cannot be applied to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApplyError {
    /// Nothing is stored, and there is no origin.
    Unset,
    /// The list element on the path is gone.
    Gone,
    /// A value of another type is stored.
    Type {
        expected: &'static str,
        found: &'static str,
    },
    /// Others have changed what it was made on.
    Changed,
    /// The number would leave its range.
    Overflow,
    /// What is stored is not JSON.
    Invalid,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("nothing is there that it could change"),
            Self::Gone => f.write_str("the list element that it changes is gone"),
            Self::Type { expected, found } => {
                write!(f, "found {found} where {expected} was expected")
            }
            Self::Changed => f.write_str("others have changed what it was made on"),
            Self::Overflow => f.write_str("the number would leave its range"),
            Self::Invalid => f.write_str("found no valid JSON"),
        }
    }
}

impl Mutation {
    /// What one call did. `origin` is the value that an unset key counts as; without one, only an
    /// assignment of the root applies to an unset key.
    pub(crate) fn new(origin: Option<Json>, operations: Vec<Operation>) -> Self {
        Journalled {
            origin,
            calls: vec![RecordedCall {
                stamp: Stamp::ZERO,
                is_compared: false,
                operations,
            }],
        }
        .into()
    }

    /// What a closure did to what it saw.
    pub(crate) fn compared(origin: Option<Json>, operations: Vec<Operation>) -> Self {
        Journalled {
            origin,
            calls: vec![RecordedCall {
                stamp: Stamp::ZERO,
                is_compared: true,
                operations,
            }],
        }
        .into()
    }

    pub(crate) fn calls(&self) -> &[RecordedCall] {
        &self.calls
    }

    /// Whether it merges with a later one whatever that was recorded on: nothing in it names what
    /// it saw.
    pub(crate) fn merges_anywhere(&self) -> bool {
        let is_named = |step: &PathStep| matches!(step, PathStep::Member(_));
        let is_plain = |action: &Action| {
            use Action::{Add, Append, Exclude, Include};
            matches!(
                action,
                Add { .. } | Append { .. } | Include { .. } | Exclude { .. }
            )
        };
        let mut operations = self.calls.iter().flat_map(|call| &call.operations);
        let is_any_compared = self.calls.iter().any(|call| call.is_compared);
        !is_any_compared
            && operations
                .all(|operation| is_plain(&operation.action) && operation.path.iter().all(is_named))
    }

    /// The same, but it applies to whatever is stored.
    pub(crate) fn without_comparison(&self) -> Self {
        let calls = self
            .calls
            .iter()
            .map(|call| RecordedCall {
                is_compared: false,
                ..call.clone()
            })
            .collect();
        Journalled {
            origin: self.origin.clone(),
            calls,
        }
        .into()
    }

    /// Makes one call of this and another mutation of the same value.
    pub(crate) fn join(&mut self, other: Self) {
        let calls = std::mem::take(&mut self.calls)
            .into_iter()
            .chain(other.calls);
        let operations = calls.flat_map(|call| call.operations).collect();
        *self = Self::new(self.origin.take(), operations);
    }

    /// Sets when it was made.
    pub(crate) fn stamp(&mut self, stamp: Stamp) {
        for call in &mut self.calls {
            call.stamp = stamp;
        }
    }

    /// Whether it makes a value that has too many levels to be read.
    pub(crate) fn is_too_deep(&self) -> bool {
        let origin = self.origin.as_ref();
        let operations = self.calls.iter().flat_map(|call| &call.operations);
        origin.is_some_and(|origin| origin.is_too_deep(0))
            || operations.into_iter().any(Operation::is_too_deep)
    }

    /// Moves its stamps, since the clock that issued them was `by` ns behind.
    pub(crate) fn shift(&mut self, by: i64) {
        for call in &mut self.calls {
            call.stamp = call.stamp.shifted(by);
        }
    }

    /// Makes its calls that are not older than `found` not older than `made` either. Returns
    /// whether any was.
    pub(crate) fn raise(&mut self, found: Stamp, made: Stamp) -> bool {
        let is_passed = |call: &&mut RecordedCall| (found..made).contains(&call.stamp);
        let passed = self.calls.iter_mut().filter(is_passed);
        passed.map(|call| call.stamp = made).count() > 0
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Counts anew how many bytes it holds, after its calls were changed in place or replaced.
    fn recount(&mut self) {
        self.size = size_of_mutation(self.origin.as_slice(), &self.calls);
    }

    /// Removes the calls with these indexes, and returns them: they become a dead letter.
    pub(crate) fn withdraw(&mut self, indexes: &[usize]) -> Self {
        self.withdraw_if(|index, _| indexes.contains(&index))
    }

    /// Removes the calls that were made on what is `gone`, to which they are added, and returns
    /// them.
    pub(crate) fn withdraw_dependent(&mut self, gone: &mut NotMade) -> Option<Self> {
        if !self.calls.iter().any(|call| gone.has_base_of(call)) {
            return None;
        }
        Some(self.withdraw_if(|_, call| {
            let is_gone = gone.has_base_of(call);
            gone.calls.extend(is_gone.then(|| call.clone()));
            is_gone
        }))
    }

    fn withdraw_if(&mut self, mut is_withdrawn: impl FnMut(usize, &RecordedCall) -> bool) -> Self {
        let (mut withdrawn, mut left) = (Vec::new(), Vec::new());
        for (index, call) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            if is_withdrawn(index, &call) {
                withdrawn.push(call);
            } else {
                left.push(call);
            }
        }
        let origin = self.origin.clone();
        *self = Journalled {
            origin: origin.clone(),
            calls: left,
        }
        .into();
        Journalled {
            origin,
            calls: withdrawn,
        }
        .into()
    }
}

/// What was not made, while later calls may have been made on it.
#[derive(Debug, Default)]
pub(crate) struct NotMade {
    calls: Vec<RecordedCall>,
    /// The whole value was assigned.
    is_everything: bool,
}

impl NotMade {
    pub(crate) fn new(is_everything: bool, mutation: Option<&Mutation>) -> Self {
        Self {
            calls: mutation
                .map(|mutation| mutation.calls.clone())
                .unwrap_or_default(),
            is_everything,
        }
    }

    /// These calls of a mutation.
    pub(crate) fn calls(mutation: Option<&Mutation>, indexes: &[usize]) -> Self {
        let calls = mutation.map(Mutation::calls).unwrap_or_default();
        let calls = indexes
            .iter()
            .filter_map(|index| calls.get(*index))
            .cloned()
            .collect();
        Self {
            calls,
            is_everything: false,
        }
    }

    fn has_base_of(&self, call: &RecordedCall) -> bool {
        self.is_everything && call.compares() || self.calls.iter().any(|gone| call.depends_on(gone))
    }
}

#[derive(Deserialize)]
struct Journalled {
    #[serde(default, with = "text::maybe")]
    origin: Option<Json>,
    calls: Vec<RecordedCall>,
}

impl From<Journalled> for Mutation {
    fn from(Journalled { origin, calls }: Journalled) -> Self {
        let size = size_of_mutation(origin.as_slice(), &calls);
        Self {
            origin,
            calls,
            size,
        }
    }
}

impl RecordedCall {
    /// The path that it changes, as messages name it: `.name` for a member, `[1]` for an element.
    /// The root if it changes several.
    pub(crate) fn path(&self) -> String {
        let [operation] = &self.operations[..] else {
            return String::new();
        };
        operation.path.iter().map(ToString::to_string).collect()
    }

    /// Whether it does nothing but remove.
    fn only_removes(&self) -> bool {
        let mut actions = self.operations.iter().map(|operation| &operation.action);
        actions.all(|action| matches!(action, Action::Remove { .. } | Action::Exclude { .. }))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.operations.iter().map(Operation::size).sum::<usize>()
    }
}

fn size_of_mutation(origin: &[Json], calls: &[RecordedCall]) -> usize {
    size_of::<Mutation>()
        + size_of_json(origin)
        + calls.iter().map(RecordedCall::size).sum::<usize>()
}

fn size_of_json(items: &[Json]) -> usize {
    items
        .iter()
        .map(|item| size_of::<Json>() + item.as_str().len())
        .sum()
}

impl fmt::Display for PathStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => write!(f, ".{}", member.name),
            Self::Element(element) => write!(f, "[{}]", element.index),
        }
    }
}

impl Operation {
    /// The same, with a path that begins with `path`.
    pub(crate) fn below(self, path: &[PathStep]) -> Self {
        Self {
            path: [path, &self.path[..]].concat(),
            ..self
        }
    }

    fn size(&self) -> usize {
        let path = self.path.iter().map(PathStep::size).sum::<usize>();
        let values = match &self.action {
            Action::Set { value, .. } | Action::SetIfAbsent { value } => value.as_str().len(),
            Action::Remove { .. } | Action::Add { .. } => 0,
            Action::Append { items }
            | Action::InsertAt { items, .. }
            | Action::Include { items }
            | Action::Exclude { items } => size_of_json(items),
        };
        size_of::<Self>() + path + values
    }
}

impl PathStep {
    fn size(&self) -> usize {
        let owned = match self {
            Self::Member(member) => {
                let also = member.also.iter().map(|name| size_of_name(name));
                member.name.len() + also.sum::<usize>() + size_of_json(member.origin.as_slice())
            }
            Self::Element(element) => element.owned_size(),
        };
        size_of::<Self>() + owned
    }
}

fn size_of_name(name: &str) -> usize {
    size_of::<Box<str>>() + name.len()
}

impl MemberName {
    /// A member that has one name, and is unset if it is missing.
    pub(crate) fn new(name: &str) -> Self {
        Self::aliased(name, &[])
    }

    /// One with older names.
    pub(crate) fn aliased(name: &str, aliases: &[&str]) -> Self {
        Self {
            name: name.into(),
            also: aliases.iter().map(|alias| Box::from(*alias)).collect(),
            chosen: Chosen::FirstName,
            origin: None,
        }
    }

    /// An entry of a map, whose key is stored in these spellings.
    pub(crate) fn spelled<'a>(name: &str, stored: impl Iterator<Item = &'a str>) -> Self {
        let other = stored.filter(|stored| *stored != name);
        let also: Box<[Box<str>]> = other.map(Box::from).collect();
        Self {
            name: name.into(),
            chosen: Chosen::of_spellings(&also),
            also,
            origin: None,
        }
    }

    /// The position of the member in an object; `last` returns that of the last one with a name.
    pub(in crate::value) fn position(&self, last: impl Fn(&str) -> Option<usize>) -> Option<usize> {
        let mut found = self.names().filter_map(last);
        match self.chosen {
            Chosen::FirstName => found.next(),
            Chosen::LastStored => found.max(),
        }
    }

    /// Takes over the spellings of the same key that the other one knows. Returns by how much that
    /// makes it larger.
    fn add_spellings(&mut self, other: &Self) -> usize {
        if other.chosen == Chosen::FirstName || self.also == other.also {
            return 0;
        }
        let new: Vec<Box<str>> = other
            .names()
            .filter(|other| self.names().all(|name| name != *other))
            .map(Box::from)
            .collect();
        let size = new.iter().map(|name| size_of_name(name)).sum();
        let also = std::mem::take(&mut self.also);
        self.also = also.into_iter().chain(new).collect();
        self.chosen = Chosen::LastStored;
        size
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.names()
            .any(|name| other.names().any(|other| name == other))
    }

    pub(in crate::value) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.name).chain(self.also.iter().map(|name| &**name))
    }
}
