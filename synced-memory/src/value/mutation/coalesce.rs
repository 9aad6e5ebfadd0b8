//! Merging queued operations, so that they stay few: 10,000 pushes become one.

use super::apply::apply_by_index;
use super::locate::{PathSegment, locate};
use super::{
    Action, Amount, Content, Element, Json, Mutation, ObservedValue, Operation, PathStep,
    RecordedCall, size_of_json,
};
use crate::base::clock::Stamp;

/// What happened to the value since the earlier mutation was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since<'a> {
    /// Nothing: the later mutation was recorded on this with the earlier one on top.
    Unchanged(Option<&'a str>),
    /// Others may have written: an index may mean another element than before.
    Moved,
}

/// How many calls are looked back at, from the last one.
const REACH: usize = 256;

/// Adds the later mutation to the earlier one, such that both apply as they would one after the
/// other.
///
/// Only calls of one operation are merged: the operations of others must apply together or not at
/// all. Merged calls share their outcome. Sums of integers apply wherever the single ones would,
/// and also if only an intermediate sum leaves the range; sums of floats are rounded once and not
/// at each step. If others changed the same element of a list, or if the newer wins, fewer merged
/// calls may apply.
///
/// # Errors
///
/// Returns the later one if its origin, the value of an unset key, is another.
pub(crate) fn coalesce(
    earlier: &mut Mutation,
    later: Mutation,
    since: Since<'_>,
) -> Result<(), Mutation> {
    if earlier.origin != later.origin {
        return Err(later);
    }
    for mut call in later.calls {
        match call.operations.len() {
            0 => {}
            _ if call.is_compared => add_compared(earlier, call, since),
            1 => add_operation(earlier, call.operations.remove(0), call.stamp, since),
            _ => push_call(earlier, call),
        }
    }
    Ok(())
}

/// Makes one call of those that were compared and have a part in common; nothing else is merged
/// with them.
fn add_compared(earlier: &mut Mutation, call: RecordedCall, since: Since<'_>) {
    let first = earlier.calls.len().saturating_sub(REACH);
    let shares_list = earlier.calls[first..]
        .iter()
        .any(|before| before.is_in_list_of(&call));
    let compares = call.compares();
    push_call(earlier, call);
    if !shares_list {
        // The call that it becomes a part of may share one, and has not gone past others in it.
        go_back(earlier, first, Passing::Refused);
        return;
    }
    let as_called = earlier.calls[first..].to_vec();
    let passes = go_back(earlier, first, Passing::Allowed);
    // What only adds to a list depends on nothing in it: it need not go past others.
    if passes && !(compares && name_anew(earlier, first, &as_called, since)) {
        earlier.calls.truncate(first);
        earlier.calls.extend(as_called);
        earlier.recount();
        go_back(earlier, first, Passing::Refused);
    }
}

/// Whether a call may go past others that change the same list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Allowed,
    Refused,
}

/// Makes the last call a part of those from `first` on that it has a part in common with. Returns
/// whether it went past a call that changes the same list: then the elements of that list are named
/// differently.
fn go_back(mutation: &mut Mutation, first: usize, passing: Passing) -> bool {
    let mut last = mutation.calls.len() - 1;
    let mut passes = false;
    // Of the calls between the two, whether one changes the same list.
    let mut is_between = false;
    for index in (first..last).rev() {
        let (before, merged) = (&mutation.calls[index], &mutation.calls[last]);
        if !merged.meets(before) {
            is_between |= before.is_in_list_of(merged);
            continue;
        }
        let between = &mutation.calls[index + 1..last];
        let may_pass = || passing == Passing::Allowed && merged.keeps_elements_apart_from(between);
        if !before.is_compared || is_between && !may_pass() {
            break;
        }
        // Nothing between the two meets the later one: it may as well be made there.
        passes |= is_between;
        let merged = mutation.calls.remove(last);
        mutation.size -= merged.size();
        let before = &mut mutation.calls[index];
        mutation.size -= before.size();
        before.continue_with(merged);
        mutation.size += before.size();
        last = index;
        is_between = false;
    }
    passes
}

/// Names the elements of lists anew, after a call went past others in its list. Returns whether the
/// calls come to the same as one after the other, those from `first` on `as_called`.
fn name_anew(
    mutation: &mut Mutation,
    first: usize,
    as_called: &[RecordedCall],
    since: Since<'_>,
) -> bool {
    let Since::Unchanged(base) = since else {
        return false;
    };
    let calls = [&mutation.calls[..first], as_called].concat();
    let one_by_one = Mutation {
        origin: mutation.origin.clone(),
        calls,
        size: 0,
    };
    let expected = apply_by_index(base, &one_by_one);
    let made = apply_by_index(base, mutation);
    let (Some((expected, _)), Some((made, names))) = (expected, made) else {
        return false;
    };
    if made != expected {
        return false;
    }
    let operations = mutation
        .calls
        .iter_mut()
        .flat_map(|call| &mut call.operations);
    let elements = operations.flat_map(Operation::elements_mut);
    elements
        .zip(names)
        .for_each(|(element, name)| *element = name);
    mutation.recount();
    true
}

impl RecordedCall {
    /// Whether it compares a part that the earlier call writes, or a part inside or around it.
    pub(super) fn depends_on(&self, earlier: &Self) -> bool {
        self.is_compared
            && self
                .operations
                .iter()
                .filter(|later| later.compares())
                .any(|later| later.meets_any(earlier))
    }

    /// Whether it applies only if something is as it was seen.
    pub(super) fn compares(&self) -> bool {
        self.is_compared && self.operations.iter().any(Operation::compares)
    }

    /// Whether it changes a list that the later one changes.
    fn is_in_list_of(&self, later: &Self) -> bool {
        let is_in = |earlier: &Operation| {
            later
                .operations
                .iter()
                .any(|later| earlier.is_in_list_of(later))
        };
        self.operations.iter().any(is_in)
    }

    /// Whether each element that it names, or one of the others does, has the same index before and
    /// after them. With another index, it could be taken for an equal one.
    fn keeps_elements_apart_from(&self, others: &[Self]) -> bool {
        let is_apart =
            |other: &Self| !other.moves_elements_of(self) && !self.moves_elements_of(other);
        others.iter().all(is_apart)
    }

    /// Whether an element that the other call names has another index after this call.
    fn moves_elements_of(&self, other: &Self) -> bool {
        let mut moved = self.operations.iter().filter_map(Operation::moved_elements);
        moved.any(|(list, first)| {
            let names = |operation: &Operation| operation.names_element_from(list, first);
            other.operations.iter().any(names)
        })
    }

    /// Whether the two have a part in common, or one has a part in one of the other.
    fn meets(&self, earlier: &Self) -> bool {
        self.operations.iter().any(|later| later.meets_any(earlier))
    }

    /// Adds what a later call did to what this one left.
    fn continue_with(&mut self, later: Self) {
        self.stamp = self.stamp.max(later.stamp);
        for operation in later.operations {
            let last = self
                .operations
                .iter()
                .rposition(|earlier| operation.meets(earlier));
            let is_next = |last: &usize| {
                let mut between = self.operations[last + 1..].iter();
                self.operations[*last].is_followed_by(&operation)
                    && !between.any(|other| other.is_in_list_of(&operation))
            };
            match last.filter(is_next) {
                Some(last) => self.operations[last].merge_action(operation.action),
                None => self.operations.push(operation),
            }
        }
    }
}

impl Operation {
    /// Whether it applies only if something is as it was seen.
    fn compares(&self) -> bool {
        !matches!(
            self.action,
            Action::Append { .. } | Action::InsertAt { .. } | Action::Include { .. }
        )
    }

    /// Whether it changes the list that a later operation changes: its elements were named before
    /// that was made.
    fn is_in_list_of(&self, later: &Self) -> bool {
        let first = later
            .path
            .iter()
            .position(|step| matches!(step, PathStep::Element(_)));
        let adds = matches!(
            later.action,
            Action::Append { .. } | Action::InsertAt { .. }
        );
        let Some(list) = first.or(adds.then_some(later.path.len())) else {
            return false;
        };
        self.leads_into(&later.path[..list])
    }

    /// Whether it changes what is at this path, or something inside.
    fn leads_into(&self, path: &[PathStep]) -> bool {
        let is_same = |(one, other): (&PathStep, &PathStep)| match (one, other) {
            (PathStep::Member(one), PathStep::Member(other)) => one.overlaps(other),
            (PathStep::Element(one), PathStep::Element(other)) => one.index == other.index,
            _ => false,
        };
        self.path.len() >= path.len() && self.path.iter().zip(path).all(is_same)
    }

    /// The list whose elements have another index afterwards, and the first of them.
    fn moved_elements(&self) -> Option<(&[PathStep], usize)> {
        match (&self.action, self.path.split_last()) {
            (Action::Remove { .. }, Some((PathStep::Element(element), list))) => {
                Some((list, element.index))
            }
            (Action::InsertAt { before, .. }, _) => Some((&self.path, before.index)),
            _ => None,
        }
    }

    /// Whether it names an element of this list with this index, or with a higher one.
    fn names_element_from(&self, list: &[PathStep], first: usize) -> bool {
        let named = match (self.path.get(list.len()), &self.action) {
            (Some(PathStep::Element(element)), _) => Some(element),
            (None, Action::InsertAt { before, .. }) => Some(before),
            _ => None,
        };
        self.leads_into(list) && named.is_some_and(|named| named.index >= first)
    }

    /// Both name the entries on their common path by all spellings that one of them knows: what the
    /// other one does not know would stay if they become one. Returns by how much this one grows.
    fn share_spellings(&mut self, later: &mut Self) -> usize {
        let mut grown = 0;
        for steps in self.path.iter_mut().zip(&mut later.path) {
            if let (PathStep::Member(one), PathStep::Member(other)) = steps {
                grown += one.add_spellings(other);
                other.add_spellings(one);
            }
        }
        grown
    }

    /// The elements that it names, in the order in which they are looked for.
    fn elements_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        let in_path = self.path.iter_mut().filter_map(|step| match step {
            PathStep::Element(element) => Some(element),
            PathStep::Member(_) => None,
        });
        let before = match &mut self.action {
            Action::InsertAt { before, .. } => Some(before),
            _ => None,
        };
        in_path.chain(before)
    }

    fn meets_any(&self, call: &RecordedCall) -> bool {
        call.operations.iter().any(|earlier| self.meets(earlier))
    }

    /// Whether an earlier operation wrote the part that this one changes, or a part inside or
    /// around it.
    fn meets(&self, earlier: &Self) -> bool {
        let depth = self.path.len().min(earlier.path.len());
        let is_common_path =
            self.path
                .iter()
                .zip(&earlier.path)
                .all(|(one, other)| match (one, other) {
                    (PathStep::Member(one), PathStep::Member(other)) => one.overlaps(other),
                    (PathStep::Element(one), PathStep::Element(other)) => {
                        one.index == other.index || one.content == other.content
                    }
                    _ => true,
                });
        // What is added to a list does not meet its other elements.
        let is_among_them = match (self.path.get(depth), earlier.path.get(depth)) {
            (Some(PathStep::Element(element)), None) => earlier.adds(element),
            (None, Some(PathStep::Element(element))) => self.is_before(element),
            _ => true,
        };
        is_common_path && is_among_them
    }

    fn adds(&self, element: &Element) -> bool {
        match &self.action {
            Action::Append { items } | Action::InsertAt { items, .. } => items
                .iter()
                .any(|item| Content::of(item.as_str()) == element.content),
            _ => true,
        }
    }

    fn is_before(&self, element: &Element) -> bool {
        match &self.action {
            Action::Append { .. } => false,
            Action::InsertAt { before, .. } => {
                before.index == element.index || before.content == element.content
            }
            _ => true,
        }
    }

    /// Whether a later operation, of the same process and on what this one left, is at the same
    /// path and can be merged into it.
    fn is_followed_by(&self, later: &Self) -> bool {
        let is_mergeable = match (&self.action, &later.action) {
            (Action::Set { value, .. }, Action::Set { seen, .. }) => seen.is(Some(value.as_str())),
            (Action::Append { .. }, Action::Append { .. })
            | (Action::Include { .. }, Action::Include { .. }) => true,
            _ => return false,
        };
        let Some((last, parents)) = self.path.split_last() else {
            return is_mergeable && later.path.is_empty();
        };
        let Some((later_last, later_parents)) = later.path.split_last() else {
            return false;
        };
        let is_same_step = |one: &PathStep, other: &PathStep| match (one, other) {
            (PathStep::Member(one), PathStep::Member(other)) => one.name == other.name,
            (one, other) => one == other,
        };
        let is_same_last = match (last, later_last, &self.action) {
            // The later path names it by what this one has made of it.
            (PathStep::Element(_), PathStep::Element(later), Action::Set { value, .. }) => {
                later.is_the_only(Content::of(value.as_str()))
            }
            (last, later_last, _) => is_same_step(last, later_last),
        };
        let has_same_parents = parents.len() == later_parents.len()
            && parents
                .iter()
                .zip(later_parents)
                .all(|(one, other)| is_same_step(one, other));
        is_mergeable && is_same_last && has_same_parents
    }

    fn merge_action(&mut self, later: Action) {
        match (&mut self.action, later) {
            (Action::Set { value, .. }, Action::Set { value: new, .. }) => *value = new,
            (Action::Append { items }, Action::Append { items: more }) => items.extend(more),
            (Action::Include { items }, Action::Include { items: more }) => {
                for item in more {
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
            }
            _ => {}
        }
    }
}

fn push_call(earlier: &mut Mutation, call: RecordedCall) {
    earlier.size += call.size();
    earlier.calls.push(call);
}

fn remove_call(earlier: &mut Mutation, index: usize) {
    earlier.size -= earlier.calls[index].size();
    earlier.calls.remove(index);
}

/// `indexes`: from the last to the first.
fn remove_calls(earlier: &mut Mutation, indexes: &[usize]) {
    for index in indexes {
        remove_call(earlier, *index);
    }
}

fn add_operation(earlier: &mut Mutation, mut later: Operation, stamp: Stamp, since: Since<'_>) {
    let alone = |operation| RecordedCall {
        stamp,
        is_compared: false,
        operations: vec![operation],
    };
    // The calls that changed something inside what the later one replaces as a whole.
    let mut replaced = Vec::new();
    let mut index = earlier.calls.len();
    let reach = index.saturating_sub(REACH);
    while index > reach {
        index -= 1;
        let relation = relation(&earlier.calls[index], &later, since);
        if matches!(relation, Relation::Same | Relation::Inside) {
            earlier.size += earlier.calls[index].operations[0].share_spellings(&mut later);
        }
        match relation {
            Relation::Apart => {}
            Relation::Same => match merge_operations(
                &mut earlier.calls[index].operations[0],
                later,
                since,
                &mut earlier.size,
            ) {
                Merged::Done => {
                    let call = &mut earlier.calls[index];
                    call.stamp = call.stamp.max(stamp);
                    return remove_calls(earlier, &replaced);
                }
                Merged::Emptied(rest) => {
                    remove_call(earlier, index);
                    later = rest;
                }
                Merged::Beside(rest) => later = rest,
                Merged::Not(rest)
                    if replaces(&rest)
                        && since != Since::Moved
                        && !is_depended_on(&earlier.calls, index, &replaced) =>
                {
                    replaced.push(index);
                    later = rest;
                }
                Merged::Not(rest) => return push_call(earlier, alone(rest)),
            },
            Relation::Inside
                if replaces(&later)
                    && since != Since::Moved
                    && !is_depended_on(&earlier.calls, index, &replaced) =>
            {
                replaced.push(index);
            }
            Relation::Inside | Relation::Tangled => return push_call(earlier, alone(later)),
        }
    }
    if index == 0
        && !replaced.is_empty()
        && let Some(anew) = recorded_anew(&later, earlier.origin.as_ref(), since)
    {
        remove_calls(earlier, &replaced);
        later = anew;
    }
    push_call(earlier, alone(later));
}

/// Whether a later call that stays may need the parents that the one at `index` has made: its path
/// begins with the same step.
fn is_depended_on(calls: &[RecordedCall], index: usize, replaced: &[usize]) -> bool {
    let Some(first) = calls[index]
        .operations
        .first()
        .and_then(|operation| operation.path.first())
    else {
        return false;
    };
    let is_same = |step: &PathStep| match (step, first) {
        (PathStep::Member(one), PathStep::Member(other)) => one.overlaps(other),
        (one, other) => one == other,
    };
    let stays = calls
        .iter()
        .enumerate()
        .skip(index + 1)
        .filter(|(at, _)| !replaced.contains(at));
    stays
        .flat_map(|(_, call)| &call.operations)
        .any(|operation| operation.path.first().is_some_and(is_same))
}

/// The relation of the operations of an earlier call to a later operation.
#[derive(Debug, PartialEq, Eq)]
enum Relation {
    /// Either may be made first.
    Apart,
    /// The one operation of the call is at the same path.
    Same,
    /// The one operation of the call is below the path.
    Inside,
    Tangled,
}

fn relation(call: &RecordedCall, later: &Operation, since: Since<'_>) -> Relation {
    if let ([operation], false) = (&call.operations[..], call.is_compared) {
        return relation_of(operation, later, since);
    }
    let apart = call
        .operations
        .iter()
        .all(|operation| relation_of(operation, later, since) == Relation::Apart);
    if apart {
        Relation::Apart
    } else {
        Relation::Tangled
    }
}

fn relation_of(earlier: &Operation, later: &Operation, since: Since<'_>) -> Relation {
    // Below an element nothing is apart: the element is named by its content, which each call
    // changes, and an equal one by its occurrence.
    let mut below_element = false;
    for depth in 0.. {
        match (earlier.path.get(depth), later.path.get(depth)) {
            (Some(PathStep::Member(one)), Some(PathStep::Member(other)))
                if one.name == other.name => {}
            (Some(PathStep::Member(one)), Some(PathStep::Member(other)))
                if !one.overlaps(other) && !below_element =>
            {
                return Relation::Apart;
            }
            (Some(PathStep::Element(one)), Some(PathStep::Element(other)))
                if since != Since::Moved =>
            {
                // A removed element moves those behind it.
                let is_removal = earlier.path.len() == depth + 1
                    && matches!(earlier.action, Action::Remove { .. });
                if is_removal || one.index != other.index {
                    return Relation::Tangled;
                }
                below_element = true;
            }
            (None, None) => return Relation::Same,
            (Some(_), None) => return Relation::Inside,
            _ => return Relation::Tangled,
        }
    }
    Relation::Tangled
}

fn replaces(operation: &Operation) -> bool {
    match &operation.action {
        Action::Set { .. } => true,
        Action::Remove { .. } => !leaves_traces(operation),
        _ => false,
    }
}

/// Whether an assignment at the path and its removal leave more than the removal alone: the parents
/// that it made stay, and an element is only removed with the content that it was given.
fn leaves_traces(operation: &Operation) -> bool {
    let Some((last, parents)) = operation.path.split_last() else {
        return true;
    };
    let is_made =
        |step: &PathStep| matches!(step, PathStep::Member(member) if member.origin.is_some());
    matches!(last, PathStep::Element(_)) || parents.iter().any(is_made)
}

/// The same assignment or removal, recorded on what is stored without the calls that it replaces.
fn recorded_anew(
    operation: &Operation,
    origin: Option<&Json>,
    since: Since<'_>,
) -> Option<Operation> {
    let Since::Unchanged(base) = since else {
        return None;
    };
    let segments: Vec<PathSegment> = operation.path.iter().map(PathStep::segment).collect();
    let location = locate(base, origin, &segments).ok()?;
    let stored = location.found.filter(|_| location.exists);
    let seen = ObservedValue::from(stored.map(Content::of));
    let action = match &operation.action {
        Action::Set { value, .. } => Action::Set {
            value: value.clone(),
            seen,
        },
        _ => Action::Remove { seen },
    };
    Some(Operation {
        path: location.path,
        action,
    })
}

enum Merged {
    /// The later one is part of the earlier one.
    Done,
    /// Nothing is left of the earlier one.
    Emptied(Operation),
    /// Now either may be made first.
    Beside(Operation),
    Not(Operation),
}

/// Merges two operations at the same path, and adjusts `size` by what that adds and frees: if it
/// was counted anew each time, 10,000 pushes would be slow.
fn merge_operations(
    earlier: &mut Operation,
    later: Operation,
    since: Since<'_>,
    size: &mut usize,
) -> Merged {
    use Action::{Add, Append, Exclude, Include, Remove, Set, SetIfAbsent};
    let leaves_traces = leaves_traces(earlier);
    match (&mut earlier.action, later.action) {
        (Append { items }, Append { items: more }) => {
            *size += size_of_json(&more);
            items.extend(more);
        }
        (Add { amount }, Add { amount: more }) if sum_amounts(amount, &more).is_some() => {
            *amount = sum_amounts(amount, &more).unwrap_or(*amount);
        }
        (Set { value, .. }, Set { value: new, seen }) if has_seen(seen, value, since) => {
            *size = *size + new.as_str().len() - value.as_str().len();
            *value = new;
        }
        (Set { value, seen: first }, Remove { seen })
            if has_seen(seen, value, since) && !leaves_traces =>
        {
            *size -= value.as_str().len();
            earlier.action = Remove { seen: *first };
        }
        (
            Remove { .. },
            Remove {
                seen: ObservedValue::Absent,
            },
        )
        | (SetIfAbsent { .. }, SetIfAbsent { .. }) => {}
        (Include { items }, Include { items: more })
        | (Exclude { items }, Exclude { items: more }) => {
            for item in more {
                if !items.contains(&item) {
                    *size += size_of_json(std::slice::from_ref(&item));
                    items.push(item);
                }
            }
        }
        // Sets have no order: whatever is done last to an item decides.
        (Include { items }, action @ Exclude { .. })
        | (Exclude { items }, action @ Include { .. }) => {
            *size -= size_of_json(items);
            if let Include { items: other } | Exclude { items: other } = &action {
                let other: Vec<Content> = other
                    .iter()
                    .map(|item| Content::keyed(item.as_str()))
                    .collect();
                items.retain(|item| !other.contains(&Content::keyed(item.as_str())));
            }
            *size += size_of_json(items);
            let later = Operation {
                path: later.path,
                action,
            };
            return if items.is_empty() {
                Merged::Emptied(later)
            } else {
                Merged::Beside(later)
            };
        }
        (_, action) => {
            return Merged::Not(Operation {
                path: later.path,
                action,
            });
        }
    }
    Merged::Done
}

/// Whether the later operation was recorded on what the earlier one has set.
fn has_seen(seen: ObservedValue, value: &Json, since: Since<'_>) -> bool {
    since != Since::Moved || seen.is(Some(value.as_str()))
}

fn sum_amounts(one: &Amount, other: &Amount) -> Option<Amount> {
    match (*one, *other) {
        (
            Amount::Integer { by, min, max },
            Amount::Integer {
                by: more,
                min: low,
                max: high,
            },
        ) => {
            let by = by.checked_add(more).filter(|_| (min, max) == (low, high))?;
            Some(Amount::Integer { by, min, max })
        }
        (
            Amount::Float { by, single },
            Amount::Float {
                by: more,
                single: also,
            },
        ) => Some(by + more)
            .filter(|by| by.is_finite() && single == also)
            .map(|by| Amount::Float { by, single }),
        _ => None,
    }
}
