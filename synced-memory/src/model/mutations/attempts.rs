//! What is taken from the outbox to be sent must be what the rules say.

use std::rc::Rc;

use super::super::calls::recorded::RecordedOn;
use super::super::check::{RuleResult, ensure};
use super::super::document::{read_same, value_of};
use super::super::reference::closures::ComparedPath;
use super::super::reference::routes::CallRoute;
use super::super::server::{KEY, write_of};
use super::counted::CountedChange;
use super::history::{AssignedValue, ExpectedAttempt, History, HistoryLine, SkippedCalls};
use super::propagation::unanimous;
use super::unsent::UnsentEnds;
use crate::backend::commit::{Attempt, Expects, KeyChange, Sequence};
use crate::base::clock::Monotonic;
use crate::client::state::State;

impl History {
    /// A batch was taken from the outbox. Returns what was withdrawn with an error.
    pub(super) fn check_batch(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> RuleResult<Vec<Sequence>> {
        let mut ends = UnsentEnds {
            withdrawn: Vec::new(),
            superseded: Some(false),
        };
        while let Some(line) = self.lines.pop_front() {
            if state
                .outbox
                .of(KEY)
                .any(|entry| entry.identity.id == line.id)
            {
                self.lines.push_front(line);
                break;
            }
            self.check_ended_unsent(line, state, mono, &mut ends)?;
        }
        self.check_superseded(state, ends.superseded)?;

        self.expected_attempt = None;
        if let [attempt] = batch {
            self.expected_attempt = Some(Rc::new(self.check_attempt(attempt, state)?));
        }
        ensure!(batch.len() < 2, "rule 3: it sends {batch:?} at once");
        Ok(ends.withdrawn)
    }

    /// The attempt must be of the first entry.
    fn check_attempt(&mut self, attempt: &Attempt, state: &State) -> RuleResult<ExpectedAttempt> {
        let mut line = self
            .lines
            .pop_front()
            .ok_or("(5) nothing is queued, but it sends")?;
        ensure!(
            line.number == write_of(attempt.sequence),
            "rule 3: it sends {} instead of {}",
            attempt.sequence,
            self.describe(&line)
        );
        ensure!(
            attempt.retry.is_some() == line.in_doubt,
            "rule 4: whether {attempt:?} is a retry"
        );
        self.dead_letter_inapplicable(&mut line, state)?;
        line.was_sent = true;
        let expected = self.expected(&mut line, attempt);
        self.lines.push_front(line);
        expected
    }

    /// The attempt must be the result of the entry on the last answer of the server.
    fn expected(&self, line: &mut HistoryLine, attempt: &Attempt) -> RuleResult<ExpectedAttempt> {
        let after = match &attempt.change {
            KeyChange::Put { envelope, .. } => value_of(Some(envelope)),
            KeyChange::Edit { made, .. } => value_of(Some(&made.to_bytes())),
            KeyChange::Delete => None,
            KeyChange::Blind { .. } => {
                return Err(format!("rule 5: {attempt:?} is no change of a part"));
            }
        };
        let before = self.last_answer.value.clone();
        let mut expected = ExpectedAttempt {
            id: line.id,
            only_asks: attempt.expects == Expects::Nothing,
            assigns: line
                .assignment
                .as_ref()
                .map(|(assigned, _)| AssignedValue(assigned.clone())),
            before,
            after,
            superseded: Some(false),
            compared: Vec::new(),
            counted: None,
        };
        let is_doubtful = line.is_confirmed && line.in_doubt;
        let is_unawaited = line.is_confirmed && !line.in_doubt && !self.is_awaited(line);
        ensure!(
            !is_unawaited,
            "{} is sent, and no caller waits for it",
            self.describe(line)
        );
        ensure!(
            expected.only_asks || !is_doubtful,
            "{} is in doubt, and is applied again",
            self.describe(line)
        );
        if expected.only_asks {
            ensure!(
                expected.assigns.is_none() || is_doubtful,
                "rule 4: {} need not ask",
                self.describe(line)
            );
            return Ok(expected);
        }
        line.may_be_applied = true;
        let expects = if line.assignment.is_some() {
            Expects::Anything
        } else {
            self.expects_last_answer()
        };
        ensure!(
            attempt.expects == expects,
            "rule 5: {} expects {:?}",
            self.describe(line),
            attempt.expects
        );
        if line.recorded_on == RecordedOn::Whole {
            ensure!(
                line.observed == self.last_text(),
                "rule 5: {} is applied to {:?}",
                self.describe(line),
                expected.before
            );
        }
        self.check_routes(line, &mut expected)?;
        expected.compared = self.compared(line);
        expected.counted = self.counted(line);
        Ok(expected)
    }

    /// What is sent must be the result of a route.
    fn check_routes(&self, line: &mut HistoryLine, expected: &mut ExpectedAttempt) -> RuleResult {
        let Some(routes) = self.routes_from_last_answer(line) else {
            expected.superseded = None;
            line.skipped = SkippedCalls {
                sure: Vec::new(),
                possible: line.calls.clone(),
            };
            return Ok(());
        };
        let is_expected = |route: &&CallRoute| {
            route.inapplicable.is_empty()
                && (line.recorded_on == RecordedOn::Anything || route.superseded.is_empty())
                && read_same(route.value.as_ref(), expected.after.as_deref())
        };
        let fitting: Vec<&CallRoute> = routes.iter().filter(is_expected).collect();
        ensure!(
            !fitting.is_empty(),
            "(4) {} sends {:?} instead of {:?}, on {:?} stamped {}",
            self.describe(line),
            expected.after,
            routes
                .iter()
                .map(|route| (&route.value, &route.inapplicable))
                .collect::<Vec<_>>(),
            expected.before,
            self.last_answer.stamp
        );
        let superseded = fitting.iter().map(|route| !route.superseded.is_empty());
        expected.superseded = unanimous(superseded);
        line.skipped = SkippedCalls::superseded(line, fitting.into_iter());
        Ok(())
    }

    /// What the closures in it compare.
    fn compared(&self, line: &HistoryLine) -> Vec<ComparedPath> {
        let edits: Vec<_> = line
            .calls
            .iter()
            .map(|call| &self.calls[*call].edits)
            .collect();
        let is_applied = |index: &usize| !line.skipped.possible.contains(&line.calls[*index]);
        let applied = (0..edits.len())
            .filter(|index| line.assignment.is_none() && !line.is_ambiguous && is_applied(index));
        applied
            .flat_map(|index| ComparedPath::all(edits[index], &edits[..index]))
            .collect()
    }

    /// What its calls do to the log and the sums.
    fn counted(&self, line: &HistoryLine) -> Option<Vec<CountedChange>> {
        let mut all = Vec::new();
        for call in line
            .calls
            .iter()
            .filter(|call| !line.skipped.sure.contains(call))
        {
            let joined = self.all_joined(*call);
            let counted: Vec<_> = joined
                .iter()
                .flat_map(|call| CountedChange::of(&self.calls[*call].kind))
                .collect();
            if !counted.is_empty() && line.skipped.possible.contains(call) {
                return None;
            }
            all.extend(counted);
        }
        Some(all).filter(|_| !line.is_ambiguous)
    }
}
