//! Closures that were made on what was not applied share its outcome.

use serde_json::json;

use super::super::check::{RuleResult, ensure};
use super::super::reference::closures::Overlap;
use super::super::reference::edits::CallEdits;
use super::super::server::KEY;
use super::accepted::stamps;
use super::history::{CallOutcome, History, HistoryLine, SkippedCalls};
use crate::client::state::State;
use crate::pending::outbox::{Entry, LetterRecord};

/// Calls that were not applied, and that later calls may be based on.
#[derive(Debug, Default)]
pub(super) struct LostBase {
    sure: Vec<CallEdits>,
    possible: Vec<CallEdits>,
    /// The whole value was assigned.
    is_everything: bool,
}

impl LostBase {
    /// Whether a call was made on it; `None` if that is not known.
    fn is_base_of(&self, call: &CallEdits) -> Option<bool> {
        let overlap = |lost: &[CallEdits]| {
            lost.iter()
                .map(|lost| call.compared_overlap(lost))
                .max()
                .unwrap_or(Overlap::No)
        };
        if self.is_everything && call.compares() || overlap(&self.sure) == Overlap::Yes {
            return Some(true);
        }
        if overlap(&self.sure).max(overlap(&self.possible)) == Overlap::No {
            Some(false)
        } else {
            None
        }
    }
}

impl History {
    pub(super) fn lost_base(&self, skipped: &SkippedCalls) -> LostBase {
        let edits = |calls: &[usize]| {
            calls
                .iter()
                .map(|call| self.calls[*call].edits.clone())
                .collect()
        };
        LostBase {
            sure: edits(&skipped.sure),
            possible: edits(&skipped.possible),
            is_everything: false,
        }
    }

    pub(super) fn whole_base(&self, line: &HistoryLine) -> LostBase {
        let sure = line
            .calls
            .iter()
            .map(|call| self.calls[*call].edits.clone())
            .collect();
        LostBase {
            sure,
            possible: Vec::new(),
            is_everything: line.assignment.is_some(),
        }
    }

    /// An assignment, without what was made on it.
    pub(super) fn everything_lost() -> LostBase {
        LostBase {
            is_everything: true,
            ..LostBase::default()
        }
    }

    /// Closures that were made on what is lost share its outcome. Whether there were any; `None` if
    /// that is not known.
    pub(super) fn propagate(
        &mut self,
        state: &State,
        mut lost: LostBase,
        outcome: CallOutcome,
    ) -> RuleResult<Option<bool>> {
        let mut is_any = Some(false);
        for at in 0..self.lines.len() {
            let line = &self.lines[at];
            if line.assignment.is_some() {
                break;
            }
            // A caller that waits records it again, if it does not apply.
            if self.is_awaited(line) {
                continue;
            }
            let (calls, doubtful) = self.sharing(line, state, &mut lost, outcome)?;
            is_any = match is_any {
                _ if !calls.is_empty() => Some(true),
                Some(false) if !doubtful.is_empty() => None,
                is_any => is_any,
            };
            // The dead letter of another outcome comes later, and says which calls are in it.
            self.lines[at].is_ambiguous |=
                outcome == CallOutcome::Superseded && !doubtful.is_empty();
            self.apply_propagated(state, at, &calls, outcome)?;
        }
        Ok(is_any)
    }

    /// The closures of an entry that were made on what is lost, and those that may have been. They
    /// are lost too.
    fn sharing(
        &self,
        line: &HistoryLine,
        state: &State,
        lost: &mut LostBase,
        outcome: CallOutcome,
    ) -> RuleResult<(Vec<usize>, Vec<usize>)> {
        let entry = state
            .outbox
            .of(KEY)
            .find(|entry| entry.identity.id == line.id);
        let queued = entry.map(stamps);
        let is_of_line = |letter: &&LetterRecord| {
            outcome == CallOutcome::DeadLettered && letter.stamp.get() == line.latest_stamp
        };
        let letter = state.letters.get(self.dead_letters).filter(is_of_line);
        let is_in_letter = |edits: &CallEdits| {
            letter.is_some_and(|letter| letter.changes().contains(&json!(edits.operations)))
        };

        let (mut calls, mut doubtful) = (Vec::new(), Vec::new());
        for call in &line.calls {
            let edits = &self.calls[*call].edits;
            if !edits.is_compared {
                continue;
            }
            let is_queued = queued.as_ref().map(|queued| queued.contains(&edits.stamp));
            let is_based = lost.is_base_of(edits);
            ensure!(
                is_based != Some(true) || is_queued != Some(true),
                "rule 5: {:?} was made on what was not applied, and is queued",
                self.calls[*call].kind
            );
            match (is_based, is_queued) {
                (Some(true), _) | (None, Some(false)) => {
                    calls.push(*call);
                    lost.sure.push(edits.clone());
                }
                (Some(false), _) | (None, Some(true)) => {}
                (None, None) if outcome == CallOutcome::DeadLettered && !is_in_letter(edits) => {}
                (None, None) => {
                    doubtful.push(*call);
                    lost.possible.push(edits.clone());
                }
            }
        }
        if letter.is_some_and(|letter| letter.changes().len() == calls.len() + doubtful.len()) {
            calls.append(&mut doubtful);
        }
        Ok((calls, doubtful))
    }

    fn apply_propagated(
        &mut self,
        state: &State,
        at: usize,
        calls: &[usize],
        outcome: CallOutcome,
    ) -> RuleResult {
        if calls.is_empty() {
            return Ok(());
        }
        let Some(mut line) = self.lines.remove(at) else {
            return Ok(());
        };
        if outcome == CallOutcome::DeadLettered {
            let is_of_line = |letter: &LetterRecord| {
                letter.stamp.get() == line.latest_stamp && letter.changes().len() == calls.len()
            };
            let letter = state.letters.get(self.dead_letters);
            ensure!(
                letter.is_some_and(is_of_line),
                "(5) what was made on a dead letter is lost: {}",
                self.describe(&line)
            );
            self.check_dead_letter(&line, state, calls)?;
        }
        for call in calls {
            self.set_outcome(*call, outcome);
        }
        line.calls.retain(|call| !calls.contains(call));
        self.is_changed = true;
        self.lines.insert(at, line);
        Ok(())
    }

    /// The closures that are queued must be those that have not ended.
    pub(super) fn audit_closures(&self, line: &HistoryLine, entry: &Entry) -> RuleResult {
        let compared = line
            .calls
            .iter()
            .map(|call| &self.calls[*call].edits)
            .filter(|edits| edits.is_compared);
        let mut own: Vec<u64> = compared.map(|edits| edits.stamp).collect();
        let mut queued = stamps(entry);
        own.sort_unstable();
        queued.sort_unstable();
        ensure!(
            own == queued || line.is_ambiguous,
            "(5) the closures of {queued:?} are queued instead of {own:?}"
        );
        Ok(())
    }

    /// Calls of an entry were superseded, and so are closures that were made on them.
    pub(super) fn propagate_superseded(
        &mut self,
        state: &State,
        skipped: &SkippedCalls,
    ) -> RuleResult<Option<bool>> {
        for call in &skipped.sure {
            self.set_outcome(*call, CallOutcome::Superseded);
        }
        self.propagate(state, self.lost_base(skipped), CallOutcome::Superseded)
    }
}

/// What all of them say; `None` if they differ.
pub(super) fn unanimous(mut all: impl Iterator<Item = bool>) -> Option<bool> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// Whether one of the two holds; `None` if that is not known.
pub(super) fn either(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}
