//! What must hold for every history, by number:
//!
//! 1. In the end all replicas and the server agree (`world.rs` holds that for every kind of
//!    process).
//! 2. Every push is there once and never twice, unless it was withdrawn, set aside, or overwritten;
//!    each writer's are in its order.
//! 3. A counter is the sum of all adds; a number of the map is that of all adds and closures.
//! 4. A reference in plain Rust gives what the server has.
//! 5. Nothing disappears silently.
//! 6. The operations of one call are made together or not at all.
//! 7. A process reads its own writes.
//! 8. A closure is made where what it changes is as it saw it, and nowhere else.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::super::server::{Effect, Held, write_of};
use super::super::world::World;
use super::super::{Check, hold};
use super::book::{Book, Drawn, Fate, value_of};
use super::confirmed;
use super::document::{PURSE, completed, read_same};
use super::draws::purse;
use super::kinds::{COUNTED, Kind};
use crate::backend::commit::{Attempt, Sequence, Writer};
use crate::pending::outbox::Written;

/// What was made, by the writer and the entry.
#[derive(Debug, Default)]
pub(super) struct Made(HashMap<(Writer, Sequence), Rc<Drawn>>);

impl Made {
    pub(super) fn take_in(&mut self, attempt: &Attempt, drawn: &Rc<Drawn>) {
        self.0.insert(
            (attempt.writer, write_of(attempt.sequence)),
            Rc::clone(drawn),
        );
    }

    fn of(&self, attempt: &Attempt) -> Option<&Drawn> {
        let of_writer = |writer| self.0.get(&(writer, write_of(attempt.sequence)));
        // The server takes another name for a writer that has closed.
        of_writer(attempt.writer)
            .or_else(|| of_writer(!attempt.writer))
            .map(|drawn| &**drawn)
    }
}

/// What a call does to the log and to what is counted.
#[derive(Debug)]
pub(super) enum Counted {
    Pushed(Vec<Value>),
    Added(i64),
    AddedInMap(i64),
    NoMap,
    Nothing,
}

impl Counted {
    pub(super) fn of(kind: &Kind) -> Vec<Self> {
        match kind {
            Kind::Log(items) => vec![Self::Pushed(items.clone())],
            Kind::Add(by) => vec![Self::Added(*by)],
            Kind::LogAndAdd(item, by) => vec![Self::Pushed(vec![item.clone()]), Self::Added(*by)],
            Kind::AddInMap(COUNTED, by) | Kind::Count(COUNTED, by) => vec![Self::AddedInMap(*by)],
            Kind::Move(COUNTED, _, by) => vec![Self::AddedInMap(-by)],
            Kind::ClearMap => vec![Self::NoMap],
            Kind::Withdraw => vec![Self::Nothing],
            _ => Vec::new(),
        }
    }
}

/// The log and what is counted. Nothing where they are something else than a list and numbers.
#[derive(Debug, PartialEq)]
struct Sums {
    log: Option<Vec<Value>>,
    number: Option<i64>,
    in_map: Option<i64>,
}

impl Sums {
    fn of(document: Option<&Value>) -> Self {
        let document = completed(document);
        let map = document.get("map").and_then(Value::as_object);
        Self {
            log: document.get("log").and_then(Value::as_array).cloned(),
            number: document.get("n").and_then(Value::as_i64),
            in_map: map.and_then(|map| map.get(COUNTED).map_or(Some(0), Value::as_i64)),
        }
    }

    fn take_in(&mut self, counted: &Counted) {
        match counted {
            Counted::Pushed(items) => self
                .log
                .iter_mut()
                .for_each(|log| log.extend(items.iter().cloned())),
            Counted::Added(by) => self.number = self.number.map(|number| number + by),
            Counted::AddedInMap(by) => self.in_map = self.in_map.map(|number| number + by),
            Counted::NoMap => self.in_map = Some(0),
            Counted::Nothing => *self = Self::of(None),
        }
    }
}

/// (2) and (3): the log and what is counted, by the history of the server alone.
pub(super) fn pushes_and_sums(world: &World<Book>, held: Option<&Held>) -> Check {
    let mut sums = Sums::of(None);
    for effect in world.server.effects() {
        match effect {
            Effect::Flushed | Effect::Raw(None) => sums = Sums::of(None),
            Effect::Raw(stored) => sums = Sums::of(value_of(stored.as_ref()).as_deref()),
            Effect::Recorded(_, false) => {}
            Effect::Recorded(attempt, true) => {
                let drawn = world
                    .log
                    .made
                    .of(attempt)
                    .ok_or("(5) something was made that nobody has sent")?;
                if let Some(assigned) = &drawn.assigns {
                    sums = Sums::of(assigned.0.as_ref());
                }
                match &drawn.counted {
                    Some(counted) => counted.iter().for_each(|counted| sums.take_in(counted)),
                    None => sums = Sums::of(drawn.after.as_deref()),
                }
            }
        }
    }
    let there = Sums::of(value_of(held.map(|held| &held.bytes)).as_deref());
    hold!(
        sums.log == there.log,
        "(2) the log is {:?} instead of {:?}",
        there.log,
        sums.log
    );
    hold!(
        sums == there,
        "(3) {there:?} is counted instead of {sums:?}"
    );
    let there = there.log;
    let mut last = [0; 3];
    for item in there.iter().flatten().filter_map(Value::as_str) {
        let Some((at, mark)) = item
            .split_once('.')
            .and_then(|(at, mark)| at.parse::<usize>().ok().zip(mark.parse().ok()))
        else {
            continue;
        };
        let last: &mut u64 = &mut last[at % 3];
        hold!(
            *last < mark,
            "(2) {item} is not in the order of its writer, in {there:?}"
        );
        *last = mark;
    }
    Ok(())
}

/// (5): each call came to an end that was told.
pub(super) fn ends(world: &World<Book>, at: usize) -> Check {
    let process = &world.processes[at];
    let writer = process.state.writer();
    for call in &process.ledger.calls {
        let made = world.server.made(writer, call.line);
        let kind = &call.kind;
        confirmed::ends(world, call, &process.ledger.calls, made)?;
        match call.fate {
            None => return Err(format!("(5) {kind:?} never came to an end")),
            Some(Fate::Made) => {
                // It was superseded for good, and the answer to that was lost.
                let is_lost = call.confirmed.is_none()
                    && world.server.is_superseded(writer, call.line)
                    && call.edits.all.is_empty();
                hold!(
                    made || is_lost,
                    "(5) {kind:?} was answered for, and was never made"
                );
            }
            Some(Fate::Withdrawn | Fate::Again) if call.confirmed.is_none() => {
                hold!(!made, "(5) {kind:?} was withdrawn, and was made");
            }
            Some(_) => {}
        }
        let is_stored = matches!(call.fate, Some(Fate::Made | Fate::Done | Fate::Replaced));
        hold!(
            call.told != Some(Written::Stored) || is_stored,
            "(5) {kind:?} was told stored, and is {:?}",
            call.fate
        );
    }
    Ok(())
}

/// (6): what one part of the purse gives, the other gets.
pub(super) fn together(document: Option<&Value>) -> Check {
    match purse(document) {
        Some((Some(a), Some(b))) => hold!(
            a + b == PURSE,
            "(6) of {PURSE} in the purse there are {a} and {b}"
        ),
        // Nobody can give where nobody can get.
        Some((a, None)) => hold!(
            a.is_none_or(|a| a == PURSE / 2),
            "(6) {a:?} is left in the purse, and was not got"
        ),
        _ => {}
    }
    Ok(())
}

/// (7): a read shows the last answer with all that is not answered for on top.
pub(super) fn own_writes(book: &Book, shown: Option<&Value>) -> Check {
    let Some(expected) = book.shown() else {
        return Ok(());
    };
    let is_expected = expected
        .iter()
        .any(|expected| read_same(expected.as_ref(), shown));
    hold!(
        is_expected,
        "(7) it shows {shown:?} instead of {expected:?}, with {:?} answered",
        book.slot.value
    );
    Ok(())
}
