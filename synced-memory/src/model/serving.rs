//! What the server answers, or each shard of a cluster.

use super::check::RuleResult;
use super::network::at_shard;
use super::placement::{Placement, Routing};
use super::rules::Rules;
use super::world::{FaultMode, ModelAnswer, ModelConnection, ModelRequest, World, one_of};
use crate::backend::commit::{Attempt, Outcome};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::shards::Shard;

impl<R: Rules> World<R> {
    pub(super) fn serve_any(&mut self, random: &mut fastrand::Rng) -> RuleResult {
        let ready: Vec<_> = (0..self.connections.len())
            .filter(|connection| !self.connections[*connection].requests.is_empty())
            .filter(|connection| self.is_up_for(*connection))
            .collect();
        if ready.is_empty() {
            Ok(())
        } else {
            self.serve(one_of(random, &ready))
        }
    }

    /// Whether the shard of a connection is there.
    pub(super) fn is_up_for(&self, connection: usize) -> bool {
        self.are_up[self.connections[connection].shard.index()]
    }

    pub(super) fn serve(&mut self, connection: usize) -> RuleResult {
        let mono = self.mono();
        let ModelConnection {
            process,
            shard,
            writer,
            requests,
            ..
        } = &mut self.connections[connection];
        let (at, shard, writer) = (*process, *shard, *writer);
        let Some(request) = requests.pop_front() else {
            return Ok(());
        };
        let reply = match request {
            ModelRequest::Commit {
                attempt,
                in_flight,
                ticket,
            } => {
                let answer = self.decide(shard, &attempt, &in_flight)?;
                self.log_step(|| {
                    let number = attempt.sequence;
                    format!(
                        "    the server{} on {at}/{number}: {answer:?}",
                        at_shard(shard)
                    )
                });
                ModelAnswer::Commit {
                    attempt: Box::new(attempt),
                    ticket,
                    answer,
                    held: self.server.held(mono),
                }
            }
            ModelRequest::Read(read) => {
                let held = self.server.held(mono);
                let routing = self.placement.of_read(shard, read.asked_in, held.is_some());
                let held = held.filter(|_| routing != Routing::Nothing);
                let ticket = read.ticket;
                self.log_step(|| {
                    let shard = at_shard(shard);
                    format!(
                        "    the server{shard} on the read {ticket} of {at}: {routing:?} {held:?}"
                    )
                });
                match Placement::error(routing) {
                    Some(error) => ModelAnswer::Redirected(read, error),
                    None if read.is_apart => ModelAnswer::TooLarge(ticket),
                    None => ModelAnswer::Read(ticket, held),
                }
            }
            ModelRequest::DropRecords => {
                // They age out if they are at another shard.
                if self.placement.is_whole_at(shard) {
                    self.server.drop_records(writer, mono)?;
                    self.log_step(|| {
                        format!("    the server drops the records of the closed {at}")
                    });
                }
                return Ok(());
            }
        };
        if self.connections[connection].delivers_answers {
            self.connections[connection].answers.push_back(reply);
        }
        Ok(())
    }

    /// What a shard answers to an attempt, in its fault mode.
    fn decide(
        &mut self,
        shard: Shard,
        attempt: &Attempt,
        in_flight: &R::InFlight,
    ) -> RuleResult<Result<Outcome, BackendError>> {
        let mono = self.mono();
        let existing = self.server.existing(mono);
        let routing = self.placement.of_commit(shard, attempt.asking, existing);
        if let Some(error) = Placement::error(routing) {
            return Ok(Err(error));
        }
        Ok(match self.fault_modes[shard.index()] {
            FaultMode::None => {
                let (server, log) = (&mut self.server, &mut self.log);
                let outcome = R::commit(server, log, attempt, in_flight, mono)?;
                self.replicated(shard, outcome)
            }
            FaultMode::Unavailable => Err(BackendError::unavailable("OOM")),
            FaultMode::NotPrimary => Err(BackendError::not_primary("READONLY")),
            FaultMode::Rejecting => Err(BackendError::rejected("NOPERM")),
            FaultMode::ScriptMissing => {
                self.fault_modes[shard.index()] = FaultMode::None;
                Err(BackendError::retry(BackendError::rejected("NOSCRIPT")))
            }
        })
    }

    /// What is answered if that may not be before the replica has it.
    fn replicated(&mut self, shard: Shard, outcome: Outcome) -> Result<Outcome, BackendError> {
        if !self.placement.needs_replicas() {
            return Ok(outcome);
        }
        let is_made = outcome.is_made_now() || matches!(outcome, Outcome::AlreadyApplied(_));
        if is_made && self.lags[shard.index()] {
            let what = "NOREPLICAS it is on too few";
            return Err(BackendError::new(BackendErrorKind::UnderReplicated, what));
        }
        if !self.lags[shard.index()] {
            self.server.replicate(shard);
        }
        Ok(outcome)
    }
}
