//! Confirmed calls: applied or withdrawn, or in doubt until the server has said which; and the
//! items that they take.

use serde_json::Value;

use super::super::audit::{check_waits, check_withdrawn};
use super::super::check::{RuleResult, ensure};
use super::super::server::KEY;
use super::super::world::World;
use super::history::{AdditionHistory, AdditionLine, LineOutcome, LineWrite};
use crate::backend::commit::{Attempt, Outcome};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::error::ErrorKind;
use crate::client::state::State;
use crate::pending::outbox::{Entry, LetterRecord, Written};

impl AdditionHistory {
    fn is_under_way(&self, line: &AdditionLine) -> bool {
        self.under_way.is_some_and(|(_, _, id)| id == line.id)
    }

    /// Its caller stops waiting: it is withdrawn, or in doubt.
    pub(super) fn confirmed_timed_out(&mut self, state: &mut State, at: usize) -> RuleResult {
        let is_under_way = self.is_under_way(&self.lines[at]);
        let line = &mut self.lines[at];
        let may_be_made = line.in_doubt && line.may_be_applied || is_under_way;
        for mut receiver in line.receivers.drain(..) {
            check_waits(&mut receiver)?;
        }
        let expected = check_withdrawn(state, line.id, may_be_made)?;
        line.reported.push(Err(expected));
        if expected == ErrorKind::Unavailable
            && let Some(line) = self.lines.remove(at)
        {
            self.never_applied(line, LineOutcome::Withdrawn);
        }
        Ok(())
    }

    /// The server takes no writes: what may not have been applied is withdrawn.
    pub(super) fn confirmed_interrupted(&mut self) -> RuleResult {
        for at in (0..self.lines.len()).rev() {
            let line = &self.lines[at];
            let is_awaited = !line.receivers.is_empty();
            let may_be_applied = line.in_doubt && (line.may_be_applied || !is_awaited);
            let is_withdrawn = line.is_confirmed && !may_be_applied && !self.is_under_way(line);
            if is_withdrawn && let Some(line) = self.lines.remove(at) {
                self.failed(line, ErrorKind::Unavailable)?;
            }
        }
        Ok(())
    }

    /// It was certainly not applied: its caller, if it waits, receives this error.
    fn failed(&mut self, mut line: AdditionLine, expected: ErrorKind) -> RuleResult {
        let is_awaited = !line.receivers.is_empty();
        line.expect_answer(Err(expected))?;
        let outcome = if is_awaited {
            LineOutcome::Withdrawn
        } else {
            LineOutcome::NeverApplied
        };
        self.never_applied(line, outcome);
        Ok(())
    }

    /// It ends without having been applied; the server may not apply it any more.
    pub(super) fn never_applied(&mut self, line: AdditionLine, outcome: LineOutcome) {
        // The server bars the number of one that was in doubt, unless it loses its data.
        if !line.was_in_doubt {
            self.withdrawn.push(line.number);
        }
        self.end(line, outcome);
    }

    /// Nobody will know what became of it. What it may have taken is a dead letter.
    pub(super) fn stays_in_doubt(&mut self, mut line: AdditionLine, state: &State) -> RuleResult {
        line.expect_answer(Err(ErrorKind::InDoubt))?;
        if let Some(takes) = &line.write.takes {
            let letter = state.letters.get(self.dead_letters);
            let is_in_letter =
                |letter: &LetterRecord| is_item(letter, &takes.item) && letter.may_have_been_made;
            ensure!(
                letter.is_some_and(is_in_letter),
                "what {line:?} may have taken is not in a dead letter: {letter:?}"
            );
            self.dead_letters += 1;
        }
        self.end(line, LineOutcome::Unknown);
        Ok(())
    }

    /// An attempt of a confirmed entry was answered.
    pub(super) fn confirmed_answered(
        &mut self,
        mut line: AdditionLine,
        state: &State,
        attempt: &Attempt,
        answer: &Result<Outcome, BackendError>,
    ) -> RuleResult {
        let is_retry = attempt.retry.is_some();
        match answer {
            Ok(
                Outcome::Applied { .. }
                | Outcome::Added { .. }
                | Outcome::AddedBehind { .. }
                | Outcome::AlreadyApplied(_),
            ) => self.confirmed_applied(line, state),
            Ok(Outcome::Refused(_)) => {
                line.in_doubt &= !is_retry;
                if line.receivers.is_empty() {
                    self.never_applied(line, LineOutcome::NeverApplied);
                } else {
                    self.lines.push_front(line);
                }
                Ok(())
            }
            Ok(Outcome::RecordExpired(_)) => {
                Err(format!("rule 6: the record of {} has expired", line.id))
            }
            // It is sent as a whole value then.
            Err(error)
                if error.kind == BackendErrorKind::Rejected && !attempt.change.is_of_part() =>
            {
                if is_retry {
                    self.stays_in_doubt(line, state)
                } else {
                    self.failed(line, ErrorKind::Rejected)
                }
            }
            Err(error) => {
                line.in_doubt |= error.kind == BackendErrorKind::UnderReplicated;
                line.was_in_doubt |= line.in_doubt;
                self.lines.push_front(line);
                Ok(())
            }
        }
    }

    /// It was applied: its caller, if it waits, is answered so; otherwise what it has taken is
    /// returned.
    fn confirmed_applied(&mut self, mut line: AdditionLine, state: &State) -> RuleResult {
        let is_awaited = !line.receivers.is_empty();
        let answer = line.expect_answer(Ok(Written::Stored))?;
        let takes = line.write.takes.clone();
        let name = (state.writer(), line.number);
        let id = line.id;
        self.end(line, LineOutcome::Applied);
        let Some(takes) = takes else {
            return Ok(());
        };
        if !is_awaited {
            return self.returned(state, &takes.item);
        }
        ensure!(
            answer
                .as_ref()
                .is_some_and(|answer| answer.taken == Some(name)),
            "{id} has taken {:?}, and was answered {answer:?}",
            takes.item
        );
        self.unclaimed.push((name, takes.item));
        Ok(())
    }

    /// No caller picks up this item: a queued call returns it, or it becomes a dead letter if the
    /// outbox is full.
    fn returned(&mut self, state: &State, item: &Value) -> RuleResult {
        let is_known = |number| self.lines.iter().any(|line| line.number == number);
        let is_returning = |entry: &&Entry| {
            let take = entry.write.take.as_ref();
            let of_entry = take.and_then(|take| serde_json::from_str(take.item.as_str()).ok());
            of_entry.as_ref() == Some(item)
                && !entry.write.is_confirmed
                && !is_known(entry.identity.sequence)
        };
        let Some(entry) = state.outbox.last(KEY).filter(is_returning) else {
            let letter = state.letters.get(self.dead_letters);
            let is_in_letter = |letter: &LetterRecord| {
                is_item(letter, item) && letter.reason.kind() == ErrorKind::OutboxFull
            };
            ensure!(
                letter.is_some_and(is_in_letter),
                "{item} was taken, and is lost: {letter:?}"
            );
            self.dead_letters += 1;
            return Ok(());
        };
        self.lines.push_back(AdditionLine {
            id: entry.identity.id,
            number: entry.identity.sequence,
            write: LineWrite {
                adds: vec![item.clone()],
                ..LineWrite::default()
            },
            receivers: Vec::new(),
            reported: vec![Ok(Written::Queued)],
            is_online: false,
            is_confirmed: false,
            was_sent: false,
            may_be_applied: false,
            in_doubt: false,
            was_in_doubt: false,
            replaces_nothing: false,
            returns: Some(item.clone()),
            latest: entry.write.latest.get(),
            written: entry.write.written,
        });
        Ok(())
    }
}

/// Whether this is what a dead letter has taken.
fn is_item(letter: &LetterRecord, item: &Value) -> bool {
    let taken = letter.taken.as_ref();
    taken
        .and_then(|taken| serde_json::from_str(taken.as_str()).ok())
        .as_ref()
        == Some(item)
}

/// Callers pick up what was taken for them, or have gone.
pub(super) fn hand_over(world: &mut World<AdditionHistory>, at: usize) -> RuleResult {
    let process = &mut world.processes[at];
    for number in std::mem::take(&mut process.ledger.withdrawn) {
        world.server.withdraw(process.state.writer(), number)?;
    }
    for (name, item) in std::mem::take(&mut process.ledger.unclaimed) {
        match world.random.u8(0..4) {
            0 => process.state.handed(name),
            1 => {
                process.state.not_handed(name);
                process.ledger.returned(&process.state, &item)?;
            }
            _ => process.ledger.unclaimed.push((name, item)),
        }
    }
    Ok(())
}
