//! Keeping the operations that wait few: 10,000 pushes are one.

use super::locate::{Place, locate};
use super::{Action, Amount, Call, Content, Json, Mutation, Operation, Seen, Step, size_of_json};
use crate::clock::Stamp;

/// What happened to the value since the earlier mutation was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since<'a> {
    /// Nothing: the later mutation was recorded on this with the earlier one on top.
    Unchanged(Option<&'a str>),
    /// Others may have written: an index may mean another element than before.
    Moved,
}

/// So many calls are looked back at, from the last one.
const REACH: usize = 256;

/// Adds the later mutation to the earlier one, such that both apply as they would one after the other.
///
/// Only calls of one operation are merged: the others must apply together or not at all. Merged calls
/// share their fate. Sums of integers apply wherever the single ones would, and also where only the
/// way there leaves the range; sums of floats are rounded once and not at each step. Where others
/// changed the same element of a list, or where the newer wins, fewer merged calls may apply.
///
/// # Errors
///
/// Hands the later one back when it takes an unset key for something else.
pub(crate) fn coalesce(earlier: &mut Mutation, later: Mutation, since: Since<'_>) -> Result<(), Mutation> {
    if earlier.origin != later.origin {
        return Err(later);
    }
    for mut call in later.calls {
        match call.operations.len() {
            0 => {}
            1 => add(earlier, call.operations.remove(0), call.stamp, since),
            _ => push(earlier, call),
        }
    }
    Ok(())
}

fn push(earlier: &mut Mutation, call: Call) {
    earlier.size += call.size();
    earlier.calls.push(call);
}

fn remove(earlier: &mut Mutation, index: usize) {
    earlier.size -= earlier.calls[index].size();
    earlier.calls.remove(index);
}

/// From the last to the first.
fn remove_all(earlier: &mut Mutation, indexes: &[usize]) {
    for index in indexes {
        remove(earlier, *index);
    }
}

fn add(earlier: &mut Mutation, mut later: Operation, stamp: Stamp, since: Since<'_>) {
    let alone = |operation| Call { stamp, operations: vec![operation] };
    // What is replaced as a whole: the calls that changed something in it.
    let mut replaced = Vec::new();
    let mut index = earlier.calls.len();
    let reach = index.saturating_sub(REACH);
    while index > reach {
        index -= 1;
        match relation(&earlier.calls[index].operations, &later, since) {
            Relation::Apart => {}
            Relation::Same => match merge(&mut earlier.calls[index].operations[0], later, since, &mut earlier.size) {
                Merged::Done => {
                    let call = &mut earlier.calls[index];
                    call.stamp = call.stamp.max(stamp);
                    return remove_all(earlier, &replaced);
                }
                Merged::Emptied(rest) => {
                    remove(earlier, index);
                    later = rest;
                }
                Merged::Beside(rest) => later = rest,
                Merged::Not(rest)
                    if replaces(&rest) && since != Since::Moved && !is_rested_on(&earlier.calls, index, &replaced) =>
                {
                    replaced.push(index);
                    later = rest;
                }
                Merged::Not(rest) => return push(earlier, alone(rest)),
            },
            Relation::Inside
                if replaces(&later) && since != Since::Moved && !is_rested_on(&earlier.calls, index, &replaced) =>
            {
                replaced.push(index);
            }
            Relation::Inside | Relation::Tangled => return push(earlier, alone(later)),
        }
    }
    if index == 0
        && !replaced.is_empty()
        && let Some(anew) = recorded_anew(&later, earlier.origin.as_ref(), since)
    {
        remove_all(earlier, &replaced);
        later = anew;
    }
    push(earlier, alone(later));
}

/// Whether a later call that stays may need what the one at `index` has made on its way: it goes the same way.
fn is_rested_on(calls: &[Call], index: usize, replaced: &[usize]) -> bool {
    let Some(first) = calls[index].operations.first().and_then(|operation| operation.path.first()) else {
        return false;
    };
    let is_same = |step: &Step| match (step, first) {
        (Step::Member(one), Step::Member(other)) => one.overlaps(other),
        (one, other) => one == other,
    };
    let stays = calls.iter().enumerate().skip(index + 1).filter(|(at, _)| !replaced.contains(at));
    stays.flat_map(|(_, call)| &call.operations).any(|operation| operation.path.first().is_some_and(is_same))
}

/// How the operations of an earlier call stand to a later operation.
#[derive(Debug, PartialEq, Eq)]
enum Relation {
    /// Either may be done first.
    Apart,
    /// The one operation of the call is at the same place.
    Same,
    /// The one operation of the call is below the place.
    Inside,
    Tangled,
}

fn relation(call: &[Operation], later: &Operation, since: Since<'_>) -> Relation {
    if let [operation] = call {
        return relation_of(operation, later, since);
    }
    let apart = call.iter().all(|operation| relation_of(operation, later, since) == Relation::Apart);
    if apart { Relation::Apart } else { Relation::Tangled }
}

fn relation_of(earlier: &Operation, later: &Operation, since: Since<'_>) -> Relation {
    // Below an element nothing is apart: the element is named by its content, which each call changes,
    // and equal ones by occurrence.
    let mut below_element = false;
    for depth in 0.. {
        match (earlier.path.get(depth), later.path.get(depth)) {
            (Some(Step::Member(one)), Some(Step::Member(other))) if one.name == other.name => {}
            (Some(Step::Member(one)), Some(Step::Member(other))) if !one.overlaps(other) && !below_element => {
                return Relation::Apart;
            }
            (Some(Step::Element(one)), Some(Step::Element(other))) if since != Since::Moved => {
                // A removed element moves those behind it.
                let is_removal = earlier.path.len() == depth + 1 && matches!(earlier.action, Action::Remove { .. });
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

/// Whether an assignment at the place and a removal of it are more than the removal: the parents that
/// it made stay, and an element is only removed with the content that it has been given.
fn leaves_traces(operation: &Operation) -> bool {
    let Some((last, parents)) = operation.path.split_last() else { return true };
    let is_made = |step: &Step| matches!(step, Step::Member(member) if member.origin.is_some());
    matches!(last, Step::Element(_)) || parents.iter().any(is_made)
}

/// The same assignment or removal, recorded on what is there without the calls that it replaces.
fn recorded_anew(operation: &Operation, origin: Option<&Json>, since: Since<'_>) -> Option<Operation> {
    let Since::Unchanged(base) = since else { return None };
    let places: Vec<Place> = operation.path.iter().map(Step::place).collect();
    let spot = locate(base, origin, &places).ok()?;
    let found = Seen::from(spot.found.filter(|_| spot.exists).map(Content::of));
    let action = match &operation.action {
        Action::Set { value, .. } => Action::Set { value: value.clone(), seen: found },
        _ => Action::Remove { seen: found },
    };
    Some(Operation { path: spot.path, action })
}

enum Merged {
    /// The later one is in the earlier one.
    Done,
    /// There is nothing left of the earlier one.
    Emptied(Operation),
    /// Now either may be done first.
    Beside(Operation),
    Not(Operation),
}

/// Merges two operations at the same place, and adjusts `size` by what that adds and frees: counted
/// anew each time, 10,000 pushes would be slow.
fn merge(earlier: &mut Operation, later: Operation, since: Since<'_>, size: &mut usize) -> Merged {
    use Action::{Add, Append, Exclude, Include, Remove, Set, SetIfAbsent};
    let leaves_traces = leaves_traces(earlier);
    match (&mut earlier.action, later.action) {
        (Append { items }, Append { items: more }) => {
            *size += size_of_json(&more);
            items.extend(more);
        }
        (Add { amount }, Add { amount: more }) if sum(amount, &more).is_some() => {
            *amount = sum(amount, &more).unwrap_or(*amount);
        }
        (Set { value, .. }, Set { value: new, seen }) if has_seen(seen, value, since) => {
            *size = *size + new.as_str().len() - value.as_str().len();
            *value = new;
        }
        (Set { value, seen: first }, Remove { seen }) if has_seen(seen, value, since) && !leaves_traces => {
            *size -= value.as_str().len();
            earlier.action = Remove { seen: *first };
        }
        (Remove { .. }, Remove { seen: Seen::Absent }) | (SetIfAbsent { .. }, SetIfAbsent { .. }) => {}
        (Include { items }, Include { items: more }) | (Exclude { items }, Exclude { items: more }) => {
            for item in more {
                if !items.contains(&item) {
                    *size += size_of_json(std::slice::from_ref(&item));
                    items.push(item);
                }
            }
        }
        // Sets have no order: what is taken in last is in, what is taken out last is out.
        (Include { items }, action @ Exclude { .. }) | (Exclude { items }, action @ Include { .. }) => {
            *size -= size_of_json(items);
            if let Include { items: other } | Exclude { items: other } = &action {
                let other: Vec<Content> = other.iter().map(|item| Content::of(item.as_str())).collect();
                items.retain(|item| !other.contains(&Content::of(item.as_str())));
            }
            *size += size_of_json(items);
            let later = Operation { path: later.path, action };
            return if items.is_empty() { Merged::Emptied(later) } else { Merged::Beside(later) };
        }
        (_, action) => return Merged::Not(Operation { path: later.path, action }),
    }
    Merged::Done
}

/// Whether the later operation was recorded on what the earlier one has set.
fn has_seen(seen: Seen, value: &Json, since: Since<'_>) -> bool {
    since != Since::Moved || seen == Seen::Content(Content::of(value.as_str()))
}

fn sum(one: &Amount, other: &Amount) -> Option<Amount> {
    match (*one, *other) {
        (Amount::Integer { by, min, max }, Amount::Integer { by: more, min: low, max: high }) => {
            let by = by.checked_add(more).filter(|_| (min, max) == (low, high))?;
            Some(Amount::Integer { by, min, max })
        }
        (Amount::Float { by, single }, Amount::Float { by: more, single: also }) => {
            Some(by + more).filter(|by| by.is_finite() && single == also).map(|by| Amount::Float { by, single })
        }
        _ => None,
    }
}
