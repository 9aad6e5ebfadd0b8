//! The history of one process: its calls, in the entries of the outbox that they are queued in.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot::Receiver;

use super::super::check::{RuleResult, ensure};
use super::super::document::value_of;
use super::super::server::{HeldValue, KEY};
use super::values::AddedTo;
use crate::backend::commit::{Sequence, TimeToLive, Writer};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind, Result as CrateResult};
use crate::cache::Ticket;
use crate::client::state::{Accepted, Link, State};
use crate::pending::outbox::{Answer, Written};
use crate::value::envelope::Text;

/// How an entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineOutcome {
    Applied,
    /// There was nothing to do.
    NothingToDo,
    Superseded,
    Expired,
    DeadLettered,
    /// Its caller received an error.
    Withdrawn,
    /// Something else was stored than what it was recorded on, and its caller was told so.
    Outdated,
    /// Its caller was answered that it is in doubt, and it was not applied.
    NeverApplied,
    /// Nobody knows whether it was applied.
    Unknown,
}

/// The last item of the list, which a call takes out and hands to its caller.
#[derive(Debug, Clone)]
pub(super) struct TakenItem {
    pub(super) item: Value,
    /// The list that it was taken out of.
    pub(super) observed: Option<Text>,
}

/// What a call writes, or what several of them do that share an entry.
#[derive(Debug, Clone, Default)]
pub(super) struct LineWrite {
    /// What is assigned, if anything; `None` is a delete.
    #[allow(clippy::option_option, reason = "what is assigned may be nothing")]
    pub(super) assignment: Option<Option<Value>>,
    /// What is added to that, or to what is stored.
    pub(super) adds: Vec<Value>,
    pub(super) takes: Option<TakenItem>,
    /// When the time to live of what is assigned is over.
    pub(super) expires: Option<Monotonic>,
}

/// What must be in an entry of the outbox.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct AdditionLine {
    /// Its number for callers; an entry that returns an item has that of its take.
    pub(super) id: Sequence,
    /// Its number for the server.
    pub(super) number: Sequence,
    pub(super) write: LineWrite,
    pub(super) receivers: Vec<Receiver<CrateResult<Answer>>>,
    /// What its callers were answered.
    pub(super) reported: Vec<Result<Written, ErrorKind>>,
    /// The connection has been up ever since it was written.
    pub(super) is_online: bool,
    pub(super) is_confirmed: bool,
    pub(super) was_sent: bool,
    /// An attempt was sent that does more than ask.
    pub(super) may_be_applied: bool,
    pub(super) in_doubt: bool,
    pub(super) was_in_doubt: bool,
    /// It replaced a delete, or a value that had expired.
    pub(super) replaces_nothing: bool,
    /// The taken item that it returns.
    pub(super) returns: Option<Value>,
    /// The stamp of the newest write in it.
    pub(super) latest: u64,
    pub(super) written: Monotonic,
}

impl LineWrite {
    /// What it makes of a value.
    pub(super) fn made_of(&self, before: Option<&Value>, subject: AddedTo) -> MadeValue {
        let assigned = self.assignment.as_ref().map(Option::as_ref);
        let start = assigned.unwrap_or(before);
        if let Some(takes) = &self.takes {
            let mut list = start.and_then(Value::as_array).cloned().unwrap_or_default();
            return match list.pop() {
                Some(last) if last == takes.item => MadeValue::Stored(list.into()),
                _ => MadeValue::DoesNotApply,
            };
        }
        if self.adds.is_empty() {
            return start.cloned().map_or(MadeValue::Removed, MadeValue::Stored);
        }
        let made = subject.with(start, &self.adds);
        made.map_or(MadeValue::DoesNotApply, MadeValue::Stored)
    }
}

/// What a write makes of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MadeValue {
    Stored(Value),
    Removed,
    DoesNotApply,
}

impl MadeValue {
    pub(super) fn is(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Stored(made) => value == Some(made),
            Self::Removed => value.is_none(),
            Self::DoesNotApply => false,
        }
    }
}

impl AdditionLine {
    pub(super) fn is_expired(&self, mono: Monotonic) -> bool {
        self.write.expires.is_some_and(|at| at <= mono)
    }

    pub(super) fn is_empty(&self) -> bool {
        let LineWrite {
            assignment,
            adds,
            takes,
            ..
        } = &self.write;
        assignment.is_none() && adds.is_empty() && takes.is_none()
    }

    /// The time to live of what it stores.
    pub(super) fn time_to_live(&self, mono: Monotonic) -> TimeToLive {
        match self.write.expires {
            Some(at) => TimeToLive::For(at.saturating_sub(mono)),
            None if self.replaces_nothing => TimeToLive::Never,
            None => TimeToLive::Keep,
        }
    }

    /// Whether it changes what is stored, and does not only replace it.
    pub(super) fn is_mutation(&self) -> bool {
        !self.write.adds.is_empty() || self.write.takes.is_some()
    }

    /// All callers that wait must just have received this answer.
    pub(super) fn expect_answer(
        &mut self,
        expected: Result<Written, ErrorKind>,
    ) -> RuleResult<Option<Answer>> {
        let mut last = None;
        for mut receiver in self.receivers.drain(..) {
            let answer = receiver.try_recv();
            let received = answer.as_ref().map(|received| match received {
                Ok(answer) if answer.outdated.is_some() => Err(ErrorKind::Conflict),
                Ok(answer) => Ok(answer.written),
                Err(error) => Err(error.kind()),
            });
            ensure!(
                received == Ok(expected),
                "{} was answered {answer:?} instead of {expected:?}",
                self.id
            );
            self.reported.push(expected);
            last = answer.ok().and_then(CrateResult::ok);
        }
        Ok(last)
    }

    /// A later call is queued in it.
    fn merge(&mut self, later: Self) -> RuleResult {
        let is_apart = |line: &Self| line.is_confirmed || line.returns.is_some();
        ensure!(
            !self.was_sent,
            "rule 3: {} was sent, and still changed",
            self.id
        );
        ensure!(
            !is_apart(self) && !is_apart(&later),
            "{} has to stay apart, and was merged",
            self.id
        );
        let is_awaited = !self.receivers.is_empty();
        let has_own_outcome = self.write.assignment.is_some() && later.write.assignment.is_none();
        ensure!(
            is_awaited != later.receivers.is_empty() && !(is_awaited && has_own_outcome),
            "rule 10: {} shares the outcome of another call",
            self.id
        );
        let is_expired = self.is_expired(later.written);
        let is_delete = self.write.assignment == Some(None) && self.write.adds.is_empty();
        let is_kept = later.write.assignment != Some(None) && !is_expired;
        let inherited = self.write.expires.filter(|_| is_kept);
        let own_expiry = later.write.expires;
        if later.write.assignment.is_some() {
            self.write = later.write;
        } else {
            ensure!(
                !is_expired,
                "{} has expired, and was changed after that",
                self.id
            );
            self.write.adds.extend(later.write.adds);
        }
        self.write.expires = own_expiry.or(inherited);
        self.replaces_nothing |= is_expired || is_delete;
        self.receivers.extend(later.receivers);
        self.reported.extend(later.reported);
        self.is_online = later.is_online;
        (self.latest, self.written) = (later.latest, later.written);
        Ok(())
    }
}

/// What the server last answered, in the order of the requests.
#[derive(Debug, Default)]
pub(super) struct AnsweredValue {
    pub(super) ticket: Ticket,
    pub(super) held: Option<HeldValue>,
}

impl AnsweredValue {
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        self.held.as_ref().map(|held| &held.bytes)
    }

    pub(super) fn value(&self) -> Option<Rc<Value>> {
        value_of(self.bytes())
    }
}

/// What was added to something that was not known.
#[derive(Debug)]
pub(super) struct AddedOnTop {
    /// The request that added it.
    pub(super) ticket: Ticket,
    pub(super) number: Sequence,
    pub(super) stamp: Stamp,
    pub(super) adds: Vec<Value>,
}

/// What the server must do with an attempt.
#[derive(Debug)]
pub(in super::super) struct ExpectedAddition {
    /// It only asks what became of an earlier attempt, or what is stored.
    pub(super) only_asks: bool,
    /// If it meets something newer, it is stamped again.
    pub(super) is_online: bool,
    pub(super) write: LineWrite,
    pub(super) is_blind: bool,
    pub(super) subject: AddedTo,
}

#[derive(Debug)]
pub(in super::super) struct AdditionHistory {
    pub(super) subject: AddedTo,
    pub(super) lines: VecDeque<AdditionLine>,
    pub(super) ended: Vec<(AdditionLine, LineOutcome)>,
    pub(super) link: Link,
    pub(super) last_answer: AnsweredValue,
    pub(super) on_top: Vec<AddedOnTop>,
    pub(super) to_send: Option<Rc<ExpectedAddition>>,
    pub(super) under_way: Option<(Sequence, Ticket, Sequence)>,
    pub(super) dead_letters: usize,
    pub(super) superseded: u64,
    pub(super) expired: u64,
    /// The confirmed entries that were withdrawn since the last step.
    pub(super) withdrawn: Vec<Sequence>,
    /// The items that their callers have not picked up yet.
    pub(super) unclaimed: Vec<((Writer, Sequence), Value)>,
    /// What a read returned last, its version, and when it expires.
    pub(super) last_view: Option<(Option<Rc<Value>>, u64, Option<Monotonic>)>,
}

impl AdditionHistory {
    pub(super) fn new() -> Self {
        Self {
            subject: AddedTo::List,
            lines: VecDeque::new(),
            ended: Vec::new(),
            link: Link::Down,
            last_answer: AnsweredValue::default(),
            on_top: Vec::new(),
            to_send: None,
            under_way: None,
            dead_letters: 0,
            superseded: 0,
            expired: 0,
            withdrawn: Vec::new(),
            unclaimed: Vec::new(),
            last_view: None,
        }
    }

    /// The state accepted a call.
    pub(super) fn accepted(
        &mut self,
        state: &State,
        write: LineWrite,
        is_confirmed: bool,
        mono: Monotonic,
        accepted: Accepted,
    ) -> RuleResult {
        let Accepted { id, mut answer } = accepted;
        let last = state.outbox.last(KEY).ok_or("rule 2: it is not queued")?;
        ensure!(
            last.identity.id == id,
            "rule 3: {id} was accepted, but {} is the last",
            last.identity.id
        );
        let is_online = self.link == Link::Up;
        let (mut receivers, mut reported) = (Vec::new(), Vec::new());
        if is_online {
            receivers.push(answer);
        } else {
            let received = answer.try_recv();
            let is_queued =
                matches!(&received, Ok(Ok(answer)) if answer.written == Written::Queued);
            ensure!(
                is_queued,
                "rule 9: it is queued, but was answered {received:?}"
            );
            reported.push(Ok(Written::Queued));
        }
        let line = AdditionLine {
            id,
            number: last.identity.sequence,
            write,
            receivers,
            reported,
            is_online,
            is_confirmed,
            was_sent: false,
            may_be_applied: false,
            in_doubt: false,
            was_in_doubt: false,
            replaces_nothing: false,
            returns: None,
            latest: last.write.latest.get(),
            written: mono,
        };
        if let Some(last) = self.lines.back_mut().filter(|last| last.id == id) {
            return last.merge(line);
        }
        self.lines.push_back(line);
        Ok(())
    }

    /// What is known follows the server, in the order of the requests.
    pub(super) fn follow_server(&mut self, ticket: Ticket, held: Option<HeldValue>) {
        if ticket >= self.last_answer.ticket {
            self.last_answer = AnsweredValue { ticket, held };
            self.on_top.retain(|added| added.ticket > ticket);
        }
    }

    pub(super) fn end(&mut self, line: AdditionLine, outcome: LineOutcome) {
        self.ended.push((line, outcome));
    }

    /// The calls of an entry, if they wait, must have received that it stays queued.
    pub(super) fn report_queued(&mut self, at: usize) -> RuleResult {
        self.lines[at].expect_answer(Ok(Written::Queued)).map(drop)
    }
}

/// What the callers of an entry have received, if any waited.
pub(super) fn received(line: &mut AdditionLine) -> RuleResult<Option<CrateResult<Answer>>> {
    let mut received: Option<CrateResult<Answer>> = None;
    for mut receiver in line.receivers.drain(..) {
        let answer = receiver
            .try_recv()
            .map_err(|error| format!("{} ended, and was not answered: {error}", line.id))?;
        let kind = |answer: &CrateResult<Answer>| {
            answer
                .as_ref()
                .map(|answer| (answer.written, answer.outdated.is_some()))
                .map_err(Error::kind)
        };
        ensure!(
            received
                .as_ref()
                .is_none_or(|other| kind(other) == kind(&answer)),
            "the callers of {} were answered {received:?} and {answer:?}",
            line.id
        );
        line.reported.push(match &answer {
            Ok(answer) if answer.outdated.is_some() => Err(ErrorKind::Conflict),
            Ok(answer) => Ok(answer.written),
            Err(error) => Err(error.kind()),
        });
        received = Some(answer);
    }
    Ok(received)
}
