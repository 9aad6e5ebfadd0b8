//! Entries that end without being sent, and those that become dead letters.

use serde_json::Value;

use super::super::check::{RuleResult, ensure};
use super::super::document::value_of;
use super::super::server::TOMBSTONE_TTL;
use super::history::{AdditionHistory, AdditionLine, LineOutcome, MadeValue, received};
use crate::backend::commit::Sequence;
use crate::base::clock::Monotonic;
use crate::base::error::ErrorKind;
use crate::client::state::State;
use crate::pending::outbox::{Assignment, LetterRecord, Written};
use crate::value::envelope;
use crate::value::mutation::{Action, Amount, Mutation, Operation};

impl AdditionHistory {
    /// The first entries have become dead letters, each for a reason. `is_rejected`: the
    /// server has refused the first entry for good.
    pub(super) fn take_letters(
        &mut self,
        state: &State,
        mono: Monotonic,
        is_rejected: bool,
    ) -> RuleResult {
        while let Some(letter) = state.letters.get(self.dead_letters) {
            let is_of =
                |line: &&AdditionLine| line.latest == letter.stamp.get() && !line.is_confirmed;
            let Some(line) = self.lines.front().filter(is_of) else {
                return Ok(());
            };
            let stored = value_of(self.known(state, mono)?);
            let is_too_old = line.written + TOMBSTONE_TTL <= mono;
            let is_deleted = !line.is_online && self.last_answer.held.is_none();
            let does_not_apply =
                line.write.made_of(stored.as_deref(), self.subject) == MadeValue::DoesNotApply;
            let kind = letter.reason.kind();
            let has_reason = match kind {
                ErrorKind::Rejected => is_rejected,
                ErrorKind::Conflict => is_too_old || is_deleted || does_not_apply,
                _ => false,
            };
            ensure!(
                has_reason,
                "rule 13: {line:?} has become a dead letter ({letter:?}), and {stored:?} is stored"
            );
            ensure!(
                line.receivers.is_empty(),
                "rule 13: a caller waits for what is in {letter:?}"
            );
            check_letter(line, letter)?;
            self.dead_letters += 1;
            if letter.assignment.is_none() && line.write.assignment.is_some() {
                // What is assigned continues without the additions.
                self.lines[0].write.adds.clear();
            } else if let Some(line) = self.lines.pop_front() {
                self.end(line, LineOutcome::DeadLettered);
            }
        }
        Ok(())
    }

    /// An entry ended without being sent. Returns its number if it was withdrawn with an error.
    pub(super) fn ended_unsent(
        &mut self,
        mut line: AdditionLine,
        state: &State,
        mono: Monotonic,
    ) -> RuleResult<Option<Sequence>> {
        let is_too_old = line.written + TOMBSTONE_TTL <= mono;
        if line.is_confirmed && line.in_doubt {
            ensure!(
                is_too_old,
                "{} is in doubt, and the server is not asked",
                line.id
            );
            self.stays_in_doubt(line, state)?;
            return Ok(None);
        }
        if line.is_confirmed && line.receivers.is_empty() {
            self.never_applied(line, LineOutcome::NeverApplied);
            return Ok(None);
        }
        if line.is_expired(mono) && !line.replaces_nothing {
            line.expect_answer(Ok(Written::Superseded))?;
            self.expired += 1;
            self.end(line, LineOutcome::Expired);
            return Ok(None);
        }
        let stored = value_of(self.known(state, mono)?);
        let made = line.write.made_of(stored.as_deref(), self.subject);
        let (outcome, number) = match received(&mut line)? {
            Some(Ok(answer)) if answer.outdated.is_some() => {
                let takes = line.write.takes.as_ref();
                let text = self.known(state, mono)?.map(envelope::value_of);
                let is_other = takes.is_some_and(|takes| takes.observed != text);
                ensure!(
                    is_other,
                    "rule 5: {line:?} is to be recorded again on what it was recorded on"
                );
                (LineOutcome::Outdated, Some(line.number))
            }
            Some(Err(error)) => {
                let has_reason = is_too_old || made == MadeValue::DoesNotApply;
                ensure!(
                    error.kind() == ErrorKind::Conflict && has_reason,
                    "rule 2: {line:?} ended in {error}, and {stored:?} is stored"
                );
                (LineOutcome::Withdrawn, Some(line.number))
            }
            received => {
                let is_stored = received.is_none_or(|answer| {
                    answer.is_ok_and(|answer| answer.written == Written::Stored)
                });
                let changes_nothing = line.write.assignment.is_none()
                    && (made.is(stored.as_deref()) || line.is_empty());
                ensure!(
                    is_stored && changes_nothing,
                    "rule 2: {line:?} is not queued any more, and {stored:?} is stored"
                );
                (LineOutcome::NothingToDo, None)
            }
        };
        if line.is_confirmed {
            self.never_applied(line, outcome);
            return Ok(None);
        }
        self.end(line, outcome);
        Ok(number)
    }
}

/// The dead letter must hold all of the entry, or all that is added to what that assigns.
fn check_letter(line: &AdditionLine, letter: &LetterRecord) -> RuleResult {
    let calls = letter.mutation.iter().flat_map(Mutation::calls);
    let mut adds = Vec::new();
    for operation in calls.flat_map(|call| &call.operations) {
        adds.extend(added_by(operation));
    }
    let sum = |adds: &[Value]| adds.iter().filter_map(Value::as_i64).sum::<i64>();
    let is_same = adds == line.write.adds
        || !adds.is_empty()
            && adds.iter().all(Value::is_i64)
            && sum(&adds) == sum(&line.write.adds);
    let assigned = letter
        .assignment
        .as_ref()
        .map(|assignment| match assignment {
            Assignment::Delete => None,
            Assignment::Put(envelope) => {
                serde_json::from_str::<Value>(envelope::own_value_of(envelope).as_str()).ok()
            }
        });
    let returned = letter
        .taken
        .as_ref()
        .and_then(|taken| serde_json::from_str::<Value>(taken.as_str()).ok());
    ensure!(
        is_same
            && (assigned.is_none() || assigned == line.write.assignment)
            && returned == line.returns,
        "rule 13: {letter:?} is not {line:?}"
    );
    Ok(())
}

fn added_by(operation: &Operation) -> Vec<Value> {
    match &operation.action {
        Action::Append { items } => items
            .iter()
            .filter_map(|item| serde_json::from_str(item.as_str()).ok())
            .collect(),
        Action::Add {
            amount: Amount::Integer { by, .. },
        } => i64::try_from(*by)
            .ok()
            .map(Value::from)
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}
