//! What the callers of an entry were answered.

use super::super::audit::check_waits;
use super::super::calls::recorded::RecordedOn;
use super::super::check::{RuleResult, ensure};
use super::history::{History, HistoryLine};
use crate::base::error::{Error, ErrorKind, Result as CrateResult};
use crate::pending::outbox::{Answer, Written};

impl History {
    /// The answer that the callers of an entry have received, all the same; `None` if none of them
    /// waited.
    pub(super) fn received_answer(
        &mut self,
        line: &HistoryLine,
    ) -> RuleResult<Option<CrateResult<Answer>>> {
        let mut received: Option<CrateResult<Answer>> = None;
        for call in line.awaiting_calls() {
            let call = &mut self.calls[call];
            let Some(mut channel) = call.receiver.take() else {
                continue;
            };
            let answer = channel.try_recv();
            let answer = answer.map_err(|error| {
                format!("(5) {:?} ended, and was not answered: {error}", call.kind)
            })?;
            if let Some(other) = &received {
                ensure!(
                    other.as_ref().map_err(Error::kind) == answer.as_ref().map_err(Error::kind),
                    "the callers of {} were answered {other:?} and {answer:?}",
                    line.id
                );
            }
            let result = answer.as_ref().ok();
            call.reported = result
                .filter(|answer| answer.outdated.is_none())
                .map(|answer| answer.written);
            if let (Some(confirmed), Err(error)) = (&mut call.confirmed, &answer) {
                confirmed.error = Some(error.kind());
            }
            received = Some(answer);
        }
        Ok(received)
    }

    /// The callers of an entry, if they waited, must have received this error. Whether they waited.
    pub(super) fn check_reported_error(
        &mut self,
        line: &HistoryLine,
        expected: ErrorKind,
    ) -> RuleResult<bool> {
        let Some(received) = self.received_answer(line)? else {
            return Ok(false);
        };
        let result = received.as_ref().map(|answer| answer.written);
        ensure!(
            result.map_err(Error::kind) == Err(expected),
            "{} was answered {received:?} instead of {expected:?}",
            self.describe(line)
        );
        Ok(true)
    }

    /// The callers of an entry, if they waited, must have received that it is stored.
    pub(super) fn check_reported_stored(&mut self, line: &HistoryLine) -> RuleResult {
        let received = self.received_answer(line)?;
        let is_stored =
            |answer: &Answer| answer.written == Written::Stored && answer.outdated.is_none();
        ensure!(
            received
                .as_ref()
                .is_none_or(|received| received.as_ref().is_ok_and(is_stored)),
            "{} was answered {received:?}",
            self.describe(line)
        );
        Ok(())
    }

    /// The callers of an entry, if they waited, must have received that it is queued.
    pub(super) fn check_reported_queued(&mut self, line: usize) -> RuleResult {
        self.lines[line].recorded_on = RecordedOn::Anything;
        for call in self.lines[line].awaiting_calls().collect::<Vec<_>>() {
            let call = &mut self.calls[call];
            let Some(mut channel) = call.receiver.take() else {
                continue;
            };
            let received = channel.try_recv();
            let result = received
                .as_ref()
                .ok()
                .and_then(|result| result.as_ref().ok());
            let written = result.map(|answer| answer.written);
            ensure!(
                written == Some(Written::Queued),
                "{:?} was answered {received:?} instead of queued",
                call.kind
            );
            call.reported = written;
        }
        self.is_changed = true;
        Ok(())
    }

    /// Calls that have not ended must not have been answered.
    pub(super) fn check_nothing_reported(&mut self) -> RuleResult {
        for line in &self.lines {
            for call in line.awaiting_calls() {
                let call = &mut self.calls[call];
                call.receiver.as_mut().map_or(Ok(()), check_waits)?;
            }
        }
        Ok(())
    }
}
