//! What is taken from the outbox to be sent must be what the rules say; and what ends there.

use std::rc::Rc;

use serde_json::{Value, json};

use super::super::server::{KEY, TOMBSTONE_TTL, write_of};
use super::super::{Check, hold};
use super::book::{Assigned, Book, Drawn, Fate, Line, value_of};
use super::calls::On;
use super::checks::Counted;
use super::compared::Saw;
use super::document::read_same;
use super::fates::Skipped;
use super::kinds::Kind;
use super::ways::Way;
use crate::backend::commit::{Attempt, Expects, KeyChange, Sequence};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::client::state::State;
use crate::pending::outbox::LetterRecord;
use crate::pending::outbox::Written;
use crate::value::envelope::{self, Text};

impl Book {
    /// A batch was taken from the outbox. Returns what was withdrawn.
    pub(super) fn take_drawn(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> Check<Vec<Sequence>> {
        let mut withdrawn = Vec::new();
        let mut superseded = Some(false);
        while let Some(line) = self.lines.front()
            && !state
                .outbox
                .of(KEY)
                .any(|entry| entry.identity.id == line.id)
        {
            let line = self.lines.pop_front().ok_or("there is one")?;
            self.ended_unsent(line, state, mono, (&mut withdrawn, &mut superseded))?;
        }
        self.count(state, superseded)?;
        self.drawn = None;
        if let [attempt] = batch {
            self.drawn = Some(Rc::new(self.expected(attempt, state)?));
        }
        hold!(batch.len() < 2, "rule 3: it sends {batch:?} at once");
        Ok(withdrawn)
    }

    /// An entry came to an end without being sent, on what the server answered last.
    fn ended_unsent(
        &mut self,
        mut line: Line,
        state: &State,
        mono: Monotonic,
        (withdrawn, superseded): (&mut Vec<Sequence>, &mut Option<bool>),
    ) -> Check {
        if line.assignment.is_none() && line.calls.is_empty() && !line.is_vague {
            return Ok(());
        }
        if line.is_confirmed && self.confirmed_ended_unsent(&line, state, mono)? {
            return Ok(());
        }
        let is_too_old = line.written + TOMBSTONE_TTL <= mono;
        let ways = self.ways_here(&line);
        let is_possible = |possible: &dyn Fn(&Way) -> bool| {
            ways.as_ref().is_none_or(|ways| ways.iter().any(possible))
        };
        let has_misfits = |way: &Way| !way.misfits.is_empty();
        match self.told(&line)? {
            Some(Ok(answer)) if answer.again.is_some() => {
                let is_other = match line.on {
                    On::Anything => false,
                    On::Places => is_possible(&|way| !way.superseded.is_empty()),
                    On::Whole => line.seen != self.slot_text(),
                };
                hold!(
                    is_other,
                    "rule 5: {} is to be recorded anew on {:?}",
                    self.names(&line),
                    self.slot.value
                );
                self.again.extend(line.all_calls());
                if line.is_confirmed {
                    return self.never_made(&line, Fate::Again);
                }
                withdrawn.push(line.number);
                self.end(&line, Fate::Again);
            }
            Some(Err(error)) => {
                let is_right = error.kind() == ErrorKind::Conflict
                    && (is_too_old || is_possible(&has_misfits));
                hold!(
                    is_right,
                    "rule 2: {} ended in {error}, on {:?}",
                    self.names(&line),
                    self.slot.value
                );
                if line.is_confirmed {
                    return self.never_made(&line, Fate::Withdrawn);
                }
                withdrawn.push(line.number);
                self.end(&line, Fate::Withdrawn);
            }
            told if is_too_old => {
                hold!(told.is_none(), "rule 7: what waited too long is {told:?}");
                self.set_aside(&line, state, &line.all_calls().collect::<Vec<_>>())?;
                self.end(&line, Fate::SetAside);
                self.share(state, self.all_gone(&line), Fate::SetAside)?;
            }
            told => {
                let is_stored = told
                    .is_none_or(|told| told.is_ok_and(|answer| answer.written == Written::Stored));
                hold!(
                    is_stored,
                    "rule 5: {} changes nothing, and was not told so",
                    self.names(&line)
                );
                self.part_set_aside(&mut line, state)?;
                if line.is_vague {
                    self.end(&line, Fate::SetAside);
                    *superseded = None;
                    let possible = line.calls.clone();
                    self.share(
                        state,
                        self.gone(&Skipped {
                            sure: Vec::new(),
                            possible,
                        }),
                        Fate::Superseded,
                    )?;
                }
                if line.is_vague || line.assignment.is_none() && line.calls.is_empty() {
                    return Ok(());
                }
                let here = self.slot.value.clone();
                let ways = self.ways_here(&line);
                let is_here = |way: &&Way| {
                    read_same(way.value.as_ref(), here.as_deref()) && !has_misfits(way)
                };
                let mut done = ways.iter().flatten().filter(is_here).peekable();
                let is_done = ways.is_none() || done.peek().is_some() && line.assignment.is_none();
                hold!(
                    is_done,
                    "(5) {} is gone, and was to change {here:?}",
                    self.names(&line)
                );
                let done: Vec<&Way> = done.collect();
                *superseded = together(
                    *superseded,
                    of_all(done.iter().map(|way| !way.superseded.is_empty())),
                );
                let skipped = match &ways {
                    Some(_) => Skipped::superseded(&line, done.into_iter()),
                    None => Skipped {
                        sure: Vec::new(),
                        possible: line.calls.clone(),
                    },
                };
                self.end(&line, Fate::Done);
                let shared = self.share_superseded(state, &skipped)?;
                *superseded = together(*superseded, shared);
            }
        }
        Ok(())
    }

    fn ways_here(&self, line: &Line) -> Option<Vec<Way>> {
        self.ways(line, (self.slot.value.as_deref(), self.slot.stamp))
    }

    /// Whether it has nothing left to do where nothing is: it only removes.
    pub(super) fn is_done_where_nothing_is(&self, line: &Line, state: &State) -> bool {
        let Some(ways) = self.ways(line, (None, 0)) else {
            return state
                .outbox
                .of(KEY)
                .any(|entry| entry.identity.id == line.id);
        };
        let is_done = |way: &Way| way.value.is_none() && way.misfits.is_empty();
        if ways.iter().all(is_done) {
            return true;
        }
        ways.iter().any(is_done)
            && state
                .outbox
                .of(KEY)
                .any(|entry| entry.identity.id == line.id)
    }

    pub(super) fn names(&self, line: &Line) -> String {
        let kinds: Vec<_> = line
            .all_calls()
            .map(|call| &self.calls[call].kind)
            .collect();
        format!("{} ({kinds:?})", line.id)
    }

    /// The counter of what is superseded must have moved, or not.
    pub(super) fn count(&mut self, state: &State, superseded: Option<bool>) -> Check {
        let counted = state.superseded > self.superseded;
        hold!(
            superseded.is_none_or(|superseded| superseded == counted),
            "(5) what is superseded: counted {counted}"
        );
        self.superseded = state.superseded;
        Ok(())
    }

    /// Calls of this entry that do not apply are set aside, where nobody waits for them; the others
    /// go on.
    fn part_set_aside(&mut self, line: &mut Line, state: &State) -> Check {
        let of_line = |record: &&LetterRecord| record.stamp.get() == line.latest;
        let Some(record) = state.letters.get(self.aside).filter(of_line) else {
            return Ok(());
        };
        let Some(ways) = self.ways_here(line) else {
            self.aside += 1;
            line.is_vague = true;
            return Ok(());
        };
        // Those that were merged with none say which way it went.
        let entry = state
            .outbox
            .of(KEY)
            .find(|entry| entry.identity.id == line.id);
        let left: Vec<_> = entry
            .and_then(|entry| entry.write.mutation.as_ref())
            .iter()
            .flat_map(|left| left.calls())
            .collect();
        let is_right = |way: &&Way| {
            line.calls.iter().enumerate().all(|(index, call)| {
                let operations = &self.calls[*call].edits.operations;
                let is_same = |call: &&usize| self.calls[**call].edits.operations == *operations;
                if line.calls.iter().filter(is_same).count() > 1 {
                    return true;
                }
                let is_left = left.iter().any(|left| left.operations == *operations);
                let is_aside = || record.changes().contains(&json!(operations));
                is_left != way.misfits.contains(&index) || !is_left && !is_aside()
            })
        };
        // A call that is gone into a later one goes along with that.
        let edits = |index: usize| &self.calls[line.calls[index]].edits;
        let aside_on = |way: &Way| -> Vec<usize> {
            let goes_along = |index: &usize| {
                let is_later =
                    |later: &usize| later > index && edits(*later).replaces(edits(*index));
                way.misfits.contains(index)
                    || way.replaced.contains(index) && way.misfits.iter().any(is_later)
            };
            (0..line.calls.len())
                .filter(goes_along)
                .map(|index| line.calls[index])
                .collect()
        };
        // As many as are handed out, or more, where some were merged.
        let closeness = |way: &&Way| {
            (
                way.misfits.len() == record.changes().len(),
                aside_on(way).len(),
            )
        };
        let is_aside = |way: &&Way| !way.misfits.is_empty() && is_right(way);
        let way = ways
            .iter()
            .filter(is_aside)
            .max_by_key(closeness)
            .ok_or_else(|| {
                format!(
                    "rule 13: {} is set aside ({record:?}), and applies to {:?}",
                    self.names(line),
                    self.slot.value
                )
            })?;
        let aside = aside_on(way);
        line.is_vague = ways
            .iter()
            .filter(is_aside)
            .any(|other| aside_on(other) != aside);
        self.set_aside(line, state, &aside)?;
        for call in &aside {
            self.set_fate(*call, Fate::SetAside);
        }
        line.calls.retain(|call| !aside.contains(call));
        self.is_changed = true;
        let possible = if line.is_vague {
            line.calls.clone()
        } else {
            Vec::new()
        };
        self.share(
            state,
            self.gone(&Skipped {
                sure: aside,
                possible,
            }),
            Fate::SetAside,
        )?;
        Ok(())
    }

    /// These calls must have been handed out.
    pub(super) fn set_aside(&mut self, line: &Line, state: &State, calls: &[usize]) -> Check {
        let record = state
            .letters
            .get(self.aside)
            .ok_or_else(|| format!("(5) {} is gone", self.names(line)))?;
        self.aside += 1;
        let is_told = line.returns.is_none() || record.taken == line.returns;
        hold!(is_told, "(5) what was taken is not handed out: {record:?}");
        let text = json!(record.changes()).to_string();
        for call in calls {
            let Kind::Log(items) = &self.calls[*call].kind else {
                continue;
            };
            let handed_out = items.iter().all(|item| text.contains(&item.to_string()));
            hold!(
                handed_out,
                "(5) {items:?} is set aside, and not handed out: {record:?}"
            );
        }
        if let Some((assigned, _)) = line
            .assignment
            .as_ref()
            .filter(|(_, call)| calls.contains(call))
        {
            let own = record.assignment.as_ref().and_then(KeyChange::own_value);
            let own =
                own.map(|own| serde_json::from_str::<Value>(own.as_str()).expect("it is JSON"));
            hold!(
                *assigned == own,
                "(5) what was assigned is not handed out: {record:?}"
            );
        }
        Ok(())
    }

    /// The attempt must be what comes of the first entry where it is made on what the server
    /// answered last.
    fn expected(&mut self, attempt: &Attempt, state: &State) -> Check<Drawn> {
        let mut line = self
            .lines
            .pop_front()
            .ok_or("(5) nothing is pending, but it sends")?;
        let first = line.number == write_of(attempt.sequence);
        hold!(
            first,
            "rule 3: it sends {} instead of {}",
            attempt.sequence,
            self.names(&line)
        );
        hold!(
            attempt.retry.is_some() == line.in_doubt,
            "rule 4: whether {attempt:?} is a retry"
        );
        self.part_set_aside(&mut line, state)?;
        line.tried = true;
        let drawn = self.drawn_of(&mut line, attempt);
        self.lines.push_front(line);
        drawn
    }

    fn drawn_of(&self, line: &mut Line, attempt: &Attempt) -> Check<Drawn> {
        let after = match &attempt.change {
            KeyChange::Put { envelope, .. } => value_of(Some(envelope)),
            KeyChange::Delete => None,
        };
        let before = self.slot.value.clone();
        let mut drawn = Drawn {
            id: line.id,
            asks: attempt.expects == Expects::Nothing,
            assigns: line
                .assignment
                .as_ref()
                .map(|(assigned, _)| Assigned(assigned.clone())),
            before,
            after,
            superseded: Some(false),
            saw: Vec::new(),
            counted: None,
        };
        let is_doubtful = line.is_confirmed && line.in_doubt;
        let is_for_nobody = line.is_confirmed && !line.in_doubt && !self.is_awaited(line);
        hold!(
            !is_for_nobody,
            "{} is sent, and nobody waits for it",
            self.names(line)
        );
        hold!(
            drawn.asks || !is_doubtful,
            "{} is in doubt, and is made again",
            self.names(line)
        );
        if drawn.asks {
            hold!(
                drawn.assigns.is_none() || is_doubtful,
                "rule 4: {} needs not ask",
                self.names(line)
            );
            return Ok(drawn);
        }
        line.may_be_made = true;
        let expects = if line.assignment.is_some() {
            Expects::Anything
        } else {
            self.slot_is_there()
        };
        hold!(
            attempt.expects == expects,
            "rule 5: {} expects {:?}",
            self.names(line),
            attempt.expects
        );
        if line.on == On::Whole {
            hold!(
                line.seen == self.slot_text(),
                "rule 5: {} is made on {:?}",
                self.names(line),
                drawn.before
            );
        }
        if let Some(ways) = self.ways_here(line) {
            let is_whole = |way: &&Way| {
                way.misfits.is_empty() && (line.on == On::Anything || way.superseded.is_empty())
            };
            let mut fitting = ways
                .iter()
                .filter(is_whole)
                .filter(|way| read_same(way.value.as_ref(), drawn.after.as_deref()))
                .peekable();
            hold!(
                fitting.peek().is_some(),
                "(4) {} sends {:?} instead of {:?}, on {:?} stamped {}",
                self.names(line),
                drawn.after,
                ways.iter()
                    .map(|way| (&way.value, &way.misfits))
                    .collect::<Vec<_>>(),
                drawn.before,
                self.slot.stamp
            );
            let fitting: Vec<&Way> = fitting.collect();
            drawn.superseded = of_all(fitting.iter().map(|way| !way.superseded.is_empty()));
            line.skipped = Skipped::superseded(line, fitting.into_iter());
        } else {
            drawn.superseded = None;
            line.skipped = Skipped {
                sure: Vec::new(),
                possible: line.calls.clone(),
            };
        }
        drawn.saw = self.saw(line);
        drawn.counted = self.counted(line);
        Ok(drawn)
    }

    /// What the closures in it saw of what it is made on.
    fn saw(&self, line: &Line) -> Vec<Saw> {
        let edits: Vec<_> = line
            .calls
            .iter()
            .map(|call| &self.calls[*call].edits)
            .collect();
        let is_made = |index: &usize| !line.skipped.possible.contains(&line.calls[*index]);
        let made = (0..edits.len())
            .filter(|index| line.assignment.is_none() && !line.is_vague && is_made(index));
        made.flat_map(|index| Saw::all(edits[index], &edits[..index]))
            .collect()
    }

    /// What its calls do to what is counted.
    fn counted(&self, line: &Line) -> Option<Vec<Counted>> {
        let mut all = Vec::new();
        for call in line
            .calls
            .iter()
            .filter(|call| !line.skipped.sure.contains(call))
        {
            let joined = self.all_joined(*call);
            let counted: Vec<_> = joined
                .iter()
                .flat_map(|call| Counted::of(&self.calls[*call].kind))
                .collect();
            if !counted.is_empty() && line.skipped.possible.contains(call) {
                return None;
            }
            all.extend(counted);
        }
        Some(all).filter(|_| !line.is_vague)
    }

    fn slot_text(&self) -> Option<Text> {
        self.slot.stored.as_ref().map(envelope::value_of)
    }

    fn slot_is_there(&self) -> Expects {
        Expects::of(self.slot.stored.as_ref())
    }

    /// Calls of an entry were superseded, and what was made on them is too.
    pub(super) fn share_superseded(
        &mut self,
        state: &State,
        skipped: &Skipped,
    ) -> Check<Option<bool>> {
        for call in &skipped.sure {
            self.set_fate(*call, Fate::Superseded);
        }
        self.share(state, self.gone(skipped), Fate::Superseded)
    }

    /// An entry is set aside as a whole, or its callers get an error.
    pub(super) fn given_up(
        &mut self,
        line: &Line,
        state: &State,
        kind: ErrorKind,
    ) -> Check<Vec<Sequence>> {
        if let Some(told) = self.told(line)? {
            let told = told
                .map(|answer| answer.written)
                .map_err(|error: Error| error.kind());
            hold!(
                told == Err(kind),
                "{} was told {told:?} instead of {kind:?}",
                self.names(line)
            );
            self.end(line, Fate::Withdrawn);
            return Ok(vec![line.number]);
        }
        self.set_aside(line, state, &line.all_calls().collect::<Vec<_>>())?;
        self.end(line, Fate::SetAside);
        self.share(state, self.all_gone(line), Fate::SetAside)?;
        Ok(Vec::new())
    }
}

/// What all of them say; `None` where they differ.
fn of_all(mut all: impl Iterator<Item = bool>) -> Option<bool> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// Whether any of both is so.
pub(super) fn together(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// The number of the purse that a document has, where it has one.
pub(super) fn purse(document: Option<&Value>) -> Option<(Option<i64>, Option<i64>)> {
    let purse = document?.get("purse")?;
    Some((purse.get("a")?.as_i64(), purse.get("b")?.as_i64()))
}
