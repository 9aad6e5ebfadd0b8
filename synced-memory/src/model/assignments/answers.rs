//! What must be sent of a process, and what becomes of its writes with each answer.

use super::super::check::{RuleResult, ensure};
use super::super::server::{HeldValue, TOMBSTONE_TTL, counted};
use super::ledger::{Ledger, LedgerAnswer, LedgerLine, WriteOutcome};
use crate::backend::commit::{Attempt, KeyChange, KeyState, Outcome, Sequence};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::clock::Monotonic;
use crate::base::error::ErrorKind;
use crate::cache::Ticket;
use crate::client::state::State;
use crate::pending::outbox::Written;
use crate::value::document::Document;

impl Ledger {
    /// The flusher took a batch, and dropped what had expired or become too old before. `rest`:
    /// from this write on all are in line at another shard. Returns what was withdrawn with an
    /// error.
    pub(super) fn batch_taken(
        &mut self,
        batch: &[Attempt],
        rest: Option<Sequence>,
        mono: Monotonic,
    ) -> RuleResult<Vec<Sequence>> {
        let mut withdrawn = Vec::new();
        for line in self.lines.iter_mut().filter(|line| line.outcome.is_none()) {
            if rest == Some(line.sequence) {
                return Ok(withdrawn);
            }
            let is_expired = line.is_expired(mono);
            if is_expired && !line.replaces_nothing {
                line.expire()?;
            } else if line.written + TOMBSTONE_TTL <= mono {
                withdrawn.extend(abandon(line, ErrorKind::Conflict)?);
            } else {
                if is_expired {
                    line.expire()?;
                }
                break;
            }
        }
        self.check_sent(batch, mono)?;
        Ok(withdrawn)
    }

    /// The batch must hold the first write that has not ended, and nothing else.
    fn check_sent(&mut self, batch: &[Attempt], mono: Monotonic) -> RuleResult {
        let last_sent = self.last_sent;
        let Some(line) = self.pending_mut().next() else {
            ensure!(
                batch.is_empty(),
                "nothing is pending, but it sends {batch:?}"
            );
            return Ok(());
        };
        let [attempt] = batch else {
            return Err(format!(
                "rule 2: {} is not sent, but {batch:?}",
                line.sequence
            ));
        };
        let change = match line.stored() {
            Some(envelope) => KeyChange::Put {
                envelope,
                ttl: line.time_to_live(mono),
            },
            None => KeyChange::Delete,
        };
        let same = attempt.sequence == line.sequence
            && attempt.stamp.get() == line.stamp
            && attempt.change == change;
        ensure!(same, "rule 3: it sends {attempt:?} instead of {line:?}");
        ensure!(
            attempt.retry.is_some() == line.in_doubt,
            "rule 4: whether {attempt:?} is a retry"
        );
        ensure!(
            line.was_sent || line.stamp > counted(last_sent),
            "rule 8: {} is sent after {last_sent}",
            line.stamp
        );
        line.was_sent = true;
        self.last_sent = counted(last_sent).max(attempt.stamp.get());
        Ok(())
    }

    /// A caller asked for the first write, to send it itself: it gets one that a caller waits for.
    /// Returns what was withdrawn with an error.
    pub(super) fn taken_by_its_caller(
        &mut self,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> RuleResult<Option<Sequence>> {
        let is_under_way = self.under_way.is_some();
        let line = self
            .pending_mut()
            .next()
            .filter(|line| !is_under_way && !line.receivers.is_empty());
        match line {
            Some(line) if line.is_expired(mono) && !line.replaces_nothing => {
                line.expire().map(|()| None)
            }
            Some(line) if line.written + TOMBSTONE_TTL <= mono => {
                abandon(line, ErrorKind::Conflict)
            }
            Some(_) => self.batch_taken(batch, None, mono).map(|_| None),
            None => {
                ensure!(batch.is_empty(), "rule 3: it sends {batch:?} out of order");
                Ok(None)
            }
        }
    }

    pub(super) fn sent(&mut self, sequence: Sequence, ticket: Ticket) {
        self.under_way = Some((sequence, ticket));
    }

    /// An attempt was answered; the server then stored `held`. Returns what was withdrawn with an
    /// error.
    pub(super) fn answered(
        &mut self,
        state: &State,
        (attempt, ticket): (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<HeldValue>,
    ) -> RuleResult<Option<Sequence>> {
        if self.under_way != Some((attempt.sequence, ticket)) {
            return Ok(None);
        }
        self.under_way = None;
        let line = self.pending_mut().next();
        let line = line.ok_or("what was answered is not pending")?;
        let mut last_answer = LedgerAnswer {
            ticket,
            held,
            expires_at: None,
        };
        let outcome = match answer {
            Ok(Outcome::Applied { existed, .. }) => {
                line.expect_answer(Ok(Written::Stored), Some(*existed))?;
                last_answer.expires_at = line.expires_at;
                WriteOutcome::Stored
            }
            Ok(Outcome::Added { .. } | Outcome::AddedBehind { .. }) => {
                return Err(format!("rule 4: {attempt:?} is an assignment"));
            }
            Ok(Outcome::AlreadyApplied(found)) if found.stamp().get() <= line.stamp => {
                WriteOutcome::Stored
            }
            Ok(Outcome::Refused(found))
                if found.stamp().get() == line.stamp
                    && found.stored == line.stored().map(Document::of) =>
            {
                line.expect_answer(Ok(Written::Stored), None)?;
                WriteOutcome::AlreadyThere
            }
            Ok(Outcome::Refused(found)) if line.is_online => {
                self.check_stamped_again(state, found)?;
                self.follow_server(last_answer);
                return Ok(None);
            }
            Ok(Outcome::AlreadyApplied(_) | Outcome::Refused(_)) => WriteOutcome::Superseded,
            Ok(Outcome::RecordExpired(_)) => {
                return Err(format!(
                    "rule 6: the record of {} has expired",
                    line.sequence
                ));
            }
            Err(error) if error.kind == BackendErrorKind::Rejected => {
                return abandon(line, ErrorKind::Rejected);
            }
            Err(error) => {
                line.in_doubt |= error.kind == BackendErrorKind::UnderReplicated;
                return Ok(None);
            }
        };
        ensure!(
            line.receivers.is_empty(),
            "rule 4: {} met something newer online, and was not stamped again",
            line.sequence
        );
        line.outcome = Some(outcome);
        if let Ok(Outcome::AlreadyApplied(found) | Outcome::Refused(found)) = answer {
            self.known_stamp = self.known_stamp.max(found.stamp().get());
        }
        self.follow_server(last_answer);
        Ok(None)
    }

    /// Rules 4 and 8: all that is queued is stamped again, above what the server has found.
    fn check_stamped_again(&mut self, state: &State, found: &KeyState) -> RuleResult {
        let found = found.stamp().get();
        let mut above = found;
        for (line, (_, entry)) in self.pending_mut().zip(state.outbox.entries()) {
            let stamp = entry.write.stamp.get();
            ensure!(
                stamp > above,
                "rules 4 and 8: {} is stamped {stamp} over {above}",
                line.sequence
            );
            ensure!(
                stamp == line.stamp || stamp < above + 1_000,
                "rule 4: {stamp} is far above {above}"
            );
            (line.stamp, above) = (stamp, stamp);
        }
        self.known_stamp = self.known_stamp.max(found).max(above);
        Ok(())
    }

    /// A read was answered.
    pub(super) fn read(&mut self, ticket: Ticket, held: Option<HeldValue>) {
        self.known_stamp = self
            .known_stamp
            .max(held.as_ref().map_or(0, |held| held.stamp));
        self.follow_server(LedgerAnswer {
            ticket,
            held,
            expires_at: None,
        });
    }

    /// What is known follows the server, in the order of the requests.
    fn follow_server(&mut self, last_answer: LedgerAnswer) {
        if last_answer.ticket >= self.last_answer.ticket {
            self.last_answer = last_answer;
        }
    }

    pub(super) fn connected(&mut self, shift: Option<i64>) {
        let by = shift.unwrap_or(0);
        self.known_stamp = self.known_stamp.saturating_add_signed(by);
        for line in self.pending_mut() {
            line.stamp = line.stamp.saturating_add_signed(by);
        }
        self.last_view.0 = None; // other stamps, but the same value
    }

    /// The server is away, or takes no writes: all writes are reported as queued.
    pub(super) fn interrupted(&mut self) -> RuleResult {
        for line in self.pending_mut() {
            line.is_online = false;
            line.expect_answer(Ok(Written::Queued), None)?;
        }
        Ok(())
    }

    /// The connection was lost over which an attempt is under way.
    pub(super) fn lost_under_way(&mut self) {
        let under_way = self.under_way.take().map(|(sequence, _)| sequence);
        for line in self.pending_mut() {
            line.in_doubt |= under_way == Some(line.sequence);
        }
    }

    /// The callers of this write were answered that it is queued.
    pub(super) fn reported_queued(&mut self, sequence: Sequence) -> RuleResult {
        match self.pending_mut().find(|line| line.sequence == sequence) {
            Some(line) => line.expect_answer(Ok(Written::Queued), None),
            None => Ok(()),
        }
    }
}

/// The write is not sent any more: its callers receive an error, or it becomes a dead letter.
fn abandon(line: &mut LedgerLine, reason: ErrorKind) -> RuleResult<Option<Sequence>> {
    let awaited = !line.receivers.is_empty();
    line.outcome = Some(if awaited {
        WriteOutcome::Withdrawn
    } else {
        WriteOutcome::DeadLettered
    });
    line.expect_answer(Err(reason), None)?;
    Ok(awaited.then_some(line.sequence))
}
