//! Closures: calls that apply where what they changed is as they saw it. Which of them are one
//! call, and which rest on which.

use serde_json::Value;

use super::document::completed;
use super::reference::{Act, Edit, Edits, Step};

/// Whether a later change is about a part that an earlier one wrote, or one in or around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meets {
    No,
    /// Elements of a list move, and members of it have no names: nobody relies on that.
    Maybe,
    Yes,
}

impl Edits {
    pub(super) fn meets(&self, earlier: &Self) -> Meets {
        self.all
            .iter()
            .map(|later| later.meets_any(earlier))
            .max()
            .unwrap_or(Meets::No)
    }

    /// Whether it compares a part that the other one wrote.
    pub(super) fn rests_on(&self, earlier: &Self) -> Meets {
        let compared = self
            .all
            .iter()
            .filter(|later| self.is_compared && later.compares());
        compared
            .map(|later| later.meets_any(earlier))
            .max()
            .unwrap_or(Meets::No)
    }

    /// Whether it applies only where something is as it was seen.
    pub(super) fn compares(&self) -> bool {
        self.is_compared && self.all.iter().any(Edit::compares)
    }

    pub(super) fn only_removes(&self) -> bool {
        self.all
            .iter()
            .all(|edit| matches!(edit.act, Act::Remove { .. } | Act::Exclude(_)))
    }

    /// Is one call with a later one from now on.
    pub(super) fn go_on(&mut self, later: &Self) {
        self.stamp = self.stamp.max(later.stamp);
        for edit in &later.all {
            let last = self
                .all
                .iter()
                .rposition(|earlier| edit.meets(earlier) != Meets::No);
            // What it left in between was never stored, and is not compared.
            let is_next = |last: &usize| {
                let is_apart = |between: &Edit| !between.is_in_list_of(edit);
                edit.is_on(&self.all[*last]) && self.all[last + 1..].iter().all(is_apart)
            };
            match (
                last.filter(is_next).map(|last| &mut self.all[last].act),
                &edit.act,
            ) {
                (Some(Act::Set { value, .. }), Act::Set { value: new, .. }) => {
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
            self.act,
            Act::Set { .. } | Act::Remove { .. } | Act::Exclude(_)
        )
    }

    fn meets_any(&self, earlier: &Edits) -> Meets {
        earlier
            .all
            .iter()
            .map(|earlier| self.meets(earlier))
            .max()
            .unwrap_or(Meets::No)
    }

    fn meets(&self, earlier: &Self) -> Meets {
        let mut most = Meets::Yes;
        for (one, other) in self.path.iter().zip(&earlier.path) {
            match (one, other) {
                (Step::Member(one, _), Step::Member(other, _)) if one != other => return Meets::No,
                (Step::Element(one), Step::Element(other)) => {
                    let is_like = one.index == other.index || one.content() == other.content();
                    most = if is_like {
                        Meets::Maybe
                    } else {
                        return Meets::No;
                    };
                }
                _ => {}
            }
        }
        let depth = self.path.len().min(earlier.path.len());
        let here = match (
            self.path.get(depth),
            earlier.path.get(depth),
            &self.act,
            &earlier.act,
        ) {
            (
                None,
                None,
                Act::Include(one) | Act::Exclude(one),
                Act::Include(other) | Act::Exclude(other),
            ) => {
                if one.iter().any(|item| other.contains(item)) {
                    Meets::Yes
                } else {
                    Meets::Maybe
                }
            }
            (None, None, one, other) if one.is_among_others() && other.is_among_others() => {
                Meets::Maybe
            }
            // What is added to a list is none of its other elements.
            (Some(Step::Element(mark)), None, _, Act::Append(items) | Act::Insert(_, items)) => {
                if items.contains(mark.content()) {
                    Meets::Maybe
                } else {
                    Meets::No
                }
            }
            (None, Some(Step::Element(_)), Act::Append(_), _) => Meets::No,
            (None, Some(Step::Element(mark)), Act::Insert(before, _), _) => {
                let is_like = before.index == mark.index || before.content() == mark.content();
                if is_like { Meets::Maybe } else { Meets::No }
            }
            (Some(Step::Element(_)), None, _, act) | (None, Some(Step::Element(_)), act, _)
                if act.is_among_others() =>
            {
                Meets::Maybe
            }
            _ => Meets::Yes,
        };
        most.min(here)
    }

    /// Whether it changes elements of the list that the other one changes.
    fn is_in_list_of(&self, other: &Self) -> bool {
        let list = other
            .path
            .iter()
            .take_while(|step| matches!(step, Step::Member(..)));
        let mut depth = 0;
        let is_same = list
            .inspect(|_| depth += 1)
            .zip(&self.path)
            .all(|(one, other)| match (one, other) {
                (Step::Member(one, _), Step::Member(other, _)) => one == other,
                _ => false,
            });
        depth < other.path.len() && is_same && self.path.len() >= depth
    }

    /// Whether it assigns what the earlier one has assigned, and saw that.
    fn is_on(&self, earlier: &Self) -> bool {
        let (Act::Set { seen, .. }, Act::Set { value, .. }) = (&self.act, &earlier.act) else {
            return false;
        };
        let is_same = |(one, other): (&Step, &Step)| match (one, other) {
            (Step::Member(one, _), Step::Member(other, _)) => one == other,
            // It is named by what the earlier one has made of it.
            (Step::Element(_), Step::Element(later)) => {
                let equal = later
                    .list
                    .iter()
                    .filter(|element| *element == value)
                    .count();
                later.content() == value && equal == 1
            }
            _ => false,
        };
        seen.as_ref() == Some(value)
            && earlier.path.len() == self.path.len()
            && earlier.path.iter().zip(&self.path).all(is_same)
    }
}

impl Act {
    /// Whether it leaves what else is in the list.
    fn is_among_others(&self) -> bool {
        matches!(
            self,
            Self::Append(_) | Self::Insert(..) | Self::Include(_) | Self::Exclude(_)
        )
    }
}

/// A part that a closure changes, as it saw it.
#[derive(Debug)]
pub(super) struct Saw {
    names: Vec<String>,
    act: Act,
    /// What is gone already is done.
    only_removes: bool,
}

impl Saw {
    /// What a call saw of what was there before these others. Of list elements nothing is said
    /// here.
    pub(super) fn all(call: &Edits, before: &[&Edits]) -> Vec<Self> {
        let only_removes = call.only_removes();
        let name = |step: &Step| match step {
            Step::Member(name, _) => Some(name.clone()),
            Step::Element(_) => None,
        };
        let is_first = |(index, edit): &(usize, &Edit)| {
            let mut earlier = call.all[..*index]
                .iter()
                .chain(before.iter().flat_map(|call| &call.all));
            edit.compares() && earlier.all(|earlier| edit.meets(earlier) == Meets::No)
        };
        let first = call.all.iter().enumerate().filter(is_first);
        let saw = first.filter_map(|(_, edit)| {
            let names = edit.path.iter().map(name).collect::<Option<Vec<_>>>()?;
            Some(Self {
                names,
                act: edit.act.clone(),
                only_removes,
            })
        });
        if call.is_compared {
            saw.collect()
        } else {
            Vec::new()
        }
    }

    /// Whether it is as it was seen, or done already.
    pub(super) fn is_there(&self, document: Option<&Value>) -> bool {
        // The whole is seen as it is stored, a part as it is read.
        let whole = if self.names.is_empty() {
            document.cloned()
        } else {
            Some(completed(document))
        };
        let found = whole.as_ref().and_then(|whole| {
            self.names
                .iter()
                .try_fold(whole, |here, name| here.get(name))
        });
        match &self.act {
            Act::Set { value, seen } => {
                found == seen.as_ref() || is_state(value) && found == Some(value)
            }
            Act::Remove { seen } => found == seen.as_ref() || self.only_removes && found.is_none(),
            Act::Exclude(items) => {
                let has_all = |list: &Vec<Value>| items.iter().all(|item| list.contains(item));
                self.only_removes || found.and_then(Value::as_array).is_some_and(has_all)
            }
            _ => true,
        }
    }
}

/// Whether two that leave it have come to the same: of a number nobody can say so.
pub(super) fn is_state(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(_) | Value::String(_))
}
