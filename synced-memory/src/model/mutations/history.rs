//! The history of one process: its calls, the entries that they are queued in, and the outcome of
//! each.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot::Receiver;

use super::super::calls::kinds::CallKind;
use super::super::calls::recorded::RecordedOn;
use super::super::check::{RuleResult, ensure};
use super::super::document::value_of;
use super::super::reference::closures::ComparedPath;
use super::super::reference::edits::CallEdits;
use super::super::reference::routes::{CallRoute, RouteRule, routes};
use super::counted::CountedChange;
use crate::backend::commit::{Expects, Sequence, Writer};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{ErrorKind, Result as CrateResult};
use crate::cache::Ticket;
use crate::client::state::{Link, State};
use crate::pending::outbox::{Answer, Written};
use crate::value::envelope::{self, Text};
use crate::value::mutation::Json;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Applied,
    /// There was nothing to do.
    NothingToDo,
    Superseded,
    DeadLettered,
    /// Its caller received an error.
    Withdrawn,
    /// A later assignment or delete of the same process replaced it before it was sent.
    Replaced,
    /// It was recorded again, as another call of this history.
    RecordedAgain,
    /// Its caller was answered that it is in doubt, and it was not applied.
    NeverApplied,
    /// Nobody knows whether it was applied.
    Unknown,
}

#[derive(Debug)]
pub(super) struct UserCall {
    pub(super) kind: CallKind,
    /// How many times it was recorded before.
    pub(super) tries: u8,
    /// What it does to parts of the value; nothing if it assigns the whole value.
    pub(super) edits: CallEdits,
    pub(super) receiver: Option<Receiver<CrateResult<Answer>>>,
    /// What its caller was answered.
    pub(super) reported: Option<Written>,
    pub(super) confirmed: Option<ConfirmedCall>,
    pub(super) outcome: Option<CallOutcome>,
    /// Closures that became part of this call, and share its outcome.
    pub(super) joined: Vec<usize>,
    /// The entry that it was queued in.
    pub(super) entry_id: Sequence,
}

/// What a call writes.
#[derive(Debug)]
pub(super) enum CallWrite {
    /// `None` is a delete.
    Assign(Option<Value>),
    Change(CallEdits),
}

/// What must be in an entry of the outbox.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct HistoryLine {
    /// Its number for callers; an entry that returns an element has that of its take.
    pub(super) id: Sequence,
    /// Its number for the server.
    pub(super) number: Sequence,
    /// What is assigned, if anything, and by which call.
    pub(super) assignment: Option<(Option<Value>, usize)>,
    /// The calls that change parts of the value, in their order.
    pub(super) calls: Vec<usize>,
    /// The calls that a later assignment has replaced.
    pub(super) replaced: Vec<usize>,
    /// Which of its calls were superseded in the last attempt.
    pub(super) skipped: SkippedCalls,
    /// It is not known which of its calls became dead letters.
    pub(super) is_ambiguous: bool,
    /// What must be as it was observed; otherwise its caller records it again.
    pub(super) recorded_on: RecordedOn,
    pub(super) observed: Option<Text>,
    /// The connection has been up ever since it was written.
    pub(super) is_online: bool,
    pub(super) was_sent: bool,
    /// An attempt was sent that does more than ask.
    pub(super) may_be_applied: bool,
    pub(super) in_doubt: bool,
    pub(super) is_confirmed: bool,
    /// The taken element that it returns.
    pub(super) returns: Option<Json>,
    /// The stamp of the newest write in it.
    pub(super) latest_stamp: u64,
    pub(super) written: Monotonic,
}

/// Calls that were skipped.
#[derive(Debug, Clone, Default)]
pub(super) struct SkippedCalls {
    pub(super) sure: Vec<usize>,
    /// Calls that may have been skipped.
    pub(super) possible: Vec<usize>,
}

/// The last answer of the server.
#[derive(Debug, Default)]
pub(super) struct LastAnswer {
    pub(super) ticket: Ticket,
    pub(super) stored: Option<Bytes>,
    pub(super) value: Option<Rc<Value>>,
    pub(super) stamp: u64,
}

/// A whole value that is assigned; `None` if the key is deleted.
#[derive(Debug, Clone)]
pub(super) struct AssignedValue(pub(super) Option<Value>);

/// An attempt as it must be.
#[derive(Debug)]
pub(super) struct ExpectedAttempt {
    pub(super) id: Sequence,
    /// It only asks what became of an earlier attempt, or what is stored.
    pub(super) only_asks: bool,
    /// The value that it assigns; the calls are applied to that.
    pub(super) assigns: Option<AssignedValue>,
    /// The values before and after it.
    pub(super) before: Option<Rc<Value>>,
    pub(super) after: Option<Rc<Value>>,
    /// Whether calls in it are superseded; `None` if that is not known.
    pub(super) superseded: Option<bool>,
    /// What its closures compare.
    pub(super) compared: Vec<ComparedPath>,
    /// What it does to the log and the sums; `None` if that is not known.
    pub(super) counted: Option<Vec<CountedChange>>,
}

/// What is known of a confirmed call.
#[derive(Debug, Default)]
pub(super) struct ConfirmedCall {
    pub(super) error: Option<ErrorKind>,
    pub(super) was_in_doubt: bool,
    pub(super) take: Option<TakenElement>,
}

/// An element that is taken out of the list.
#[derive(Debug)]
pub(super) struct TakenElement {
    pub(super) item: Json,
    /// The operation that returns it.
    pub(super) returning: CallEdits,
    pub(super) written: Monotonic,
    pub(super) owner: Option<ElementOwner>,
}

/// Who has a taken element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementOwner {
    /// The answer to the caller, which has not picked it up yet, names it so.
    Answered((Writer, Sequence)),
    Caller,
    /// This call returns it to the list.
    ReturningCall(usize),
    DeadLetter,
}

impl TakenElement {
    pub(super) fn new(item: Json, returning: CallEdits, written: Monotonic) -> Self {
        Self {
            item,
            returning,
            written,
            owner: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct History {
    pub(super) calls: Vec<UserCall>,
    pub(super) lines: VecDeque<HistoryLine>,
    pub(super) link: Link,
    pub(super) last_answer: LastAnswer,
    pub(super) expected_attempt: Option<Rc<ExpectedAttempt>>,
    pub(super) under_way: Option<(Sequence, Ticket, Rc<ExpectedAttempt>)>,
    /// How many dead letters there are.
    pub(super) dead_letters: usize,
    /// How many writes are counted as superseded.
    pub(super) superseded: u64,
    /// The calls that are to be recorded again.
    pub(super) to_record_again: Vec<usize>,
    /// The confirmed entries that were withdrawn since the last step.
    pub(super) withdrawn: Vec<Sequence>,
    /// The default of the document.
    pub(super) origin: Option<Rc<Value>>,
    /// Something has changed since the last audit.
    pub(super) is_changed: bool,
}

impl HistoryLine {
    pub(super) fn all_calls(&self) -> impl Iterator<Item = usize> {
        self.assignment
            .iter()
            .map(|(_, call)| *call)
            .chain(self.calls.iter().copied())
    }

    /// The calls whose callers may wait for the entry.
    pub(super) fn awaiting_calls(&self) -> impl Iterator<Item = usize> {
        self.all_calls().chain(self.replaced.iter().copied())
    }

    /// The one call of a confirmed entry.
    pub(super) fn call(&self) -> RuleResult<usize> {
        self.all_calls()
            .next()
            .ok_or_else(|| format!("(5) {} has no call", self.id))
    }
}

impl SkippedCalls {
    /// The calls of an entry that are superseded by these routes.
    pub(super) fn superseded<'a>(
        line: &HistoryLine,
        routes: impl Iterator<Item = &'a CallRoute>,
    ) -> Self {
        let routes: Vec<&CallRoute> = routes.collect();
        let is_in = |index: usize| move |route: &&CallRoute| route.superseded.contains(&index);
        // A call that was merged into a later one shares its outcome.
        let may_be_in = |index: usize| {
            move |route: &&CallRoute| {
                is_in(index)(route)
                    || route.replaced.contains(&index) && !route.superseded.is_empty()
            }
        };
        let of = |is_one: &dyn Fn(usize) -> bool| {
            line.calls
                .iter()
                .enumerate()
                .filter(|(index, _)| is_one(*index))
                .map(|(_, call)| *call)
                .collect()
        };
        Self {
            sure: of(&|index| !routes.is_empty() && routes.iter().all(is_in(index))),
            possible: of(&|index| routes.iter().any(may_be_in(index))),
        }
    }
}

impl History {
    pub(super) fn is_awaited(&self, line: &HistoryLine) -> bool {
        line.awaiting_calls()
            .any(|call| self.calls[call].receiver.is_some())
    }

    /// All routes of an entry from this value; `None` if there are too many.
    pub(super) fn routes(
        &self,
        line: &HistoryLine,
        (value, stamp): (Option<&Value>, u64),
    ) -> Option<Vec<CallRoute>> {
        let rule = match line.recorded_on {
            _ if line.assignment.is_some() => RouteRule::Latest,
            RecordedOn::Paths => RouteRule::RequireObserved,
            _ if line.is_online => RouteRule::Latest,
            _ => RouteRule::NewerWins(stamp),
        };
        self.routes_by(line, value, rule)
    }

    pub(super) fn routes_by(
        &self,
        line: &HistoryLine,
        value: Option<&Value>,
        rule: RouteRule,
    ) -> Option<Vec<CallRoute>> {
        let start = line
            .assignment
            .as_ref()
            .map_or_else(|| value.cloned(), |(assigned, _)| assigned.clone());
        let calls: Vec<&CallEdits> = line
            .calls
            .iter()
            .map(|call| &self.calls[*call].edits)
            .collect();
        routes(start, self.origin.as_deref(), &calls, rule).filter(|_| !line.is_ambiguous)
    }

    /// What is known follows the server, in the order of the requests.
    pub(super) fn follow_server(&mut self, ticket: Ticket, stored: Option<Bytes>) {
        if ticket >= self.last_answer.ticket {
            self.is_changed |= stored != self.last_answer.stored;
            let value = value_of(stored.as_ref());
            let stamp = stored
                .as_deref()
                .map_or(Stamp::ZERO, envelope::stamp_of)
                .get();
            self.last_answer = LastAnswer {
                ticket,
                stored,
                value,
                stamp,
            };
        }
    }

    pub(super) fn end_all(&mut self, line: &HistoryLine, outcome: CallOutcome) {
        for call in line.all_calls().collect::<Vec<_>>() {
            self.set_outcome(call, outcome);
        }
        self.is_changed = true;
    }

    pub(super) fn routes_from_last_answer(&self, line: &HistoryLine) -> Option<Vec<CallRoute>> {
        self.routes(
            line,
            (self.last_answer.value.as_deref(), self.last_answer.stamp),
        )
    }

    pub(super) fn describe(&self, line: &HistoryLine) -> String {
        let kinds: Vec<_> = line
            .all_calls()
            .map(|call| &self.calls[call].kind)
            .collect();
        format!("{} ({kinds:?})", line.id)
    }

    /// Checks whether the counter of superseded writes has moved.
    pub(super) fn check_superseded(
        &mut self,
        state: &State,
        superseded: Option<bool>,
    ) -> RuleResult {
        let counted = state.superseded > self.superseded;
        ensure!(
            superseded.is_none_or(|superseded| superseded == counted),
            "(5) whether writes were counted as superseded: {counted}"
        );
        self.superseded = state.superseded;
        Ok(())
    }

    pub(super) fn last_text(&self) -> Option<Text> {
        self.last_answer.stored.as_ref().map(envelope::value_of)
    }

    pub(super) fn expects_last_answer(&self) -> Expects {
        Expects::of(self.last_answer.stored.as_ref())
    }

    /// Sets the outcome of a call, and of those that became part of it.
    pub(super) fn set_outcome(&mut self, call: usize, outcome: CallOutcome) {
        self.calls[call].outcome = Some(outcome);
        for joined in self.calls[call].joined.clone() {
            self.set_outcome(joined, outcome);
        }
    }

    /// A call and those that became part of it, in their order.
    pub(super) fn all_joined(&self, call: usize) -> Vec<usize> {
        let joined = self.calls[call]
            .joined
            .iter()
            .flat_map(|joined| self.all_joined(*joined));
        std::iter::once(call).chain(joined).collect()
    }

    pub(super) fn confirmed(&mut self, line: &HistoryLine) -> RuleResult<&mut ConfirmedCall> {
        let call = line.call()?;
        self.calls[call]
            .confirmed
            .as_mut()
            .ok_or_else(|| format!("{} is not confirmed", line.id))
    }
}
