//! What the rules say of a process that changes parts of a value.

use std::collections::VecDeque;
use std::rc::Rc;

use serde_json::{Value, json};

use super::super::action::ScheduledAction;
use super::super::audit::{check_link, check_queued};
use super::super::calls::kinds::CallKind;
use super::super::check::{RuleResult, ensure};
use super::super::document::{DEFAULT, foreign, value_of};
use super::super::process::ProcessRules;
use super::super::rules::Rules;
use super::super::server::{HeldValue, KEY, ModelServer};
use super::super::world::World;
use super::checks::{self, AppliedCalls};
use super::history::{CallOutcome, ExpectedAttempt, History, HistoryLine, LastAnswer};
use super::{callers, takes};
use crate::backend::commit::{self, Attempt, Expects, Outcome, Sequence};
use crate::backend::error::BackendError;
use crate::base::clock::{Monotonic, Stamp};
use crate::cache::Ticket;
use crate::client::state::{Link, State};

#[derive(Debug)]
pub(in super::super) struct MutationLog {
    pub(super) applied: AppliedCalls,
    /// The default of the document.
    pub(super) origin: Rc<Value>,
    /// Which calls are made.
    theme: u64,
    /// From how many bytes on its values are long: in most schedules all are, so that changes are
    /// sent as the ranges that they replace.
    long_from: usize,
}

impl Rules for History {
    const WRITES: &'static [(ScheduledAction, u32)] =
        &[(ScheduledAction::Put, 26), (ScheduledAction::TimeOut, 6)];
    const RARE: &'static [(ScheduledAction, u32)] = &[];

    fn write(
        world: &mut World<Self>,
        at: usize,
        _action: ScheduledAction,
        random: &mut fastrand::Rng,
    ) -> RuleResult {
        world.values += 10;
        let kind = CallKind::random((at, world.values), world.log.theme, random);
        // With many confirmed calls, few calls are queued while the server is away.
        let are_many = world.log.theme.is_multiple_of(4);
        let is_confirmed = random.u8(0..if are_many { 2 } else { 8 }) == 0;
        let kind = if is_confirmed && are_many && random.bool() {
            CallKind::random_take(random)
        } else {
            kind
        };
        callers::write(world, at, kind, is_confirmed)
    }

    fn foreign_set(world: &mut World<Self>, random: &mut fastrand::Rng) -> RuleResult {
        world.values += 10;
        let serial = world.values;
        let document = foreign(serial, random);
        // Not just below what is stored: a change on top would get the stamp again that is stored
        // now.
        let to_beat = world.server.stamp_to_beat();
        let is_just_below = |stamp: u64| (1..=2).contains(&to_beat.saturating_sub(stamp));
        let stamp = world.foreign_stamp(None, random);
        let stamp = stamp.map(|stamp| {
            if is_just_below(stamp) {
                to_beat + 1
            } else {
                stamp
            }
        });
        // No two of them have the same length: a stamp and a length identify a value.
        let length = 1_000 + usize::try_from(serial).unwrap_or_default();
        let space = " ".repeat(length.saturating_sub(document.to_string().len()));
        let stored = match stamp {
            Some(stamp) => format!(r#"{{"value": {document}, {space}"last_modified": {stamp}}}"#),
            None => format!("{document}{space}"),
        };
        world.log_step(|| format!("a foreign SET {document}, stamped {stamp:?}"));
        let mono = world.mono();
        let stored = Some((stored.into(), stamp.unwrap_or(0)));
        world.server.store_foreign(stored, mono)
    }

    fn callers_continue(world: &mut World<Self>, at: usize) -> RuleResult {
        takes::hand_over(world, at)?;
        callers::record_again(world, at)
    }

    fn ended(world: &World<Self>, at: usize) -> RuleResult {
        checks::check_outcomes(world, at)
    }

    fn finished(world: &World<Self>, held: Option<&HeldValue>) -> RuleResult {
        checks::pushes_and_sums(world, held)
    }
}

impl ProcessRules for History {
    type InFlight = Rc<ExpectedAttempt>;
    type RunLog = MutationLog;

    fn new_log(seed: u64) -> MutationLog {
        let origin = if seed.is_multiple_of(2) {
            DEFAULT.clone()
        } else {
            json!({})
        };
        MutationLog {
            applied: AppliedCalls::default(),
            origin: Rc::new(origin),
            theme: seed / 2,
            long_from: if seed.is_multiple_of(3) {
                commit::LONG
            } else {
                0
            },
        }
    }

    fn long_from(log: &MutationLog) -> usize {
        log.long_from
    }

    fn new() -> Self {
        Self {
            calls: Vec::new(),
            lines: VecDeque::new(),
            link: Link::Down,
            last_answer: LastAnswer::default(),
            expected_attempt: None,
            under_way: None,
            dead_letters: 0,
            superseded: 0,
            to_record_again: Vec::new(),
            withdrawn: Vec::new(),
            origin: None,
            is_changed: false,
        }
    }

    fn commit(
        server: &mut ModelServer,
        log: &mut MutationLog,
        attempt: &Attempt,
        expected: &Rc<ExpectedAttempt>,
        mono: Monotonic,
    ) -> RuleResult<Outcome> {
        let before = server.held(mono);
        let outcome = server.commit(attempt, None, mono)?;
        if matches!(outcome, Outcome::Applied { .. }) {
            ensure!(
                !expected.only_asks,
                "rule 5: an attempt that only asks was applied"
            );
            if attempt.expects != Expects::Anything {
                let before = value_of(before.as_ref().map(|held| &held.bytes));
                ensure!(
                    before == expected.before,
                    "(4) it was applied to {before:?} instead of {:?}",
                    expected.before
                );
                let other = expected
                    .compared
                    .iter()
                    .find(|compared| !compared.matches(before.as_deref()));
                ensure!(
                    other.is_none(),
                    "(8) a closure that observed {other:?} was applied to {before:?}"
                );
            }
            let after = value_of(server.held(mono).as_ref().map(|held| &held.bytes));
            ensure!(
                after == expected.after,
                "(4) the server stores {after:?} instead of {:?}",
                expected.after
            );
            checks::account_balances(after.as_deref())?;
            log.applied.add(attempt, expected);
        }
        Ok(outcome)
    }

    fn awaited_writes(&self) -> Vec<Sequence> {
        // Those in doubt come first, because there are few of them.
        let is_rare = |line: &&HistoryLine| line.in_doubt && self.is_awaited(line);
        let all = || self.lines.iter().filter(|line| self.is_awaited(line));
        let rare: Vec<_> = all().filter(is_rare).map(|line| line.id).collect();
        if rare.is_empty() {
            all().map(|line| line.id).collect()
        } else {
            rare
        }
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
        self.unclaimed().next().is_none()
    }

    fn reported_queued(&mut self, sequence: Sequence) -> RuleResult {
        match self.lines.iter().position(|line| line.id == sequence) {
            Some(line) => self.check_reported_queued(line),
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

    fn sent(&mut self, attempt: &Attempt, ticket: Ticket) -> Rc<ExpectedAttempt> {
        let expected = self
            .expected_attempt
            .take()
            .expect("what is sent was taken");
        self.under_way = Some((attempt.sequence, ticket, Rc::clone(&expected)));
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
        let is_in_doubt = self
            .lines
            .front()
            .is_some_and(|line| line.in_doubt && !line.calls.is_empty());
        self.is_changed |= is_in_doubt;
        if !is_in_doubt {
            self.follow_server(ticket, held.map(|held| held.bytes));
        }
    }

    fn made(&self) -> Vec<Sequence> {
        let calls = self.calls.iter();
        let made = calls.filter(|call| call.outcome == Some(CallOutcome::Applied));
        made.map(|call| call.entry_id).collect()
    }

    fn connected(&mut self, shift: Option<i64>) {
        let by = shift.unwrap_or(0);
        for line in self.lines.iter().filter(|line| !line.was_sent) {
            for call in line.all_calls() {
                let stamp = &mut self.calls[call].edits.stamp;
                *stamp = Stamp::new(*stamp).shifted(by).get();
            }
        }
        self.is_changed = true;
    }

    fn link_is(&mut self, link: Link) {
        self.link = link;
    }

    fn lost_under_way(&mut self) -> RuleResult {
        let under_way = self.under_way.take().map(|(_, _, expected)| expected.id);
        for line in &mut self.lines {
            line.in_doubt |= under_way == Some(line.id);
        }
        self.confirmed_in_doubt()
    }

    fn interrupted(&mut self, is_busy: bool) -> RuleResult {
        for line in 0..self.lines.len() {
            if !self.lines[line].is_confirmed {
                self.lines[line].is_online = false;
                self.check_reported_queued(line)?;
            }
        }
        self.confirmed_interrupted(is_busy)
    }

    fn audit(&mut self, state: &State, _version: u64, mono: Monotonic) -> RuleResult {
        check_link(state, self.link)?;
        self.check_nothing_reported()?;
        let own = self.lines.iter().map(|line| (line.id, line.in_doubt));
        check_queued(state, &own.collect::<Vec<_>>())?;
        for (line, entry) in self.lines.iter_mut().zip(state.outbox.of(KEY)) {
            line.latest_stamp = entry.write.latest.get();
        }
        for (line, entry) in self.lines.iter().zip(state.outbox.of(KEY)) {
            self.audit_closures(line, entry)?;
        }
        ensure!(
            state.letters.len() == self.dead_letters,
            "(5) {:?} has become a dead letter",
            state.letters.last()
        );
        ensure!(
            state.superseded == self.superseded,
            "(5) {} are superseded",
            state.superseded
        );
        if std::mem::take(&mut self.is_changed) {
            let visible = value_of(state.view(KEY, mono).bytes().as_ref());
            checks::own_writes(self, visible.as_deref())?;
            checks::account_balances(visible.as_deref())?;
        }
        Ok(())
    }
}
