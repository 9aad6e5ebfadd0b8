//! A process that changes parts of a value, and what the rules say of the answers that it gets.

use std::collections::VecDeque;
use std::rc::Rc;

use serde_json::{Value, json};

use super::super::rules::Rules;
use super::super::schedule::Act;
use super::super::server::{Held, KEY, Server};
use super::super::world::World;
use super::super::{Check, hold};
use super::book::{Asked, Book, Drawn, Fate, Line, Slot, value_of};
use super::calls::{On, Recorded};
use super::checks::{self, Made};
use super::confirmed::{self, Confirmed, Taken};
use super::document::{DEFAULT, as_json, completed, foreign};
use super::draws::together;
use super::kinds::Kind;
use super::plainly::plainly;
use super::reference::{Edit, Edits};
use crate::backend::commit::{Attempt, Expects, Outcome, Sequence};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::clock::Monotonic;
use crate::base::error::{ErrorKind, Result as Told};
use crate::base::policy::WritePolicy;
use crate::cache::Ticket;
use crate::client::state::{Link, Request, State};
use crate::pending::outbox::{Precondition, Take, Tried, Written};
use crate::value::envelope::{Text, Unsealed};
use crate::value::mutation::Mutation;

/// A call is recorded anew so many times; then its caller gives up.
const TRIES: u8 = 8;

#[derive(Debug)]
pub(in super::super) struct Log {
    pub(super) made: Made,
    /// What the whole is taken for while it is unset.
    origin: Rc<Value>,
    /// What is called.
    theme: u64,
}

impl Rules for Book {
    const WRITES: &'static [(Act, u32)] = &[(Act::Put, 26), (Act::GiveUp, 6)];
    const RARE: &'static [(Act, u32)] = &[];
    type Sent = Rc<Drawn>;
    type Log = Log;

    fn log(seed: u64) -> Log {
        let origin = if seed.is_multiple_of(2) {
            DEFAULT.clone()
        } else {
            json!({})
        };
        Log {
            made: Made::default(),
            origin: Rc::new(origin),
            theme: seed / 2,
        }
    }

    fn new() -> Self {
        Self {
            calls: Vec::new(),
            lines: VecDeque::new(),
            link: Link::Down,
            slot: Slot::default(),
            drawn: None,
            under_way: None,
            aside: 0,
            superseded: 0,
            again: Vec::new(),
            withdrawn: Vec::new(),
            origin: None,
            is_changed: false,
        }
    }

    fn write(world: &mut World<Self>, at: usize, _act: Act, random: &mut fastrand::Rng) -> Check {
        world.values += 10;
        let kind = Kind::drawn((at, world.values), world.log.theme, random);
        // Where there are many of them, few calls wait while the server is away.
        let are_many = world.log.theme.is_multiple_of(4);
        let is_confirmed = random.u8(0..if are_many { 2 } else { 8 }) == 0;
        let kind = if is_confirmed && are_many && random.bool() {
            Kind::taking(random)
        } else {
            kind
        };
        write(world, at, (kind, 0, is_confirmed))
    }

    fn foreign_set(world: &mut World<Self>, random: &mut fastrand::Rng) -> Check {
        world.values += 10;
        let mark = world.values;
        let document = foreign(mark, random);
        // Not just below what was there: a change on top would get the stamp again that was there
        // before.
        let standing = world.server.standing();
        let is_just_below = |stamp: u64| (1..=2).contains(&standing.saturating_sub(stamp));
        let stamp = world.foreign_stamp(None, random);
        let stamp = stamp.map(|stamp| {
            if is_just_below(stamp) {
                standing + 1
            } else {
                stamp
            }
        });
        // No two of them are equally long: a stamp and a length say what is there.
        let length = 1_000 + usize::try_from(mark).unwrap_or_default();
        let space = " ".repeat(length.saturating_sub(document.to_string().len()));
        let stored = match stamp {
            Some(stamp) => format!(r#"{{"value": {document}, {space}"last_modified": {stamp}}}"#),
            None => format!("{document}{space}"),
        };
        world.tell(|| format!("a foreign SET {document}, stamped {stamp:?}"));
        world
            .server
            .raw(Some((stored.into(), stamp.unwrap_or(0))), world.mono())
    }

    fn commit(
        server: &mut Server,
        log: &mut Log,
        attempt: &Attempt,
        drawn: &Rc<Drawn>,
        mono: Monotonic,
    ) -> Check<Outcome> {
        let before = server.held(mono);
        let outcome = server.commit(attempt, None, mono)?;
        if matches!(outcome, Outcome::Applied { .. }) {
            hold!(!drawn.asks, "rule 5: a question was taken for a change");
            if attempt.expects != Expects::Anything {
                let before = value_of(before.as_ref().map(|held| &held.bytes));
                hold!(
                    before == drawn.before,
                    "(4) it was made on {before:?} instead of {:?}",
                    drawn.before
                );
                let other = drawn
                    .saw
                    .iter()
                    .find(|saw| !saw.is_there(before.as_deref()));
                hold!(
                    other.is_none(),
                    "(8) a closure that saw {other:?} was made on {before:?}"
                );
            }
            let after = value_of(server.held(mono).as_ref().map(|held| &held.bytes));
            hold!(
                after == drawn.after,
                "(4) the server has {after:?} instead of {:?}",
                drawn.after
            );
            checks::together(after.as_deref())?;
            log.made.take_in(attempt, drawn);
        }
        Ok(outcome)
    }

    fn ended(world: &World<Self>, at: usize) -> Check {
        checks::ends(world, at)
    }

    fn finished(world: &World<Self>, held: Option<&Held>) -> Check {
        checks::pushes_and_sums(world, held)
    }

    fn go_on(world: &mut World<Self>, at: usize) -> Check {
        confirmed::go_on(world, at)?;
        for call in std::mem::take(&mut world.processes[at].ledger.again) {
            let call = &world.processes[at].ledger.calls[call];
            let (kind, tries, is_confirmed) =
                (call.kind.clone(), call.tries + 1, call.confirmed.is_some());
            if tries < TRIES {
                write(world, at, (kind, tries, is_confirmed))?;
            }
        }
        Ok(())
    }

    fn awaited(&self) -> Vec<Sequence> {
        // Those in doubt come first: there are few of them.
        let is_rare = |line: &&Line| line.in_doubt && self.is_awaited(line);
        let all = || self.lines.iter().filter(|line| self.is_awaited(line));
        let rare: Vec<_> = all().filter(is_rare).map(|line| line.id).collect();
        if rare.is_empty() {
            all().map(|line| line.id).collect()
        } else {
            rare
        }
    }

    fn give_up(&mut self, state: &mut State, sequence: Sequence) -> Check {
        match self.lines.iter().position(|line| line.id == sequence) {
            Some(line) if self.lines[line].is_confirmed => self.give_up_confirmed(state, line),
            _ => {
                state.outbox.report_queued(KEY, sequence);
                self.promised(sequence)
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.handing().next().is_none()
    }

    fn promised(&mut self, sequence: Sequence) -> Check {
        match self.lines.iter().position(|line| line.id == sequence) {
            Some(line) => self.promise(line),
            None => Ok(()),
        }
    }

    fn drawn(&mut self, state: &State, batch: &[Attempt], mono: Monotonic) -> Check<Vec<Sequence>> {
        let withdrawn = self.take_drawn(state, batch, mono)?;
        hold!(
            self.lines.is_empty() || !batch.is_empty(),
            "rule 2: {:?} is not sent",
            self.lines.front()
        );
        Ok(withdrawn)
    }

    fn drawn_by_its_caller(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> Check<Vec<Sequence>> {
        self.take_drawn(state, batch, mono)
    }

    fn sent(&mut self, attempt: &Attempt, ticket: Ticket) -> Rc<Drawn> {
        let drawn = self.drawn.take().expect("what is sent was drawn");
        self.under_way = Some((attempt.sequence, ticket, Rc::clone(&drawn)));
        drawn
    }

    fn answered(
        &mut self,
        state: &State,
        (attempt, ticket): (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<Held>,
    ) -> Check<Vec<Sequence>> {
        let sent = (attempt.sequence, ticket);
        let Some((.., drawn)) = self
            .under_way
            .take_if(|(sequence, ticket, _)| (*sequence, *ticket) == sent)
        else {
            return Ok(Vec::new());
        };
        if answer.is_ok() {
            self.slot_follows(ticket, held.map(|held| held.bytes));
        }
        let mut line = self
            .lines
            .pop_front()
            .ok_or("(5) what was sent is not pending")?;
        if line.is_confirmed {
            self.is_changed = true;
            self.confirmed_answered(line, state, (attempt, &drawn), answer)?;
            return Ok(Vec::new());
        }
        let is_assigned = line.assignment.is_some();
        match answer {
            Ok(Outcome::Applied { .. }) => {
                self.stored(&line)?;
                self.end(&line, Fate::Made);
                let shared = self.share_superseded(state, &line.skipped)?;
                self.count(state, together(drawn.superseded, shared))?;
            }
            Ok(Outcome::AlreadyApplied(found)) => {
                let newer = line.calls.is_empty() && found.stamp() > attempt.stamp;
                self.stored(&line)?;
                self.count(state, if newer { Some(true) } else { None })?;
                self.end(&line, if newer { Fate::Superseded } else { Fate::Made });
                self.share_superseded(state, &line.skipped)?;
            }
            Ok(Outcome::Refused(found)) => {
                let is_own =
                    is_assigned && found.stamp() == attempt.stamp && self.slot.value == drawn.after;
                let is_deleted =
                    !is_assigned && found.stored.is_none() && found.stamp() >= attempt.stamp;
                if attempt.retry.is_some() {
                    line.in_doubt = false;
                }
                if is_own {
                    self.count(state, Some(false))?;
                    self.stored(&line)?;
                    // Two deletes may draw the same stamp: then there is nothing to do.
                    self.end(&line, Fate::Done);
                } else if is_assigned && !line.fresh {
                    self.count(state, Some(true))?;
                    self.stored(&line)?;
                    if let Some((_, call)) = line.assignment.take() {
                        self.calls[call].fate = Some(Fate::Superseded);
                    }
                    // The changes of parts go on without it, but for closures that were made on it.
                    if !line.calls.is_empty() {
                        self.lines.push_front(line);
                    }
                    self.share(state, Self::everything_is_gone(), Fate::Superseded)?;
                } else if is_deleted && !line.fresh && !self.is_done_where_nothing_is(&line, state)
                {
                    return self.given_up(&line, state, ErrorKind::Conflict);
                } else {
                    self.lines.push_front(line);
                }
            }
            Ok(Outcome::RecordExpired(_)) => {
                return Err(format!("rule 6: {} was forgotten", self.names(&line)));
            }
            Err(error) if error.kind == BackendErrorKind::Rejected => {
                return self.given_up(&line, state, ErrorKind::Rejected);
            }
            Err(_) => self.lines.push_front(line),
        }
        self.is_changed = true;
        Ok(Vec::new())
    }

    fn read(&mut self, ticket: Ticket, held: Option<Held>) {
        // With a change in doubt nobody knows whether it is in there; its retry will tell.
        let is_in_doubt = self
            .lines
            .front()
            .is_some_and(|line| line.in_doubt && !line.calls.is_empty());
        self.is_changed |= is_in_doubt;
        if !is_in_doubt {
            self.slot_follows(ticket, held.map(|held| held.bytes));
        }
    }

    fn connected(&mut self, shift: Option<i64>) {
        self.link = Link::Up;
        let by = shift.unwrap_or(0);
        for line in self.lines.iter().filter(|line| !line.tried) {
            for call in line.all_calls() {
                let stamp = &mut self.calls[call].edits.stamp;
                *stamp = crate::base::clock::Stamp::new(*stamp).shifted(by).get();
            }
        }
        self.is_changed = true;
    }

    fn interrupted(&mut self, link: Link) -> Check {
        self.link = link;
        let under_way = self.under_way.take().map(|(_, _, drawn)| drawn.id);
        for line in 0..self.lines.len() {
            self.lines[line].in_doubt |= under_way == Some(self.lines[line].id);
            if !self.lines[line].is_confirmed {
                self.lines[line].fresh = false;
                self.promise(line)?;
            }
        }
        self.confirmed_interrupted(link == Link::Busy)
    }

    fn thawed(&mut self) {
        self.link = Link::Up;
    }

    fn audit(&mut self, state: &State, _version: u64, mono: Monotonic) -> Check {
        hold!(
            state.link == self.link,
            "the link is {:?} instead of {:?}",
            state.link,
            self.link
        );
        self.nothing_is_told()?;
        let ids: Vec<_> = state
            .outbox
            .of(KEY)
            .map(|entry| (entry.identity.id, entry.attempt.tried == Tried::InDoubt))
            .collect();
        let own: Vec<_> = self
            .lines
            .iter()
            .map(|line| (line.id, line.in_doubt))
            .collect();
        hold!(ids == own, "(5) {ids:?} is queued instead of {own:?}");
        for (line, entry) in self.lines.iter_mut().zip(state.outbox.of(KEY)) {
            line.latest = entry.write.latest.get();
        }
        for (line, entry) in self.lines.iter().zip(state.outbox.of(KEY)) {
            self.audit_compared(line, entry)?;
        }
        hold!(
            state.letters.len() == self.aside,
            "(5) {:?} is set aside",
            state.letters.last()
        );
        hold!(
            state.superseded == self.superseded,
            "(5) {} are superseded",
            state.superseded
        );
        if std::mem::take(&mut self.is_changed) {
            let shown = value_of(state.view(KEY, mono).stored.as_ref());
            checks::own_writes(self, shown.as_deref())?;
            checks::together(shown.as_deref())?;
        }
        Ok(())
    }
}

impl Book {
    /// Whoever waits must have been told that it is stored.
    pub(super) fn stored(&mut self, line: &Line) -> Check {
        let told: Option<Told<_>> = self.told(line)?;
        let is_stored = told.as_ref().is_none_or(|told| {
            told.as_ref()
                .is_ok_and(|answer| answer.written == Written::Stored && answer.again.is_none())
        });
        hold!(is_stored, "{} was told {told:?}", self.names(line));
        Ok(())
    }
}

/// A process calls something.
fn write(
    world: &mut World<Book>,
    at: usize,
    (kind, tries, is_confirmed): (Kind, u8, bool),
) -> Check {
    let (mono, moment) = (world.mono(), world.moment(at));
    let origin = Rc::clone(&world.log.origin);
    let process = &mut world.processes[at];
    process.ledger.origin = Some(Rc::clone(&origin));
    let view = process.state.view(KEY, mono);
    let text = view.value();
    let shown = value_of(view.stored.as_ref());
    let json = as_json(&origin);
    let Some(recorded) = kind.recorded(text.as_ref().map(Text::as_str), &json) else {
        world.tell(|| format!("{at} cannot call {kind:?}"));
        return Ok(());
    };
    let mut confirmed = is_confirmed.then(Confirmed::default);
    let (request, asked, on) = match recorded {
        Recorded::Nothing => return Ok(()),
        Recorded::Assign(value) => {
            let request = Request::Put {
                value: Unsealed::of_text(&value.to_string()),
                ttl: None,
            };
            (request, Asked::Assign(Some(value)), On::Anything)
        }
        Recorded::Delete => (Request::Delete, Asked::Assign(None), On::Anything),
        Recorded::Change(operations, on) => {
            let edits = kind.edits(&operations, shown.as_deref(), &origin)?;
            let taken = if is_confirmed {
                kind.taken(text.as_ref().map(Text::as_str), &json)
            } else {
                None
            };
            let (on, take) = match taken.zip(confirmed.as_mut()) {
                None => (on, None),
                Some(((item, back), confirmed)) => {
                    let mut left = completed(shown.as_deref());
                    plainly(&kind, &mut left);
                    let all = vec![Edit::of(&back, Some(&left), Some(&origin))];
                    let operations = vec![back.clone()];
                    let edits = Edits {
                        all,
                        operations,
                        ..Edits::default()
                    };
                    confirmed.take = Some(Taken::new(item.clone(), edits, mono));
                    let back = Some(Mutation::new(Some(json.clone()), vec![back]));
                    (On::Whole, Some(Take { item, back }))
                }
            };
            let exact = match on {
                On::Anything => None,
                On::Places => Some(Precondition::Places),
                On::Whole => Some(Precondition::Whole(view.stored.clone())),
            };
            let is_compared = kind.is_closure();
            let record = if is_compared {
                Mutation::compared
            } else {
                Mutation::new
            };
            let mutation = record(Some(json), operations.clone());
            let request = Request::Mutate {
                mutation,
                ttl: None,
                exact,
                take,
            };
            (
                request,
                Asked::Change(Edits {
                    stamp: 0,
                    is_compared,
                    all: edits,
                    operations,
                    shown,
                }),
                on,
            )
        }
    };
    let said = kind.clone();
    let policy = if is_confirmed {
        WritePolicy::Confirmed
    } else {
        WritePolicy::Through
    };
    match process.state.write(&world.key, request, policy, moment) {
        Ok(accepted) => {
            let is_away = is_confirmed && process.state.link != Link::Up;
            hold!(
                !is_away,
                "{said:?} is confirmed, and was accepted without the server"
            );
            let sequence = accepted.sequence;
            process.ledger.accepted(
                &process.state,
                (kind, tries, confirmed),
                asked,
                (on, text),
                (accepted, mono),
            )?;
            world.tell(|| {
                format!(
                    "{at} calls {said:?}, as {sequence}{}",
                    if is_confirmed { ", confirmed" } else { "" }
                )
            });
        }
        Err(error) => {
            let is_away = is_confirmed && process.state.link != Link::Up;
            let expected = if is_away {
                ErrorKind::Unavailable
            } else {
                ErrorKind::OutboxFull
            };
            hold!(
                error.kind() == expected,
                "rule 2: {said:?} was refused: {error}"
            );
            world.tell(|| format!("{at} calls {said:?}, and is refused: {error}"));
        }
    }
    Ok(())
}
