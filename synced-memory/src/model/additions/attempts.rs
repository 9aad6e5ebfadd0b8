//! What is taken from the outbox to be sent must be the first entry, as it is to be made of what is
//! known.

use std::rc::Rc;

use serde_json::Value;

use super::super::check::{RuleResult, ensure};
use super::super::document::value_of;
use super::super::server::{KEY, write_of};
use super::history::{AdditionHistory, AdditionLine, ExpectedAddition};
use super::values::AddedTo;
use crate::backend::commit::{Attempt, Expects, KeyChange, Sequence};
use crate::base::clock::Monotonic;
use crate::client::state::State;
use crate::value::addition::Addition;
use crate::value::envelope;

impl AdditionHistory {
    /// A batch was taken from the outbox. Returns what was withdrawn with an error.
    pub(super) fn check_batch(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> RuleResult<Vec<Sequence>> {
        let mut withdrawn = Vec::new();
        loop {
            self.take_letters(state, mono, false)?;
            let Some(line) = self.lines.pop_front() else {
                break;
            };
            let is_queued = |line: &AdditionLine| {
                let mut queued = state.outbox.of(KEY);
                queued.any(|entry| entry.identity.id == line.id)
            };
            if is_queued(&line) {
                self.lines.push_front(line);
                break;
            }
            withdrawn.extend(self.ended_unsent(line, state, mono)?);
        }
        if !batch.is_empty() {
            self.expire_first(mono)?;
        }

        self.to_send = None;
        ensure!(batch.len() < 2, "rule 3: it sends {batch:?} at once");
        if let [attempt] = batch {
            let mut line = self
                .lines
                .pop_front()
                .ok_or("nothing is queued, but it sends")?;
            let expected = self.check_attempt(&mut line, attempt, state, mono);
            self.lines.push_front(line);
            self.to_send = Some(Rc::new(expected?));
        }
        Ok(withdrawn)
    }

    /// What the first entry assigns after a delete has expired: it deletes instead.
    fn expire_first(&mut self, mono: Monotonic) -> RuleResult {
        let Some(line) = self.lines.front_mut() else {
            return Ok(());
        };
        if line.is_expired(mono) {
            ensure!(
                line.replaces_nothing,
                "{} has expired, and is sent",
                line.id
            );
            line.write.assignment = Some(None);
            line.write.adds.clear();
            line.write.expires = None;
            self.expired += 1;
        }
        Ok(())
    }

    fn check_attempt(
        &self,
        line: &mut AdditionLine,
        attempt: &Attempt,
        state: &State,
        mono: Monotonic,
    ) -> RuleResult<ExpectedAddition> {
        ensure!(
            line.number == write_of(attempt.sequence),
            "rule 3: it sends {} instead of {}",
            attempt.sequence,
            line.number
        );
        ensure!(
            attempt.retry.is_some() == line.in_doubt,
            "rule 4: whether {attempt:?} is a retry"
        );
        line.was_sent = true;
        let is_doubtful = line.is_confirmed && line.in_doubt;
        let only_asks = attempt.expects == Expects::Nothing;
        let expected = ExpectedAddition {
            only_asks,
            is_online: line.is_online,
            write: line.write.clone(),
            is_blind: attempt.change.is_blind(),
            subject: self.subject,
        };
        if only_asks {
            ensure!(
                line.write.assignment.is_none() || is_doubtful,
                "rule 4: {} need not ask",
                line.id
            );
            return Ok(expected);
        }
        ensure!(
            !is_doubtful,
            "{} is confirmed and in doubt, and is made again",
            line.id
        );
        let is_awaited = !line.receivers.is_empty();
        ensure!(
            is_awaited || !line.is_confirmed,
            "{} is sent, and no caller waits for it",
            line.id
        );
        line.may_be_applied = true;
        let ttl = (attempt.change.ttl(), line.time_to_live(mono));
        ensure!(
            ttl.0 == ttl.1 || attempt.change == KeyChange::Delete,
            "rule 5: {} is sent for {ttl:?}",
            line.id
        );
        match &attempt.change {
            KeyChange::Blind { addition, .. } => self.check_blind(line, addition, attempt)?,
            KeyChange::Put { envelope, .. } => {
                let value = value_of(Some(envelope));
                self.check_whole(line, value.as_deref(), attempt, state, mono)?;
            }
            KeyChange::Edit { made, .. } => {
                let value = value_of(Some(&made.to_bytes()));
                self.check_whole(line, value.as_deref(), attempt, state, mono)?;
            }
            KeyChange::Delete => self.check_whole(line, None, attempt, state, mono)?,
        }
        Ok(expected)
    }

    /// An addition has what the calls add, and nothing else.
    fn check_blind(
        &self,
        line: &AdditionLine,
        addition: &Addition,
        attempt: &Attempt,
    ) -> RuleResult {
        let write = &line.write;
        let is_same = match (self.subject, addition) {
            (AddedTo::List, Addition::Items(items)) => {
                let items: Vec<Value> = items
                    .iter()
                    .filter_map(|item| serde_json::from_str(item.as_str()).ok())
                    .collect();
                items == write.adds
            }
            (AddedTo::Integer { min, max }, Addition::Integer { by, .. }) => {
                let sum: i64 = write.adds.iter().filter_map(Value::as_i64).sum();
                let is_bounded = matches!(addition,
                    Addition::Integer { min: least, max: most, .. } if (min, max) == (*least, *most));
                *by == sum && is_bounded
            }
            _ => false,
        };
        ensure!(
            is_same && write.assignment.is_none() && write.takes.is_none(),
            "rule 5: {attempt:?} does not add {write:?}"
        );
        ensure!(
            attempt.expects == Expects::Anything,
            "rule 5: {attempt:?} is an addition"
        );
        Ok(())
    }

    /// Anything else must be what the entry makes of the last answer.
    fn check_whole(
        &self,
        line: &AdditionLine,
        value: Option<&Value>,
        attempt: &Attempt,
        state: &State,
        mono: Monotonic,
    ) -> RuleResult {
        let write = &line.write;
        let known = self.known(state, mono)?;
        let stored = known.and_then(|_| self.last_answer.value());
        let expects = match &write.assignment {
            Some(_) => Expects::Anything,
            None => Expects::of(known),
        };
        ensure!(
            attempt.expects == expects,
            "rule 5: {} expects {:?} instead of {expects:?}",
            line.id,
            attempt.expects
        );
        if let Some(takes) = &write.takes {
            ensure!(
                takes.observed == known.map(envelope::value_of),
                "rule 5: {takes:?} is taken out of {known:?}"
            );
        }
        let made = write.made_of(stored.as_deref(), self.subject);
        ensure!(
            made.is(value),
            "rule 5: {} sends {value:?} instead of {made:?}, on {known:?}",
            line.id
        );
        Ok(())
    }
}
