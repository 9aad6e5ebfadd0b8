//! Which closures of one process are one call, and what becomes of those that were made on what was
//! not made.

use serde_json::json;

use super::super::server::KEY;
use super::super::{Check, hold};
use super::book::{Book, Call, Fate, Line};
use super::compared::Meets;
use super::reference::Edits;
use super::ways::Way;
use crate::client::state::State;
use crate::pending::outbox::Entry;
use crate::pending::outbox::LetterRecord;
use crate::value::mutation::Mutation;

/// Calls that were skipped.
#[derive(Debug, Clone, Default)]
pub(super) struct Skipped {
    /// Those that were, and those that may have been.
    pub(super) sure: Vec<usize>,
    pub(super) possible: Vec<usize>,
}

impl Skipped {
    /// What these ways say that is superseded, of the calls of an entry.
    pub(super) fn superseded<'a>(line: &Line, ways: impl Iterator<Item = &'a Way>) -> Self {
        let ways: Vec<&Way> = ways.collect();
        let is_in = |index: usize| move |way: &&Way| way.superseded.contains(&index);
        // One that is gone into a later call goes along with that.
        let may_be_in = |index: usize| {
            move |way: &&Way| {
                is_in(index)(way) || way.replaced.contains(&index) && !way.superseded.is_empty()
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
            sure: of(&|index| !ways.is_empty() && ways.iter().all(is_in(index))),
            possible: of(&|index| ways.iter().any(may_be_in(index))),
        }
    }
}

/// What was not made, and that later calls may have been made on.
#[derive(Debug, Default)]
pub(super) struct Gone {
    sure: Vec<Edits>,
    possible: Vec<Edits>,
    /// The whole value was assigned.
    is_everything: bool,
}

impl Gone {
    /// Whether a call was made on it; `None` where that cannot be told.
    fn has_base_of(&self, call: &Edits) -> Option<bool> {
        let rests = |on: &[Edits]| {
            on.iter()
                .map(|gone| call.rests_on(gone))
                .max()
                .unwrap_or(Meets::No)
        };
        if self.is_everything && call.compares() || rests(&self.sure) == Meets::Yes {
            return Some(true);
        }
        if rests(&self.sure).max(rests(&self.possible)) == Meets::No {
            Some(false)
        } else {
            None
        }
    }
}

impl Book {
    pub(super) fn gone(&self, skipped: &Skipped) -> Gone {
        let edits = |calls: &[usize]| {
            calls
                .iter()
                .map(|call| self.calls[*call].edits.clone())
                .collect()
        };
        Gone {
            sure: edits(&skipped.sure),
            possible: edits(&skipped.possible),
            is_everything: false,
        }
    }

    pub(super) fn all_gone(&self, line: &Line) -> Gone {
        let sure = line
            .calls
            .iter()
            .map(|call| self.calls[*call].edits.clone())
            .collect();
        Gone {
            sure,
            possible: Vec::new(),
            is_everything: line.assignment.is_some(),
        }
    }

    /// An assignment, with nothing that was made on it.
    pub(super) fn everything_is_gone() -> Gone {
        Gone {
            is_everything: true,
            ..Gone::default()
        }
    }

    /// A closure was made part of the last entry. Where it is about a part that an earlier one
    /// changed, the two are one call, unless there is a call between them that has to stay there.
    pub(super) fn take_compared(&mut self, state: &State, index: usize) -> Check {
        let Some((line, entry)) = self.lines.back().zip(state.outbox.last(KEY)) else {
            return Ok(());
        };
        let (waiting, mut calls) = (stamps(entry), line.calls.clone());
        hold!(
            waiting.contains(&self.calls[index].edits.stamp),
            "(5) {:?} is not queued",
            self.calls[index].kind
        );
        let (mut last, mut may_stop) = (calls.len() - 1, false);
        for at in (0..last).rev() {
            let (one, other) = (calls[at], calls[last]);
            let (earlier, later) = (&self.calls[one].edits, &self.calls[other].edits);
            let meets = later.meets(earlier);
            if !earlier.is_compared {
                may_stop |= meets != Meets::No;
                continue;
            }
            let is_one = !waiting.contains(&earlier.stamp);
            let may_be = if is_one {
                meets != Meets::No
            } else {
                meets != Meets::Yes || may_stop
            };
            hold!(
                may_be,
                "rule 5: whether {:?} and {:?} are one call",
                self.calls[one].kind,
                self.calls[other].kind
            );
            if !is_one {
                continue;
            }
            // What the later one was made on, and the earlier one was not, goes before both.
            let is_base = |call: &usize| {
                let edits = &self.calls[*call].edits;
                !edits.is_compared && later.meets(edits) != Meets::No
            };
            let between: Vec<usize> = calls
                .drain(at + 1..=last)
                .filter(|call| *call != other)
                .collect();
            let (bases, apart): (Vec<usize>, Vec<usize>) = between.into_iter().partition(is_base);
            let is_tangled = bases
                .iter()
                .any(|base| self.calls[*base].edits.meets(earlier) == Meets::Yes);
            hold!(
                !is_tangled,
                "rule 5: {:?} is made before its base",
                self.calls[other].kind
            );
            last = at + bases.len();
            let behind = calls.split_off(at + 1);
            calls.extend(apart.into_iter().chain(behind));
            calls.splice(at..at, bases);
            let later = later.clone();
            self.calls[one].edits.go_on(&later);
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

    /// Closures that were made on what is gone share its fate. Whether any did; `None` where that
    /// cannot be told.
    pub(super) fn share(
        &mut self,
        state: &State,
        mut gone: Gone,
        fate: Fate,
    ) -> Check<Option<bool>> {
        let mut is_any = Some(false);
        for at in 0..self.lines.len() {
            let line = &self.lines[at];
            if line.assignment.is_some() {
                break;
            }
            // Whoever waits records it anew, where it does not fit.
            if self.is_awaited(line) {
                continue;
            }
            let waiting = state
                .outbox
                .of(KEY)
                .find(|entry| entry.identity.id == line.id)
                .map(stamps);
            let of_line = |record: &&LetterRecord| {
                fate == Fate::SetAside && record.stamp.get() == line.latest
            };
            let record = state.letters.get(self.aside).filter(of_line);
            let is_told = |edits: &Edits| {
                record.is_some_and(|record| record.changes().contains(&json!(edits.operations)))
            };
            let (mut taken, mut doubtful) = (Vec::new(), Vec::new());
            for call in line
                .calls
                .iter()
                .filter(|call| self.calls[**call].edits.is_compared)
            {
                let Call { edits, kind, .. } = &self.calls[*call];
                let is_there = waiting
                    .as_ref()
                    .map(|waiting| waiting.contains(&edits.stamp));
                let has_base = gone.has_base_of(edits);
                let is_right = has_base != Some(true) || is_there != Some(true);
                hold!(
                    is_right,
                    "rule 5: {kind:?} was made on what was not made, and waits"
                );
                match (has_base, is_there) {
                    (Some(true), _) | (None, Some(false)) => taken.push(*call),
                    (Some(false), _) | (None, Some(true)) => continue,
                    (None, None) if fate == Fate::SetAside && !is_told(edits) => continue,
                    (None, None) => doubtful.push(*call),
                }
                let gone = if doubtful.contains(call) {
                    &mut gone.possible
                } else {
                    &mut gone.sure
                };
                gone.push(edits.clone());
            }
            if record.is_some_and(|record| record.changes().len() == taken.len() + doubtful.len()) {
                taken.append(&mut doubtful);
            }
            is_any = match is_any {
                _ if !taken.is_empty() => Some(true),
                Some(false) if !doubtful.is_empty() => None,
                is_any => is_any,
            };
            // What is set aside for another reason is told later.
            self.lines[at].is_vague |= fate == Fate::Superseded && !doubtful.is_empty();
            self.take_shared(state, at, &taken, fate)?;
        }
        Ok(is_any)
    }

    fn take_shared(&mut self, state: &State, at: usize, taken: &[usize], fate: Fate) -> Check {
        if taken.is_empty() {
            return Ok(());
        }
        let Some(mut line) = self.lines.remove(at) else {
            return Ok(());
        };
        if fate == Fate::SetAside {
            let of_line = |record: &&LetterRecord| {
                record.stamp.get() == line.latest && record.changes().len() == taken.len()
            };
            let is_told = state
                .letters
                .get(self.aside)
                .is_some_and(|record| of_line(&record));
            hold!(
                is_told,
                "(5) what was made on what is set aside is gone: {}",
                self.names(&line)
            );
            self.set_aside(&line, state, taken)?;
        }
        for call in taken {
            self.set_fate(*call, fate);
        }
        line.calls.retain(|call| !taken.contains(call));
        self.is_changed = true;
        self.lines.insert(at, line);
        Ok(())
    }

    /// The closures that wait must be those that came to no end.
    pub(super) fn audit_compared(&self, line: &Line, entry: &Entry) -> Check {
        let compared = line
            .calls
            .iter()
            .map(|call| &self.calls[*call].edits)
            .filter(|edits| edits.is_compared);
        let mut own: Vec<u64> = compared.map(|edits| edits.stamp).collect();
        let mut there = stamps(entry);
        own.sort_unstable();
        there.sort_unstable();
        hold!(
            own == there || line.is_vague,
            "(5) the closures of {there:?} wait instead of {own:?}"
        );
        Ok(())
    }

    /// Of a call, with those that are one call with it.
    pub(super) fn set_fate(&mut self, call: usize, fate: Fate) {
        self.calls[call].fate = Some(fate);
        for joined in self.calls[call].joined.clone() {
            self.set_fate(joined, fate);
        }
    }

    /// The calls that are one with this one, in their order.
    pub(super) fn all_joined(&self, call: usize) -> Vec<usize> {
        let joined = self.calls[call]
            .joined
            .iter()
            .flat_map(|joined| self.all_joined(*joined));
        std::iter::once(call).chain(joined).collect()
    }
}

/// When the closures in an entry were made, each of which is of another time.
pub(super) fn stamps(entry: &Entry) -> Vec<u64> {
    let calls = entry.write.mutation.iter().flat_map(Mutation::calls);
    calls
        .filter(|call| call.is_compared)
        .map(|call| call.stamp.get())
        .collect()
}
