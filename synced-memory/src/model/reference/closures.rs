//! Which calls were made on what other calls wrote, and what a closure compares.
//!
//! A closure applies if what it changed is as it observed it. If one closure of a process was made
//! on what an earlier one wrote, the two are one call.

use serde_json::Value;

use super::super::document::completed;
use super::edits::{CallEdits, Edit, EditAction, EditStep, is_state};

/// Whether a later edit changes a value that an earlier one wrote, or one in or around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::model) enum Overlap {
    No,
    /// Elements of a list move, and a set has no paths to its members: the rules leave it open.
    Maybe,
    Yes,
}

impl CallEdits {
    /// The overlap with an earlier call.
    pub(in crate::model) fn overlap(&self, earlier: &Self) -> Overlap {
        self.all
            .iter()
            .map(|later| later.overlap_with_any(earlier))
            .max()
            .unwrap_or(Overlap::No)
    }

    /// The overlap of what it compares with what the other one wrote.
    pub(in crate::model) fn compared_overlap(&self, earlier: &Self) -> Overlap {
        let compared = self
            .all
            .iter()
            .filter(|later| self.is_compared && later.compares());
        compared
            .map(|later| later.overlap_with_any(earlier))
            .max()
            .unwrap_or(Overlap::No)
    }

    /// Whether it applies only if something is as it was observed.
    pub(in crate::model) fn compares(&self) -> bool {
        self.is_compared && self.all.iter().any(Edit::compares)
    }

    pub(in crate::model) fn only_removes(&self) -> bool {
        self.all.iter().all(|edit| {
            matches!(
                edit.action,
                EditAction::Remove { .. } | EditAction::Exclude(_)
            )
        })
    }

    /// A later call becomes part of this one.
    pub(in crate::model) fn join(&mut self, later: &Self) {
        self.stamp = self.stamp.max(later.stamp);
        for edit in &later.all {
            let last = self
                .all
                .iter()
                .rposition(|earlier| edit.overlap(earlier) != Overlap::No);
            // What was written in between is never stored, and so it is not compared.
            let is_next = |last: &usize| {
                let is_apart = |between: &Edit| !between.is_in_list_of(edit);
                edit.continues(&self.all[*last]) && self.all[last + 1..].iter().all(is_apart)
            };
            match (
                last.filter(is_next).map(|last| &mut self.all[last].action),
                &edit.action,
            ) {
                (Some(EditAction::Set { value, .. }), EditAction::Set { value: new, .. }) => {
                    value.clone_from(new);
                }
                _ => self.all.push(edit.clone()),
            }
        }
    }
}

impl Edit {
    fn compares(&self) -> bool {
        matches!(
            self.action,
            EditAction::Set { .. } | EditAction::Remove { .. } | EditAction::Exclude(_)
        )
    }

    fn overlap_with_any(&self, earlier: &CallEdits) -> Overlap {
        earlier
            .all
            .iter()
            .map(|earlier| self.overlap(earlier))
            .max()
            .unwrap_or(Overlap::No)
    }

    fn overlap(&self, earlier: &Self) -> Overlap {
        let mut most = Overlap::Yes;
        for (one, other) in self.path.iter().zip(&earlier.path) {
            match (one, other) {
                (EditStep::Member(one, _), EditStep::Member(other, _)) if one != other => {
                    return Overlap::No;
                }
                (EditStep::Element(one), EditStep::Element(other)) => {
                    let is_like = one.index == other.index || one.content() == other.content();
                    most = if is_like {
                        Overlap::Maybe
                    } else {
                        return Overlap::No;
                    };
                }
                _ => {}
            }
        }
        let depth = self.path.len().min(earlier.path.len());
        let deepest = match (
            self.path.get(depth),
            earlier.path.get(depth),
            &self.action,
            &earlier.action,
        ) {
            (
                None,
                None,
                EditAction::Include(one) | EditAction::Exclude(one),
                EditAction::Include(other) | EditAction::Exclude(other),
            ) => {
                if one.iter().any(|item| other.contains(item)) {
                    Overlap::Yes
                } else {
                    Overlap::Maybe
                }
            }
            (None, None, one, other)
                if one.keeps_other_elements() && other.keeps_other_elements() =>
            {
                Overlap::Maybe
            }
            // What is added to a list is none of its earlier elements.
            (
                Some(EditStep::Element(mark)),
                None,
                _,
                EditAction::Append(items) | EditAction::Insert(_, items),
            ) => {
                if items.contains(mark.content()) {
                    Overlap::Maybe
                } else {
                    Overlap::No
                }
            }
            (None, Some(EditStep::Element(_)), EditAction::Append(_), _) => Overlap::No,
            (None, Some(EditStep::Element(mark)), EditAction::Insert(before, _), _) => {
                let is_like = before.index == mark.index || before.content() == mark.content();
                if is_like { Overlap::Maybe } else { Overlap::No }
            }
            (Some(EditStep::Element(_)), None, _, action)
            | (None, Some(EditStep::Element(_)), action, _)
                if action.keeps_other_elements() =>
            {
                Overlap::Maybe
            }
            _ => Overlap::Yes,
        };
        most.min(deepest)
    }

    /// Whether both change elements of the same list.
    fn is_in_list_of(&self, other: &Self) -> bool {
        let list = other
            .path
            .iter()
            .take_while(|step| matches!(step, EditStep::Member(..)));
        let mut depth = 0;
        let is_same = list
            .inspect(|_| depth += 1)
            .zip(&self.path)
            .all(|(one, other)| match (one, other) {
                (EditStep::Member(one, _), EditStep::Member(other, _)) => one == other,
                _ => false,
            });
        depth < other.path.len() && is_same && self.path.len() >= depth
    }

    /// Whether it assigns what the earlier one has assigned, and observed that.
    fn continues(&self, earlier: &Self) -> bool {
        let (EditAction::Set { observed, .. }, EditAction::Set { value, .. }) =
            (&self.action, &earlier.action)
        else {
            return false;
        };
        let is_same = |(one, other): (&EditStep, &EditStep)| match (one, other) {
            (EditStep::Member(one, _), EditStep::Member(other, _)) => one == other,
            // It is identified by what the earlier one has assigned.
            (EditStep::Element(_), EditStep::Element(later)) => {
                let equal = later
                    .list
                    .iter()
                    .filter(|element| *element == value)
                    .count();
                later.content() == value && equal == 1
            }
            _ => false,
        };
        observed.as_ref() == Some(value)
            && earlier.path.len() == self.path.len()
            && earlier.path.iter().zip(&self.path).all(is_same)
    }
}

impl EditAction {
    /// Whether it leaves the other elements of the list as they are.
    fn keeps_other_elements(&self) -> bool {
        matches!(
            self,
            Self::Append(_) | Self::Insert(..) | Self::Include(_) | Self::Exclude(_)
        )
    }
}

/// A value that a closure changes, as it was observed.
#[derive(Debug)]
pub(in crate::model) struct ComparedPath {
    names: Vec<String>,
    action: EditAction,
    /// If it is gone already, there is nothing to do.
    only_removes: bool,
}

impl ComparedPath {
    /// What a call observed of the document before these earlier calls; without elements of lists.
    pub(in crate::model) fn all(call: &CallEdits, before: &[&CallEdits]) -> Vec<Self> {
        let only_removes = call.only_removes();
        let name = |step: &EditStep| match step {
            EditStep::Member(name, _) => Some(name.clone()),
            EditStep::Element(_) => None,
        };
        let is_first = |(index, edit): &(usize, &Edit)| {
            let mut earlier = call.all[..*index]
                .iter()
                .chain(before.iter().flat_map(|call| &call.all));
            edit.compares() && earlier.all(|earlier| edit.overlap(earlier) == Overlap::No)
        };
        let first = call.all.iter().enumerate().filter(is_first);
        let compared = first.filter_map(|(_, edit)| {
            let names = edit.path.iter().map(name).collect::<Option<Vec<_>>>()?;
            Some(Self {
                names,
                action: edit.action.clone(),
                only_removes,
            })
        });
        if call.is_compared {
            compared.collect()
        } else {
            Vec::new()
        }
    }

    /// Whether it is as it was observed, or there is nothing to do.
    pub(in crate::model) fn matches(&self, document: Option<&Value>) -> bool {
        // The whole document is compared as it is stored, a value in it as it is read.
        let whole = if self.names.is_empty() {
            document.cloned()
        } else {
            Some(completed(document))
        };
        let found = whole.as_ref().and_then(|whole| {
            self.names
                .iter()
                .try_fold(whole, |node, name| node.get(name))
        });
        match &self.action {
            EditAction::Set { value, observed } => {
                found == observed.as_ref() || is_state(value) && found == Some(value)
            }
            EditAction::Remove { observed } => {
                found == observed.as_ref() || self.only_removes && found.is_none()
            }
            EditAction::Exclude(items) => {
                let has_all = |list: &Vec<Value>| items.iter().all(|item| list.contains(item));
                self.only_removes || found.and_then(Value::as_array).is_some_and(has_all)
            }
            _ => true,
        }
    }
}
