//! What becomes of an entry with each answer.

use super::super::check::RuleResult;
use super::super::reference::routes::CallRoute;
use super::super::server::{HeldValue, KEY};
use super::history::{CallOutcome, History, HistoryLine};
use super::propagation::either;
use crate::backend::commit::{Attempt, Expects, KeyState, Outcome, Sequence};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::clock::Stamp;
use crate::base::error::ErrorKind;
use crate::cache::Ticket;
use crate::client::state::State;

impl History {
    /// Whether an entry only removes, and so has nothing left to do if nothing is stored.
    fn is_done_on_nothing(&self, line: &HistoryLine, state: &State) -> bool {
        let Some(routes) = self.routes(line, (None, 0)) else {
            return state
                .outbox
                .of(KEY)
                .any(|entry| entry.identity.id == line.id);
        };
        let is_done = |route: &CallRoute| route.value.is_none() && route.inapplicable.is_empty();
        if routes.iter().all(is_done) {
            return true;
        }
        routes.iter().any(is_done)
            && state
                .outbox
                .of(KEY)
                .any(|entry| entry.identity.id == line.id)
    }

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
        let Some((.., expected)) = self
            .under_way
            .take_if(|(sequence, ticket, _)| (*sequence, *ticket) == sent)
        else {
            return Ok(Vec::new());
        };
        if answer.is_ok() {
            self.follow_server(ticket, held.map(|held| held.bytes));
        }
        let mut line = self
            .lines
            .pop_front()
            .ok_or("(5) what was sent is not pending")?;
        self.made_of(&line, attempt, answer);
        if line.is_confirmed {
            self.is_changed = true;
            self.confirmed_answered(line, state, (attempt, &expected), answer)?;
            return Ok(Vec::new());
        }
        match answer {
            Ok(Outcome::Applied { .. } | Outcome::Added { .. } | Outcome::AddedBehind { .. }) => {
                self.check_reported_stored(&line)?;
                self.end_all(&line, CallOutcome::Applied);
                let shared = self.propagate_superseded(state, &line.skipped)?;
                self.check_superseded(state, either(expected.superseded, shared))?;
            }
            Ok(Outcome::AlreadyApplied(found)) => {
                let is_newer = line.calls.is_empty() && found.stamp() > attempt.stamp;
                self.check_reported_stored(&line)?;
                self.check_superseded(state, if is_newer { Some(true) } else { None })?;
                self.end_all(
                    &line,
                    if is_newer {
                        CallOutcome::Superseded
                    } else {
                        CallOutcome::Applied
                    },
                );
                self.propagate_superseded(state, &line.skipped)?;
            }
            Ok(Outcome::Refused(found)) => {
                if attempt.retry.is_some() {
                    line.in_doubt = false;
                }
                let is_own = line.assignment.is_some()
                    && found.stamp() == attempt.stamp
                    && self.last_answer.value == expected.after;
                if is_own {
                    self.check_superseded(state, Some(false))?;
                    self.check_reported_stored(&line)?;
                    // Two deletes may draw the same stamp: then there is nothing to do.
                    self.end_all(&line, CallOutcome::NothingToDo);
                } else {
                    return self.refused(line, state, attempt, found);
                }
            }
            Ok(Outcome::RecordExpired(_)) => {
                return Err(format!(
                    "rule 6: the record of {} has expired",
                    self.describe(&line)
                ));
            }
            // It is sent as a whole value then.
            Err(error)
                if error.kind == BackendErrorKind::Rejected && !attempt.change.is_of_part() =>
            {
                return self.check_abandoned(&line, state, ErrorKind::Rejected);
            }
            Err(error) => {
                line.in_doubt |= error.kind == BackendErrorKind::UnderReplicated;
                self.lines.push_front(line);
            }
        }
        self.is_changed = true;
        Ok(Vec::new())
    }

    /// The entry was made of something else, and its stamp is a random step above that: what was
    /// recorded behind it is newer all the same.
    fn made_of(
        &mut self,
        line: &HistoryLine,
        attempt: &Attempt,
        answer: &Result<Outcome, BackendError>,
    ) {
        let (found, made) = match (answer, &attempt.expects) {
            (Ok(Outcome::Applied { .. }), Expects::Stamped { stamp, .. }) => {
                (*stamp, attempt.stamp)
            }
            (Ok(Outcome::Added { before, stamp, .. }), _) => (before.stamp, *stamp),
            (Ok(Outcome::AlreadyApplied(found)), _) if !line.calls.is_empty() => {
                (found.stamp().below(Stamp::STEP), found.stamp())
            }
            _ => return,
        };
        for call in self.lines.iter().flat_map(HistoryLine::all_calls) {
            let stamp = &mut self.calls[call].edits.stamp;
            if (found.get()..made.get()).contains(stamp) {
                *stamp = made.get();
            }
        }
    }

    /// Something else is stored than the attempt was made for.
    fn refused(
        &mut self,
        mut line: HistoryLine,
        state: &State,
        attempt: &Attempt,
        found: &KeyState,
    ) -> RuleResult<Vec<Sequence>> {
        let is_assigned = line.assignment.is_some();
        let is_deleted = !is_assigned && found.stored.is_none() && found.stamp() >= attempt.stamp;
        if is_assigned && !line.is_online {
            self.check_superseded(state, Some(true))?;
            self.check_reported_stored(&line)?;
            if let Some((_, call)) = line.assignment.take() {
                self.calls[call].outcome = Some(CallOutcome::Superseded);
            }
            // The other calls stay queued, except closures that were made on the assignment.
            if !line.calls.is_empty() {
                self.lines.push_front(line);
            }
            self.propagate(state, Self::everything_lost(), CallOutcome::Superseded)?;
        } else if is_deleted && !line.is_online && !self.is_done_on_nothing(&line, state) {
            return self.check_abandoned(&line, state, ErrorKind::Conflict);
        } else {
            self.lines.push_front(line);
        }
        self.is_changed = true;
        Ok(Vec::new())
    }
}
