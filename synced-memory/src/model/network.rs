//! The connections: what the flusher and the callers send, what the server answers, what arrives,
//! and what is lost.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::check::RuleResult;
use super::process::ModelProcess;
use super::rules::Rules;
use super::server::{HeldValue, KEY};
use super::world::{FaultMode, ModelAnswer, ModelConnection, ModelRequest, World, one_of};
use crate::backend::commit::{Attempt, Outcome};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::shards::Shard;
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Generation, Ticket};
use crate::client::state::Link;

impl<R: Rules> World<R> {
    /// Lets the callers of a process continue, and checks its state.
    pub(super) fn audit(&mut self, at: usize) -> RuleResult {
        R::callers_continue(self, at)?;
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

    pub(super) fn connect(&mut self, at: usize, random: &mut fastrand::Rng) {
        let process = &mut self.processes[at];
        if !self.is_server_up || process.connection.is_some() {
            return;
        }
        let clock_offset = random.i64(-2_000..2_000);
        let first = !std::mem::replace(&mut process.was_connected, true);
        let shift = first.then_some(clock_offset - process.clock_offset);
        process.clock_offset = clock_offset;
        process.state.connected(Shard::FIRST, shift);
        process.ledger.connected(shift);
        process.connection = Some(self.connections.len());
        let (requests, answers) = (VecDeque::new(), VecDeque::new());
        let writer = process.state.writer();
        self.connections.push(ModelConnection {
            process: at,
            writer,
            requests,
            answers,
            is_abandoned: false,
            delivers_answers: true,
            is_cut: false,
        });
        self.log_step(|| format!("{at} connects"));
    }

    /// The flusher sends the next batch, if no attempt is under way.
    pub(super) fn send(&mut self, at: usize) -> RuleResult {
        let process = &mut self.processes[at];
        if process.connection.is_none() || process.is_under_way {
            return Ok(());
        }
        let batch = self.take_batch(at)?;
        self.processes[at].is_usable = true;
        self.send_batch(at, &batch);
        Ok(())
    }

    /// A caller sends what it has just written, if nothing is queued before it.
    pub(super) fn send_own(&mut self, at: usize) -> RuleResult {
        let mono = self.mono();
        let process = &mut self.processes[at];
        if !process.is_usable {
            return Ok(());
        }
        let attempt = process
            .state
            .take_small(&self.key, Shard::FIRST, 1 << 10, mono);
        let withdrawn =
            process
                .ledger
                .taken_by_its_caller(&process.state, attempt.as_slice(), mono);
        for sequence in withdrawn.map_err(|broken| format!("process {at}: {broken}"))? {
            self.server.withdraw(process.state.writer(), sequence)?;
        }
        self.send_batch(at, attempt.as_slice());
        Ok(())
    }

    fn send_batch(&mut self, at: usize, batch: &[Attempt]) {
        let mono = self.mono();
        let process = &mut self.processes[at];
        let Some((connection, attempt)) = process.connection.zip(batch.first().cloned()) else {
            return;
        };
        let ticket = process.next_ticket();
        process.state.sent(batch, ticket, mono);
        let in_flight = process.ledger.sent(&attempt, ticket);
        process.is_under_way = true;
        self.log_step(|| {
            format!(
                "{at} sends {}, stamped {} (ticket {ticket})",
                attempt.sequence, attempt.stamp
            )
        });
        self.connections[connection].push_request(ModelRequest::Commit {
            attempt,
            in_flight,
            ticket,
        });
    }

    /// The next batch. The flusher waits until a write that broke connections may be tried again.
    fn take_batch(&mut self, at: usize) -> RuleResult<Vec<Attempt>> {
        let due = self.processes[at]
            .state
            .held_until(Shard::FIRST)
            .unwrap_or_default();
        let nanos = u64::try_from(due.as_nanos()).map_err(|_| "a pause ends in time")?;
        self.nanos = self.nanos.max(nanos);
        let mono = self.mono();
        let process = &mut self.processes[at];
        let batch = process.state.next_batch(Shard::FIRST, 512, 1 << 20, mono);
        let withdrawn = process
            .ledger
            .batch_taken(&process.state, &batch, mono)
            .map_err(|broken| format!("process {at}: {broken}"))?;
        for sequence in withdrawn {
            self.server.withdraw(process.state.writer(), sequence)?;
        }
        Ok(batch)
    }

    /// The connection is abandoned when the flusher has taken a batch and not yet sent it.
    pub(super) fn disconnect_before_sending(&mut self, at: usize) -> RuleResult {
        let mono = self.mono();
        let Some(connection) = self.processes[at]
            .connection
            .filter(|_| !self.processes[at].is_under_way)
        else {
            return Ok(());
        };
        let batch = self.take_batch(at)?;
        self.processes[at].state.requeue_batch(&batch);
        self.connections[connection].is_abandoned = true;
        self.log_step(|| {
            format!("{at} takes a batch, and its connection is lost before it is sent")
        });
        self.processes[at].disconnected(mono)
    }

    pub(super) fn read(&mut self, at: usize) {
        let mono = self.mono();
        let process = &mut self.processes[at];
        if let Some(connection) = process.connection.filter(|_| process.is_usable) {
            let ticket = process.next_ticket();
            process.state.cache.asked(KEY, ticket, mono);
            self.connections[connection].push_request(ModelRequest::Read(ticket));
            self.log_step(|| format!("{at} reads (ticket {ticket})"));
        }
    }

    pub(super) fn serve_any(&mut self, random: &mut fastrand::Rng) -> RuleResult {
        let ready: Vec<_> = (0..self.connections.len())
            .filter(|connection| !self.connections[*connection].requests.is_empty())
            .collect();
        if ready.is_empty() || !self.is_server_up {
            Ok(())
        } else {
            self.serve(one_of(random, &ready))
        }
    }

    pub(super) fn serve(&mut self, connection: usize) -> RuleResult {
        let mono = self.mono();
        let ModelConnection {
            process,
            writer,
            requests,
            ..
        } = &mut self.connections[connection];
        let (at, writer) = (*process, *writer);
        let Some(request) = requests.pop_front() else {
            return Ok(());
        };
        let reply = match request {
            ModelRequest::Commit {
                attempt,
                in_flight,
                ticket,
            } => {
                let answer = self.decide(&attempt, &in_flight)?;
                self.log_step(|| {
                    format!("    the server on {}/{}: {answer:?}", at, attempt.sequence)
                });
                ModelAnswer::Commit {
                    attempt: Box::new(attempt),
                    ticket,
                    answer,
                    held: self.server.held(mono),
                }
            }
            ModelRequest::Read(ticket) => {
                let held = self.server.held(mono);
                self.log_step(|| format!("    the server on the read {ticket} of {at}: {held:?}"));
                ModelAnswer::Read(ticket, held)
            }
            ModelRequest::DropRecords => {
                self.server.drop_records(writer, mono)?;
                self.log_step(|| format!("    the server drops the records of the closed {at}"));
                return Ok(());
            }
        };
        if self.connections[connection].delivers_answers {
            self.connections[connection].answers.push_back(reply);
        }
        Ok(())
    }

    /// What the server answers to an attempt, in its fault mode.
    fn decide(
        &mut self,
        attempt: &Attempt,
        in_flight: &R::InFlight,
    ) -> RuleResult<Result<Outcome, BackendError>> {
        let mono = self.mono();
        Ok(match self.fault_mode {
            FaultMode::None => {
                let (server, log) = (&mut self.server, &mut self.log);
                Ok(R::commit(server, log, attempt, in_flight, mono)?)
            }
            FaultMode::Unavailable => Err(BackendError::unavailable("OOM")),
            FaultMode::NotPrimary => Err(BackendError::not_primary("READONLY")),
            FaultMode::Rejecting => Err(BackendError::rejected("NOPERM")),
            FaultMode::ScriptMissing => {
                self.fault_mode = FaultMode::None;
                Err(BackendError::retry(BackendError::rejected("NOSCRIPT")))
            }
        })
    }

    pub(super) fn deliver_any(&mut self, random: &mut fastrand::Rng) -> RuleResult {
        let ready: Vec<_> = (0..self.connections.len())
            .filter(|connection| !self.connections[*connection].answers.is_empty())
            .collect();
        if ready.is_empty() {
            return Ok(());
        }
        self.deliver(one_of(random, &ready), random.u8(0..4) == 0)
    }

    /// An answer arrives. One to a read may be handled later, by its caller's thread.
    fn deliver(&mut self, connection: usize, is_handled_late: bool) -> RuleResult {
        let mono = self.mono();
        let ModelConnection {
            process: at,
            writer,
            answers,
            is_abandoned,
            ..
        } = &mut self.connections[connection];
        let (at, writer, is_abandoned) = (*at, *writer, *is_abandoned);
        let process = &mut self.processes[at];
        let Some(reply) = answers
            .pop_front()
            .filter(|_| process.state.writer() == writer)
        else {
            return Ok(());
        };
        match reply {
            ModelAnswer::Read(ticket, held) if is_handled_late => {
                process.late_reads.push((ticket, held));
            }
            ModelAnswer::Read(ticket, held) => self.handle_read(at, ticket, held)?,
            ModelAnswer::Commit {
                attempt,
                ticket,
                answer,
                held,
            } => {
                process
                    .state
                    .answered(&attempt, ticket, answer.clone(), mono);
                let withdrawn =
                    process
                        .ledger
                        .answered(&process.state, (&attempt, ticket), &answer, held);
                for sequence in withdrawn.map_err(|broken| format!("process {at}: {broken}"))? {
                    self.server.withdraw(writer, sequence)?;
                }
                if !is_abandoned {
                    self.continue_flusher(at, connection, &answer)?;
                }
                self.log_step(|| {
                    format!(
                        "{at} handles the answer to {} (ticket {ticket})",
                        attempt.sequence
                    )
                });
            }
        }
        self.audit(at)
    }

    /// What the flusher does after an answer.
    fn continue_flusher(
        &mut self,
        at: usize,
        connection: usize,
        answer: &Result<Outcome, BackendError>,
    ) -> RuleResult {
        let mono = self.mono();
        let process = &mut self.processes[at];
        process.is_under_way = false;
        match answer {
            Err(BackendError {
                kind: kind @ (BackendErrorKind::Unavailable | BackendErrorKind::NotPrimary),
                ..
            }) => {
                process.state.paused(
                    Shard::FIRST,
                    Error::new(ErrorKind::Unavailable, "busy"),
                    None,
                );
                process.ledger.interrupted(Link::Paused)?;
                if *kind == BackendErrorKind::NotPrimary {
                    self.connections[connection].is_abandoned = true;
                    self.processes[at].disconnected(mono)?;
                }
            }
            _ if process.state.resumed(Shard::FIRST) => process.ledger.recovered(),
            _ => {}
        }
        Ok(())
    }

    fn handle_read(&mut self, at: usize, ticket: Ticket, held: Option<HeldValue>) -> RuleResult {
        self.log_step(|| format!("{at} handles the answer to the read {ticket}"));
        let process = &mut self.processes[at];
        process.state.read(
            &std::sync::Arc::from(KEY),
            ticket,
            Generation::default(),
            held.as_ref().map(|held| held.bytes.clone()),
            Monotonic::ZERO,
        );
        process.ledger.read(ticket, held);
        self.audit(at)
    }

    pub(super) fn handle_late_read(&mut self, at: usize, random: &mut fastrand::Rng) -> RuleResult {
        let late = &mut self.processes[at].late_reads;
        if late.is_empty() {
            return Ok(());
        }
        let (ticket, held) = late.swap_remove(random.usize(0..late.len()));
        self.handle_read(at, ticket, held)
    }

    /// The flusher sends a batch; all requests of the connection are handled and answered.
    pub(super) fn round_trip(&mut self, at: usize, random: &mut fastrand::Rng) -> RuleResult {
        self.send(at)?;
        if !self.is_server_up {
            return Ok(());
        }
        let Some(connection) = self.processes[at].connection else {
            return Ok(());
        };
        while !self.connections[connection].requests.is_empty() {
            self.serve(connection)?;
        }
        while !self.connections[connection].answers.is_empty() {
            self.deliver(connection, random.u8(0..4) == 0)?;
        }
        Ok(())
    }

    /// A process loses its connection. Its requests may still reach the server, all or some of
    /// them, and their answers may still arrive.
    pub(super) fn disconnect(&mut self, at: usize, random: &mut fastrand::Rng) -> RuleResult {
        let mono = self.mono();
        let Some(connection) = self.processes[at].connection else {
            return Ok(());
        };
        let ModelConnection {
            requests,
            answers,
            is_abandoned,
            delivers_answers,
            ..
        } = &mut self.connections[connection];
        *is_abandoned = true;
        *delivers_answers = random.u8(0..4) == 0;
        if !*delivers_answers {
            answers.clear();
        }
        if random.bool() {
            requests.truncate(random.usize(0..=requests.len()));
        }
        let left = requests.len();
        self.log_step(|| format!("{at} loses its connection, {left} requests are late"));
        self.processes[at].disconnected(mono)
    }

    /// A process that has delivered everything drops its records and ends; another one begins.
    pub(super) fn close(&mut self, at: usize, is_served_at_once: bool) -> RuleResult {
        let process = &mut self.processes[at];
        let Some(connection) = process
            .connection
            .filter(|_| process.is_usable && process.is_done())
        else {
            return Ok(());
        };
        if !process.state.take_recorded().is_empty() {
            self.connections[connection].push_request(ModelRequest::DropRecords);
        }
        (
            self.connections[connection].is_abandoned,
            self.connections[connection].delivers_answers,
        ) = (true, false);
        while is_served_at_once
            && self.is_server_up
            && !self.connections[connection].requests.is_empty()
        {
            self.serve(connection)?;
        }
        R::ended(self, at)?;
        let clock_offset = self.processes[at].clock_offset;
        self.processes[at] = ModelProcess::new(clock_offset, &mut self.random);
        self.log_step(|| format!("{at} closes, and another one takes its place"));
        Ok(())
    }
}
