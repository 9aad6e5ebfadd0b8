//! Applying a mutation to what others have made of a value.

use std::borrow::Cow;
use std::collections::HashSet;

use super::element::{Element, ElementMatch};
use super::text::{self, is_space, mismatch};
use super::tree::{List, NodeEdit, TreeNode};
use super::{
    Action, Amount, ApplyError, Content, Json, Mutation, ObservedValue, Operation, PathStep,
    RecordedCall,
};
use crate::base::clock::Stamp;

/// Who wins when an assignment or a removal finds something else than it saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConflictRule {
    /// The mutation is the latest: what it finds does not matter.
    Latest,
    /// What is stored has this stamp, and a call that is older is then superseded. If it finds what
    /// it would write, it is done.
    NewerWins(Stamp),
    /// The mutation is for what it saw: a call that finds something else at its path, or finds that
    /// its change is made already, is superseded.
    Exact,
}

impl ConflictRule {
    fn of(self, call: &RecordedCall) -> Comparison {
        match self {
            _ if call.is_compared => Comparison::Compared {
                only_removes: call.only_removes(),
            },
            Self::NewerWins(found) if found > call.stamp => Comparison::Newer,
            Self::Latest | Self::NewerWins(_) => Comparison::Older,
            Self::Exact => Comparison::AsSeen,
        }
    }
}

/// What is stored at the path of a call, compared with the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::value) enum Comparison {
    Older,
    Newer,
    /// It must be as it was seen, or the call is superseded.
    AsSeen,
    /// It must be as it was seen, or the call does not apply, whoever is newer. A call that does
    /// nothing but remove is done if what it removes is gone.
    Compared {
        only_removes: bool,
    },
}

/// What a mutation made of a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    pub(crate) made: Edited,
    /// The calls that met something newer, by index, and were skipped.
    pub(crate) superseded: Vec<usize>,
    /// The calls that do not apply, by index, and were skipped.
    pub(crate) failed: Vec<(usize, ApplyError)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Edited {
    /// Nothing was changed.
    #[default]
    Nothing,
    Text(String),
    /// The whole is removed.
    Removed,
}

impl Applied {
    /// The changed value; `None` if nothing was changed, or nothing is left.
    #[cfg(test)]
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.made {
            Edited::Text(text) => Some(text),
            Edited::Nothing | Edited::Removed => None,
        }
    }

    /// Why the call that `later` depends on was skipped, if it was.
    fn dependent_outcome(
        &self,
        calls: &[RecordedCall],
        later: &RecordedCall,
    ) -> Option<NotApplied> {
        let depends = |index: &usize| later.depends_on(&calls[*index]);
        let superseded = self
            .superseded
            .iter()
            .find(|index| depends(index))
            .map(|_| NotApplied::Superseded);
        let error = || {
            self.failed
                .iter()
                .find(|(index, _)| depends(index))
                .map(|_| NotApplied::Failed(ApplyError::Changed))
        };
        superseded.or_else(error)
    }
}

/// Applies the calls of a mutation one by one to a value; `None` is an unset key.
pub(crate) fn apply(value: Option<&str>, mutation: &Mutation, rule: ConflictRule) -> Applied {
    let whole = value.unwrap_or_default();
    let trimmed = whole.trim_matches(is_space);
    let mut root = value.is_some().then(|| TreeNode::from(trimmed));
    let mut applied = apply_calls(&mut root, mutation, rule, |root, operation, comparison| {
        apply_operation(
            root,
            mutation,
            operation,
            comparison,
            &mut ElementSearch::ByName,
        )
    });
    let Some(root) = root else {
        applied.made = if value.is_some() {
            Edited::Removed
        } else {
            Edited::Nothing
        };
        return applied;
    };
    // The white space around the value stays.
    let start = whole.len() - whole.trim_start_matches(is_space).len();
    let mut text = String::with_capacity(whole.len() + 256);
    text.push_str(&whole[..start]);
    root.write(&mut text);
    text.push_str(&whole[start + trimmed.len()..]);
    if value != Some(&text) {
        applied.made = Edited::Text(text);
    }
    applied
}

/// Applies the calls of a mutation one by one to a root: all operations of a call, or none of them.
/// What they make is in the root, and not in what is returned.
pub(in crate::value) fn apply_calls<'a, R: Clone>(
    root: &mut R,
    mutation: &'a Mutation,
    rule: ConflictRule,
    mut apply_operation: impl FnMut(&mut R, &'a Operation, Comparison) -> Result<(), NotApplied>,
) -> Applied {
    let mut applied = Applied::default();
    for (index, call) in mutation.calls.iter().enumerate() {
        let comparison = rule.of(call);
        let outcome = match applied.dependent_outcome(&mutation.calls, call) {
            Some(not_applied) => Err(not_applied),
            None => apply_call(root, call, |root, operation| {
                apply_operation(root, operation, comparison)
            }),
        };
        match outcome {
            Ok(()) => {}
            Err(NotApplied::Superseded) => applied.superseded.push(index),
            Err(NotApplied::Failed(error)) => applied.failed.push((index, error)),
        }
    }
    applied
}

/// How the elements of lists are found.
pub(in crate::value) enum ElementSearch {
    ByName,
    /// By index and content: each was recorded on what the operations before it have left. Notes
    /// the name that each has there.
    ByIndex(Vec<Element>),
}

impl ElementSearch {
    fn find(
        &mut self,
        element: &Element,
        list: &mut List<'_>,
    ) -> Result<Option<ElementMatch>, ApplyError> {
        match self {
            // A closure that changes each element of a long list must not look at all of it each
            // time.
            Self::ByName if element.has_stayed(|at| list.content(at)) => {
                Ok(Some(ElementMatch::Same(element.index)))
            }
            Self::ByName => Ok(element.find(&list.contents())),
            Self::ByIndex(names) => {
                let name = Element::of(&list.contents(), element.index)
                    .filter(|name| name.content == element.content)
                    .ok_or(ApplyError::Gone)?;
                names.push(name);
                Ok(Some(ElementMatch::Same(element.index)))
            }
        }
    }

    /// The index at which something belongs that was added before the element.
    fn find_insertion(
        &mut self,
        before: &Element,
        list: &mut List<'_>,
    ) -> Result<usize, ApplyError> {
        Ok(match self.find(before, list)? {
            Some(ElementMatch::Same(at) | ElementMatch::Changed(at)) => at,
            Some(ElementMatch::Guessed(_) | ElementMatch::Unclear) | None => {
                before.find_gap(&list.contents())
            }
        })
    }
}

/// Applies a mutation whose elements are found by index and content. Returns what it makes of the
/// value, and the name of each element at the moment of its operation, in order; `None` if an
/// operation does not apply.
pub(super) fn apply_by_index(
    value: Option<&str>,
    mutation: &Mutation,
) -> Option<(Option<String>, Vec<Element>)> {
    let mut root = value.map(|value| TreeNode::from(value.trim_matches(is_space)));
    let mut elements = ElementSearch::ByIndex(Vec::new());
    for operation in mutation.calls.iter().flat_map(|call| &call.operations) {
        apply_operation(
            &mut root,
            mutation,
            operation,
            Comparison::Older,
            &mut elements,
        )
        .ok()?;
    }
    let ElementSearch::ByIndex(names) = elements else {
        return None;
    };
    Some((root.map(|root| root.to_text().into_owned()), names))
}

/// Applies one operation to a text; `None` where it does not apply.
pub(super) fn apply_one(text: &str, operation: &Operation) -> Option<String> {
    let Operation { path, action } = operation;
    let mut root = TreeNode::from(text);
    match apply_below(
        Some(&mut root),
        None,
        (path, action),
        Comparison::Older,
        &mut ElementSearch::ByName,
    )
    .ok()?
    {
        NodeEdit::Keep => {}
        NodeEdit::Replace(node) => return Some(node.to_text().into_owned()),
        NodeEdit::Remove => return None,
    }
    Some(root.to_text().into_owned())
}

pub(in crate::value) enum NotApplied {
    Superseded,
    Failed(ApplyError),
}

impl From<ApplyError> for NotApplied {
    fn from(error: ApplyError) -> Self {
        Self::Failed(error)
    }
}

/// Applies all operations of a call, or none of them.
fn apply_call<'a, R: Clone>(
    root: &mut R,
    call: &'a RecordedCall,
    mut apply_operation: impl FnMut(&mut R, &'a Operation) -> Result<(), NotApplied>,
) -> Result<(), NotApplied> {
    // A single operation that fails has changed nothing.
    let before = (call.operations.len() > 1).then(|| root.clone());
    for operation in &call.operations {
        if let Err(error) = apply_operation(root, operation) {
            if let Some(before) = before {
                *root = before;
            }
            return Err(error);
        }
    }
    Ok(())
}

fn apply_operation<'a>(
    root: &mut Option<TreeNode<'a>>,
    mutation: &'a Mutation,
    operation: &'a Operation,
    comparison: Comparison,
    elements: &mut ElementSearch,
) -> Result<(), NotApplied> {
    let Operation { path, action } = operation;
    let origin = mutation.origin.as_ref();
    match apply_below(root.as_mut(), origin, (path, action), comparison, elements)? {
        NodeEdit::Keep => {}
        NodeEdit::Replace(node) => *root = Some(node),
        NodeEdit::Remove => *root = None,
    }
    Ok(())
}

/// Applies an action below `node` or, if that is missing, below its origin. If it fails, nothing
/// was changed.
pub(in crate::value) fn apply_below<'a>(
    node: Option<&mut TreeNode<'a>>,
    origin: Option<&'a Json>,
    (path, action): (&'a [PathStep], &'a Action),
    comparison: Comparison,
    elements: &mut ElementSearch,
) -> Result<NodeEdit<'a>, NotApplied> {
    let is_removal = matches!(action, Action::Remove { .. });
    if path.is_empty()
        && let Some(edit) = assign(node.as_deref(), origin, action, comparison)?
    {
        return Ok(edit);
    }
    let mut fresh = None;
    let node = match (node, origin) {
        (Some(node), _) => node,
        (None, None) if is_removal => return comparison.if_gone(),
        (None, origin) => fresh.insert(TreeNode::from(origin.ok_or(ApplyError::Unset)?)),
    };
    match path.split_first() {
        None => change_in_place(node, action, comparison, elements)?,
        Some((PathStep::Member(member), rest)) => {
            let object = node.object()?;
            let at = object.find(member);
            let edit = apply_below(
                at.map(|at| object.node(at)),
                member.origin.as_ref(),
                (rest, action),
                comparison,
                elements,
            )?;
            object.apply_edit(at, member, edit);
        }
        Some((PathStep::Element(element), rest)) => {
            let list = node.list()?;
            match elements.find(element, list)? {
                // An element is removed as it was seen; with another content it is another's.
                Some(
                    ElementMatch::Changed(_) | ElementMatch::Guessed(_) | ElementMatch::Unclear,
                ) if is_removal && rest.is_empty() => {
                    comparison.if_changed()?;
                }
                // What compares nothing would change another's without a word.
                Some(ElementMatch::Guessed(_))
                    if matches!(comparison, Comparison::Compared { .. }) =>
                {
                    return Err(ApplyError::Changed.into());
                }
                None if is_removal => return comparison.if_gone(),
                None | Some(ElementMatch::Unclear) => return Err(ApplyError::Gone.into()),
                Some(
                    ElementMatch::Same(at) | ElementMatch::Changed(at) | ElementMatch::Guessed(at),
                ) => {
                    let edit = apply_below(
                        Some(list.node(at)),
                        None,
                        (rest, action),
                        comparison,
                        elements,
                    )?;
                    list.apply_edit(at, edit);
                }
            }
        }
    }
    Ok(match fresh {
        // What changes nothing writes nothing.
        Some(fresh) if origin.is_none_or(|origin| fresh.to_text() != origin.as_str()) => {
            NodeEdit::Replace(fresh)
        }
        _ => NodeEdit::Keep,
    })
}

impl Comparison {
    /// The outcome of a removal of what is gone already.
    fn if_gone<'a>(self) -> Result<NodeEdit<'a>, NotApplied> {
        match self {
            Self::Older | Self::Newer | Self::Compared { only_removes: true } => Ok(NodeEdit::Keep),
            Self::AsSeen => Err(NotApplied::Superseded),
            Self::Compared {
                only_removes: false,
            } => Err(ApplyError::Changed.into()),
        }
    }

    /// The outcome of the removal of an element that has changed since: it stays.
    fn if_changed(self) -> Result<(), NotApplied> {
        match self {
            Self::Older | Self::Newer => Ok(()),
            Self::AsSeen => Err(NotApplied::Superseded),
            Self::Compared { .. } => Err(ApplyError::Changed.into()),
        }
    }

    /// The outcome of a change that finds something else than it saw, if that decides.
    fn if_different(self) -> NotApplied {
        match self {
            Self::Compared { .. } => ApplyError::Changed.into(),
            Self::Older | Self::Newer | Self::AsSeen => NotApplied::Superseded,
        }
    }

    /// Whether a change that leaves `value` is done, although it finds something else than it saw.
    fn is_done(self, found: Option<&str>, value: &Json) -> bool {
        let is_found =
            || found.is_some_and(|found| Content::keyed(found) == Content::keyed(value.as_str()));
        match self {
            Self::Newer => is_found(),
            // A number that two calls have changed to the same number is still wrong: one of the
            // two changes is lost.
            Self::Compared { .. } => {
                matches!(value.as_str().as_bytes()[0], b'"' | b't' | b'f' | b'n') && is_found()
            }
            Self::Older | Self::AsSeen => false,
        }
    }
}

/// What an assignment or a removal does to `node`; `None` for the other actions.
fn assign<'a>(
    node: Option<&TreeNode<'a>>,
    origin: Option<&'a Json>,
    action: &'a Action,
    comparison: Comparison,
) -> Result<Option<NodeEdit<'a>>, NotApplied> {
    Ok(Some(match action {
        Action::Set { value, .. } if comparison == Comparison::Older => {
            NodeEdit::Replace(value.into())
        }
        Action::Set { value, seen } => {
            let found = node.map(TreeNode::to_text);
            let found = found.as_deref();
            // A missing value was seen as its origin, or as missing.
            let found_or_origin = found.or(origin.map(Json::as_str));
            if comparison == Comparison::Newer && comparison.is_done(found, value) {
                NodeEdit::Keep
            } else if seen.is(found) || seen.is(found_or_origin) {
                NodeEdit::Replace(value.into())
            } else if comparison.is_done(found, value) {
                NodeEdit::Keep
            } else {
                return Err(comparison.if_different());
            }
        }
        Action::SetIfAbsent { value } if node.is_none() => NodeEdit::Replace(value.into()),
        Action::SetIfAbsent { .. } if comparison == Comparison::AsSeen => {
            return Err(NotApplied::Superseded);
        }
        Action::SetIfAbsent { .. } => NodeEdit::Keep,
        Action::Remove { seen } => match (node, comparison) {
            (None, Comparison::AsSeen | Comparison::Compared { .. })
                if *seen == ObservedValue::Absent =>
            {
                NodeEdit::Keep
            }
            (None, _) => comparison.if_gone()?,
            (Some(_), Comparison::Older) => NodeEdit::Remove,
            (Some(node), _) if seen.is(Some(&node.to_text())) => NodeEdit::Remove,
            (Some(_), _) => return Err(comparison.if_different()),
        },
        _ => return Ok(None),
    }))
}

/// Changes `node` in place.
fn change_in_place<'a>(
    node: &mut TreeNode<'a>,
    action: &'a Action,
    comparison: Comparison,
    elements: &mut ElementSearch,
) -> Result<(), NotApplied> {
    match action {
        Action::Add { amount } => {
            let sum = sum(&node.to_text(), amount)?;
            *node = TreeNode::Text(Cow::Owned(sum));
        }
        Action::Append { items } => node.append(items)?,
        Action::InsertAt { before, items } => {
            let list = node.list()?;
            let at = elements.find_insertion(before, list)?;
            list.insert(at, items);
        }
        Action::Include { items } => {
            let list = node.list()?;
            let mut present: HashSet<Content> = list.keyed_contents().into_iter().collect();
            for item in items {
                if present.insert(Content::keyed(item.as_str())) {
                    list.insert(usize::MAX, std::slice::from_ref(item));
                } else if comparison == Comparison::AsSeen {
                    return Err(NotApplied::Superseded);
                }
            }
        }
        Action::Exclude { items } => {
            let out: HashSet<Content> = items
                .iter()
                .map(|item| Content::keyed(item.as_str()))
                .collect();
            let list = node.list()?;
            let contents = list.keyed_contents();
            let present: HashSet<&Content> = contents
                .iter()
                .filter(|content| out.contains(content))
                .collect();
            let is_any_gone = match comparison {
                Comparison::AsSeen => present.is_empty(),
                Comparison::Older | Comparison::Newer | Comparison::Compared { .. } => {
                    present.len() < out.len()
                }
            };
            if is_any_gone {
                comparison.if_gone()?;
            }
            list.retain(contents.iter().map(|content| !out.contains(content)));
        }
        Action::Set { .. } | Action::SetIfAbsent { .. } | Action::Remove { .. } => {}
    }
    Ok(())
}

/// The text of a sum. Integers are added exactly, floats as floats.
fn sum(text: &str, amount: &Amount) -> Result<String, ApplyError> {
    if text::kind(text) != text::NUMBER {
        return Err(mismatch(text, text::NUMBER));
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| ApplyError::Invalid)?;
    match *amount {
        Amount::Integer { by, min, max } => {
            if text.contains(['.', 'e', 'E']) {
                return Err(ApplyError::Type {
                    expected: "an integer",
                    found: "a float",
                });
            }
            // A number with more digits than an i128 has is out of every range.
            let sum = text
                .parse::<i128>()
                .ok()
                .and_then(|number| number.checked_add(by));
            let range = min.max(i64::MIN.into())..=max.min(u64::MAX.into());
            sum.filter(|sum| range.contains(sum))
                .map(|sum| sum.to_string())
                .ok_or(ApplyError::Overflow)
        }
        Amount::Float { by, single } => {
            let sum = if single {
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "the sum of two f32, rounded once"
                )]
                let sum =
                    (f64::from(text.parse::<f32>().map_err(|_| ApplyError::Invalid)?) + by) as f32;
                sum.is_finite().then(|| serde_json::to_string(&sum))
            } else {
                let sum = text.parse::<f64>().map_err(|_| ApplyError::Invalid)? + by;
                sum.is_finite().then(|| serde_json::to_string(&sum))
            };
            sum.ok_or(ApplyError::Overflow)?
                .map_err(|_| ApplyError::Overflow)
        }
    }
}
