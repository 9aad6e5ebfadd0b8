//! Calls that the state has accepted: the entries that they are queued in, and which closures are
//! one call.

use super::super::calls::kinds::CallKind;
use super::super::calls::recorded::RecordedOn;
use super::super::check::{RuleResult, ensure};
use super::super::reference::closures::Overlap;
use super::super::reference::edits::CallEdits;
use super::super::server::KEY;
use super::history::{
    CallOutcome, CallWrite, ConfirmedCall, History, HistoryLine, SkippedCalls, UserCall,
};
use crate::base::clock::Monotonic;
use crate::client::state::{Accepted, Link, State};
use crate::pending::outbox::{Entry, Written};
use crate::value::envelope::Text;
use crate::value::mutation::{Action, Mutation, Operation, PathStep};

/// A call that is new in the history.
#[derive(Debug)]
pub(super) struct NewCall {
    pub(super) kind: CallKind,
    pub(super) tries: u8,
    pub(super) confirmed: Option<ConfirmedCall>,
    pub(super) write: CallWrite,
    pub(super) recorded_on: RecordedOn,
    /// The text that it was recorded on.
    pub(super) visible: Option<Text>,
    pub(super) mono: Monotonic,
}

impl History {
    /// The state accepted a call.
    pub(super) fn add_call(
        &mut self,
        state: &State,
        new: NewCall,
        accepted: Accepted,
    ) -> RuleResult {
        let id = accepted.id;
        let last = state.outbox.last(KEY).ok_or("rule 2: it is not queued")?;
        ensure!(
            last.identity.id == id,
            "rule 3: {id} was accepted, but {} is the last",
            last.identity.id
        );
        let is_confirmed = new.confirmed.is_some();
        ensure!(
            last.write.is_confirmed == is_confirmed,
            "whether {:?} is confirmed",
            new.kind
        );
        let (latest_stamp, is_online) = (last.write.latest.get(), self.link == Link::Up);
        let (receiver, reported) = if is_online {
            (Some(accepted.answer), None)
        } else {
            (None, Some(reported_at_once(accepted, &new.kind)?))
        };

        let index = self.calls.len();
        let is_closure = matches!(&new.write, CallWrite::Change(edits) if edits.is_compared);
        let (assignment, edits) = match new.write {
            CallWrite::Assign(value) => (Some((value, index)), CallEdits::default()),
            CallWrite::Change(edits) => (None, edits),
        };
        let calls = if assignment.is_some() {
            Vec::new()
        } else {
            vec![index]
        };
        let recorded_on = if is_online {
            new.recorded_on
        } else {
            RecordedOn::Anything
        };
        let line = HistoryLine {
            id,
            number: id,
            assignment,
            calls,
            replaced: Vec::new(),
            skipped: SkippedCalls::default(),
            is_ambiguous: false,
            recorded_on,
            observed: new.visible.filter(|_| recorded_on == RecordedOn::Whole),
            is_online,
            was_sent: false,
            may_be_applied: false,
            in_doubt: false,
            is_confirmed,
            returns: None,
            latest_stamp,
            written: new.mono,
        };
        self.calls.push(UserCall {
            kind: new.kind,
            tries: new.tries,
            edits: CallEdits {
                stamp: latest_stamp,
                ..edits
            },
            receiver,
            reported,
            confirmed: new.confirmed,
            outcome: None,
            joined: Vec::new(),
            entry_id: id,
        });
        self.is_changed = true;

        if self.lines.back().is_some_and(|last| last.id == id) {
            self.merge_into_last(line)?;
        } else {
            self.lines.push_back(line);
        }
        if is_closure {
            self.join_closure(state, index)
        } else {
            Ok(())
        }
    }

    /// A call was queued in the last entry.
    fn merge_into_last(&mut self, new: HistoryLine) -> RuleResult {
        let id = new.id;
        let line = self.lines.back_mut().ok_or("there is a last entry")?;
        ensure!(!line.was_sent, "rule 3: {id} was sent, and still changed");
        let is_apart = new.is_confirmed || line.is_confirmed || line.returns.is_some();
        ensure!(!is_apart, "{id} has to stay apart, and was merged");
        let is_mergeable =
            new.recorded_on == RecordedOn::Anything && line.recorded_on == RecordedOn::Anything;
        ensure!(
            is_mergeable,
            "rule 5: {id} depends on what was observed, and was merged"
        );
        line.is_online = new.is_online;
        line.latest_stamp = new.latest_stamp;
        line.written = new.written;
        if new.assignment.is_none() {
            line.calls.extend(new.calls);
            return Ok(());
        }

        let assigning = line.assignment.iter().map(|(_, call)| *call);
        let replaced: Vec<usize> = assigning.chain(line.calls.drain(..)).collect();
        line.replaced.extend(&replaced);
        line.assignment = new.assignment;
        for call in replaced {
            ensure!(
                self.calls[call].receiver.is_none() || new.is_online,
                "{:?} shares another outcome",
                self.calls[call].kind
            );
            self.set_outcome(call, CallOutcome::Replaced);
        }
        Ok(())
    }

    /// A closure was queued in the last entry. If it changes what an earlier closure changed, the
    /// two are one call, unless a call between them has to stay there, or changes the same list:
    /// elements are named by what was in it.
    fn join_closure(&mut self, state: &State, index: usize) -> RuleResult {
        let Some((line, entry)) = self.lines.back().zip(state.outbox.last(KEY)) else {
            return Ok(());
        };
        let (queued, mut calls) = (stamps(entry), line.calls.clone());
        ensure!(
            queued.contains(&self.calls[index].edits.stamp),
            "(5) {:?} is not queued",
            self.calls[index].kind
        );
        let (mut last, mut may_stay_apart) = (calls.len() - 1, false);
        for at in (0..last).rev() {
            let (one, other) = (calls[at], calls[last]);
            let (earlier, later) = (&self.calls[one].edits, &self.calls[other].edits);
            let overlap = later.overlap(earlier);
            if !earlier.is_compared {
                may_stay_apart |= overlap != Overlap::No || changes_same_list(earlier, later);
                continue;
            }
            let is_joined = !queued.contains(&earlier.stamp);
            let may_be = if is_joined {
                overlap != Overlap::No
            } else {
                overlap != Overlap::Yes || may_stay_apart
            };
            ensure!(
                may_be,
                "rule 5: whether {:?} and {:?} are one call",
                self.calls[one].kind,
                self.calls[other].kind
            );
            if !is_joined {
                may_stay_apart |= changes_same_list(earlier, later);
                continue;
            }
            // What the later one was made on, and the earlier one was not, is applied before both.
            let is_base = |call: &usize| {
                let edits = &self.calls[*call].edits;
                !edits.is_compared && later.overlap(edits) != Overlap::No
            };
            let between: Vec<usize> = calls
                .drain(at + 1..=last)
                .filter(|call| *call != other)
                .collect();
            let (bases, apart): (Vec<usize>, Vec<usize>) = between.into_iter().partition(is_base);
            let is_tangled = bases
                .iter()
                .any(|base| self.calls[*base].edits.overlap(earlier) == Overlap::Yes);
            ensure!(
                !is_tangled,
                "rule 5: {:?} is applied before its base",
                self.calls[other].kind
            );
            last = at + bases.len();
            let behind = calls.split_off(at + 1);
            calls.extend(apart.into_iter().chain(behind));
            calls.splice(at..at, bases);
            let later = later.clone();
            self.calls[one].edits.join(&later);
            self.calls[one].joined.push(other);
        }
        let edits = &mut self.calls[calls[last]].edits;
        let stamp = edits.stamp;
        let own = entry
            .write
            .mutation
            .iter()
            .flat_map(Mutation::calls)
            .find(|call| call.stamp.get() == stamp);
        edits.operations = own.map(|call| call.operations.clone()).unwrap_or_default();
        if let Some(line) = self.lines.back_mut() {
            line.calls = calls;
        }
        Ok(())
    }
}

/// What a call was answered that the state accepted while the connection was not up.
fn reported_at_once(mut accepted: Accepted, kind: &CallKind) -> RuleResult<Written> {
    let answer = accepted.answer.try_recv();
    match &answer {
        Ok(Ok(received)) if received.written == Written::Queued => Ok(received.written),
        _ => Err(format!(
            "rule 4: {kind:?} was answered {answer:?} while the connection was not up"
        )),
    }
}

/// The stamps of the closures in an entry; each has its own.
pub(super) fn stamps(entry: &Entry) -> Vec<u64> {
    let calls = entry.write.mutation.iter().flat_map(Mutation::calls);
    calls
        .filter(|call| call.is_compared)
        .map(|call| call.stamp.get())
        .collect()
}

/// Whether elements of one list are named or added by both.
fn changes_same_list(one: &CallEdits, other: &CallEdits) -> bool {
    let names_elements = |operation: &Operation| {
        let is_in_list = |step: &PathStep| matches!(step, PathStep::Element(_));
        operation.path.iter().any(is_in_list)
            || matches!(
                operation.action,
                Action::Append { .. } | Action::InsertAt { .. }
            )
    };
    let has_same_root =
        |one: &Operation, other: &Operation| match (one.path.first(), other.path.first()) {
            (Some(PathStep::Member(one)), Some(PathStep::Member(other))) => one.name == other.name,
            _ => true,
        };
    let is_same = |one: &&Operation| {
        other.operations.iter().any(|other| {
            (names_elements(one) || names_elements(other)) && has_same_root(one, other)
        })
    };
    one.operations.iter().any(|one| is_same(&one))
}
