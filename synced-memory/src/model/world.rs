//! Three processes with wrong clocks, their connections to one server, and what goes wrong there.

use super::ledger::{Fate, Ledger};
use super::server::{Held, KEY, Server, TOMBSTONE_TTL};
use super::{Check, hold};
use crate::cache::{Ticket, Version};
use crate::clock::{Moment, Mono};
use crate::commit::{Attempt, Outcome, Writer};
use crate::envelope::Unsealed;
use crate::error::{Error, ErrorKind};
use crate::fault::{Fault, FaultKind};
use crate::state::{Link, Request, State};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) act: Act,
    pub(super) process: usize,
    /// The seed of whatever is drawn in this step.
    pub(super) roll: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Put,
    PutForAWhile,
    Delete,
    /// A caller's time is over: its write is promised.
    GiveUp,
    Connect,
    /// The flusher sends the next batch.
    Send,
    /// The server handles one request of any connection.
    Serve,
    /// One answer of any connection arrives.
    Deliver,
    /// Sends what waits; all of it is handled and answered.
    Round,
    Read,
    /// An answer to a read is taken in late, after the answers to later requests.
    HandleLate,
    Lose,
    GoDown,
    ComeUp,
    /// The server takes no writes, or none of ours.
    Balk,
    Thaw,
    ForeignSet,
    ForeignDelete,
    Flush,
    Replicate,
    FailOver,
    Close,
    Wait,
    WaitForDays,
}

impl Act {
    /// With how often they come.
    pub(super) const USUAL: &[(Self, u32)] = &[
        (Self::Put, 14),
        (Self::Delete, 6),
        (Self::Connect, 10),
        (Self::Send, 12),
        (Self::Serve, 16),
        (Self::Deliver, 12),
        (Self::Round, 10),
        (Self::Read, 6),
    ];
    pub(super) const FAULTS: &[(Self, u32)] = &[
        (Self::PutForAWhile, 6),
        (Self::GiveUp, 6),
        (Self::HandleLate, 4),
        (Self::Lose, 10),
        (Self::GoDown, 3),
        (Self::ComeUp, 6),
        (Self::Balk, 4),
        (Self::Thaw, 8),
        (Self::ForeignSet, 6),
        (Self::ForeignDelete, 4),
        (Self::Flush, 3),
        (Self::Replicate, 4),
        (Self::FailOver, 3),
        (Self::Close, 4),
        (Self::Wait, 5),
        (Self::WaitForDays, 1),
    ];
}

/// What the server makes of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Busy,
    Elsewhere,
    Refusing,
    /// It has forgotten the script, until it is sent again.
    Forgetful,
}

#[derive(Debug)]
struct Process {
    state: State,
    version: Version,
    ledger: Ledger,
    /// Its clock without the server's.
    ahead: i64,
    was_connected: bool,
    wire: Option<usize>,
    /// Callers may use the connection: what was in doubt has been sent.
    live: bool,
    under_way: bool,
    tickets: Ticket,
    late: Vec<(Ticket, Option<Held>)>,
}

impl Process {
    fn new(ahead: i64, random: &mut fastrand::Rng) -> Self {
        let limit = if random.u8(0..8) == 0 { 700 } else { 1 << 20 };
        let mut state = State::new(limit, TOMBSTONE_TTL, random.fork());
        let version = state.cache.hold(&KEY.into());
        Self {
            state,
            version,
            ledger: Ledger::new(),
            ahead,
            was_connected: false,
            wire: None,
            live: false,
            under_way: false,
            tickets: 0,
            late: Vec::new(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    fn lost(&mut self, mono: Mono) -> Check {
        self.live = false;
        self.under_way = false;
        self.wire = None;
        self.state.lost(Error::new(ErrorKind::Unavailable, "lost"), mono);
        self.ledger.interrupted(Link::Down)
    }
}

/// A connection. Requests are handled in their order, answers arrive in theirs.
#[derive(Debug)]
struct Wire {
    process: usize,
    writer: Writer,
    requests: VecDeque<Asked>,
    answers: VecDeque<Answered>,
    /// The process has given it up; what the server still gets is late.
    dead: bool,
    /// Its answers still arrive.
    heard: bool,
    /// Nothing reaches the server any more.
    cut: bool,
}

impl Wire {
    fn ask(&mut self, asked: Asked) {
        if !self.cut {
            self.requests.push_back(asked);
        }
    }
}

#[derive(Debug)]
enum Asked {
    Commit { attempt: Attempt, over: Option<Mono>, ticket: Ticket },
    Read(Ticket),
    Forget,
}

#[derive(Debug)]
enum Answered {
    Commit { attempt: Attempt, ticket: Ticket, answer: Result<Outcome, Fault>, held: Option<Held> },
    Read(Ticket, Option<Held>),
}

#[derive(Debug)]
pub(super) struct World {
    /// The server's clock, since the beginning.
    nanos: u64,
    server: Server,
    mood: Mood,
    up: bool,
    processes: Vec<Process>,
    wires: Vec<Wire>,
    values: u64,
    key: Arc<str>,
    random: fastrand::Rng,
    tale: Option<Vec<String>>,
}

const BEGINNING: u64 = 1_700_000_000_000_000_000;
const HOUR: i64 = 3_600_000_000_000;

/// One of them, at random.
fn one_of<T: Copy>(random: &mut fastrand::Rng, of: &[T]) -> T {
    of[random.usize(0..of.len())]
}

impl World {
    pub(super) fn new(seed: u64, tells: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(!seed);
        let mut process = || {
            let ahead = one_of(&mut random, &[0, 0, 5_000, -5_000, HOUR, -HOUR]);
            Process::new(ahead, &mut random)
        };
        let processes = vec![process(), process(), process()];
        Self {
            nanos: 0,
            server: Server::new(),
            mood: Mood::Well,
            up: true,
            processes,
            wires: Vec::new(),
            values: 0,
            key: KEY.into(),
            random,
            tale: tells.then(Vec::new),
        }
    }

    pub(super) fn tale(&self) -> &[String] {
        self.tale.as_deref().unwrap_or_default()
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(tale) = &mut self.tale {
            tale.push(what());
        }
    }

    fn mono(&self) -> Mono {
        Duration::from_nanos(self.nanos)
    }

    pub(super) fn step(&mut self, step: &Step) -> Check {
        let mut random = fastrand::Rng::with_seed(step.roll);
        self.nanos += one_of(&mut random, &[0, 300, 5_000, 1_000_000]);
        let at = step.process;
        match step.act {
            Act::Put => {
                self.write(at, true, None)?;
                if random.bool() {
                    self.send_own(at)?;
                }
            }
            Act::PutForAWhile => {
                let ttl = Duration::from_millis(one_of(&mut random, &[1, 2_000, 20_000]));
                self.write(at, true, Some(ttl))?;
            }
            Act::Delete => self.write(at, false, None)?,
            Act::GiveUp => self.give_up(at, &mut random)?,
            Act::Connect => self.connect(at, &mut random)?,
            Act::Send if random.u8(0..16) == 0 => self.lose_before_sending(at)?,
            Act::Send => self.send(at)?,
            Act::Serve => self.serve_any(&mut random)?,
            Act::Deliver => self.deliver_any(&mut random)?,
            Act::Round => self.round(at, &mut random)?,
            Act::Read => self.read(at)?,
            Act::HandleLate => self.handle_late(at, &mut random)?,
            Act::Lose => self.lose(at, &mut random)?,
            Act::GoDown => self.go_down(&mut random),
            Act::ComeUp => self.up = true,
            Act::Balk => {
                let moods = [Mood::Busy, Mood::Elsewhere, Mood::Refusing, Mood::Forgetful];
                self.mood = one_of(&mut random, &moods);
            }
            Act::Thaw => self.mood = Mood::Well,
            Act::ForeignSet if self.up => self.set_raw(&mut random)?,
            Act::ForeignDelete if self.up => {
                self.tell(|| "a foreign DEL".to_owned());
                self.server.raw(None, Duration::from_nanos(self.nanos))?;
            }
            Act::Flush if self.up => {
                self.tell(|| "FLUSHALL".to_owned());
                self.server.flush(Duration::from_nanos(self.nanos));
            }
            Act::Replicate => self.server.replicate(),
            Act::FailOver => {
                self.tell(|| "the replica takes over".to_owned());
                self.server.fail_over(Duration::from_nanos(self.nanos))?;
            }
            Act::ForeignSet | Act::ForeignDelete | Act::Flush => {}
            Act::Close => self.close(at)?,
            Act::Wait => self.nanos += random.u64(0..3_000_000_000),
            Act::WaitForDays => self.nanos += 9 * 24 * 3_600_000_000_000 + random.u64(0..3 * 24 * 3_600_000_000_000),
        }
        self.audit(at)
    }

    fn audit(&mut self, at: usize) -> Check {
        let mono = self.mono();
        let process = &mut self.processes[at];
        process
            .ledger
            .audit(&process.state, process.version.load(Ordering::Relaxed), mono)
            .map_err(|broken| format!("process {at}: {broken}"))
    }

    fn write(&mut self, at: usize, puts: bool, ttl: Option<Duration>) -> Check {
        self.values += 1;
        let (value, mono) = (self.values, self.mono());
        let process = &mut self.processes[at];
        let moment = Moment { mono, now: (BEGINNING + self.nanos).saturating_add_signed(process.ahead) };
        let request = if puts {
            let value = Unsealed::encode(&value).expect("a number is JSON");
            Request::Put { value, ttl }
        } else {
            Request::Delete
        };
        let existed = process.state.view(KEY, mono).stored.is_some();
        match process.state.write(&self.key, request, moment) {
            Ok(accepted) => {
                let sequence = accepted.sequence;
                let asked = (puts.then_some(value), ttl);
                process.ledger.accepted(&process.state, asked, moment, existed, accepted)?;
                let stamp = process.ledger.last_stamp();
                self.tell(|| {
                    let what = if puts { format!("puts {value}") } else { "deletes".to_owned() };
                    format!("{at} {what} for {ttl:?} as {sequence}, stamped {stamp:?}")
                });
                Ok(())
            }
            Err(error) => {
                let full = error.kind() == ErrorKind::OutboxFull && process.ledger.last_stamp().is_some();
                hold!(full, "rule 2: a write was refused: {error}");
                Ok(())
            }
        }
    }

    fn give_up(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
        let process = &mut self.processes[at];
        let awaited: Vec<_> = process.ledger.awaited().collect();
        if awaited.is_empty() {
            return Ok(());
        }
        let sequence = one_of(random, &awaited);
        process.state.outbox.promise(KEY, sequence);
        process.ledger.promised(sequence)?;
        self.tell(|| format!("{at} waits for {sequence} no longer"));
        Ok(())
    }

    fn connect(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
        let process = &mut self.processes[at];
        if !self.up || process.wire.is_some() {
            return Ok(());
        }
        let ahead = random.i64(-2_000..2_000);
        let first = !std::mem::replace(&mut process.was_connected, true);
        let shift = first.then_some(ahead - process.ahead);
        process.ahead = ahead;
        process.state.connected(shift);
        process.ledger.connected(shift);
        process.wire = Some(self.wires.len());
        let (requests, answers) = (VecDeque::new(), VecDeque::new());
        let writer = process.state.writer();
        self.wires.push(Wire { process: at, writer, requests, answers, dead: false, heard: true, cut: false });
        self.tell(|| format!("{at} connects"));
        Ok(())
    }

    /// The flusher sends what is next, as far as nothing is under way.
    fn send(&mut self, at: usize) -> Check {
        let process = &mut self.processes[at];
        if process.wire.is_none() || process.under_way {
            return Ok(());
        }
        let batch = self.draw(at)?;
        self.processes[at].live = true;
        self.put_on_the_wire(at, batch)
    }

    /// A caller sends what it has just written, where nothing stands before it.
    fn send_own(&mut self, at: usize) -> Check {
        let mono = self.mono();
        let process = &mut self.processes[at];
        if !process.live {
            return Ok(());
        }
        let attempt = process.state.take_small(&self.key, 1 << 10, mono);
        let withdrawn = process.ledger.drawn_by_its_caller(attempt.as_slice(), mono);
        if let Some(sequence) = withdrawn.map_err(|broken| format!("process {at}: {broken}"))? {
            self.server.withdraw(process.state.writer(), sequence)?;
        }
        self.put_on_the_wire(at, attempt.into_iter().collect())
    }

    fn put_on_the_wire(&mut self, at: usize, batch: Vec<Attempt>) -> Check {
        let process = &mut self.processes[at];
        let Some((wire, attempt)) = process.wire.zip(batch.first().cloned()) else {
            return Ok(());
        };
        let ticket = process.ticket();
        process.state.sent(&batch, ticket);
        process.ledger.sent(attempt.sequence, ticket);
        process.under_way = true;
        let over = process.ledger.over(attempt.sequence);
        self.tell(|| format!("{at} sends {}, stamped {} (ticket {ticket})", attempt.sequence, attempt.stamp));
        self.wires[wire].ask(Asked::Commit { attempt, over, ticket });
        Ok(())
    }

    fn draw(&mut self, at: usize) -> Check<Vec<Attempt>> {
        let mono = self.mono();
        let process = &mut self.processes[at];
        let batch = process.state.next_batch(512, 1 << 20, mono);
        let withdrawn = process.ledger.drawn(&batch, mono).map_err(|broken| format!("process {at}: {broken}"))?;
        for sequence in withdrawn {
            self.server.withdraw(process.state.writer(), sequence)?;
        }
        Ok(batch)
    }

    /// A caller gives the connection up when the flusher has drawn a batch and not yet sent it.
    fn lose_before_sending(&mut self, at: usize) -> Check {
        let Some(wire) = self.processes[at].wire.filter(|_| !self.processes[at].under_way) else {
            return Ok(());
        };
        let batch = self.draw(at)?;
        self.processes[at].state.put_back(&batch);
        self.wires[wire].dead = true;
        self.tell(|| format!("{at} draws a batch, and then the connection is given up"));
        self.processes[at].lost(Duration::from_nanos(self.nanos))
    }

    fn read(&mut self, at: usize) -> Check {
        let process = &mut self.processes[at];
        if let Some(wire) = process.wire.filter(|_| process.live) {
            let ticket = process.ticket();
            self.wires[wire].ask(Asked::Read(ticket));
            self.tell(|| format!("{at} reads (ticket {ticket})"));
        }
        Ok(())
    }

    fn serve_any(&mut self, random: &mut fastrand::Rng) -> Check {
        let waiting: Vec<_> = (0..self.wires.len()).filter(|wire| !self.wires[*wire].requests.is_empty()).collect();
        if waiting.is_empty() || !self.up { Ok(()) } else { self.serve(one_of(random, &waiting)) }
    }

    fn serve(&mut self, wire: usize) -> Check {
        let mono = self.mono();
        let Wire { process, writer, requests, .. } = &mut self.wires[wire];
        let (at, writer) = (*process, *writer);
        let Some(asked) = requests.pop_front() else {
            return Ok(());
        };
        let answered = match asked {
            Asked::Commit { attempt, over, ticket } => {
                let answer = match self.mood {
                    Mood::Well => Ok(self.server.commit(&attempt, over, mono)?),
                    Mood::Busy => Err(Fault::busy("OOM")),
                    Mood::Elsewhere => Err(Fault::elsewhere("READONLY")),
                    Mood::Refusing => Err(Fault::refused("NOPERM")),
                    Mood::Forgetful => Err(Fault::again(Fault::refused("NOSCRIPT"))),
                };
                if self.mood == Mood::Forgetful {
                    self.mood = Mood::Well;
                }
                self.tell(|| format!("    the server on {}/{}: {answer:?}", at, attempt.sequence));
                Answered::Commit { attempt, ticket, answer, held: self.server.held(mono) }
            }
            Asked::Read(ticket) => {
                let held = self.server.held(mono);
                self.tell(|| format!("    the server on the read {ticket} of {at}: {held:?}"));
                Answered::Read(ticket, held)
            }
            Asked::Forget => {
                self.server.forget(writer, mono)?;
                self.tell(|| format!("    the server forgets the closed {at}"));
                return Ok(());
            }
        };
        if self.wires[wire].heard {
            self.wires[wire].answers.push_back(answered);
        }
        Ok(())
    }

    fn deliver_any(&mut self, random: &mut fastrand::Rng) -> Check {
        let waiting: Vec<_> = (0..self.wires.len()).filter(|wire| !self.wires[*wire].answers.is_empty()).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        self.deliver(one_of(random, &waiting), random.u8(0..4) == 0)
    }

    /// An answer arrives. One to a read may be taken in later, by its caller's thread.
    fn deliver(&mut self, wire: usize, later: bool) -> Check {
        let Wire { process: at, writer, answers, dead, .. } = &mut self.wires[wire];
        let (at, writer, dead) = (*at, *writer, *dead);
        let process = &mut self.processes[at];
        let Some(answered) = answers.pop_front().filter(|_| process.state.writer() == writer) else {
            return Ok(());
        };
        match answered {
            Answered::Read(ticket, held) if later => process.late.push((ticket, held)),
            Answered::Read(ticket, held) => self.take_in(at, ticket, held)?,
            Answered::Commit { attempt, ticket, answer, held } => {
                process.state.answered(&attempt, ticket, answer.clone());
                let withdrawn = process.ledger.answered(&process.state, (&attempt, ticket), &answer, held);
                if let Some(sequence) = withdrawn.map_err(|broken| format!("process {at}: {broken}"))? {
                    self.server.withdraw(writer, sequence)?;
                }
                if !dead {
                    self.go_on(at, wire, &answer)?;
                }
                self.tell(|| format!("{at} takes in the answer to {} (ticket {ticket})", attempt.sequence));
            }
        }
        self.audit(at)
    }

    /// What the flusher does once it has an answer.
    fn go_on(&mut self, at: usize, wire: usize, answer: &Result<Outcome, Fault>) -> Check {
        let process = &mut self.processes[at];
        process.under_way = false;
        match answer {
            Err(Fault { kind: kind @ (FaultKind::Busy | FaultKind::Elsewhere), .. }) => {
                process.state.busy(Error::new(ErrorKind::Unavailable, "busy"));
                process.ledger.interrupted(Link::Busy)?;
                if *kind == FaultKind::Elsewhere {
                    self.wires[wire].dead = true;
                    self.processes[at].lost(Duration::from_nanos(self.nanos))?;
                }
            }
            _ if process.state.link == Link::Busy => {
                process.state.link = Link::Up;
                process.ledger.thawed();
            }
            _ => {}
        }
        Ok(())
    }

    fn take_in(&mut self, at: usize, ticket: Ticket, held: Option<Held>) -> Check {
        self.tell(|| format!("{at} takes in the answer to the read {ticket}"));
        let process = &mut self.processes[at];
        process.state.read(KEY, ticket, held.as_ref().map(|held| held.bytes.clone()));
        process.ledger.read(ticket, held);
        self.audit(at)
    }

    fn handle_late(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
        let late = &mut self.processes[at].late;
        if late.is_empty() {
            return Ok(());
        }
        let (ticket, held) = late.swap_remove(random.usize(0..late.len()));
        self.take_in(at, ticket, held)
    }

    /// Sends what waits; what is on the connection is handled and answered.
    fn round(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
        self.send(at)?;
        if !self.up {
            return Ok(());
        }
        let Some(wire) = self.processes[at].wire else {
            return Ok(());
        };
        while !self.wires[wire].requests.is_empty() {
            self.serve(wire)?;
        }
        while !self.wires[wire].answers.is_empty() {
            self.deliver(wire, random.u8(0..4) == 0)?;
        }
        Ok(())
    }

    /// A process gives its connection up. What was asked on it may yet reach the server, some of it
    /// or never; the answers may yet arrive, or not.
    fn lose(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
        let Some(wire) = self.processes[at].wire else {
            return Ok(());
        };
        let Wire { requests, answers, dead, heard, .. } = &mut self.wires[wire];
        *dead = true;
        *heard = random.u8(0..4) == 0;
        if !*heard {
            answers.clear();
        }
        if random.bool() {
            requests.truncate(random.usize(0..=requests.len()));
        }
        let left = requests.len();
        self.tell(|| format!("{at} loses its connection, {left} requests are late"));
        self.processes[at].lost(Duration::from_nanos(self.nanos))
    }

    /// The server goes away with what it was asked, and keeps what it holds.
    fn go_down(&mut self, random: &mut fastrand::Rng) {
        self.up = false;
        for wire in &mut self.wires {
            if random.bool() {
                wire.requests.clear();
                wire.cut = true;
            }
        }
        self.tell(|| "the server is away".to_owned());
    }

    /// Somebody else stores bytes, without a stamp or with any.
    fn set_raw(&mut self, random: &mut fastrand::Rng) -> Check {
        self.values += 1;
        let (value, now) = (self.values, BEGINNING + self.nanos);
        let pending = self.processes[random.usize(0..3)].ledger.last_stamp();
        let stamp = match random.u8(0..6) {
            0 => None,
            1 => Some(now),
            2 => Some(now.saturating_add_signed(random.i64(-HOUR..HOUR))),
            3 => Some(self.server.standing().saturating_add_signed(random.i64(-2..2))),
            4 => Some(pending.unwrap_or(now)),
            _ => Some(now.saturating_add_signed(random.i64(-5_000..5_000))),
        };
        let stored = match stamp {
            Some(stamp) => format!(r#"{{"value": {value}, "last_modified": {stamp}}}"#),
            None => value.to_string(),
        };
        self.tell(|| format!("a foreign SET {stored}"));
        self.server.raw(Some((stored.into(), stamp.unwrap_or(0))), self.mono())
    }

    /// A process that has delivered everything drops its records and ends; another one begins.
    fn close(&mut self, at: usize) -> Check {
        let process = &mut self.processes[at];
        let Some(wire) = process.wire.filter(|_| process.live && process.state.outbox.len() == 0) else {
            return Ok(());
        };
        if !process.state.take_recorded().is_empty() {
            self.wires[wire].ask(Asked::Forget);
        }
        (self.wires[wire].dead, self.wires[wire].heard) = (true, false);
        self.ended(at)?;
        let ahead = self.processes[at].ahead;
        self.processes[at] = Process::new(ahead, &mut self.random);
        self.tell(|| format!("{at} closes, and another one takes its place"));
        Ok(())
    }

    /// Every write has come to an end that the rules know.
    fn ended(&self, at: usize) -> Check {
        let process = &self.processes[at];
        for (sequence, fate) in process.ledger.fates() {
            let made = self.server.made(process.state.writer(), sequence);
            match fate {
                None => return Err(format!("rule 2: {at}/{sequence} never came to an end")),
                Some(Fate::Stored) => hold!(made, "{at}/{sequence} was called stored, and was never applied"),
                Some(Fate::Withdrawn) => hold!(!made, "{at}/{sequence} was called withdrawn, and was applied"),
                Some(Fate::Found | Fate::Superseded | Fate::Expired | Fate::SetAside) => {}
            }
        }
        Ok(())
    }

    /// Everything heals and everybody reads: all is delivered, and all see what the server holds.
    pub(super) fn finish(&mut self) -> Check {
        (self.up, self.mood) = (true, Mood::Well);
        let mut random = self.random.fork();
        self.tell(|| "all heals".to_owned());
        for at in 0..3 {
            if self.processes[at].wire.is_some_and(|wire| self.wires[wire].cut) {
                self.lose(at, &mut random)?;
            }
        }
        for _ in 0..20 {
            for at in 0..3 {
                self.connect(at, &mut random)?;
                self.send(at)?;
                self.nanos += 1_000;
            }
            while self.wires.iter().any(|wire| !wire.requests.is_empty()) {
                self.serve_any(&mut random)?;
            }
            while self.wires.iter().any(|wire| !wire.answers.is_empty()) {
                self.deliver_any(&mut random)?;
            }
            if self.processes.iter().all(|process| process.live && process.state.outbox.len() == 0) {
                break;
            }
        }
        let ever = 3_600_000_000_000;
        for wait in [0, ever] {
            self.nanos += wait;
            for at in 0..3 {
                self.read(at)?;
                self.round(at, &mut random)?;
                while !self.processes[at].late.is_empty() {
                    self.handle_late(at, &mut random)?;
                }
                self.audit(at)?;
            }
        }
        let held = self.server.held(self.mono()).map(|held| held.bytes);
        for at in 0..3 {
            self.ended(at)?;
            let process = &self.processes[at];
            hold!(process.state.outbox.len() == 0, "rule 2: {at} still has something to deliver");
            let shown = process.state.view(KEY, self.mono()).stored;
            hold!(shown == held, "rule 1: {at} shows {shown:?}, and the server holds {held:?}");
        }
        Ok(())
    }
}
