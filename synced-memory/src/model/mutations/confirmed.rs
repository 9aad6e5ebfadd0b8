//! Confirmed calls: applied or withdrawn, or in doubt until the server has said which.

use super::super::audit::{check_waits, check_withdrawn};
use super::super::check::{RuleResult, ensure};
use super::super::server::TOMBSTONE_TTL;
use super::super::world::World;
use super::history::{CallOutcome, ElementOwner, ExpectedAttempt, History, HistoryLine, UserCall};
use crate::backend::commit::{Attempt, Expects, Outcome};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::clock::Monotonic;
use crate::base::error::ErrorKind;
use crate::client::state::State;
use crate::pending::outbox::{LetterRecord, Written};

impl History {
    fn is_under_way(&self, line: &HistoryLine) -> bool {
        let under_way = self.under_way.as_ref();
        under_way.is_some_and(|(.., expected)| expected.id == line.id)
    }

    /// Its caller stops waiting: it is withdrawn, or in doubt.
    pub(super) fn confirmed_timed_out(&mut self, state: &mut State, at: usize) -> RuleResult {
        let line = &self.lines[at];
        let call = line.call()?;
        let is_under_way = self.is_under_way(line);
        let (id, may_be_made) = (
            line.id,
            line.in_doubt && line.may_be_applied || is_under_way,
        );
        if let Some(mut receiver) = self.calls[call].receiver.take() {
            check_waits(&mut receiver)?;
        }
        let expected = check_withdrawn(state, id, may_be_made)?;
        self.calls[call].confirmed.get_or_insert_default().error = Some(expected);
        if expected == ErrorKind::Unavailable
            && let Some(line) = self.lines.remove(at)
        {
            self.never_applied(&line, CallOutcome::Withdrawn)?;
        }
        self.is_changed = true;
        Ok(())
    }

    /// The connection is lost, or the server takes no writes: in the latter case, what may not have
    /// been applied is withdrawn.
    pub(super) fn confirmed_interrupted(&mut self, is_busy: bool) -> RuleResult {
        for at in (0..self.lines.len()).rev().filter(|_| is_busy) {
            let line = &self.lines[at];
            let may_be_applied = line.in_doubt && (line.may_be_applied || !self.is_awaited(line));
            let is_under_way = self.is_under_way(line);
            let is_withdrawn = line.is_confirmed && !may_be_applied && !is_under_way;
            let Some(line) = is_withdrawn.then(|| self.lines.remove(at)).flatten() else {
                continue;
            };
            self.check_failed(&line, ErrorKind::Unavailable)?;
        }
        self.confirmed_in_doubt()
    }

    /// Notes which confirmed calls are in doubt.
    pub(super) fn confirmed_in_doubt(&mut self) -> RuleResult {
        for line in self
            .lines
            .iter()
            .filter(|line| line.is_confirmed && line.in_doubt)
        {
            let call = line.call()?;
            self.calls[call]
                .confirmed
                .get_or_insert_default()
                .was_in_doubt = true;
        }
        Ok(())
    }

    /// It was certainly not applied: its caller, if it waits, receives this error.
    fn check_failed(&mut self, line: &HistoryLine, expected: ErrorKind) -> RuleResult {
        let outcome = if self.check_reported_error(line, expected)? {
            CallOutcome::Withdrawn
        } else {
            CallOutcome::NeverApplied
        };
        self.never_applied(line, outcome)
    }

    /// It ends without having been applied; the server may not apply it any more.
    pub(super) fn never_applied(&mut self, line: &HistoryLine, outcome: CallOutcome) -> RuleResult {
        // The server bars the number of one that was in doubt, unless it loses its data.
        if !self.confirmed(line)?.was_in_doubt {
            self.withdrawn.push(line.number);
        }
        self.end_all(line, outcome);
        Ok(())
    }

    /// Nobody will know what became of it. What it may have taken is a dead letter.
    fn check_stays_in_doubt(&mut self, line: &HistoryLine, state: &State) -> RuleResult {
        self.check_reported_error(line, ErrorKind::InDoubt)?;
        let (index, description) = (self.dead_letters, self.describe(line));
        if let Some(take) = &mut self.confirmed(line)?.take {
            let is_in_letter = |letter: &LetterRecord| {
                letter.taken.as_ref() == Some(&take.item) && letter.may_have_been_made
            };
            ensure!(
                state.letters.get(index).is_some_and(is_in_letter),
                "(5) what {description} may have taken is not in a dead letter: {:?}",
                state.letters.last()
            );
            take.owner = Some(ElementOwner::DeadLetter);
            self.dead_letters += 1;
        }
        self.end_all(line, CallOutcome::Unknown);
        Ok(())
    }

    /// A confirmed entry ended without being sent. Whether that is all there is to check.
    pub(super) fn confirmed_ended_unsent(
        &mut self,
        line: &HistoryLine,
        state: &State,
        mono: Monotonic,
    ) -> RuleResult<bool> {
        if line.in_doubt {
            let is_too_old = line.written + TOMBSTONE_TTL <= mono;
            ensure!(
                is_too_old,
                "(5) {} is in doubt, and the server is not asked",
                self.describe(line)
            );
            self.check_stays_in_doubt(line, state)?;
            return Ok(true);
        }
        if !self.is_awaited(line) {
            // Its caller was answered that it is in doubt.
            self.never_applied(line, CallOutcome::NeverApplied)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// An attempt of a confirmed entry was answered.
    pub(super) fn confirmed_answered(
        &mut self,
        mut line: HistoryLine,
        state: &State,
        (attempt, expected): (&Attempt, &ExpectedAttempt),
        answer: &Result<Outcome, BackendError>,
    ) -> RuleResult {
        let (is_retry, is_of_part) = (attempt.retry.is_some(), attempt.change.is_of_part());
        match answer {
            Ok(Outcome::Applied { existed, .. }) => {
                self.check_applied(&line, state, Some(*existed))
            }
            Ok(Outcome::Added { .. } | Outcome::AddedBehind { .. }) => {
                self.check_applied(&line, state, Some(true))
            }
            Ok(Outcome::AlreadyApplied(_)) => {
                ensure!(
                    is_retry,
                    "rule 6: {} was applied before it was sent",
                    self.describe(&line)
                );
                self.check_applied(&line, state, None)
            }
            Ok(Outcome::Refused(found)) => {
                if is_retry {
                    line.in_doubt = false;
                }
                let is_own = attempt.expects == Expects::Anything
                    && found.stamp() == attempt.stamp
                    && self.last_answer.value == expected.after;
                if is_own {
                    // Two deletes may draw the same stamp: then there is nothing to do.
                    self.check_reported_stored(&line)?;
                    self.end_all(&line, CallOutcome::NothingToDo);
                } else if self.is_awaited(&line) {
                    self.lines.push_front(line);
                } else {
                    self.never_applied(&line, CallOutcome::NeverApplied)?;
                }
                Ok(())
            }
            Ok(Outcome::RecordExpired(_)) => Err(format!(
                "rule 6: the record of {} has expired",
                self.describe(&line)
            )),
            // It is sent as a whole value then.
            Err(error) if error.kind == BackendErrorKind::Rejected && is_of_part => {
                self.lines.push_front(line);
                Ok(())
            }
            Err(error) if error.kind == BackendErrorKind::Rejected && is_retry => {
                self.check_stays_in_doubt(&line, state)
            }
            Err(error) if error.kind == BackendErrorKind::Rejected => {
                self.check_failed(&line, ErrorKind::Rejected)
            }
            Err(error) => {
                line.in_doubt |= error.kind == BackendErrorKind::UnderReplicated;
                self.lines.push_front(line);
                self.confirmed_in_doubt()
            }
        }
    }

    /// It was applied: its caller, if it waits, is answered so; otherwise what it has taken is
    /// returned. `existed`: whether the key existed, if the server has said so.
    fn check_applied(
        &mut self,
        line: &HistoryLine,
        state: &State,
        existed: Option<bool>,
    ) -> RuleResult {
        let received = self.received_answer(line)?;
        self.end_all(line, CallOutcome::Applied);
        let call = line.call()?;
        let description = self.describe(line);
        let Some(received) = received else {
            return self.check_returned(state, call);
        };
        let answer = received
            .map_err(|error| format!("{description} was applied, and was answered {error}"))?;
        ensure!(
            answer.written == Written::Stored && answer.outdated.is_none(),
            "{description} was answered {answer:?}"
        );
        let is_fact = existed.is_none_or(|existed| answer.existed == existed);
        ensure!(
            is_fact,
            "{description} was answered {answer:?}, and existed: {existed:?}"
        );
        let take = self.confirmed(line)?.take.as_mut();
        let name = take.is_some().then_some((state.writer(), line.id));
        ensure!(
            answer.taken == name,
            "{description} was answered that it has taken {:?}",
            answer.taken
        );
        if let Some((take, name)) = take.zip(name) {
            take.owner = Some(ElementOwner::Answered(name));
        }
        Ok(())
    }
}

/// The answer to a confirmed call must be what happened. `is_applied`: whether the server ever
/// applied it.
pub(super) fn check_outcome(
    world: &World<History>,
    call: &UserCall,
    calls: &[UserCall],
    is_applied: bool,
) -> RuleResult {
    let Some(confirmed) = &call.confirmed else {
        return Ok(());
    };
    let (kind, outcome) = (&call.kind, call.outcome);
    let is_right = match (call.reported, confirmed.error) {
        (None, None) => outcome == Some(CallOutcome::RecordedAgain),
        (Some(Written::Stored), None) => matches!(
            outcome,
            Some(CallOutcome::Applied | CallOutcome::NothingToDo)
        ),
        (None, Some(ErrorKind::InDoubt)) => {
            matches!(
                outcome,
                Some(CallOutcome::Applied | CallOutcome::NeverApplied | CallOutcome::Unknown)
            )
        }
        (None, Some(_)) => outcome == Some(CallOutcome::Withdrawn),
        _ => false,
    };
    ensure!(
        is_right,
        "{kind:?} was answered {:?} and {:?}, and is {outcome:?}",
        call.reported,
        confirmed.error
    );
    // A server that has lost data may have applied it before.
    let may_be_applied = confirmed.was_in_doubt && world.server.has_lost_data();
    let is_right = match outcome {
        Some(CallOutcome::Applied) => is_applied,
        Some(
            CallOutcome::NeverApplied
            | CallOutcome::Withdrawn
            | CallOutcome::RecordedAgain
            | CallOutcome::NothingToDo,
        ) => !is_applied || may_be_applied,
        _ => true,
    };
    ensure!(
        is_right,
        "(5) {kind:?} is {outcome:?}, and applied: {is_applied}"
    );
    let Some(take) = &confirmed.take else {
        return Ok(());
    };
    let is_somewhere = match (outcome, take.owner) {
        (Some(CallOutcome::Applied), Some(ElementOwner::ReturningCall(returning))) => {
            matches!(
                calls[returning].outcome,
                Some(CallOutcome::Applied | CallOutcome::DeadLettered)
            )
        }
        (Some(CallOutcome::Applied), owner) => {
            matches!(owner, Some(ElementOwner::Caller | ElementOwner::DeadLetter))
        }
        (Some(CallOutcome::Unknown), owner) => owner == Some(ElementOwner::DeadLetter),
        (_, owner) => owner.is_none(),
    };
    ensure!(
        is_somewhere,
        "(5) {:?} was taken by {kind:?}, which is {outcome:?}, and is {:?}",
        take.item,
        take.owner
    );
    Ok(())
}
