//! Three processes, their connections to one server, and what happens to them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::link::Wire;
use super::process::Process;
use super::rules::Rules;
use super::schedule::{Act, Step};
use super::server::{KEY, Server};
use super::{Check, hold};
use crate::base::clock::{Moment, Monotonic};

/// What the server makes of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    Busy,
    Elsewhere,
    Refusing,
    /// It has forgotten the script, until it is sent again.
    Forgetful,
}

#[derive(Debug)]
pub(super) struct World<R: Rules> {
    /// The server's clock, since the beginning.
    pub(super) nanos: u64,
    pub(super) server: Server,
    pub(super) log: R::Log,
    pub(super) mood: Mood,
    pub(super) up: bool,
    pub(super) processes: Vec<Process<R>>,
    pub(super) wires: Vec<Wire<R::Sent>>,
    pub(super) values: u64,
    pub(super) key: Arc<str>,
    pub(super) random: fastrand::Rng,
    pub(super) tale: Option<Vec<String>>,
}

const BEGINNING: u64 = 1_700_000_000_000_000_000;
const HOUR: i64 = 3_600_000_000_000;
/// The clock of a host that was never told the time.
const SINCE_1970: i64 = -BEGINNING.cast_signed();

/// One of them, at random.
pub(super) fn one_of<T: Copy>(random: &mut fastrand::Rng, of: &[T]) -> T {
    of[random.usize(0..of.len())]
}

impl<R: Rules> World<R> {
    pub(super) fn new(seed: u64, tells: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(!seed);
        let mut process = || {
            let ahead = one_of(&mut random, &[0, 0, 5_000, -5_000, HOUR, -HOUR, SINCE_1970]);
            Process::new(ahead, &mut random)
        };
        let processes = vec![process(), process(), process()];
        Self {
            nanos: 0,
            server: Server::new(),
            log: R::log(seed),
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

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(tale) = &mut self.tale {
            tale.push(what());
        }
    }

    pub(super) fn mono(&self) -> Monotonic {
        Duration::from_nanos(self.nanos)
    }

    pub(super) fn step(&mut self, step: &Step) -> Check {
        let mut random = fastrand::Rng::with_seed(step.roll);
        self.nanos += one_of(&mut random, &[0, 300, 5_000, 1_000_000]);
        let at = step.process;
        match step.act {
            Act::Put | Act::PutForAWhile | Act::Delete => {
                R::write(self, at, step.act, &mut random)?;
                if step.act == Act::Put && random.bool() {
                    self.send_own(at)?;
                }
            }
            Act::GiveUp => self.give_up(at, &mut random)?,
            Act::Connect => self.connect(at, &mut random),
            Act::Send if random.u8(0..16) == 0 => self.lose_before_sending(at)?,
            Act::Send => self.send(at)?,
            Act::Serve => self.serve_any(&mut random)?,
            Act::Deliver => self.deliver_any(&mut random)?,
            Act::Round => self.round(at, &mut random)?,
            Act::Read => self.read(at),
            Act::HandleLate => self.handle_late(at, &mut random)?,
            Act::Lose => self.lose(at, &mut random)?,
            Act::GoDown => self.go_down(&mut random),
            Act::ComeUp => self.up = true,
            Act::Balk => {
                let moods = [Mood::Busy, Mood::Elsewhere, Mood::Refusing, Mood::Forgetful];
                self.mood = one_of(&mut random, &moods);
            }
            Act::Thaw => self.mood = Mood::Well,
            Act::ForeignSet if self.up => R::foreign_set(self, &mut random)?,
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
            Act::Close => self.close(at, random.bool())?,
            Act::Wait => self.nanos += random.u64(0..3_000_000_000),
            Act::WaitForDays => {
                self.nanos +=
                    9 * 24 * 3_600_000_000_000 + random.u64(0..3 * 24 * 3_600_000_000_000);
            }
        }
        self.audit(at)
    }

    pub(super) fn audit(&mut self, at: usize) -> Check {
        R::go_on(self, at)?;
        let mono = self.mono();
        let process = &mut self.processes[at];
        process
            .ledger
            .audit(
                &process.state,
                process.version.load(Ordering::Relaxed),
                mono,
            )
            .map_err(|broken| format!("process {at}: {broken}"))
    }

    fn give_up(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
        let process = &mut self.processes[at];
        let awaited = process.ledger.awaited();
        if awaited.is_empty() {
            return Ok(());
        }
        let sequence = one_of(random, &awaited);
        process.ledger.give_up(&mut process.state, sequence)?;
        self.tell(|| format!("{at} waits for {sequence} no longer"));
        Ok(())
    }

    /// What the clocks of a process say.
    pub(super) fn moment(&self, at: usize) -> Moment {
        let now = (BEGINNING + self.nanos).saturating_add_signed(self.processes[at].ahead);
        Moment {
            mono: self.mono(),
            now,
        }
    }

    /// The stamp that a stranger writes, if any. `pending`: that of a write that waits.
    pub(super) fn foreign_stamp(
        &self,
        pending: Option<u64>,
        random: &mut fastrand::Rng,
    ) -> Option<u64> {
        let now = BEGINNING + self.nanos;
        match random.u8(0..6) {
            0 => None,
            1 => Some(now),
            2 => Some(now.saturating_add_signed(random.i64(-HOUR..HOUR))),
            3 => Some(
                self.server
                    .standing()
                    .saturating_add_signed(random.i64(-2..2)),
            ),
            4 => Some(pending.unwrap_or(now)),
            _ => Some(now.saturating_add_signed(random.i64(-5_000..5_000))),
        }
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

    /// Everything heals and everybody reads: all is delivered, and all see what the server holds.
    pub(super) fn finish(&mut self) -> Check {
        (self.up, self.mood) = (true, Mood::Well);
        let mut random = self.random.fork();
        self.tell(|| "all heals".to_owned());
        for at in 0..3 {
            if self.processes[at]
                .wire
                .is_some_and(|wire| self.wires[wire].cut)
            {
                self.lose(at, &mut random)?;
            }
        }
        // Some requests of dead connections arrive when everything is over.
        let mut last = VecDeque::new();
        if random.bool() {
            for (wire, Wire { dead, requests, .. }) in self.wires.iter_mut().enumerate() {
                if *dead {
                    last.push_back((wire, std::mem::take(requests)));
                }
            }
        }
        for _ in 0..200 {
            for at in 0..3 {
                self.connect(at, &mut random);
                self.audit(at)?;
                self.send(at)?;
                self.audit(at)?;
                self.nanos += 1_000;
            }
            while self.wires.iter().any(|wire| !wire.requests.is_empty()) {
                self.serve_any(&mut random)?;
            }
            while self.wires.iter().any(|wire| !wire.answers.is_empty()) {
                self.deliver_any(&mut random)?;
            }
            if self
                .processes
                .iter()
                .all(|process| process.live && process.is_done())
            {
                break;
            }
        }
        let ever = 3_600_000_000_000;
        for wait in [0, ever] {
            self.nanos += wait;
            for at in 0..3 {
                self.read(at);
                self.round(at, &mut random)?;
                while !self.processes[at].late.is_empty() {
                    self.handle_late(at, &mut random)?;
                }
                self.audit(at)?;
            }
        }
        let held = self.server.held(self.mono());
        R::finished(self, held.as_ref())?;
        let held = held.map(|held| held.bytes);
        for at in 0..3 {
            let process = &self.processes[at];
            hold!(
                process.state.outbox.len() == 0,
                "rule 2: {at} still has something to deliver"
            );
            R::ended(self, at)?;
            let process = &self.processes[at];
            let shown = process.state.view(KEY, self.mono()).stored;
            hold!(
                shown == held,
                "rule 1: {at} shows {shown:?}, and the server holds {held:?}"
            );
        }
        if last.is_empty() {
            return Ok(());
        }
        for at in 0..3 {
            self.close(at, true)?;
        }
        self.server
            .raw(random.bool().then(|| ("0".into(), 0)), self.mono())?;
        for (wire, requests) in last {
            self.wires[wire].requests = requests;
            while !self.wires[wire].requests.is_empty() {
                self.serve(wire)?;
            }
        }
        Ok(())
    }
}
