//! Calls that do not apply, and entries that are abandoned: their callers receive an error, or they
//! become dead letters.

use serde_json::json;

use super::super::check::RuleResult;
use super::super::reference::routes::CallRoute;
use super::super::server::KEY;
use super::history::{CallOutcome, History, HistoryLine, SkippedCalls};
use crate::backend::commit::Sequence;
use crate::base::error::ErrorKind;
use crate::client::state::State;
use crate::pending::outbox::LetterRecord;
use crate::value::mutation::Mutation;

impl History {
    /// Calls of an entry that do not apply become a dead letter if nobody waits for them; the
    /// others stay queued.
    pub(super) fn dead_letter_inapplicable(
        &mut self,
        line: &mut HistoryLine,
        state: &State,
    ) -> RuleResult {
        let is_of_line = |letter: &&LetterRecord| letter.stamp.get() == line.latest_stamp;
        let Some(letter) = state.letters.get(self.dead_letters).filter(is_of_line) else {
            return Ok(());
        };
        let Some(routes) = self.routes_from_last_answer(line) else {
            self.dead_letters += 1;
            line.is_ambiguous = true;
            return Ok(());
        };

        let is_possible = |route: &&CallRoute| {
            !route.inapplicable.is_empty() && self.agrees_with_letter(line, route, letter, state)
        };
        let possible = || routes.iter().filter(is_possible);
        // As many as are in the letter, or more if some were merged.
        let closeness = |route: &&CallRoute| {
            (
                route.inapplicable.len() == letter.changes().len(),
                self.dead_on(line, route).len(),
            )
        };
        let route = possible().max_by_key(closeness).ok_or_else(|| {
            format!(
                "rule 13: {} has become a dead letter ({letter:?}), and applies to {:?}",
                self.describe(line),
                self.last_answer.value
            )
        })?;
        let dead = self.dead_on(line, route);
        let is_ambiguous = possible().any(|other| self.dead_on(line, other) != dead);

        line.is_ambiguous = is_ambiguous;
        self.check_dead_letter(line, state, &dead)?;
        for call in &dead {
            self.set_outcome(*call, CallOutcome::DeadLettered);
        }
        line.calls.retain(|call| !dead.contains(call));
        self.is_changed = true;
        let skipped = SkippedCalls {
            sure: dead,
            possible: if is_ambiguous {
                line.calls.clone()
            } else {
                Vec::new()
            },
        };
        let lost = self.lost_base(&skipped);
        self.propagate(state, lost, CallOutcome::DeadLettered)?;
        Ok(())
    }

    /// Whether a route agrees with a dead letter, and with what is left in the queue. Calls with
    /// the same operations are merged, and say nothing.
    fn agrees_with_letter(
        &self,
        line: &HistoryLine,
        route: &CallRoute,
        letter: &LetterRecord,
        state: &State,
    ) -> bool {
        let entry = state
            .outbox
            .of(KEY)
            .find(|entry| entry.identity.id == line.id);
        let left: Vec<_> = entry
            .and_then(|entry| entry.write.mutation.as_ref())
            .into_iter()
            .flat_map(Mutation::calls)
            .collect();
        line.calls.iter().enumerate().all(|(index, call)| {
            let operations = &self.calls[*call].edits.operations;
            let is_same = |call: &&usize| self.calls[**call].edits.operations == *operations;
            if line.calls.iter().filter(is_same).count() > 1 {
                return true;
            }
            let is_left = left.iter().any(|left| left.operations == *operations);
            let is_in_letter = || letter.changes().contains(&json!(operations));
            is_left != route.inapplicable.contains(&index) || !is_left && !is_in_letter()
        })
    }

    /// The calls that do not apply on a route, with those that were merged into them.
    fn dead_on(&self, line: &HistoryLine, route: &CallRoute) -> Vec<usize> {
        let edits = |index: usize| &self.calls[line.calls[index]].edits;
        let is_dead = |index: &usize| {
            let is_later = |later: &usize| later > index && edits(*later).replaces(edits(*index));
            route.inapplicable.contains(index)
                || route.replaced.contains(index) && route.inapplicable.iter().any(is_later)
        };
        let dead = (0..line.calls.len()).filter(is_dead);
        dead.map(|index| line.calls[index]).collect()
    }

    /// An entry as a whole becomes a dead letter, or its callers receive an error. Returns what was
    /// withdrawn with an error.
    pub(super) fn check_abandoned(
        &mut self,
        line: &HistoryLine,
        state: &State,
        kind: ErrorKind,
    ) -> RuleResult<Vec<Sequence>> {
        if self.check_reported_error(line, kind)? {
            self.end_all(line, CallOutcome::Withdrawn);
            return Ok(vec![line.number]);
        }
        self.check_all_dead(line, state)?;
        Ok(Vec::new())
    }

    /// An entry as a whole becomes a dead letter.
    pub(super) fn check_all_dead(&mut self, line: &HistoryLine, state: &State) -> RuleResult {
        self.check_dead_letter(line, state, &line.all_calls().collect::<Vec<_>>())?;
        self.end_all(line, CallOutcome::DeadLettered);
        self.propagate(state, self.whole_base(line), CallOutcome::DeadLettered)?;
        Ok(())
    }
}
