//! The connections: what the flusher and the callers send, what arrives, and what is lost.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::check::{RuleResult, ensure};
use super::process::{ApartRead, LateRead, ModelProcess, ModelRoute};
use super::rules::Rules;
use super::server::KEY;
use super::world::{ModelAnswer, ModelConnection, ModelRequest, World, one_of};
use crate::backend::commit::{Attempt, Outcome, Sequence};
use crate::backend::error::{BackendError, BackendErrorKind, Recovery};
use crate::backend::shards::Shard;
use crate::client::state::{Link, State};

impl<R: Rules> World<R> {
    /// Lets the callers of a process continue, and checks its state.
    pub(super) fn audit(&mut self, at: usize) -> RuleResult {
        self.processes[at].unlocked();
        let last = self.processes[at].state.outbox.last_sequence();
        R::callers_continue(self, at)?;
        if self.processes[at].state.outbox.last_sequence() != last {
            self.processes[at].wake_flushers();
        }
        let mono = self.mono();
        let process = &mut self.processes[at];
        process.unlocked();
        process
            .ledger
            .audit(
                &process.state,
                process.version.load(Ordering::Relaxed),
                mono,
            )
            .map_err(|broken| format!("process {at}: {broken}"))
    }

    pub(super) fn connect(
        &mut self,
        at: usize,
        shard: Shard,
        random: &mut fastrand::Rng,
    ) -> RuleResult {
        let mono = self.mono();
        let is_up = self.are_up[shard.index()];
        let process = &mut self.processes[at];
        if process.route(shard).connection.is_some() {
            return Ok(());
        }
        if !is_up {
            // Of the one server, what a failed try means was known before.
            return if self.placement.is_cluster() {
                process.disconnected(shard, mono)
            } else {
                Ok(())
            };
        }
        let clock_offset = random.i64(-2_000..2_000);
        let first = !std::mem::replace(&mut process.was_connected, true);
        let shift = first.then_some(clock_offset - process.clock_offset);
        if first || shard == self.placement.shards()[0] {
            process.clock_offset = clock_offset;
        }
        process.state.connected(shard, shift);
        process.ledger.connected(shift);
        *process.route(shard) = ModelRoute {
            connection: Some(self.connections.len()),
            is_awake: true,
            link: Link::Up,
            ..ModelRoute::default()
        };
        process.unlocked();
        let (requests, answers) = (VecDeque::new(), VecDeque::new());
        let writer = process.state.writer();
        self.connections.push(ModelConnection {
            process: at,
            shard,
            writer,
            requests,
            answers,
            is_abandoned: false,
            delivers_answers: true,
            is_cut: false,
        });
        self.log_step(|| format!("{at} connects{}", at_shard(shard)));
        Ok(())
    }

    /// The flusher of a shard sends the next batch, if no attempt is under way there.
    pub(super) fn send(&mut self, at: usize, shard: Shard) -> RuleResult {
        let is_cluster = self.placement.is_cluster();
        let process = &mut self.processes[at];
        let is_due = process.state.held_until(shard).is_some();
        let route = process.route(shard);
        let sleeps = is_cluster && !route.is_awake && !is_due;
        if route.connection.is_none() || route.is_under_way || sleeps {
            return Ok(());
        }
        let batch = self.take_batch(at, shard)?;
        let route = self.processes[at].route(shard);
        (route.is_usable, route.is_awake) = (true, !batch.is_empty());
        self.send_batch(at, shard, &batch)
    }

    /// A caller sends what it has just written, if nothing is queued before it.
    pub(super) fn send_own(&mut self, at: usize) -> RuleResult {
        let mono = self.mono();
        let process = &mut self.processes[at];
        if process.usable_connection().is_none() {
            return Ok(());
        }
        let (shard, before) = (process.shard(), pending(&process.state));
        let attempt = process.state.take_small(&self.key, shard, 1 << 10, mono);
        process.unlocked();
        let is_same = attempt.is_none() && pending(&process.state) == before;
        if self.placement.is_cluster() && is_same {
            // The flusher sends it: it is in line at another shard, or is to wait.
            return Ok(());
        }
        let withdrawn =
            process
                .ledger
                .taken_by_its_caller(&process.state, attempt.as_slice(), mono);
        for sequence in withdrawn.map_err(|broken| format!("process {at}: {broken}"))? {
            self.server.withdraw(process.state.writer(), sequence)?;
        }
        self.send_batch(at, shard, attempt.as_slice())
    }

    fn send_batch(&mut self, at: usize, shard: Shard, batch: &[Attempt]) -> RuleResult {
        let mono = self.mono();
        let process = &mut self.processes[at];
        let connection = process.route(shard).connection;
        let Some((connection, attempt)) = connection.zip(batch.first().cloned()) else {
            return Ok(());
        };
        ensure!(
            process.sent_to.is_none(),
            "rule 3: {attempt:?} is sent while another attempt is under way"
        );
        ensure!(
            attempt.asking || process.shard() == shard,
            "{attempt:?} is sent to {shard:?}, which does not have the key"
        );
        let ticket = process.next_ticket();
        process.state.sent(batch, ticket, mono);
        let in_flight = process.ledger.sent(&attempt, ticket);
        process.sent_to = Some(shard);
        process.route(shard).is_under_way = true;
        self.log_step(|| {
            let asking = if attempt.asking { ", asking" } else { "" };
            format!(
                "{at} sends {}, stamped {} (ticket {ticket}){}{asking}",
                attempt.sequence,
                attempt.stamp,
                at_shard(shard)
            )
        });
        self.connections[connection].push_request(ModelRequest::Commit {
            attempt,
            in_flight,
            ticket,
        });
        Ok(())
    }

    /// The next batch. The flusher waits until a write that broke connections, or whose slot is on
    /// the move, may be tried again.
    fn take_batch(&mut self, at: usize, shard: Shard) -> RuleResult<Vec<Attempt>> {
        let due = self.processes[at]
            .state
            .held_until(shard)
            .unwrap_or_default();
        let nanos = u64::try_from(due.as_nanos()).map_err(|_| "a pause ends in time")?;
        self.nanos = self.nanos.max(nanos);
        let mono = self.mono();
        let process = &mut self.processes[at];
        let before = pending(&process.state);
        let batch = process.state.next_batch(shard, 512, 1 << 20, mono);
        process.unlocked();
        let after = pending(&process.state);
        let is_elsewhere = self.placement.is_cluster() && batch.is_empty() && !after.is_empty();
        if is_elsewhere && after == before {
            return Ok(batch);
        }
        let withdrawn = process
            .ledger
            .batch_taken(&process.state, &batch, mono, is_elsewhere)
            .map_err(|broken| format!("process {at}: {broken}"))?;
        for sequence in withdrawn {
            self.server.withdraw(process.state.writer(), sequence)?;
        }
        Ok(batch)
    }

    /// The connection is abandoned when the flusher has taken a batch and not yet sent it.
    pub(super) fn disconnect_before_sending(&mut self, at: usize, shard: Shard) -> RuleResult {
        let mono = self.mono();
        let route = self.processes[at].route(shard);
        let Some(connection) = route.connection.filter(|_| !route.is_under_way) else {
            return Ok(());
        };
        let batch = self.take_batch(at, shard)?;
        self.processes[at].state.requeue_batch(&batch);
        self.connections[connection].is_abandoned = true;
        self.log_step(|| {
            format!("{at} takes a batch, and its connection is lost before it is sent")
        });
        self.processes[at].disconnected(shard, mono)
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
            shard,
            writer,
            answers,
            is_abandoned,
            ..
        } = &mut self.connections[connection];
        let (at, shard, writer, is_abandoned) = (*at, *shard, *writer, *is_abandoned);
        let process = &mut self.processes[at];
        let Some(reply) = answers
            .pop_front()
            .filter(|_| process.state.writer() == writer)
        else {
            return Ok(());
        };
        match reply {
            ModelAnswer::Read(ticket, held) => {
                let read = LateRead {
                    connection,
                    ticket,
                    held,
                };
                if is_handled_late {
                    process.late_reads.push(read);
                } else {
                    self.handle_read(at, read)?;
                }
            }
            ModelAnswer::TooLarge(ticket) => {
                let waits = process.state.when_settled(KEY, ticket);
                process.apart_reads.push(ApartRead {
                    connection,
                    ticket,
                    waits,
                    found: None,
                    has_arrived: false,
                });
            }
            // Its caller asks again over the next connection.
            ModelAnswer::Redirected(..) if is_abandoned => {}
            ModelAnswer::Redirected(read, error) => self.follow_read(at, read, &error),
            ModelAnswer::Commit {
                attempt,
                ticket,
                answer,
                held,
            } => {
                let is_handled = process
                    .state
                    .answered(&attempt, ticket, answer.clone(), mono);
                if is_handled {
                    process.sent_to = None;
                }
                let withdrawn =
                    process
                        .ledger
                        .answered(&process.state, (&attempt, ticket), &answer, held);
                for sequence in withdrawn.map_err(|broken| format!("process {at}: {broken}"))? {
                    self.server.withdraw(writer, sequence)?;
                }
                let recovery = answer.as_ref().err().map(BackendError::recovery);
                if is_handled && recovery == Some(Recovery::Confirm) {
                    // It is in doubt until it was sent again.
                    self.processes[at].ledger.interrupted(false)?;
                }
                if !is_abandoned {
                    self.continue_flusher(at, connection, &answer)?;
                }
                self.log_step(|| {
                    let number = attempt.sequence;
                    let shard = at_shard(shard);
                    format!("{at} handles the answer to {number} (ticket {ticket}){shard}")
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
        let shard = self.connections[connection].shard;
        let process = &mut self.processes[at];
        let route = process.route(shard);
        (route.is_under_way, route.is_awake) = (false, true);
        match answer {
            Err(error) if error.recovery().pauses_writes() => {
                process.paused(shard)?;
                if error.kind == BackendErrorKind::NotPrimary {
                    self.connections[connection].is_abandoned = true;
                    self.processes[at].disconnected(shard, mono)?;
                }
            }
            Err(error) if error.recovery().is_elsewhere() => {}
            _ => process.resumed(shard),
        }
        Ok(())
    }

    /// The flusher sends a batch; all requests of the connection are handled and answered.
    pub(super) fn round_trip(
        &mut self,
        at: usize,
        shard: Shard,
        random: &mut fastrand::Rng,
    ) -> RuleResult {
        self.send(at, shard)?;
        if !self.are_up[shard.index()] {
            return Ok(());
        }
        let Some(connection) = self.processes[at].route(shard).connection else {
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
    pub(super) fn disconnect(
        &mut self,
        at: usize,
        shard: Shard,
        random: &mut fastrand::Rng,
    ) -> RuleResult {
        let mono = self.mono();
        let Some(connection) = self.processes[at].route(shard).connection else {
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
        self.log_step(|| {
            let shard = at_shard(shard);
            format!("{at} loses its connection{shard}, {left} requests are late")
        });
        self.processes[at].disconnected(shard, mono)
    }

    /// A process that has delivered everything drops its records and ends; another one begins.
    pub(super) fn close(&mut self, at: usize, is_served_at_once: bool) -> RuleResult {
        let process = &mut self.processes[at];
        let usable = process.usable_connection();
        let Some(connection) = usable.filter(|_| process.is_done()) else {
            return Ok(());
        };
        if !process.state.take_recorded().is_empty() {
            self.connections[connection].push_request(ModelRequest::DropRecords);
        }
        let routes = std::mem::take(&mut self.processes[at].routes);
        for connection in routes.iter().filter_map(|route| route.connection) {
            (
                self.connections[connection].is_abandoned,
                self.connections[connection].delivers_answers,
            ) = (true, false);
        }
        while is_served_at_once
            && self.is_up_for(connection)
            && !self.connections[connection].requests.is_empty()
        {
            self.serve(connection)?;
        }
        R::ended(self, at)?;
        let clock_offset = self.processes[at].clock_offset;
        let long_from = R::long_from(&self.log);
        let (placement, random) = (&self.placement, &mut self.random);
        self.processes[at] = ModelProcess::new(clock_offset, placement, long_from, random);
        self.log_step(|| format!("{at} closes, and another one takes its place"));
        Ok(())
    }
}

/// The pending writes, by number.
fn pending(state: &State) -> Vec<Sequence> {
    let entries = state.outbox.of(KEY);
    entries.map(|entry| entry.identity.id).collect()
}

/// For the trace: nothing if there is one server.
pub(super) fn at_shard(shard: Shard) -> String {
    if shard == Shard::FIRST {
        String::new()
    } else {
        format!(" (shard {})", shard.index())
    }
}
