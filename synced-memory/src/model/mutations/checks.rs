//! What must hold for every history, by number:
//!
//! 1. In the end all replicas and the server agree (`world.rs` holds that for every kind of process).
//! 2. Every push is there once and never twice, unless it was withdrawn, set aside, or overwritten; each
//!    writer's are in its order.
//! 3. A counter is the sum of all adds.
//! 4. A reference in plain Rust gives what the server has.
//! 5. Nothing disappears silently.
//! 6. The operations of one call are made together or not at all.
//! 7. A process reads its own writes.

use super::super::server::{Effect, Held, write_of};
use super::super::world::World;
use super::super::{Check, hold};
use super::book::{Book, Drawn, Fate, value_of};
use super::document::{PURSE, completed, read_same};
use super::draws::purse;
use crate::commit::{Attempt, Change, Sequence, Writer};
use crate::outbox::Written;
use serde_json::Value;
use std::collections::HashMap;
use std::rc::Rc;

/// What was made, by the writer and the entry.
#[derive(Debug, Default)]
pub(super) struct Made(HashMap<(Writer, Sequence), Rc<Drawn>>);

impl Made {
    pub(super) fn take_in(&mut self, attempt: &Attempt, drawn: &Rc<Drawn>) {
        self.0.insert((attempt.writer, write_of(attempt.sequence)), Rc::clone(drawn));
    }

    fn of(&self, attempt: &Attempt) -> Option<&Drawn> {
        let of_writer = |writer| self.0.get(&(writer, write_of(attempt.sequence)));
        // The server takes another name for a writer that has closed.
        of_writer(attempt.writer).or_else(|| of_writer(!attempt.writer)).map(|drawn| &**drawn)
    }
}

/// (2) and (3): the log and the counter, by the history of the server alone.
pub(super) fn pushes_and_sums(world: &World<Book>, held: Option<&Held>) -> Check {
    // Nothing where they are something else than a list and a number.
    let start = |document: Option<&Value>| {
        let document = completed(document);
        (document.get("log").and_then(Value::as_array).cloned(), document.get("n").and_then(Value::as_i64))
    };
    let (mut log, mut sum) = start(None);
    for effect in world.server.effects() {
        match effect {
            Effect::Flushed | Effect::Raw(None) => (log, sum) = start(None),
            Effect::Raw(stored) => (log, sum) = start(value_of(stored.as_ref()).as_deref()),
            Effect::Recorded(_, false) => {}
            Effect::Recorded(attempt, true) => {
                let drawn = world.log.made.of(attempt).ok_or("(5) something was made that nobody has sent")?;
                if let Some(assigned) = &drawn.assigns {
                    (log, sum) = start(assigned.0.as_ref());
                }
                if matches!(attempt.change, Change::Delete) {
                    (log, sum) = start(None);
                }
                if let Some(log) = &mut log {
                    log.extend(drawn.items.iter().cloned());
                }
                sum = sum.map(|sum| sum + drawn.added);
            }
        }
    }
    let (there, counted) = start(value_of(held.map(|held| &held.bytes)).as_deref());
    hold!(log == there, "(2) the log is {there:?} instead of {log:?}");
    hold!(sum == counted, "(3) the counter is {counted:?} instead of {sum:?}");
    let mut last = [0; 3];
    for item in there.iter().flatten().filter_map(Value::as_str) {
        let Some((at, mark)) =
            item.split_once('.').and_then(|(at, mark)| at.parse::<usize>().ok().zip(mark.parse().ok()))
        else {
            continue;
        };
        let last: &mut u64 = &mut last[at % 3];
        hold!(*last < mark, "(2) {item} is not in the order of its writer, in {there:?}");
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
        match call.fate {
            None => return Err(format!("(5) {kind:?} never came to an end")),
            Some(Fate::Made) => {
                // It was superseded for good, and the answer to that was lost.
                let is_lost = world.server.is_superseded(writer, call.line) && call.edits.all.is_empty();
                hold!(made || is_lost, "(5) {kind:?} was answered for, and was never made");
            }
            Some(Fate::Withdrawn | Fate::Again) => hold!(!made, "(5) {kind:?} was withdrawn, and was made"),
            Some(Fate::Done | Fate::Superseded | Fate::SetAside | Fate::Replaced) => {}
        }
        let is_stored = matches!(call.fate, Some(Fate::Made | Fate::Done | Fate::Replaced));
        hold!(call.told != Some(Written::Stored) || is_stored, "(5) {kind:?} was told stored, and is {:?}", call.fate);
    }
    Ok(())
}

/// (6): what one part of the purse gives, the other gets.
pub(super) fn together(document: Option<&Value>) -> Check {
    match purse(document) {
        Some((Some(a), Some(b))) => hold!(a + b == PURSE, "(6) of {PURSE} in the purse there are {a} and {b}"),
        // Nobody can give where nobody can get.
        Some((a, None)) => hold!(a.is_none_or(|a| a == PURSE / 2), "(6) {a:?} is left in the purse, and was not got"),
        _ => {}
    }
    Ok(())
}

/// (7): a read shows the last answer with all that is not answered for on top.
pub(super) fn own_writes(book: &Book, shown: Option<&Value>) -> Check {
    let Some(expected) = book.shown() else { return Ok(()) };
    let is_expected = expected.iter().any(|expected| read_same(expected.as_ref(), shown));
    hold!(is_expected, "(7) it shows {shown:?} instead of {expected:?}, with {:?} answered", book.slot.value);
    Ok(())
}
