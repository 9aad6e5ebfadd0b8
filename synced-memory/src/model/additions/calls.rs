//! The calls that processes make, and what foreign clients store.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::action::ScheduledAction;
use super::super::check::{RuleResult, ensure};
use super::super::document::{as_json, value_of};
use super::super::server::KEY;
use super::super::world::{World, one_of};
use super::history::{AdditionHistory, LineWrite, TakenItem};
use super::rules::StoredBy;
use super::values::{AddedTo, foreign, own_item};
use crate::base::error::ErrorKind;
use crate::base::policy::WritePolicy;
use crate::client::state::{KeyView, Link, Request};
use crate::pending::outbox::{Precondition, Take};
use crate::value::envelope::{self, Text, Unsealed};
use crate::value::mutation::{
    Action, Amount, Content, Mutation, ObservedValue, Operation, PathStep, element, elements,
};

/// A process makes a call.
pub(super) fn write(
    world: &mut World<AdditionHistory>,
    at: usize,
    action: ScheduledAction,
    random: &mut fastrand::Rng,
) -> RuleResult {
    let (mono, moment, subject) = (world.mono(), world.moment(at), world.log.subject);
    let process = &mut world.processes[at];
    process.ledger.subject = subject;
    let view = process.state.view(KEY, mono);
    let mut serials = world.values..;
    let items = (0..random.usize(1..=3)).filter_map(|_| serials.next());
    let items: Vec<Value> = items.map(|serial| own_item(at, serial)).collect();
    world.values += 3;

    let ttl = (action == ScheduledAction::PutWithTtl)
        .then(|| Duration::from_millis(one_of(random, &[1, 2_000, 20_000])));
    let takes = subject == AddedTo::List && random.u8(0..6) == 0;
    let (request, write, is_confirmed) = match action {
        ScheduledAction::Delete => {
            let write = LineWrite {
                assignment: Some(None),
                ..LineWrite::default()
            };
            (Request::Delete, write, false)
        }
        ScheduledAction::PutWithTtl => {
            let assigned = assigned(subject, items, random);
            let write = LineWrite {
                assignment: Some(Some(assigned.clone())),
                expires: ttl.map(|ttl| mono + ttl),
                ..LineWrite::default()
            };
            let value = Unsealed::of_text(&assigned.to_string());
            (Request::Put { value, ttl }, write, false)
        }
        _ if takes => match take(&view) {
            Some((request, write)) => (request, write, true),
            None => return Ok(()),
        },
        _ if random.u8(0..16) == 0 => {
            let assigned = assigned(subject, items, random);
            let value = Unsealed::of_text(&assigned.to_string());
            let write = LineWrite {
                assignment: Some(Some(assigned)),
                ..LineWrite::default()
            };
            (Request::Put { value, ttl: None }, write, false)
        }
        _ => {
            let (request, write) = add(subject, items, random);
            (request, write, random.u8(0..8) == 0)
        }
    };

    let policy = if is_confirmed {
        WritePolicy::Confirmed
    } else {
        WritePolicy::Through
    };
    let is_away = is_confirmed && process.state.link_of(KEY) != Link::Up;
    let description = format!("{write:?}");
    match process.state.write(&world.key, request, policy, moment) {
        Ok(accepted) => {
            ensure!(
                !is_away,
                "{description} is confirmed, and was accepted without the server"
            );
            let id = accepted.id;
            let (ledger, state) = (&mut process.ledger, &process.state);
            ledger.accepted(state, write, is_confirmed, mono, accepted)?;
            let confirmed = if is_confirmed { ", confirmed" } else { "" };
            world.log_step(|| format!("{at} calls {description}, as {id}{confirmed}"));
        }
        Err(error) => {
            let expected = if is_away {
                ErrorKind::Unavailable
            } else {
                ErrorKind::OutboxFull
            };
            ensure!(
                error.kind() == expected,
                "rule 2: {description} was refused: {error}"
            );
            world.log_step(|| format!("{at} calls {description}, and is refused: {error}"));
        }
    }
    Ok(())
}

/// What is assigned: a few items of the process, or a small number.
fn assigned(subject: AddedTo, items: Vec<Value>, random: &mut fastrand::Rng) -> Value {
    match subject {
        AddedTo::List => Value::Array(items),
        AddedTo::Integer { .. } => json!(random.i64(-30..30)),
    }
}

/// Adds to the whole value.
fn add(subject: AddedTo, items: Vec<Value>, random: &mut fastrand::Rng) -> (Request, LineWrite) {
    let (action, adds) = match subject {
        AddedTo::List => {
            let action = Action::Append {
                items: items.iter().map(as_json).collect(),
            };
            (action, items)
        }
        AddedTo::Integer { min, max } => {
            // Those of an entry do not cancel each other out: then nothing need be sent.
            let by = one_of(random, &[11, 11, -4]);
            let amount = Amount::Integer {
                by: by.into(),
                min: min.into(),
                max: max.into(),
            };
            (Action::Add { amount }, vec![json!(by)])
        }
    };
    let operation = Operation {
        path: Vec::new(),
        action,
    };
    let request = Request::Mutate {
        mutation: Mutation::new(Some(as_json(&subject.origin())), vec![operation]),
        ttl: None,
        exact: None,
        take: None,
    };
    let write = LineWrite {
        adds,
        ..LineWrite::default()
    };
    (request, write)
}

/// Takes the last item of the list that a read shows. It returns to the end.
fn take(view: &KeyView) -> Option<(Request, LineWrite)> {
    let text = view.value();
    let list = elements(text.as_ref().map(Text::as_str)?).ok()?;
    let last = element(&list, list.len().checked_sub(1)?)?;
    let value = value_of(view.bytes().as_ref())?;
    let item = value.as_array()?.last()?.clone();
    let origin = || Some(as_json(&AddedTo::List.origin()));
    let remove = Operation {
        action: Action::Remove {
            seen: ObservedValue::Content(Content::of(&item.to_string())),
        },
        path: vec![PathStep::Element(last)],
    };
    let append = Operation {
        path: Vec::new(),
        action: Action::Append {
            items: vec![as_json(&item)],
        },
    };
    let request = Request::Mutate {
        mutation: Mutation::new(origin(), vec![remove]),
        ttl: None,
        exact: Some(Precondition::Whole(view.stored.clone())),
        take: Some(Take {
            item: as_json(&item),
            back: Some(Mutation::new(origin(), vec![append])),
        }),
    };
    let write = LineWrite {
        takes: Some(TakenItem {
            item,
            observed: text,
        }),
        ..LineWrite::default()
    };
    Some((request, write))
}

/// A foreign client that knows nothing of processes and stamps stores something.
pub(super) fn foreign_set(
    world: &mut World<AdditionHistory>,
    random: &mut fastrand::Rng,
) -> RuleResult {
    world.values += 3;
    // Often just below what is queued.
    let queued = world.processes[random.usize(0..3)].ledger.lines.back();
    let queued = queued.map(|line| line.latest.saturating_sub(random.u64(0..1_000)));
    let mut stamp = world.foreign_stamp(queued, random);
    // A stamp and a length identify a value.
    while let Some(stamp) = stamp
        .as_mut()
        .filter(|stamp| world.log.stored.contains_key(stamp))
    {
        *stamp += 1;
    }
    let of_foreign = stamp.map(|stamp| (stamp, StoredBy::default()));
    world.log.stored.extend(of_foreign);
    let stored = foreign(world.log.subject, world.values, stamp, random);
    world.log_step(|| format!("a foreign SET {stored}"));
    let mono = world.mono();
    let stored = Bytes::from(stored);
    // One that is laid out in an unusual way has none.
    let stamp = envelope::stamp_of(&stored).get();
    world.server.store_foreign(Some((stored, stamp)), mono)
}
