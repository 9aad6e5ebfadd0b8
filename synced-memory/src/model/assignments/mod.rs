//! Rules 1 to 4, 7 and 8, for processes that assign whole values and delete them.
//!
//! - `ledger.rs`: the writes of a process; `answers.rs`: what is sent and answered; `audit.rs`: the
//!   state compared with both

mod answers;
mod audit;
mod ledger;

use std::time::Duration;

use super::action::ScheduledAction;
use super::check::{RuleResult, ensure};
use super::process::ProcessRules;
use super::rules::Rules;
use super::server::{HeldValue, KEY, ModelServer};
use super::world::{World, one_of};
use crate::backend::commit::{Attempt, Outcome, Sequence};
use crate::backend::error::BackendError;
use crate::base::clock::Monotonic;
use crate::base::error::ErrorKind;
use crate::base::policy::WritePolicy;
use crate::cache::Ticket;
use crate::client::state::{Link, Request, State};
use crate::value::envelope::Unsealed;

pub(super) use ledger::Ledger;
use ledger::WriteOutcome;

impl Rules for Ledger {
    const WRITES: &'static [(ScheduledAction, u32)] =
        &[(ScheduledAction::Put, 14), (ScheduledAction::Delete, 6)];
    const RARE: &'static [(ScheduledAction, u32)] = &[(ScheduledAction::PutWithTtl, 6)];

    fn write(
        world: &mut World<Self>,
        at: usize,
        action: ScheduledAction,
        random: &mut fastrand::Rng,
    ) -> RuleResult {
        let is_put = action != ScheduledAction::Delete;
        let ttl = (action == ScheduledAction::PutWithTtl)
            .then(|| Duration::from_millis(one_of(random, &[1, 2_000, 20_000])));
        world.values += 1;
        let (value, mono, moment) = (world.values, world.mono(), world.moment(at));
        let process = &mut world.processes[at];
        let request = if is_put {
            let value = Unsealed::encode(&value).expect("a number is JSON");
            Request::Put { value, ttl }
        } else {
            Request::Delete
        };
        let existed = process.state.view(KEY, mono).stored.is_some();
        match process
            .state
            .write(&world.key, request, WritePolicy::Through, moment)
        {
            Ok(accepted) => {
                let sequence = accepted.id;
                let written = (is_put.then_some(value), ttl);
                process
                    .ledger
                    .accepted(&process.state, written, moment, existed, accepted)?;
                let stamp = process.ledger.last_stamp();
                world.log_step(|| {
                    let what = if is_put {
                        format!("puts {value}")
                    } else {
                        "deletes".to_owned()
                    };
                    format!("{at} {what} for {ttl:?} as {sequence}, stamped {stamp:?}")
                });
                Ok(())
            }
            Err(error) => {
                let is_full =
                    error.kind() == ErrorKind::OutboxFull && process.ledger.last_stamp().is_some();
                ensure!(is_full, "rule 2: a write was refused: {error}");
                Ok(())
            }
        }
    }

    /// Without a stamp, or with any stamp.
    fn foreign_set(world: &mut World<Self>, random: &mut fastrand::Rng) -> RuleResult {
        world.values += 1;
        let value = world.values;
        let pending = world.processes[random.usize(0..3)].ledger.last_stamp();
        let stamp = world.foreign_stamp(pending, random);
        let stored = match stamp {
            Some(stamp) => format!(r#"{{"value": {value}, "last_modified": {stamp}}}"#),
            None => value.to_string(),
        };
        world.log_step(|| format!("a foreign SET {stored}"));
        world
            .server
            .store_foreign(Some((stored.into(), stamp.unwrap_or(0))), world.mono())
    }

    fn ended(world: &World<Self>, at: usize) -> RuleResult {
        let process = &world.processes[at];
        for (sequence, outcome) in process.ledger.outcomes() {
            let is_applied = world.server.was_applied(process.state.writer(), sequence);
            // One that was superseded for good is not counted if the answer to that was lost.
            let is_accounted_for = is_applied
                || outcome == Some(WriteOutcome::Stored)
                    && world.server.is_superseded(process.state.writer(), sequence);
            match outcome {
                None => return Err(format!("rule 2: {at}/{sequence} never came to an end")),
                Some(WriteOutcome::Stored) => ensure!(
                    is_accounted_for,
                    "{at}/{sequence} was reported as stored, and was never applied"
                ),
                Some(WriteOutcome::Withdrawn) => ensure!(
                    !is_applied,
                    "{at}/{sequence} was withdrawn with an error, and was applied"
                ),
                Some(
                    WriteOutcome::AlreadyThere
                    | WriteOutcome::Superseded
                    | WriteOutcome::Expired
                    | WriteOutcome::DeadLettered,
                ) => {}
            }
        }
        Ok(())
    }
}

impl ProcessRules for Ledger {
    /// When the time to live of its value is over.
    type InFlight = Option<Monotonic>;
    type RunLog = ();

    fn new_log(_seed: u64) {}

    fn new() -> Self {
        Self::new()
    }

    fn commit(
        server: &mut ModelServer,
        _log: &mut (),
        attempt: &Attempt,
        expires_at: &Option<Monotonic>,
        mono: Monotonic,
    ) -> RuleResult<Outcome> {
        server.commit(attempt, *expires_at, mono)
    }

    fn awaited_writes(&self) -> Vec<Sequence> {
        self.awaited_writes().collect()
    }

    fn reported_queued(&mut self, sequence: Sequence) -> RuleResult {
        self.reported_queued(sequence)
    }

    fn batch_taken(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
        is_rest_elsewhere: bool,
    ) -> RuleResult<Vec<Sequence>> {
        let rest = state.outbox.head(KEY).filter(|_| is_rest_elsewhere);
        self.batch_taken(batch, rest.map(|head| head.identity.id), mono)
    }

    fn taken_by_its_caller(
        &mut self,
        _state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> RuleResult<Vec<Sequence>> {
        let withdrawn = self.taken_by_its_caller(batch, mono)?;
        Ok(withdrawn.into_iter().collect())
    }

    fn sent(&mut self, attempt: &Attempt, ticket: Ticket) -> Option<Monotonic> {
        self.sent(attempt.sequence, ticket);
        self.expires_at(attempt.sequence)
    }

    fn answered(
        &mut self,
        state: &State,
        sent: (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<HeldValue>,
    ) -> RuleResult<Vec<Sequence>> {
        Ok(self
            .answered(state, sent, answer, held)?
            .into_iter()
            .collect())
    }

    fn read(&mut self, ticket: Ticket, held: Option<HeldValue>) {
        self.read(ticket, held);
    }

    fn made(&self) -> Vec<Sequence> {
        let outcomes = self.outcomes();
        let made = outcomes.filter(|(_, outcome)| *outcome == Some(WriteOutcome::Stored));
        made.map(|(sequence, _)| sequence).collect()
    }

    fn connected(&mut self, shift: Option<i64>) {
        self.connected(shift);
    }

    fn link_is(&mut self, link: Link) {
        self.link = link;
    }

    fn lost_under_way(&mut self) -> RuleResult {
        self.lost_under_way();
        Ok(())
    }

    fn interrupted(&mut self, _is_busy: bool) -> RuleResult {
        self.interrupted()
    }

    fn audit(&mut self, state: &State, version: u64, mono: Monotonic) -> RuleResult {
        self.audit(state, version, mono)
    }
}
