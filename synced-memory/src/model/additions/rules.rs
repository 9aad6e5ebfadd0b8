//! What the rules say of a process that adds to a value.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::super::action::ScheduledAction;
use super::super::audit::{check_link, check_queued, check_waits};
use super::super::check::{RuleResult, ensure};
use super::super::document::value_of;
use super::super::process::{ApartFound, ProcessRules};
use super::super::rules::Rules;
use super::super::server::{HeldValue, KEY, ModelServer, ServerEffect, write_of};
use super::super::world::World;
use super::history::{
    AdditionHistory, AdditionLine, ExpectedAddition, LineOutcome, LineWrite, MadeValue,
};
use super::values::{AddedTo, TakenItems, check_items, takes_additions};
use super::{calls, confirmed};
use crate::backend::commit::{self, Attempt, Expects, KeyState, Outcome, Sequence, Writer};
use crate::backend::error::BackendError;
use crate::base::clock::Monotonic;
use crate::base::error::ErrorKind;
use crate::cache::Ticket;
use crate::client::state::{Link, State};
use crate::pending::outbox::Written;

/// What was applied, by the writer and the entry.
type AppliedWrites = HashMap<(Writer, Sequence), LineWrite>;

#[derive(Debug)]
pub(in super::super) struct AdditionLog {
    pub(super) subject: AddedTo,
    /// From how many bytes on its values are long: in most schedules all are, so that whatever can
    /// be sent as an addition is.
    long_from: usize,
    taken: TakenItems,
    applied: AppliedWrites,
    /// Something was assigned with a time to live.
    has_ttl: bool,
    /// Who has stored what has this stamp.
    pub(super) stored: HashMap<u64, StoredBy>,
}

/// Who has stored something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StoredBy {
    /// The process, and which of its writes it was; nothing for a foreign client.
    write: Option<(Writer, Sequence)>,
    /// The stamp of the last value of somebody else that it was made of.
    others: u64,
}

impl Rules for AdditionHistory {
    const WRITES: &'static [(ScheduledAction, u32)] = &[
        (ScheduledAction::Put, 28),
        (ScheduledAction::TimeOut, 4),
        (ScheduledAction::RoundTrip, 8),
    ];
    const RARE: &'static [(ScheduledAction, u32)] = &[
        (ScheduledAction::PutWithTtl, 3),
        (ScheduledAction::ReadApart, 20),
        (ScheduledAction::Delete, 3),
    ];

    fn write(
        world: &mut World<Self>,
        at: usize,
        action: ScheduledAction,
        random: &mut fastrand::Rng,
    ) -> RuleResult {
        world.log.has_ttl |= action == ScheduledAction::PutWithTtl;
        calls::write(world, at, action, random)
    }

    fn foreign_set(world: &mut World<Self>, random: &mut fastrand::Rng) -> RuleResult {
        calls::foreign_set(world, random)
    }

    fn callers_continue(world: &mut World<Self>, at: usize) -> RuleResult {
        confirmed::hand_over(world, at)?;
        world.log.taken.follow(&world.server);
        let view = world.processes[at].state.view(KEY, world.mono());
        let visible = value_of(view.bytes().as_ref());
        check_items(visible.as_deref(), &world.log.taken)
            .map_err(|broken| format!("rule 1: a read of {at}: {broken}"))
    }

    fn ended(world: &World<Self>, at: usize) -> RuleResult {
        let process = &world.processes[at];
        let (server, writer) = (&world.server, process.state.writer());
        for (line, outcome) in &process.ledger.ended {
            let is_applied = server.was_applied(writer, line.number);
            let may_be_lost = line.was_in_doubt && server.has_lost_data();
            let is_right = match outcome {
                // An assignment may have been superseded for good, and the answer to that was lost.
                LineOutcome::Applied => {
                    is_applied || !line.is_mutation() && server.is_superseded(writer, line.number)
                }
                LineOutcome::Withdrawn | LineOutcome::NeverApplied | LineOutcome::Outdated => {
                    !is_applied || may_be_lost
                }
                _ => true,
            };
            ensure!(
                is_right,
                "rule 2: {line:?} is {outcome:?}, and applied: {is_applied}"
            );
            for reported in &line.reported {
                let is_true = match reported {
                    Ok(Written::Stored) => {
                        matches!(outcome, LineOutcome::Applied | LineOutcome::NothingToDo)
                    }
                    Ok(Written::Queued) => *outcome != LineOutcome::Withdrawn,
                    Ok(Written::Superseded) => *outcome == LineOutcome::Expired,
                    Err(ErrorKind::InDoubt) => matches!(
                        outcome,
                        LineOutcome::Applied | LineOutcome::NeverApplied | LineOutcome::Unknown
                    ),
                    Err(_) => matches!(outcome, LineOutcome::Withdrawn | LineOutcome::Outdated),
                };
                ensure!(
                    is_true,
                    "rule 2: {line:?} was answered {reported:?}, and is {outcome:?}"
                );
            }
        }
        Ok(())
    }

    /// By the history of the server alone: what was applied and not removed since is there, once.
    fn finished(world: &World<Self>, held: Option<&HeldValue>) -> RuleResult {
        if world.log.has_ttl {
            return Ok(());
        }
        let mut expected = None;
        for effect in world.server.effects() {
            match effect {
                ServerEffect::Flushed | ServerEffect::Foreign(None) => expected = None,
                ServerEffect::Foreign(stored) => {
                    expected = value_of(stored.as_ref()).as_deref().cloned();
                }
                ServerEffect::Decided(_, false) => {}
                ServerEffect::Decided(attempt, true) => {
                    let write = world.log.applied_by(attempt);
                    let write = write.ok_or("something was applied that nobody has sent")?;
                    expected = match write.made_of(expected.as_ref(), world.log.subject) {
                        MadeValue::Stored(made) => Some(made),
                        MadeValue::Removed => None,
                        MadeValue::DoesNotApply => {
                            return Err(format!("rule 5: {write:?} was made of {expected:?}"));
                        }
                    };
                }
            }
        }
        let stored = value_of(held.map(|held| &held.bytes));
        ensure!(
            stored.as_deref() == expected.as_ref(),
            "rule 2: {stored:?} is stored instead of {expected:?}"
        );
        Ok(())
    }
}

impl AdditionLog {
    fn note_stored(
        &mut self,
        attempt: &Attempt,
        (before, after): (Option<&HeldValue>, Option<&HeldValue>),
    ) {
        let Some(after) = after else { return };
        let below = before.map(|held| (held.stamp, self.stored.get(&held.stamp)));
        let others = match below {
            // An assignment takes nothing of what is below it.
            _ if attempt.expects == Expects::Anything && !attempt.change.is_blind() => 0,
            None => 0,
            Some((_, Some(by))) if by.write.is_some_and(|(own, _)| own == attempt.writer) => {
                by.others
            }
            Some((stamp, _)) => stamp,
        };
        let write = Some((attempt.writer, write_of(attempt.sequence)));
        self.stored.insert(after.stamp, StoredBy { write, others });
    }

    /// What was assigned before an outage gives way to what is newer, and not to an earlier write of
    /// its process.
    fn check_superseded(
        &self,
        attempt: &Attempt,
        expected: &ExpectedAddition,
        held: Option<&HeldValue>,
    ) -> RuleResult {
        let by = held.and_then(|held| self.stored.get(&held.stamp));
        let is_assigned = attempt.expects == Expects::Anything && !expected.is_blind;
        let gives_way = by.is_some_and(|by| {
            let is_earlier = |(writer, number): (Writer, Sequence)| {
                writer == attempt.writer && number < write_of(attempt.sequence)
            };
            by.write.is_some_and(is_earlier) && by.others < attempt.stamp.get()
        });
        ensure!(
            !is_assigned || expected.is_online || !gives_way,
            "rule 4: {:?}, stamped {}, gives way to {by:?}, which is earlier: {held:?}",
            expected.write,
            attempt.stamp
        );
        Ok(())
    }

    fn applied_by(&self, attempt: &Attempt) -> Option<&LineWrite> {
        let of_writer = |writer| self.applied.get(&(writer, write_of(attempt.sequence)));
        // For the server, a writer that has closed is another one.
        of_writer(attempt.writer).or_else(|| of_writer(!attempt.writer))
    }

    /// An attempt was applied: exactly what the entry is was made of what was there.
    fn check_applied(
        &mut self,
        attempt: &Attempt,
        expected: &ExpectedAddition,
        (before, after): (Option<&Value>, Option<&Value>),
    ) -> RuleResult {
        ensure!(
            !expected.only_asks,
            "rule 5: an attempt that only asks was applied"
        );
        let made = expected.write.made_of(before, self.subject);
        ensure!(
            made.is(after),
            "rule 5: {:?} has made {after:?} of {before:?}, instead of {made:?}",
            expected.write
        );
        if let Some(takes) = &expected.write.takes {
            self.taken
                .items
                .extend(takes.item.as_str().map(str::to_owned));
        }
        check_items(after, &self.taken).map_err(|broken| format!("rule 2: stored: {broken}"))?;
        let name = (attempt.writer, write_of(attempt.sequence));
        self.applied.insert(name, expected.write.clone());
        Ok(())
    }
}

impl ProcessRules for AdditionHistory {
    type InFlight = Rc<ExpectedAddition>;
    type RunLog = AdditionLog;

    fn new_log(seed: u64) -> AdditionLog {
        AdditionLog {
            subject: AddedTo::of_seed(seed),
            long_from: if seed.is_multiple_of(3) {
                commit::LONG
            } else {
                0
            },
            taken: TakenItems::default(),
            applied: AppliedWrites::new(),
            has_ttl: false,
            stored: HashMap::new(),
        }
    }

    fn long_from(log: &AdditionLog) -> usize {
        log.long_from
    }

    fn new() -> Self {
        Self::new()
    }

    fn commit(
        server: &mut ModelServer,
        log: &mut AdditionLog,
        attempt: &Attempt,
        expected: &Rc<ExpectedAddition>,
        mono: Monotonic,
    ) -> RuleResult<Outcome> {
        log.taken.follow(server);
        let before = server.held(mono);
        let outcome = server.commit(attempt, expected.write.expires, mono)?;
        let after = server.held(mono);
        match &outcome {
            Outcome::Applied { .. } | Outcome::Added { .. } => {
                log.note_stored(attempt, (before.as_ref(), after.as_ref()));
                let after = value_of(after.as_ref().map(|held| &held.bytes));
                let before = value_of(before.as_ref().map(|held| &held.bytes));
                let values = (before.as_deref(), after.as_deref());
                log.check_applied(attempt, expected, values)?;
            }
            Outcome::Refused(KeyState {
                stored: Some(stored),
                ..
            }) if expected.is_blind && !server.is_superseded(attempt.writer, attempt.sequence) => {
                let stored = stored.to_bytes();
                let stored = String::from_utf8_lossy(&stored);
                ensure!(
                    !takes_additions(expected.subject, &stored, &expected.write.adds),
                    "rule 5: {:?} was not added to {stored}",
                    expected.write
                );
            }
            Outcome::Refused(_) => log.check_superseded(attempt, expected, before.as_ref())?,
            _ => {}
        }
        Ok(outcome)
    }

    fn awaited_writes(&self) -> Vec<Sequence> {
        let awaited = self.lines.iter().filter(|line| !line.receivers.is_empty());
        awaited.map(|line| line.id).collect()
    }

    fn caller_timed_out(&mut self, state: &mut State, sequence: Sequence) -> RuleResult {
        match self.lines.iter().position(|line| line.id == sequence) {
            Some(line) if self.lines[line].is_confirmed => self.confirmed_timed_out(state, line),
            _ => {
                state.outbox.report_queued(KEY, sequence);
                self.reported_queued(sequence)
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.unclaimed.is_empty()
    }

    fn reported_queued(&mut self, sequence: Sequence) -> RuleResult {
        match self.lines.iter().position(|line| line.id == sequence) {
            Some(line) => self.report_queued(line),
            None => Ok(()),
        }
    }

    fn batch_taken(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
        is_rest_elsewhere: bool,
    ) -> RuleResult<Vec<Sequence>> {
        let withdrawn = self.check_batch(state, batch, mono)?;
        ensure!(
            self.lines.is_empty() || !batch.is_empty() || is_rest_elsewhere,
            "rule 2: {:?} is not sent",
            self.lines.front()
        );
        Ok(withdrawn)
    }

    fn taken_by_its_caller(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> RuleResult<Vec<Sequence>> {
        self.check_batch(state, batch, mono)
    }

    fn sent(&mut self, attempt: &Attempt, ticket: Ticket) -> Rc<ExpectedAddition> {
        let expected = self.to_send.take().expect("what is sent was taken");
        let id = self.lines.front().map_or(0, |line| line.id);
        self.under_way = Some((attempt.sequence, ticket, id));
        expected
    }

    fn answered(
        &mut self,
        state: &State,
        sent: (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<HeldValue>,
    ) -> RuleResult<Vec<Sequence>> {
        self.attempt_answered(state, sent, answer, held)
    }

    fn read(&mut self, ticket: Ticket, held: Option<HeldValue>) {
        // It is not known whether a change in doubt is in this value: its retry will say so.
        let is_doubtful = |line: &AdditionLine| line.in_doubt && line.is_mutation();
        if !self.lines.front().is_some_and(is_doubtful) {
            self.follow_server(ticket, held);
        }
    }

    fn read_apart(&mut self, ticket: Ticket, found: ApartFound) -> RuleResult {
        self.apart_answered(ticket, found)
    }

    fn made(&self) -> Vec<Sequence> {
        let ended = self.ended.iter();
        let made = ended.filter(|(_, outcome)| *outcome == LineOutcome::Applied);
        made.map(|(line, _)| line.number).collect()
    }

    fn connected(&mut self, _shift: Option<i64>) {}

    fn link_is(&mut self, link: Link) {
        self.link = link;
    }

    fn lost_under_way(&mut self) -> RuleResult {
        let under_way = self.under_way.take().map(|(_, _, id)| id);
        for line in &mut self.lines {
            line.in_doubt |= under_way == Some(line.id);
            line.was_in_doubt |= line.in_doubt;
        }
        Ok(())
    }

    fn interrupted(&mut self, is_busy: bool) -> RuleResult {
        for at in 0..self.lines.len() {
            if !self.lines[at].is_confirmed {
                self.lines[at].is_online = false;
                self.report_queued(at)?;
            }
        }
        if is_busy {
            self.confirmed_interrupted()?;
        }
        Ok(())
    }

    fn audit(&mut self, state: &State, version: u64, mono: Monotonic) -> RuleResult {
        check_link(state, self.link)?;
        let receivers = self.lines.iter_mut().flat_map(|line| &mut line.receivers);
        receivers.into_iter().try_for_each(check_waits)?;
        let own = self.lines.iter().map(|line| (line.id, line.in_doubt));
        check_queued(state, &own.collect::<Vec<_>>())?;
        for (line, entry) in self.lines.iter_mut().zip(state.outbox.of(KEY)) {
            line.latest = entry.write.latest.get();
        }
        let counted = (state.letters.len(), state.superseded, state.expired);
        let expected = (self.dead_letters, self.superseded, self.expired);
        ensure!(
            counted == expected,
            "dead letters, superseded, expired: counted {counted:?} instead of {expected:?}, {:?}",
            state.letters.last()
        );
        self.check_view(state, version, mono)
    }
}
