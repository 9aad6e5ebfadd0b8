//! The callers: how a process makes a call, and checks whether the state accepts it.

use std::rc::Rc;

use serde_json::Value;

use super::super::calls::kinds::CallKind;
use super::super::calls::plainly::plainly;
use super::super::calls::recorded::{RecordedOn, RecordedWrite};
use super::super::check::{RuleResult, ensure};
use super::super::document::{as_json, completed, value_of};
use super::super::reference::edits::{CallEdits, Edit};
use super::super::server::KEY;
use super::super::world::World;
use super::accepted::NewCall;
use super::history::{CallWrite, ConfirmedCall, History, TakenElement};
use crate::base::clock::Monotonic;
use crate::base::error::ErrorKind;
use crate::base::policy::WritePolicy;
use crate::client::state::{KeyView, Link, Request};
use crate::pending::outbox::{Precondition, Take};
use crate::value::envelope::{Text, Unsealed};
use crate::value::mutation::{Mutation, Operation};

/// A call is recorded at most so many times; then its caller gives up.
const TRIES: u8 = 8;

/// A process makes a call.
pub(super) fn write(
    world: &mut World<History>,
    at: usize,
    kind: CallKind,
    is_confirmed: bool,
) -> RuleResult {
    write_again(world, at, kind, is_confirmed, 0)
}

/// A process makes the calls that are to be recorded again.
pub(super) fn record_again(world: &mut World<History>, at: usize) -> RuleResult {
    for call in std::mem::take(&mut world.processes[at].ledger.to_record_again) {
        let call = &world.processes[at].ledger.calls[call];
        let (kind, tries) = (call.kind.clone(), call.tries + 1);
        let is_confirmed = call.confirmed.is_some();
        if tries < TRIES {
            write_again(world, at, kind, is_confirmed, tries)?;
        }
    }
    Ok(())
}

fn write_again(
    world: &mut World<History>,
    at: usize,
    kind: CallKind,
    is_confirmed: bool,
    tries: u8,
) -> RuleResult {
    let (mono, moment) = (world.mono(), world.moment(at));
    let origin = Rc::clone(&world.log.origin);
    let process = &mut world.processes[at];
    process.ledger.origin = Some(Rc::clone(&origin));

    let view = process.state.view(KEY, mono);
    let visible = view.value();
    let recorded = kind.recorded(visible.as_ref().map(Text::as_str), &as_json(&origin));
    let Some(recorded) = recorded else {
        world.log_step(|| format!("{at} cannot call {kind:?}"));
        return Ok(());
    };
    let call = PlannedCall {
        kind,
        is_confirmed,
        view,
        origin,
        mono,
    };
    let Some((request, mut new)) = call.request(recorded)? else {
        return Ok(());
    };
    new.tries = tries;

    let kind = call.kind;
    let policy = if is_confirmed {
        WritePolicy::Confirmed
    } else {
        WritePolicy::Through
    };
    let is_away = is_confirmed && process.state.link_of(KEY) != Link::Up;
    match process.state.write(&world.key, request, policy, moment) {
        Ok(accepted) => {
            ensure!(
                !is_away,
                "{kind:?} is confirmed, and was accepted without the server"
            );
            let sequence = accepted.id;
            process.ledger.add_call(&process.state, new, accepted)?;
            let confirmed = if is_confirmed { ", confirmed" } else { "" };
            world.log_step(|| format!("{at} calls {kind:?}, as {sequence}{confirmed}"));
        }
        Err(error) => {
            let expected = if is_away {
                ErrorKind::Unavailable
            } else {
                ErrorKind::OutboxFull
            };
            ensure!(
                error.kind() == expected,
                "rule 2: {kind:?} was refused: {error}"
            );
            world.log_step(|| format!("{at} calls {kind:?}, and is refused: {error}"));
        }
    }
    Ok(())
}

/// A call, and what it is recorded on.
struct PlannedCall {
    kind: CallKind,
    is_confirmed: bool,
    view: KeyView,
    origin: Rc<Value>,
    mono: Monotonic,
}

impl PlannedCall {
    /// The request for the state, and what the history is to know of the call; nothing if there is
    /// nothing to write.
    fn request(&self, recorded: RecordedWrite) -> RuleResult<Option<(Request, NewCall)>> {
        let (operations, recorded_on) = match recorded {
            RecordedWrite::Nothing => return Ok(None),
            RecordedWrite::Assign(value) => {
                let request = Request::Put {
                    value: Unsealed::of_text(&value.to_string()),
                    ttl: None,
                };
                let write = CallWrite::Assign(Some(value));
                return Ok(Some((
                    request,
                    self.new_call(write, RecordedOn::Anything, None),
                )));
            }
            RecordedWrite::Delete => {
                let write = CallWrite::Assign(None);
                let new = self.new_call(write, RecordedOn::Anything, None);
                return Ok(Some((Request::Delete, new)));
            }
            RecordedWrite::Change(operations, recorded_on) => (operations, recorded_on),
        };

        let visible = value_of(self.view.bytes().as_ref());
        let all = self
            .kind
            .edits(&operations, visible.as_deref(), &self.origin)?;
        let (take, taken) = self.taken(visible.as_deref()).unzip();
        let recorded_on = if take.is_some() {
            RecordedOn::Whole
        } else {
            recorded_on
        };
        let is_compared = self.kind.is_closure();
        let request = self.mutate(operations.clone(), recorded_on, take);
        let write = CallWrite::Change(CallEdits {
            stamp: 0,
            is_compared,
            all,
            operations,
            recorded_on: visible,
        });
        Ok(Some((request, self.new_call(write, recorded_on, taken))))
    }

    fn mutate(
        &self,
        operations: Vec<Operation>,
        recorded_on: RecordedOn,
        take: Option<Take>,
    ) -> Request {
        let precondition = match recorded_on {
            RecordedOn::Anything => None,
            RecordedOn::Paths => Some(Precondition::Paths),
            RecordedOn::Whole => Some(Precondition::Whole(self.view.stored.clone())),
        };
        let record = if self.kind.is_closure() {
            Mutation::compared
        } else {
            Mutation::new
        };
        Request::Mutate {
            mutation: record(Some(as_json(&self.origin)), operations),
            ttl: None,
            exact: precondition,
            take,
        }
    }

    /// The element that a confirmed call takes, for the state and for the history.
    fn taken(&self, visible: Option<&Value>) -> Option<(Take, TakenElement)> {
        let (text, origin) = (self.view.value(), as_json(&self.origin));
        let taken = self.kind.taken(text.as_ref().map(Text::as_str), &origin);
        let (item, returning) = taken.filter(|_| self.is_confirmed)?;
        let mut left = completed(visible);
        plainly(&self.kind, &mut left);
        let edits = CallEdits {
            all: vec![Edit::of(&returning, Some(&left), Some(&self.origin))],
            operations: vec![returning.clone()],
            ..CallEdits::default()
        };
        let taken = TakenElement::new(item.clone(), edits, self.mono);
        let back = Some(Mutation::new(Some(origin), vec![returning]));
        Some((Take { item, back }, taken))
    }

    fn new_call(
        &self,
        write: CallWrite,
        recorded_on: RecordedOn,
        taken: Option<TakenElement>,
    ) -> NewCall {
        let confirmed = self.is_confirmed.then(|| ConfirmedCall {
            take: taken,
            ..ConfirmedCall::default()
        });
        NewCall {
            kind: self.kind.clone(),
            tries: 0,
            confirmed,
            write,
            recorded_on,
            visible: self.view.value(),
            mono: self.mono,
        }
    }
}
