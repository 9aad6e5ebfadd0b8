//! What becomes of an entry with each answer.

use super::super::check::{RuleResult, ensure};
use super::super::document::value_of;
use super::super::process::{ApartFound, ProcessRules};
use super::super::server::{HeldValue, KEY};
use super::history::{AddedOnTop, AdditionHistory, AdditionLine, LineOutcome};
use crate::backend::commit::{Attempt, Expects, KeyChange, KeyState, Outcome, Sequence, ValueId};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::ErrorKind;
use crate::cache::Ticket;
use crate::client::state::State;
use crate::pending::outbox::Written;
use crate::value::document::Document;

impl AdditionHistory {
    /// An attempt was answered; the server then stored `held`. Returns what was withdrawn with an
    /// error.
    pub(super) fn attempt_answered(
        &mut self,
        state: &State,
        (attempt, ticket): (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<HeldValue>,
    ) -> RuleResult<Vec<Sequence>> {
        let sent = (attempt.sequence, ticket);
        let is_it =
            |(number, ticket, _): &mut (Sequence, Ticket, Sequence)| (*number, *ticket) == sent;
        if self.under_way.take_if(is_it).is_none() {
            return Ok(Vec::new());
        }
        let mut line = self
            .lines
            .pop_front()
            .ok_or("what was sent is not pending")?;
        match answer {
            Ok(Outcome::Added { before, stamp, .. }) => {
                self.added(&line, state, (*before, *stamp, ticket), held);
            }
            Ok(_) => self.follow_server(ticket, held),
            Err(_) => {}
        }
        if line.is_confirmed {
            self.confirmed_answered(line, state, attempt, answer)?;
            return Ok(Vec::new());
        }
        match answer {
            Ok(Outcome::Applied { .. } | Outcome::Added { .. } | Outcome::AddedBehind { .. }) => {
                line.expect_answer(Ok(Written::Stored))?;
                self.end(line, LineOutcome::Applied);
            }
            Ok(Outcome::AlreadyApplied(found)) => {
                let is_newer = !line.is_mutation() && found.stamp() > attempt.stamp;
                line.expect_answer(Ok(Written::Stored))?;
                self.superseded += u64::from(is_newer);
                let outcome = if is_newer {
                    LineOutcome::Superseded
                } else {
                    LineOutcome::Applied
                };
                self.end(line, outcome);
            }
            Ok(Outcome::Refused(found)) => {
                line.in_doubt &= attempt.retry.is_none();
                self.refused(line, state, attempt, found)?;
            }
            Ok(Outcome::RecordExpired(_)) => {
                return Err(format!("rule 6: the record of {} has expired", line.id));
            }
            // It is sent as a whole value then.
            Err(error)
                if error.kind == BackendErrorKind::Rejected && !attempt.change.is_of_part() =>
            {
                let number = line.number;
                if !line.receivers.is_empty() {
                    line.expect_answer(Err(ErrorKind::Rejected))?;
                    self.end(line, LineOutcome::Withdrawn);
                    return Ok(vec![number]);
                }
                self.lines.push_front(line);
                self.take_first_letter(state, true)?;
            }
            Err(error) => {
                line.in_doubt |= error.kind == BackendErrorKind::UnderReplicated;
                self.lines.push_front(line);
            }
        }
        Ok(Vec::new())
    }

    /// Items were added to what was there `before`: what is stored now is known if that was, and of
    /// an integer it is known in any case.
    fn added(
        &mut self,
        line: &AdditionLine,
        state: &State,
        (before, stamp, ticket): (ValueId, Stamp, Ticket),
        held: Option<HeldValue>,
    ) {
        let answered = &self.last_answer;
        if answered.ticket >= ticket {
            return;
        }
        let was_known = answered
            .bytes()
            .is_some_and(|bytes| ValueId::of(&Document::of(bytes.clone())) == before);
        let is_integer = matches!(self.subject, super::values::AddedTo::Integer { .. });
        // What is not laid out as the library does it need not be followed.
        let is_followed = state.cache.base(KEY).ticket == ticket;
        if is_followed && (was_known || is_integer) {
            self.follow_server(ticket, held);
        } else if answered.ticket > 0 {
            self.on_top.push(AddedOnTop {
                ticket,
                number: line.number,
                stamp,
                adds: line.write.adds.clone(),
            });
        }
    }

    /// A read was answered that took effect at some time after its ticket: what was added meanwhile
    /// is in the answer, or is on top of it.
    pub(super) fn apart_answered(&mut self, ticket: Ticket, found: ApartFound) -> RuleResult {
        let stamp = found.held.as_ref().map(|held| held.stamp);
        self.read(ticket, found.held);
        let Some(stamp) = stamp.filter(|_| self.last_answer.ticket == ticket) else {
            return Ok(());
        };
        for added in &self.on_top {
            let is_below = added.stamp.get() <= stamp;
            let is_in = found.applied.contains(&added.number);
            ensure!(
                is_below == is_in || !found.has_risen,
                "rule 1: whether {added:?} is in what has the stamp {stamp}: {is_in}"
            );
        }
        self.on_top.retain(|added| added.stamp.get() > stamp);
        Ok(())
    }

    /// Something else is stored than the attempt was made for.
    fn refused(
        &mut self,
        mut line: AdditionLine,
        state: &State,
        attempt: &Attempt,
        found: &KeyState,
    ) -> RuleResult {
        let is_whole = attempt.expects == Expects::Anything && !attempt.change.is_blind();
        if is_whole {
            let own = match &attempt.change {
                KeyChange::Put { envelope, .. } => value_of(Some(envelope)),
                _ => None,
            };
            let is_own = found.stamp() == attempt.stamp && self.last_answer.value() == own;
            if is_own {
                // Two deletes may draw the same stamp: then there is nothing to do.
                line.expect_answer(Ok(Written::Stored))?;
                self.end(line, LineOutcome::NothingToDo);
            } else if line.is_online {
                self.lines.push_front(line);
            } else {
                ensure!(
                    line.receivers.is_empty(),
                    "rule 4: {line:?} was superseded, and a caller waits for it"
                );
                self.superseded += 1;
                line.write.assignment = None;
                line.write.expires = line.write.expires.filter(|_| line.is_mutation());
                line.replaces_nothing = false;
                // What was added to it since continues without it.
                if line.is_mutation() {
                    self.lines.push_front(line);
                } else {
                    self.end(line, LineOutcome::Superseded);
                }
            }
            return Ok(());
        }
        self.lines.push_front(line);
        let is_deleted = found.stored.is_none() && found.stamp() >= attempt.stamp;
        if is_deleted {
            self.take_first_letter(state, false)?;
        }
        Ok(())
    }

    /// The first entry may have become a dead letter now.
    fn take_first_letter(&mut self, state: &State, is_rejected: bool) -> RuleResult {
        self.take_letters(state, Monotonic::ZERO, is_rejected)
    }
}
