//! All that may come of several calls, one after the other: which of them are made, and what is
//! there then.

use serde_json::Value;

use super::compared::Meets;
use super::reference::{Act, Edit, Edits, Refusal, Step, There};

/// Who wins at a place where something else is than was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Latest,
    /// What is there has this stamp.
    NewerWins(u64),
    Exact,
}

/// What may have come of some calls.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Way {
    pub(super) value: Option<Value>,
    /// The calls that met something newer, by index; they were skipped.
    pub(super) superseded: Vec<usize>,
    /// The calls that do not apply, by index.
    pub(super) misfits: Vec<usize>,
    /// Those that are gone into later ones.
    pub(super) replaced: Vec<usize>,
}

/// So many ways are followed. Where there are more, nothing is said.
pub(super) const WAYS: usize = 400;

/// All that may come of calls made one by one; `None` where that is too much to tell.
pub(super) fn ways(
    value: Option<Value>,
    origin: Option<&Value>,
    calls: &[&Edits],
    rule: Rule,
) -> Option<Vec<Way>> {
    let mut ways = vec![Way {
        value,
        superseded: Vec::new(),
        misfits: Vec::new(),
        replaced: Vec::new(),
    }];
    for (index, call) in calls.iter().enumerate() {
        // An earlier call may be gone into a later one of the same process that replaces what it
        // changed.
        let is_replaced = rule != Rule::Latest
            && (index + 1..calls.len()).any(|later| is_replaced_by(calls, index, later));
        let there = match rule {
            _ if call.is_compared => There::Compared {
                only_removes: call.only_removes(),
            },
            Rule::NewerWins(found) if found > call.stamp => There::Newer,
            Rule::Exact => There::AsSeen,
            Rule::Latest | Rule::NewerWins(_) => There::Older,
        };
        let mut next: Vec<Way> = Vec::new();
        for way in ways {
            if is_replaced {
                let mut way = way.clone();
                way.replaced.push(index);
                add(&mut next, way);
            }
            for refusal in call.refusals_shared(&way, calls) {
                let mut way = way.clone();
                way.skip(index, refusal);
                add(&mut next, way);
            }
            if call.must_share(&way, calls) {
                continue;
            }
            let Way {
                value,
                superseded,
                misfits,
                replaced,
            } = way;
            // And the later one saw what the first of them did (where nothing was there, what it
            // was taken for); or, of a default, that nothing is there.
            let is_gone = |earlier: usize| {
                let is_before =
                    |at: usize| !replaced.contains(&at) && is_replaced_by(calls, earlier, at);
                is_replaced_by(calls, earlier, index) && !(earlier + 1..index).any(is_before)
            };
            let first = replaced.iter().find(|earlier| is_gone(**earlier));
            let anew: Vec<Edits> = first.map_or_else(Vec::new, |earlier| {
                let shown = calls[*earlier].shown.as_deref().or(origin);
                vec![call.as_recorded_on(shown), call.as_recorded_on_nothing()]
            });
            let made = match &anew[..] {
                [] => call.made_on(value, origin, there),
                anew => anew
                    .iter()
                    .flat_map(|call| call.made_on(value.clone(), origin, there))
                    .collect(),
            };
            for (result, value) in made {
                let (superseded, misfits) = (superseded.clone(), misfits.clone());
                let mut way = Way {
                    value,
                    superseded,
                    misfits,
                    replaced: replaced.clone(),
                };
                // One that is gone into the later call is not counted.
                if let Err(refusal) = result {
                    way.skip(index, refusal);
                }
                add(&mut next, way);
            }
        }
        if next.len() > WAYS {
            return None;
        }
        ways = next;
    }
    Some(ways)
}

fn add(ways: &mut Vec<Way>, way: Way) {
    if !ways.contains(&way) {
        ways.push(way);
    }
}

impl Way {
    fn skip(&mut self, index: usize, refusal: Refusal) {
        match refusal {
            Refusal::Superseded => self.superseded.push(index),
            Refusal::Misfit => self.misfits.push(index),
        }
    }
}

/// Whether the later of two calls may stand for both: no closure in between was made on the earlier
/// one, or changed what the later one does.
fn is_replaced_by(calls: &[&Edits], earlier: usize, later: usize) -> bool {
    let is_apart = |between: &&Edits| {
        !between.is_compared
            || between.meets(calls[earlier]) != Meets::Yes
                && calls[later].meets(between) != Meets::Yes
    };
    calls[later].replaces(calls[earlier]) && calls[earlier + 1..later].iter().all(is_apart)
}

impl Edits {
    /// How far it rests on calls that were skipped so.
    fn rests_on_any(&self, skipped: &[usize], calls: &[&Self]) -> Meets {
        skipped
            .iter()
            .map(|index| self.rests_on(calls[*index]))
            .max()
            .unwrap_or(Meets::No)
    }

    /// The fates that it may share with what it was made on.
    fn refusals_shared(&self, way: &Way, calls: &[&Self]) -> Vec<Refusal> {
        let superseded = self.rests_on_any(&way.superseded, calls);
        let misfit = self.rests_on_any(&way.misfits, calls);
        let mut shared = Vec::new();
        shared.extend((superseded != Meets::No).then_some(Refusal::Superseded));
        shared.extend((superseded != Meets::Yes && misfit != Meets::No).then_some(Refusal::Misfit));
        shared
    }

    fn must_share(&self, way: &Way, calls: &[&Self]) -> bool {
        self.rests_on_any(&way.superseded, calls) == Meets::Yes
            || self.rests_on_any(&way.misfits, calls) == Meets::Yes
    }

    /// Whether it assigns or removes, alone, all that the other call changes.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let ([Edit { path, act }], [earlier]) = (&self.all[..], &other.all[..]) else {
            return false;
        };
        if self.is_compared || other.is_compared {
            return false;
        }
        let is_element = |edit: &[Step]| matches!(edit.last(), Some(Step::Element(_)));
        // An element is only removed as it is, and one that is removed makes room for another.
        let is_whole = match act {
            Act::Set { .. } => {
                path.len() < earlier.path.len() || !earlier.is_removal() || !is_element(path)
            }
            Act::Remove { .. } => !is_element(path),
            _ => false,
        };
        let is_same = |one: &Step, other: &Step| match (one, other) {
            (Step::Member(one, _), Step::Member(other, _)) => one == other,
            (Step::Element(one), Step::Element(other)) => one.index == other.index,
            _ => false,
        };
        is_whole
            && path.len() <= earlier.path.len()
            && path
                .iter()
                .zip(&earlier.path)
                .all(|(one, other)| is_same(one, other))
    }

    /// The same assignment or removal by somebody who was shown this, and took what is missing in
    /// it for its default.
    fn as_recorded_on(&self, shown: Option<&Value>) -> Self {
        let mut call = self.clone();
        for Edit { path, act } in &mut call.all {
            let mut here = shown.cloned();
            for step in path {
                here = match (step, here) {
                    (Step::Member(name, origin), here) => here
                        .and_then(|mut here| here.get_mut(&**name).map(Value::take))
                        .or_else(|| origin.clone()),
                    (Step::Element(mark), Some(Value::Array(list))) if mark.index < list.len() => {
                        mark.list = list;
                        mark.list.get(mark.index).cloned()
                    }
                    (Step::Element(_), _) => None,
                };
            }
            if let Act::Set { seen, .. } | Act::Remove { seen } = act {
                *seen = here;
            }
        }
        call
    }

    /// By somebody who saw that nothing is there.
    fn as_recorded_on_nothing(&self) -> Self {
        let mut call = self.clone();
        for edit in &mut call.all {
            if let Act::Set { seen, .. } | Act::Remove { seen } = &mut edit.act {
                *seen = None;
            }
        }
        call
    }
}
