//! The connections: what the flusher and the callers ask, what the server makes of it, what
//! arrives, and what is lost.

use std::collections::VecDeque;
use std::time::Duration;

use super::Check;
use super::process::Process;
use super::rules::Rules;
use super::server::{Held, KEY};
use super::world::{Mood, World, one_of};
use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Generation, Ticket};
use crate::client::state::Link;

/// A connection. Requests are handled in their order, answers arrive in theirs.
#[derive(Debug)]
pub(super) struct Wire<S> {
    pub(super) process: usize,
    pub(super) writer: Writer,
    pub(super) requests: VecDeque<Asked<S>>,
    pub(super) answers: VecDeque<Answered>,
    /// The process has given it up; what the server still gets is late.
    pub(super) dead: bool,
    /// Its answers still arrive.
    pub(super) heard: bool,
    /// Nothing reaches the server any more.
    pub(super) cut: bool,
}

impl<S> Wire<S> {
    pub(super) fn ask(&mut self, asked: Asked<S>) {
        if !self.cut {
            self.requests.push_back(asked);
        }
    }
}

#[derive(Debug)]
pub(super) enum Asked<S> {
    Commit {
        attempt: Attempt,
        sent: S,
        ticket: Ticket,
    },
    Read(Ticket),
    Forget,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a few at a time, and soon gone
pub(super) enum Answered {
    Commit {
        attempt: Box<Attempt>,
        ticket: Ticket,
        answer: Result<Outcome, BackendError>,
        held: Option<Held>,
    },
    Read(Ticket, Option<Held>),
}

impl<R: Rules> World<R> {
    pub(super) fn connect(&mut self, at: usize, random: &mut fastrand::Rng) {
        let process = &mut self.processes[at];
        if !self.up || process.wire.is_some() {
            return;
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
        self.wires.push(Wire {
            process: at,
            writer,
            requests,
            answers,
            dead: false,
            heard: true,
            cut: false,
        });
        self.tell(|| format!("{at} connects"));
    }

    /// The flusher sends what is next, as far as nothing is under way.
    pub(super) fn send(&mut self, at: usize) -> Check {
        let process = &mut self.processes[at];
        if process.wire.is_none() || process.under_way {
            return Ok(());
        }
        let batch = self.draw(at)?;
        self.processes[at].live = true;
        self.put_on_the_wire(at, &batch);
        Ok(())
    }

    /// A caller sends what it has just written, where nothing stands before it.
    pub(super) fn send_own(&mut self, at: usize) -> Check {
        let mono = self.mono();
        let process = &mut self.processes[at];
        if !process.live {
            return Ok(());
        }
        let attempt = process.state.take_small(&self.key, 1 << 10, mono);
        let withdrawn =
            process
                .ledger
                .drawn_by_its_caller(&process.state, attempt.as_slice(), mono);
        for sequence in withdrawn.map_err(|broken| format!("process {at}: {broken}"))? {
            self.server.withdraw(process.state.writer(), sequence)?;
        }
        self.put_on_the_wire(at, attempt.as_slice());
        Ok(())
    }

    fn put_on_the_wire(&mut self, at: usize, batch: &[Attempt]) {
        let process = &mut self.processes[at];
        let Some((wire, attempt)) = process.wire.zip(batch.first().cloned()) else {
            return;
        };
        let ticket = process.ticket();
        process
            .state
            .sent(batch, ticket, Duration::from_nanos(self.nanos));
        let sent = process.ledger.sent(&attempt, ticket);
        process.under_way = true;
        self.tell(|| {
            format!(
                "{at} sends {}, stamped {} (ticket {ticket})",
                attempt.sequence, attempt.stamp
            )
        });
        self.wires[wire].ask(Asked::Commit {
            attempt,
            sent,
            ticket,
        });
    }

    fn draw(&mut self, at: usize) -> Check<Vec<Attempt>> {
        let mono = self.mono();
        let process = &mut self.processes[at];
        let batch = process.state.next_batch(512, 1 << 20, mono);
        let withdrawn = process
            .ledger
            .drawn(&process.state, &batch, mono)
            .map_err(|broken| format!("process {at}: {broken}"))?;
        for sequence in withdrawn {
            self.server.withdraw(process.state.writer(), sequence)?;
        }
        Ok(batch)
    }

    /// A caller gives the connection up when the flusher has drawn a batch and not yet sent it.
    pub(super) fn lose_before_sending(&mut self, at: usize) -> Check {
        let Some(wire) = self.processes[at]
            .wire
            .filter(|_| !self.processes[at].under_way)
        else {
            return Ok(());
        };
        let batch = self.draw(at)?;
        self.processes[at].state.requeue_batch(&batch);
        self.wires[wire].dead = true;
        self.tell(|| format!("{at} draws a batch, and then the connection is given up"));
        self.processes[at].lost(Duration::from_nanos(self.nanos))
    }

    pub(super) fn read(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if let Some(wire) = process.wire.filter(|_| process.live) {
            let ticket = process.ticket();
            process
                .state
                .cache
                .asked(KEY, ticket, Duration::from_nanos(self.nanos));
            self.wires[wire].ask(Asked::Read(ticket));
            self.tell(|| format!("{at} reads (ticket {ticket})"));
        }
    }

    pub(super) fn serve_any(&mut self, random: &mut fastrand::Rng) -> Check {
        let waiting: Vec<_> = (0..self.wires.len())
            .filter(|wire| !self.wires[*wire].requests.is_empty())
            .collect();
        if waiting.is_empty() || !self.up {
            Ok(())
        } else {
            self.serve(one_of(random, &waiting))
        }
    }

    pub(super) fn serve(&mut self, wire: usize) -> Check {
        let mono = self.mono();
        let Wire {
            process,
            writer,
            requests,
            ..
        } = &mut self.wires[wire];
        let (at, writer) = (*process, *writer);
        let Some(asked) = requests.pop_front() else {
            return Ok(());
        };
        let answered = match asked {
            Asked::Commit {
                attempt,
                sent,
                ticket,
            } => {
                let answer = match self.mood {
                    Mood::Well => Ok(R::commit(
                        &mut self.server,
                        &mut self.log,
                        &attempt,
                        &sent,
                        mono,
                    )?),
                    Mood::Busy => Err(BackendError::unavailable("OOM")),
                    Mood::Elsewhere => Err(BackendError::not_primary("READONLY")),
                    Mood::Refusing => Err(BackendError::rejected("NOPERM")),
                    Mood::Forgetful => Err(BackendError::retry(BackendError::rejected("NOSCRIPT"))),
                };
                if self.mood == Mood::Forgetful {
                    self.mood = Mood::Well;
                }
                self.tell(|| format!("    the server on {}/{}: {answer:?}", at, attempt.sequence));
                Answered::Commit {
                    attempt: Box::new(attempt),
                    ticket,
                    answer,
                    held: self.server.held(mono),
                }
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

    pub(super) fn deliver_any(&mut self, random: &mut fastrand::Rng) -> Check {
        let waiting: Vec<_> = (0..self.wires.len())
            .filter(|wire| !self.wires[*wire].answers.is_empty())
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        self.deliver(one_of(random, &waiting), random.u8(0..4) == 0)
    }

    /// An answer arrives. One to a read may be taken in later, by its caller's thread.
    fn deliver(&mut self, wire: usize, later: bool) -> Check {
        let Wire {
            process: at,
            writer,
            answers,
            dead,
            ..
        } = &mut self.wires[wire];
        let (at, writer, dead) = (*at, *writer, *dead);
        let process = &mut self.processes[at];
        let Some(answered) = answers
            .pop_front()
            .filter(|_| process.state.writer() == writer)
        else {
            return Ok(());
        };
        match answered {
            Answered::Read(ticket, held) if later => process.late.push((ticket, held)),
            Answered::Read(ticket, held) => self.take_in(at, ticket, held)?,
            Answered::Commit {
                attempt,
                ticket,
                answer,
                held,
            } => {
                process.state.answered(&attempt, ticket, answer.clone());
                let withdrawn =
                    process
                        .ledger
                        .answered(&process.state, (&attempt, ticket), &answer, held);
                for sequence in withdrawn.map_err(|broken| format!("process {at}: {broken}"))? {
                    self.server.withdraw(writer, sequence)?;
                }
                if !dead {
                    self.go_on(at, wire, &answer)?;
                }
                self.tell(|| {
                    format!(
                        "{at} takes in the answer to {} (ticket {ticket})",
                        attempt.sequence
                    )
                });
            }
        }
        self.audit(at)
    }

    /// What the flusher does once it has an answer.
    fn go_on(&mut self, at: usize, wire: usize, answer: &Result<Outcome, BackendError>) -> Check {
        let process = &mut self.processes[at];
        process.under_way = false;
        match answer {
            Err(BackendError {
                kind: kind @ (BackendErrorKind::Unavailable | BackendErrorKind::NotPrimary),
                ..
            }) => {
                process
                    .state
                    .busy(Error::new(ErrorKind::Unavailable, "busy"));
                process.ledger.interrupted(Link::Busy)?;
                if *kind == BackendErrorKind::NotPrimary {
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
        process.state.read(
            &std::sync::Arc::from(KEY),
            ticket,
            Generation::default(),
            held.as_ref().map(|held| held.bytes.clone()),
        );
        process.ledger.read(ticket, held);
        self.audit(at)
    }

    pub(super) fn handle_late(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
        let late = &mut self.processes[at].late;
        if late.is_empty() {
            return Ok(());
        }
        let (ticket, held) = late.swap_remove(random.usize(0..late.len()));
        self.take_in(at, ticket, held)
    }

    /// Sends what waits; what is on the connection is handled and answered.
    pub(super) fn round(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
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
    pub(super) fn lose(&mut self, at: usize, random: &mut fastrand::Rng) -> Check {
        let Some(wire) = self.processes[at].wire else {
            return Ok(());
        };
        let Wire {
            requests,
            answers,
            dead,
            heard,
            ..
        } = &mut self.wires[wire];
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

    /// A process that has delivered everything drops its records and ends; another one begins.
    pub(super) fn close(&mut self, at: usize, at_once: bool) -> Check {
        let process = &mut self.processes[at];
        let Some(wire) = process.wire.filter(|_| process.live && process.is_done()) else {
            return Ok(());
        };
        if !process.state.take_recorded().is_empty() {
            self.wires[wire].ask(Asked::Forget);
        }
        (self.wires[wire].dead, self.wires[wire].heard) = (true, false);
        while at_once && self.up && !self.wires[wire].requests.is_empty() {
            self.serve(wire)?;
        }
        R::ended(self, at)?;
        let ahead = self.processes[at].ahead;
        self.processes[at] = Process::new(ahead, &mut self.random);
        self.tell(|| format!("{at} closes, and another one takes its place"));
        Ok(())
    }
}
