//! Entries that end without being sent, by the last answer of the server.

use super::super::calls::recorded::RecordedOn;
use super::super::check::{RuleResult, ensure};
use super::super::document::read_same;
use super::super::reference::routes::CallRoute;
use super::super::server::TOMBSTONE_TTL;
use super::history::{CallOutcome, History, HistoryLine, SkippedCalls};
use super::propagation::{either, unanimous};
use crate::backend::commit::Sequence;
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::client::state::State;
use crate::pending::outbox::Written;

/// The effects of entries that ended.
#[derive(Debug)]
pub(super) struct UnsentEnds {
    /// What was withdrawn with an error.
    pub(super) withdrawn: Vec<Sequence>,
    /// Whether anything is counted as superseded; `None` if that is not known.
    pub(super) superseded: Option<bool>,
}

impl History {
    /// An entry ended without being sent.
    pub(super) fn check_ended_unsent(
        &mut self,
        line: HistoryLine,
        state: &State,
        mono: Monotonic,
        ends: &mut UnsentEnds,
    ) -> RuleResult {
        if line.assignment.is_none() && line.calls.is_empty() && !line.is_ambiguous {
            return Ok(());
        }
        if line.is_confirmed && self.confirmed_ended_unsent(&line, state, mono)? {
            return Ok(());
        }
        let is_too_old = line.written + TOMBSTONE_TTL <= mono;
        match self.received_answer(&line)? {
            Some(Ok(answer)) if answer.outdated.is_some() => {
                self.check_to_be_recorded_again(&line)?;
                self.to_record_again.extend(line.all_calls());
                self.unsent_ended(&line, CallOutcome::RecordedAgain, ends)
            }
            Some(Err(error)) => {
                self.check_ended_in_error(&line, &error, is_too_old)?;
                self.unsent_ended(&line, CallOutcome::Withdrawn, ends)
            }
            received if is_too_old => {
                ensure!(
                    received.is_none(),
                    "rule 7: what was queued too long was answered {received:?}"
                );
                self.check_all_dead(&line, state)
            }
            received => {
                let is_stored = received.is_none_or(|received| {
                    received.is_ok_and(|answer| answer.written == Written::Stored)
                });
                ensure!(
                    is_stored,
                    "rule 5: {} changes nothing, and was not answered so",
                    self.describe(&line)
                );
                self.check_nothing_to_do(line, state, ends)
            }
        }
    }

    fn unsent_ended(
        &mut self,
        line: &HistoryLine,
        outcome: CallOutcome,
        ends: &mut UnsentEnds,
    ) -> RuleResult {
        if line.is_confirmed {
            return self.never_applied(line, outcome);
        }
        ends.withdrawn.push(line.number);
        self.end_all(line, outcome);
        Ok(())
    }

    /// What it depends on must have changed.
    fn check_to_be_recorded_again(&self, line: &HistoryLine) -> RuleResult {
        let is_changed = match line.recorded_on {
            RecordedOn::Anything => false,
            RecordedOn::Paths => self.is_possible(line, |route| !route.superseded.is_empty()),
            RecordedOn::Whole => line.observed != self.last_text(),
        };
        ensure!(
            is_changed,
            "rule 5: {} is to be recorded again on {:?}",
            self.describe(line),
            self.last_answer.value
        );
        Ok(())
    }

    /// It must be too old, or not apply.
    fn check_ended_in_error(
        &self,
        line: &HistoryLine,
        error: &Error,
        is_too_old: bool,
    ) -> RuleResult {
        let is_expected = error.kind() == ErrorKind::Conflict
            && (is_too_old || self.is_possible(line, |route| !route.inapplicable.is_empty()));
        ensure!(
            is_expected,
            "rule 2: {} ended in {error}, on {:?}",
            self.describe(line),
            self.last_answer.value
        );
        Ok(())
    }

    /// Whether the route that the entry has taken may meet this condition.
    fn is_possible(&self, line: &HistoryLine, condition: impl FnMut(&CallRoute) -> bool) -> bool {
        let routes = self.routes_from_last_answer(line);
        routes.is_none_or(|routes| routes.iter().any(condition))
    }

    /// What is left of the entry must change nothing.
    fn check_nothing_to_do(
        &mut self,
        mut line: HistoryLine,
        state: &State,
        ends: &mut UnsentEnds,
    ) -> RuleResult {
        self.dead_letter_inapplicable(&mut line, state)?;
        if line.is_ambiguous {
            self.end_all(&line, CallOutcome::DeadLettered);
            ends.superseded = None;
            let lost = self.lost_base(&SkippedCalls {
                sure: Vec::new(),
                possible: line.calls.clone(),
            });
            self.propagate(state, lost, CallOutcome::Superseded)?;
            return Ok(());
        }
        if line.assignment.is_none() && line.calls.is_empty() {
            return Ok(());
        }

        let stored = self.last_answer.value.clone();
        let routes = self.routes_from_last_answer(&line);
        let changes_nothing = |route: &&CallRoute| {
            read_same(route.value.as_ref(), stored.as_deref()) && route.inapplicable.is_empty()
        };
        let done: Vec<&CallRoute> = routes.iter().flatten().filter(changes_nothing).collect();
        ensure!(
            routes.is_none() || !done.is_empty() && line.assignment.is_none(),
            "(5) {} is not queued any more, and was to change {stored:?}",
            self.describe(&line)
        );
        let superseded = unanimous(done.iter().map(|route| !route.superseded.is_empty()));
        ends.superseded = either(ends.superseded, superseded);
        let skipped = match &routes {
            Some(_) => SkippedCalls::superseded(&line, done.into_iter()),
            None => SkippedCalls {
                sure: Vec::new(),
                possible: line.calls.clone(),
            },
        };
        self.end_all(&line, CallOutcome::NothingToDo);
        let shared = self.propagate_superseded(state, &skipped)?;
        ends.superseded = either(ends.superseded, shared);
        Ok(())
    }
}
