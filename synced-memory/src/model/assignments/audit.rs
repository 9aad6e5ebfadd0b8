//! Compares the state with the ledger.

use super::super::audit::check_link;
use super::super::check::{RuleResult, ensure};
use super::super::server::{KEY, counted};
use super::ledger::{Ledger, LedgerLine, WriteOutcome};
use crate::base::clock::Monotonic;
use crate::client::state::State;
use crate::pending::outbox::{Assignment, Entry};

impl Ledger {
    /// The state must agree with the ledger.
    pub(super) fn audit(&mut self, state: &State, version: u64, mono: Monotonic) -> RuleResult {
        check_link(state, self.link)?;
        let mut entries = state.outbox.entries();
        let mut above = None;
        for line in self.pending_mut() {
            let Some((_, entry)) = entries.next() else {
                return Err(format!("rule 2: {} was lost", line.sequence));
            };
            ensure!(
                Some(line.stamp) > above,
                "rule 8: {} is stamped {}, the one before it {above:?}",
                line.sequence,
                line.stamp
            );
            line.audit(entry)?;
            above = Some(counted(line.stamp));
        }
        ensure!(
            entries.next().is_none(),
            "there is more in the outbox than is pending"
        );
        self.audit_counters(state)?;
        self.audit_view(state, version, mono)
    }

    fn audit_counters(&self, state: &State) -> RuleResult {
        let ended = |outcome| {
            let lines = self.lines.iter();
            lines.filter(|line| line.outcome == Some(outcome)).count()
        };
        let lines = self.lines.iter();
        let removed = lines.filter(|line| line.removes_expired).count();
        let expected = (
            ended(WriteOutcome::Superseded) as u64,
            (ended(WriteOutcome::Expired) + removed) as u64,
            ended(WriteOutcome::DeadLettered),
        );
        let counted = (state.superseded, state.expired, state.letters.len());
        ensure!(
            counted == expected,
            "superseded, expired, dead letters: counted {counted:?} instead of {expected:?}"
        );
        Ok(())
    }

    /// Rule 1: a read returns the last write that is not answered, or else the last answer of the
    /// server.
    fn audit_view(&mut self, state: &State, version: u64, mono: Monotonic) -> RuleResult {
        let view = state.view(KEY, mono);
        let last = self
            .pending()
            .rev()
            .find(|line| !line.is_expired(mono) || line.replaces_nothing);
        let expected = match (last, &self.last_answer.held) {
            (Some(line), _) => line.stored().filter(|_| !line.is_expired(mono)),
            (None, Some(_)) if self.last_answer.expires_at.is_some_and(|at| at <= mono) => None,
            // Before it reads again, a process does not know the time to live of another one's
            // write.
            (None, Some(held)) if held.is_expired(mono) => {
                view.stored.as_ref().map(|_| held.bytes.clone())
            }
            (None, held) => held.as_ref().map(|held| held.bytes.clone()),
        };
        ensure!(
            view.bytes() == expected,
            "rule 1: a read returns {:?} instead of {expected:?}",
            view.bytes()
        );
        let (last_value, last_version, expires_at) =
            std::mem::replace(&mut self.last_view, (view.bytes(), version, view.expires));
        let is_announced = version > last_version || expires_at.is_some_and(|at| at <= mono);
        ensure!(
            last_value.is_none() || last_value == self.last_view.0 || is_announced,
            "the value of a read changed, but not its version"
        );
        Ok(())
    }
}

impl LedgerLine {
    fn audit(&mut self, entry: &Entry) -> RuleResult {
        let (sequence, stamp) = (entry.identity.sequence, entry.write.stamp.get());
        ensure!(
            sequence == self.sequence,
            "rule 3: {sequence} is queued in place of {}",
            self.sequence
        );
        ensure!(
            stamp == self.stamp,
            "rule 4: {sequence} was stamped {stamp} instead of {}",
            self.stamp
        );
        let stored = match &entry.write.assignment {
            Some(Assignment::Put(envelope)) => Some(envelope.clone()),
            Some(Assignment::Delete) | None => None,
        };
        ensure!(
            stored == self.stored(),
            "rule 3: {sequence} writes {stored:?} instead of {:?}",
            self.value
        );
        for receiver in &mut self.receivers {
            let received = receiver.try_recv();
            ensure!(
                received.is_err(),
                "{sequence} has not ended, and was answered {received:?}"
            );
            ensure!(
                entry.is_awaited(),
                "{sequence} is awaited, but nobody will answer it"
            );
        }
        Ok(())
    }
}
