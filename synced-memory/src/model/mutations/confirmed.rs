//! Confirmed calls: withdrawn, or in doubt until the server has said what became of them; and the
//! elements that they take.

use serde_json::Value;

use super::super::server::{KEY, TOMBSTONE_TTL};
use super::super::world::World;
use super::super::{Check, hold};
use super::book::{Book, Call, Drawn, Fate, Line};
use super::calls::On;
use super::fates::Skipped;
use super::kinds::Kind;
use super::reference::Edits;
use crate::backend::commit::{Attempt, Expects, Outcome, Sequence, Writer};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::client::state::{Link, State};
use crate::pending::outbox::{Entry, Written};
use crate::value::mutation::{Json, Mutation};

/// What is known of a confirmed call.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    pub(super) error: Option<ErrorKind>,
    was_in_doubt: bool,
    pub(super) take: Option<Taken>,
}

/// An element that is taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) item: Json,
    /// What brings it back.
    pub(super) back: Edits,
    pub(super) written: Monotonic,
    owner: Option<Owner>,
}

/// Who has what was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It is told to the caller, under this name, who does not have it yet.
    Handing((Writer, Sequence)),
    Caller,
    /// This call puts it back.
    Back(usize),
    Letter,
}

impl Taken {
    pub(super) fn new(item: Json, back: Edits, written: Monotonic) -> Self {
        Self {
            item,
            back,
            written,
            owner: None,
        }
    }
}

impl Line {
    /// The one call of a confirmed entry.
    fn call(&self) -> Check<usize> {
        self.all_calls()
            .next()
            .ok_or_else(|| format!("(5) {} has no call", self.id))
    }
}

impl Book {
    fn confirmed(&mut self, line: &Line) -> Check<&mut Confirmed> {
        let call = line.call()?;
        self.calls[call]
            .confirmed
            .as_mut()
            .ok_or_else(|| format!("{} is not confirmed", line.id))
    }

    /// The time of its caller is over: it is withdrawn, or in doubt.
    pub(super) fn give_up_confirmed(&mut self, state: &mut State, at: usize) -> Check {
        let line = &self.lines[at];
        let call = line.call()?;
        let is_under_way = self
            .under_way
            .as_ref()
            .is_some_and(|(.., drawn)| drawn.id == line.id);
        let expected = if line.in_doubt && line.may_be_made || is_under_way {
            ErrorKind::InDoubt
        } else {
            ErrorKind::Unavailable
        };
        if let Some(mut waiting) = self.calls[call].waiting.take() {
            waiting.close();
            hold!(
                waiting.try_recv().is_err(),
                "(5) {} was told something that nobody has sent",
                self.names(line)
            );
        }
        let told = state
            .withdraw(&KEY.into(), line.id, state.unavailable_error(KEY))
            .map(|error| error.kind());
        hold!(
            told == Some(expected),
            "{} is given up, and is {told:?} instead of {expected:?}",
            self.names(line)
        );
        self.calls[call].confirmed.get_or_insert_default().error = told;
        if expected == ErrorKind::Unavailable
            && let Some(line) = self.lines.remove(at)
        {
            self.never_made(&line, Fate::Withdrawn)?;
        }
        self.is_changed = true;
        Ok(())
    }

    /// The connection is gone, or the server takes nothing: what was not sent is withdrawn by the
    /// latter.
    pub(super) fn confirmed_interrupted(&mut self, is_busy: bool) -> Check {
        for at in (0..self.lines.len()).rev().filter(|_| is_busy) {
            let line = &self.lines[at];
            let may_be_made = line.in_doubt && (line.may_be_made || !self.is_awaited(line));
            let is_withdrawn = line.is_confirmed && !may_be_made;
            let Some(line) = is_withdrawn.then(|| self.lines.remove(at)).flatten() else {
                continue;
            };
            self.told_error(&line, ErrorKind::Unavailable)?;
        }
        for line in self
            .lines
            .iter()
            .filter(|line| line.is_confirmed && line.in_doubt)
        {
            let call = line.call()?;
            self.calls[call]
                .confirmed
                .get_or_insert_default()
                .was_in_doubt = true;
        }
        Ok(())
    }

    /// It was not made for certain: whoever waits is told this error.
    fn told_error(&mut self, line: &Line, expected: ErrorKind) -> Check {
        let Some(told) = self.told(line)? else {
            return self.never_made(line, Fate::Never);
        };
        let told = told
            .map(|answer| answer.written)
            .map_err(|error: Error| error.kind());
        hold!(
            told == Err(expected),
            "{} was told {told:?} instead of {expected:?}",
            self.names(line)
        );
        self.never_made(line, Fate::Withdrawn)
    }

    /// It ends without having been made; no server may make it any more.
    pub(super) fn never_made(&mut self, line: &Line, fate: Fate) -> Check {
        // What was in doubt is barred by the server, as long as that does not forget it.
        if !self.confirmed(line)?.was_in_doubt {
            self.withdrawn.push(line.number);
        }
        self.end(line, fate);
        Ok(())
    }

    /// Nobody will know what has become of it. What it may have taken is set aside.
    fn stays_in_doubt(&mut self, line: &Line, state: &State) -> Check {
        if let Some(told) = self.told(line)? {
            let told = told
                .map(|answer| answer.written)
                .map_err(|error: Error| error.kind());
            hold!(
                told == Err(ErrorKind::InDoubt),
                "{} is in doubt for good, and was told {told:?}",
                self.names(line)
            );
        }
        let (aside, names) = (self.aside, self.names(line));
        if let Some(take) = &mut self.confirmed(line)?.take {
            let record = state
                .letters
                .get(aside)
                .filter(|record| record.taken.as_ref() == Some(&take.item));
            let is_doubtful = record.is_some_and(|record| record.may_have_been_made);
            hold!(
                is_doubtful,
                "(5) what {names} may have taken is not set aside: {:?}",
                state.letters.last()
            );
            take.owner = Some(Owner::Letter);
            self.aside += 1;
        }
        self.end(line, Fate::Unknown);
        Ok(())
    }

    /// A confirmed entry came to an end without being sent. Whether that is all there is to say.
    pub(super) fn confirmed_ended_unsent(
        &mut self,
        line: &Line,
        state: &State,
        mono: Monotonic,
    ) -> Check<bool> {
        if line.in_doubt {
            let is_too_old = line.written + TOMBSTONE_TTL <= mono;
            hold!(
                is_too_old,
                "(5) {} is in doubt, and is not asked for",
                self.names(line)
            );
            self.stays_in_doubt(line, state)?;
            return Ok(true);
        }
        if !self.is_awaited(line) {
            // Its caller was told that it is in doubt.
            self.never_made(line, Fate::Never)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// An attempt of a confirmed entry was answered.
    pub(super) fn confirmed_answered(
        &mut self,
        mut line: Line,
        state: &State,
        (attempt, drawn): (&Attempt, &Drawn),
        answer: &Result<Outcome, BackendError>,
    ) -> Check {
        let is_asked = attempt.retry.is_some();
        match answer {
            Ok(Outcome::Applied { existed, .. }) => self.was_made(&line, state, Some(*existed)),
            Ok(Outcome::AlreadyApplied(_)) => {
                hold!(
                    is_asked,
                    "rule 6: {} was made before it was sent",
                    self.names(&line)
                );
                self.was_made(&line, state, None)
            }
            Ok(Outcome::Refused(found)) => {
                if is_asked {
                    line.in_doubt = false;
                }
                let is_own = attempt.expects == Expects::Anything
                    && found.stamp() == attempt.stamp
                    && self.slot.value == drawn.after;
                if is_own {
                    // Two deletes may draw the same stamp: then there is nothing to do.
                    self.stored(&line)?;
                    self.end(&line, Fate::Done);
                } else if self.is_awaited(&line) {
                    self.lines.push_front(line);
                } else {
                    self.never_made(&line, Fate::Never)?;
                }
                Ok(())
            }
            Ok(Outcome::RecordExpired(_)) => {
                Err(format!("rule 6: {} was forgotten", self.names(&line)))
            }
            Err(error) if error.kind == BackendErrorKind::Rejected && is_asked => {
                self.stays_in_doubt(&line, state)
            }
            Err(error) if error.kind == BackendErrorKind::Rejected => {
                self.told_error(&line, ErrorKind::Rejected)
            }
            Err(_) => {
                self.lines.push_front(line);
                Ok(())
            }
        }
    }

    /// It was made: whoever waits is told so, and what nobody gets goes back. `existed`: whether
    /// the key was there, where the server has said so.
    fn was_made(&mut self, line: &Line, state: &State, existed: Option<bool>) -> Check {
        let told = self.told(line)?;
        self.end(line, Fate::Made);
        let call = line.call()?;
        let names = self.names(line);
        let Some(told) = told else {
            return self.goes_back(state, call);
        };
        let answer = told.map_err(|error| format!("{names} was made, and was told {error}"))?;
        hold!(
            answer.written == Written::Stored && answer.again.is_none(),
            "{names} was told {answer:?}"
        );
        let is_fact = existed.is_none_or(|existed| answer.existed == existed);
        hold!(
            is_fact,
            "{names} was told {answer:?}, and existed: {existed:?}"
        );
        let take = self.confirmed(line)?.take.as_mut();
        let name = take.is_some().then_some((state.writer(), line.id));
        hold!(
            answer.taken == name,
            "{names} was told that it has taken {:?}",
            answer.taken
        );
        if let Some((take, name)) = take.zip(name) {
            take.owner = Some(Owner::Handing(name));
        }
        Ok(())
    }

    /// What this call has taken was handed to nobody: it waits to be put back, or is set aside
    /// where there is no room.
    fn goes_back(&mut self, state: &State, call: usize) -> Check {
        let index = self.calls.len();
        let Some(take) = self.calls[call]
            .confirmed
            .as_mut()
            .and_then(|confirmed| confirmed.take.as_mut())
        else {
            return Ok(());
        };
        hold!(
            matches!(take.owner, None | Some(Owner::Handing(_))),
            "(5) {:?} goes back twice",
            take.item
        );
        let is_known = |id| self.lines.iter().any(|line| line.id == id);
        let brings = |entry: &&Entry| {
            let item = entry
                .write
                .take
                .as_ref()
                .filter(|take| take.back.is_none())
                .map(|take| &take.item);
            item == Some(&take.item)
                && !entry.write.is_confirmed
                && !entry.is_awaited()
                && !is_known(entry.identity.id)
        };
        let Some(entry) = state.outbox.last(KEY).filter(brings) else {
            let record = state
                .letters
                .get(self.aside)
                .filter(|record| record.taken.as_ref() == Some(&take.item));
            let is_full =
                record.is_some_and(|record| record.reason.kind() == ErrorKind::OutboxFull);
            hold!(is_full, "(5) what was taken is gone: {:?}", take.item);
            take.owner = Some(Owner::Letter);
            self.aside += 1;
            return Ok(());
        };
        take.owner = Some(Owner::Back(index));
        let operations = take.back.operations.clone();
        let calls: Vec<_> = entry
            .write
            .mutation
            .iter()
            .flat_map(Mutation::calls)
            .collect();
        let is_same = calls.len() == 1 && calls[0].operations == operations;
        hold!(
            is_same,
            "(5) it goes back by {calls:?} instead of {operations:?}"
        );
        let edits = Edits {
            stamp: calls[0].stamp.get(),
            ..take.back.clone()
        };
        let item: Value = serde_json::from_str(take.item.as_str()).expect("it is JSON");
        self.lines.push_back(Line {
            id: entry.identity.id,
            number: entry.identity.sequence,
            assignment: None,
            calls: vec![index],
            replaced: Vec::new(),
            skipped: Skipped::default(),
            is_vague: false,
            on: On::Anything,
            seen: None,
            fresh: false,
            tried: false,
            may_be_made: false,
            in_doubt: false,
            is_confirmed: false,
            returns: Some(take.item.clone()),
            latest: entry.write.latest.get(),
            written: take.written,
        });
        self.calls.push(Call {
            kind: Kind::Extend(vec![item]),
            tries: 0,
            edits,
            waiting: None,
            told: Some(Written::Queued),
            confirmed: None,
            fate: None,
            joined: Vec::new(),
            line: entry.identity.id,
        });
        self.is_changed = true;
        Ok(())
    }

    /// What is told and not handed out yet, by call.
    pub(super) fn handing(&self) -> impl Iterator<Item = (usize, (Writer, Sequence))> {
        self.calls
            .iter()
            .enumerate()
            .filter_map(|(call, Call { confirmed, .. })| {
                match confirmed.as_ref()?.take.as_ref()?.owner? {
                    Owner::Handing(name) => Some((call, name)),
                    _ => None,
                }
            })
    }
}

/// What was withdrawn must not be made any more; and callers take what was handed to them, or are
/// gone.
pub(super) fn go_on(world: &mut World<Book>, at: usize) -> Check {
    let process = &mut world.processes[at];
    for id in std::mem::take(&mut process.ledger.withdrawn) {
        world.server.withdraw(process.state.writer(), id)?;
    }
    for (call, name) in process.ledger.handing().collect::<Vec<_>>() {
        // Rather when the server is away: then others are queued behind what goes back.
        let one_of = if process.ledger.link == Link::Up {
            8
        } else {
            2
        };
        match world.random.u8(0..one_of) {
            0 => {
                process.state.handed(name);
                let confirmed = process.ledger.calls[call].confirmed.as_mut();
                if let Some(take) = confirmed.and_then(|confirmed| confirmed.take.as_mut()) {
                    take.owner = Some(Owner::Caller);
                }
            }
            1 => {
                process.state.not_handed(name);
                process.ledger.goes_back(&process.state, call)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A confirmed call was told one thing, and that is what happened.
pub(super) fn ends(world: &World<Book>, call: &Call, calls: &[Call], made: bool) -> Check {
    let Some(confirmed) = &call.confirmed else {
        return Ok(());
    };
    let (kind, fate) = (&call.kind, call.fate);
    let is_right = match (call.told, confirmed.error) {
        (None, None) => fate == Some(Fate::Again),
        (Some(Written::Stored), None) => matches!(fate, Some(Fate::Made | Fate::Done)),
        (None, Some(ErrorKind::InDoubt)) => {
            matches!(fate, Some(Fate::Made | Fate::Never | Fate::Unknown))
        }
        (None, Some(_)) => fate == Some(Fate::Withdrawn),
        _ => false,
    };
    hold!(
        is_right,
        "{kind:?} was told {:?} and {:?}, and is {fate:?}",
        call.told,
        confirmed.error
    );
    // A server that goes backwards may have made it before.
    let may_be_made = confirmed.was_in_doubt && world.server.has_forgotten();
    let is_right = match fate {
        Some(Fate::Made) => made,
        Some(Fate::Never | Fate::Withdrawn | Fate::Again | Fate::Done) => !made || may_be_made,
        _ => true,
    };
    hold!(is_right, "(5) {kind:?} is {fate:?}, and made: {made}");
    let Some(take) = &confirmed.take else {
        return Ok(());
    };
    let is_somewhere = match (fate, take.owner) {
        (Some(Fate::Made), Some(Owner::Back(back))) => {
            matches!(calls[back].fate, Some(Fate::Made | Fate::SetAside))
        }
        (Some(Fate::Made), owner) => matches!(owner, Some(Owner::Caller | Owner::Letter)),
        (Some(Fate::Unknown), owner) => owner == Some(Owner::Letter),
        (_, owner) => owner.is_none(),
    };
    hold!(
        is_somewhere,
        "(5) {:?} was taken by {kind:?}, which is {fate:?}, and is {:?}",
        take.item,
        take.owner
    );
    Ok(())
}
