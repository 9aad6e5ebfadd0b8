//! What must hold for every history, by number:
//!
//! 1. In the end all processes and the server agree (`steps.rs` checks it for all kinds of
//!    processes).
//! 2. Every push is there once and never twice, unless it was withdrawn, became a dead letter, or
//!    was overwritten; those of each writer are in its order.
//! 3. A counter is the sum of all adds; a number of the map is that of all adds and closures.
//! 4. The server stores what a reference in plain Rust computes.
//! 5. Nothing disappears silently.
//! 6. The operations of one call are applied together or not at all.
//! 7. A process reads its own writes.
//! 8. A closure is applied if what it changes is as it observed it, and not otherwise.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::super::check::{RuleResult, ensure};
use super::super::document::{ACCOUNT_TOTAL, read_same, value_of};
use super::super::reference::routes::{MAX_ROUTES, RouteRule};
use super::super::server::{HeldValue, ServerEffect, write_of};
use super::super::world::World;
use super::confirmed;
use super::counted::Sums;
use super::history::{CallOutcome, ExpectedAttempt, History};
use crate::backend::commit::{Attempt, Sequence, Writer};
use crate::pending::outbox::Written;

/// What was applied, by the writer and the entry.
#[derive(Debug, Default)]
pub(super) struct AppliedCalls(HashMap<(Writer, Sequence), Rc<ExpectedAttempt>>);

impl AppliedCalls {
    pub(super) fn add(&mut self, attempt: &Attempt, expected: &Rc<ExpectedAttempt>) {
        self.0.insert(
            (attempt.writer, write_of(attempt.sequence)),
            Rc::clone(expected),
        );
    }

    fn of(&self, attempt: &Attempt) -> Option<&ExpectedAttempt> {
        let of_writer = |writer| self.0.get(&(writer, write_of(attempt.sequence)));
        // For the server, a writer that has closed is another one.
        of_writer(attempt.writer)
            .or_else(|| of_writer(!attempt.writer))
            .map(|expected| &**expected)
    }
}

/// (2) and (3): the log and the sums, by the history of the server alone.
pub(super) fn pushes_and_sums(world: &World<History>, held: Option<&HeldValue>) -> RuleResult {
    let mut sums = Sums::of(None);
    for effect in world.server.effects() {
        match effect {
            ServerEffect::Flushed | ServerEffect::Foreign(None) => sums = Sums::of(None),
            ServerEffect::Foreign(stored) => sums = Sums::of(value_of(stored.as_ref()).as_deref()),
            ServerEffect::Decided(_, false) => {}
            ServerEffect::Decided(attempt, true) => {
                let expected = world
                    .log
                    .applied
                    .of(attempt)
                    .ok_or("(5) something was applied that nobody has sent")?;
                if let Some(assigned) = &expected.assigns {
                    sums = Sums::of(assigned.0.as_ref());
                }
                match &expected.counted {
                    Some(counted) => counted.iter().for_each(|counted| sums.add(counted)),
                    None => sums = Sums::of(expected.after.as_deref()),
                }
            }
        }
    }
    let stored = Sums::of(value_of(held.map(|held| &held.bytes)).as_deref());
    ensure!(
        sums.log == stored.log,
        "(2) the log is {:?} instead of {:?}",
        stored.log,
        sums.log
    );
    ensure!(
        sums == stored,
        "(3) {stored:?} is counted instead of {sums:?}"
    );
    in_order(stored.log.as_deref())
}

/// (2): the items of each writer are in its order.
fn in_order(log: Option<&[Value]>) -> RuleResult {
    let mut last = [0; 3];
    for item in log.unwrap_or_default().iter().filter_map(Value::as_str) {
        let Some((at, serial)) = item
            .split_once('.')
            .and_then(|(at, serial)| at.parse::<usize>().ok().zip(serial.parse().ok()))
        else {
            continue;
        };
        let last: &mut u64 = &mut last[at % 3];
        ensure!(
            *last < serial,
            "(2) {item} is not in the order of its writer, in {log:?}"
        );
        *last = serial;
    }
    Ok(())
}

/// (5): each call has ended, as it was answered.
pub(super) fn check_outcomes(world: &World<History>, at: usize) -> RuleResult {
    let process = &world.processes[at];
    let writer = process.state.writer();
    for call in &process.ledger.calls {
        let is_applied = world.server.was_applied(writer, call.entry_id);
        let kind = &call.kind;
        confirmed::check_outcome(world, call, &process.ledger.calls, is_applied)?;
        match call.outcome {
            None => return Err(format!("(5) {kind:?} never came to an end")),
            Some(CallOutcome::Applied) => {
                // It may have been superseded for good, and the answer to that was lost.
                let is_lost = call.confirmed.is_none()
                    && world.server.is_superseded(writer, call.entry_id)
                    && call.edits.all.is_empty();
                ensure!(
                    is_applied || is_lost,
                    "(5) {kind:?} was answered, and was never applied"
                );
            }
            Some(CallOutcome::Withdrawn | CallOutcome::RecordedAgain)
                if call.confirmed.is_none() =>
            {
                ensure!(!is_applied, "(5) {kind:?} was withdrawn, and was applied");
            }
            Some(_) => {}
        }
        let is_stored = matches!(
            call.outcome,
            Some(CallOutcome::Applied | CallOutcome::NothingToDo | CallOutcome::Replaced)
        );
        ensure!(
            call.reported != Some(Written::Stored) || is_stored,
            "(5) {kind:?} was reported as stored, and is {:?}",
            call.outcome
        );
    }
    Ok(())
}

/// (6): what one number of the account gives, the other gets.
pub(super) fn account_balances(document: Option<&Value>) -> RuleResult {
    match account(document) {
        Some((Some(a), Some(b))) => ensure!(
            a + b == ACCOUNT_TOTAL,
            "(6) of {ACCOUNT_TOTAL} in the account there are {a} and {b}"
        ),
        // Without the other number nothing can have been moved.
        Some((a, None)) => ensure!(
            a.is_none_or(|a| a == ACCOUNT_TOTAL / 2),
            "(6) {a:?} is left in the account, and the rest was lost"
        ),
        _ => {}
    }
    Ok(())
}

/// The numbers of the account, if the document has one.
fn account(document: Option<&Value>) -> Option<(Option<i64>, Option<i64>)> {
    let account = document?.get("account")?;
    Some((account.get("a")?.as_i64(), account.get("b")?.as_i64()))
}

/// (7): a read returns the last answer with all calls that have not ended on top.
pub(super) fn own_writes(history: &History, visible: Option<&Value>) -> RuleResult {
    let Some(expected) = history.visible_values() else {
        return Ok(());
    };
    let is_expected = expected
        .iter()
        .any(|expected| read_same(expected.as_ref(), visible));
    ensure!(
        is_expected,
        "(7) a read returns {visible:?} instead of {expected:?}, and the last answer is {:?}",
        history.last_answer.value
    );
    Ok(())
}

impl History {
    /// All values that a read may return; `None` if there are too many.
    fn visible_values(&self) -> Option<Vec<Option<Value>>> {
        let mut visible = vec![(
            self.last_answer.value.as_deref().cloned(),
            self.last_answer.stamp,
        )];
        for line in self.lines.iter().filter(|line| !line.is_confirmed) {
            let mut next = Vec::new();
            for (value, stamp) in visible {
                let is_newest = line.assignment.is_some() || line.is_online;
                let rule = if is_newest {
                    RouteRule::Latest
                } else {
                    RouteRule::NewerWins(stamp)
                };
                for route in self.routes_by(line, value.as_ref(), rule)? {
                    let stamp = match &route.value {
                        None => 0,
                        same if *same == value && line.assignment.is_none() => stamp,
                        Some(_) => line.latest_stamp.max(stamp + 1),
                    };
                    if !next.contains(&(route.value.clone(), stamp)) {
                        next.push((route.value, stamp));
                    }
                }
                if next.len() > MAX_ROUTES {
                    return None;
                }
            }
            visible = next;
        }
        Some(visible.into_iter().map(|(value, _)| value).collect())
    }
}
