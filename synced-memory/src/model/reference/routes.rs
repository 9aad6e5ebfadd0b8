//! The possible results of several calls, one after the other: which of them are applied, and the
//! value then.

use serde_json::Value;

use super::apply::{ApplyMode, EditRefusal};
use super::closures::Overlap;
use super::edits::{CallEdits, Edit, EditAction, EditStep};

/// Which write wins if the value is not as it was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum RouteRule {
    Latest,
    /// What is stored has this stamp.
    NewerWins(u64),
    /// Neither: the call is refused.
    RequireObserved,
}

/// One possible course of some calls.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model) struct CallRoute {
    pub(in crate::model) value: Option<Value>,
    /// The calls that were skipped for something newer, by index.
    pub(in crate::model) superseded: Vec<usize>,
    /// The calls that do not apply, by index.
    pub(in crate::model) inapplicable: Vec<usize>,
    /// The calls that were merged into later ones, by index.
    pub(in crate::model) replaced: Vec<usize>,
}

/// At most so many routes are followed. If there are more, nothing is checked.
pub(in crate::model) const MAX_ROUTES: usize = 400;

/// All routes of these calls; `None` if there are too many.
pub(in crate::model) fn routes(
    value: Option<Value>,
    origin: Option<&Value>,
    calls: &[&CallEdits],
    rule: RouteRule,
) -> Option<Vec<CallRoute>> {
    let mut routes = vec![CallRoute {
        value,
        superseded: Vec::new(),
        inapplicable: Vec::new(),
        replaced: Vec::new(),
    }];
    for (index, call) in calls.iter().enumerate() {
        // An earlier call may have been merged into a later one that replaces what it changed.
        let is_replaced = rule != RouteRule::Latest
            && (index + 1..calls.len()).any(|later| is_replaced_by(calls, index, later));
        let mode = match rule {
            _ if call.is_compared => ApplyMode::CompareWithObserved {
                only_removes: call.only_removes(),
            },
            RouteRule::NewerWins(found) if found > call.stamp => ApplyMode::YieldToNewer,
            RouteRule::RequireObserved => ApplyMode::RequireObserved,
            RouteRule::Latest | RouteRule::NewerWins(_) => ApplyMode::Overwrite,
        };
        let mut next: Vec<CallRoute> = Vec::new();
        for route in routes {
            if is_replaced {
                let mut route = route.clone();
                route.replaced.push(index);
                add_unique(&mut next, route);
            }
            for refusal in call.possible_shared_refusals(&route, calls) {
                let mut route = route.clone();
                route.skip(index, refusal);
                add_unique(&mut next, route);
            }
            if !call.must_share_refusal(&route, calls) {
                for route in route.with(calls, index, origin, mode) {
                    add_unique(&mut next, route);
                }
            }
        }
        if next.len() > MAX_ROUTES {
            return None;
        }
        routes = next;
    }
    Some(routes)
}

fn add_unique(routes: &mut Vec<CallRoute>, route: CallRoute) {
    if !routes.contains(&route) {
        routes.push(route);
    }
}

impl CallRoute {
    /// This route, continued by the call with this index.
    fn with(
        self,
        calls: &[&CallEdits],
        index: usize,
        origin: Option<&Value>,
        mode: ApplyMode,
    ) -> Vec<Self> {
        let Self {
            value,
            superseded,
            inapplicable,
            replaced,
        } = self;
        let call = calls[index];
        // A call that others were merged into observed what the first of these did (its default,
        // if nothing was stored); or, if it was recorded on a default, that nothing was stored.
        let is_merged = |earlier: usize| {
            let is_before =
                |at: usize| !replaced.contains(&at) && is_replaced_by(calls, earlier, at);
            is_replaced_by(calls, earlier, index) && !(earlier + 1..index).any(is_before)
        };
        let results = match replaced.iter().find(|earlier| is_merged(**earlier)) {
            None => call.results_on(value, origin, mode),
            Some(earlier) => {
                let observed = calls[*earlier].recorded_on.as_deref().or(origin);
                let on_value = call.as_recorded_on(observed);
                let mut results = on_value.results_on(value.clone(), origin, mode);
                let on_nothing = call.as_recorded_on_nothing();
                results.extend(on_nothing.results_on(value, origin, mode));
                results
            }
        };

        let continued = results.into_iter().map(|(result, value)| {
            let mut route = Self {
                value,
                superseded: superseded.clone(),
                inapplicable: inapplicable.clone(),
                replaced: replaced.clone(),
            };
            if let Err(refusal) = result {
                route.skip(index, refusal);
            }
            route
        });
        continued.collect()
    }

    fn skip(&mut self, index: usize, refusal: EditRefusal) {
        match refusal {
            EditRefusal::Superseded => self.superseded.push(index),
            EditRefusal::Inapplicable => self.inapplicable.push(index),
        }
    }
}

/// Whether the earlier of two calls may be merged into the later one: no closure in between was
/// made on the earlier one, or changed what the later one changes.
fn is_replaced_by(calls: &[&CallEdits], earlier: usize, later: usize) -> bool {
    let is_apart = |between: &&CallEdits| {
        !between.is_compared
            || between.overlap(calls[earlier]) != Overlap::Yes
                && calls[later].overlap(between) != Overlap::Yes
    };
    calls[later].replaces(calls[earlier]) && calls[earlier + 1..later].iter().all(is_apart)
}

impl CallEdits {
    /// Whether it is based on any of the calls that were skipped.
    fn compared_overlap_with_any(&self, skipped: &[usize], calls: &[&Self]) -> Overlap {
        skipped
            .iter()
            .map(|index| self.compared_overlap(calls[*index]))
            .max()
            .unwrap_or(Overlap::No)
    }

    /// The refusals that it may share with what it was made on.
    fn possible_shared_refusals(&self, route: &CallRoute, calls: &[&Self]) -> Vec<EditRefusal> {
        let superseded = self.compared_overlap_with_any(&route.superseded, calls);
        let inapplicable = self.compared_overlap_with_any(&route.inapplicable, calls);
        let mut shared = Vec::new();
        shared.extend((superseded != Overlap::No).then_some(EditRefusal::Superseded));
        shared.extend(
            (superseded != Overlap::Yes && inapplicable != Overlap::No)
                .then_some(EditRefusal::Inapplicable),
        );
        shared
    }

    fn must_share_refusal(&self, route: &CallRoute, calls: &[&Self]) -> bool {
        self.compared_overlap_with_any(&route.superseded, calls) == Overlap::Yes
            || self.compared_overlap_with_any(&route.inapplicable, calls) == Overlap::Yes
    }

    /// Whether it does nothing but assign or remove all that the other call changes.
    pub(in crate::model) fn replaces(&self, other: &Self) -> bool {
        let ([Edit { path, action }], [earlier]) = (&self.all[..], &other.all[..]) else {
            return false;
        };
        if self.is_compared || other.is_compared {
            return false;
        }
        let is_element = |edit: &[EditStep]| matches!(edit.last(), Some(EditStep::Element(_)));
        // An element is removed only as it was observed, and another one then has its index.
        let is_whole = match action {
            EditAction::Set { .. } => {
                path.len() < earlier.path.len() || !earlier.is_removal() || !is_element(path)
            }
            EditAction::Remove { .. } => !is_element(path),
            _ => false,
        };
        let is_same = |one: &EditStep, other: &EditStep| match (one, other) {
            (EditStep::Member(one, _), EditStep::Member(other, _)) => one == other,
            (EditStep::Element(one), EditStep::Element(other)) => one.index == other.index,
            _ => false,
        };
        is_whole
            && path.len() <= earlier.path.len()
            && path
                .iter()
                .zip(&earlier.path)
                .all(|(one, other)| is_same(one, other))
    }

    /// The same assignment or removal, recorded on this value and on the defaults of what it lacks.
    fn as_recorded_on(&self, recorded_on: Option<&Value>) -> Self {
        let mut call = self.clone();
        for Edit { path, action } in &mut call.all {
            let mut node = recorded_on.cloned();
            for step in path {
                node = match (step, node) {
                    (EditStep::Member(name, origin), node) => node
                        .and_then(|mut node| node.get_mut(&**name).map(Value::take))
                        .or_else(|| origin.clone()),
                    (EditStep::Element(mark), Some(Value::Array(list)))
                        if mark.index < list.len() =>
                    {
                        mark.list = list;
                        mark.list.get(mark.index).cloned()
                    }
                    (EditStep::Element(_), _) => None,
                };
            }
            if let EditAction::Set { observed, .. } | EditAction::Remove { observed } = action {
                *observed = node;
            }
        }
        call
    }

    /// The same, recorded on nothing.
    fn as_recorded_on_nothing(&self) -> Self {
        let mut call = self.clone();
        for edit in &mut call.all {
            if let EditAction::Set { observed, .. } | EditAction::Remove { observed } =
                &mut edit.action
            {
                *observed = None;
            }
        }
        call
    }
}
