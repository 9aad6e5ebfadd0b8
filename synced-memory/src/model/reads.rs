//! Reads: where they are sent, and how their answers are handled, late or not.

use std::sync::Arc;

use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::check::RuleResult;
use super::network::at_shard;
use super::process::{ApartFound, LateRead, ModelProcess, ProcessRules};
use super::rules::Rules;
use super::server::{HeldValue, KEY, ServerEffect};
use super::world::{ModelRead, ModelRequest, World};
use crate::backend::error::BackendError;
use crate::base::clock::Monotonic;
use crate::cache::{Generation, Ticket};
use crate::value::document::Document;

/// A read is sent elsewhere so many times; then its caller gets what is known.
const MOST_HOPS: u8 = 4;

impl<R: Rules> World<R> {
    pub(super) fn read(&mut self, at: usize) {
        if let Some(connection) = self.processes[at].usable_connection() {
            let read = ModelRead {
                ticket: 0,
                is_apart: false,
                asked_in: None,
                hops: 0,
            };
            self.send_read(at, connection, read);
        }
    }

    fn send_read(&mut self, at: usize, connection: usize, read: ModelRead) {
        let mono = self.mono();
        let process = &mut self.processes[at];
        let ticket = process.next_ticket();
        process.state.cache.asked(KEY, ticket, mono);
        let connection = &mut self.connections[connection];
        let shard = connection.shard;
        connection.push_request(ModelRequest::Read(ModelRead { ticket, ..read }));
        self.log_step(|| {
            let asking = if read.asked_in.is_some() {
                ", asking"
            } else {
                ""
            };
            let apart = if read.is_apart { ", apart" } else { "" };
            format!(
                "{at} reads (ticket {ticket}){}{asking}{apart}",
                at_shard(shard)
            )
        });
    }

    /// A read was sent elsewhere: its caller asks there.
    pub(super) fn follow_read(&mut self, at: usize, read: ModelRead, error: &BackendError) {
        let process = &mut self.processes[at];
        let to = process.state.redirected(error);
        process.unlocked();
        let Some((shard, asking)) = to.filter(|_| read.hops < MOST_HOPS) else {
            return;
        };
        let route = process.route(shard);
        if let Some(connection) = route.connection.filter(|_| route.is_usable) {
            let read = ModelRead {
                asked_in: asking.then_some(self.placement.era()),
                hops: read.hops + 1,
                ..read
            };
            self.send_read(at, connection, read);
        }
    }

    /// An answer says nothing of a mutation that is under way, or may be, and was sent before the
    /// read: it is handled when that was answered. Nor does one over a connection that was given
    /// up.
    pub(super) fn handle_read(&mut self, at: usize, read: LateRead) -> RuleResult {
        if self.connections[read.connection].is_abandoned {
            return Ok(());
        }
        let process = &mut self.processes[at];
        if process.state.when_settled(KEY, read.ticket).is_some() {
            process.late_reads.push(read);
            return Ok(());
        }
        let LateRead { ticket, held, .. } = read;
        self.log_step(|| format!("{at} handles the answer to the read {ticket}"));
        let process = &mut self.processes[at];
        process.store_read(ticket, held.as_ref());
        process.ledger.read(ticket, held);
        self.audit(at)
    }

    /// A read of a large value begins, or one that has begun goes on.
    pub(super) fn read_apart(&mut self, at: usize, random: &mut fastrand::Rng) -> RuleResult {
        let reads = &mut self.processes[at].apart_reads;
        if reads.is_empty() {
            if let Some(connection) = self.processes[at].usable_connection() {
                let read = ModelRead {
                    ticket: 0,
                    is_apart: true,
                    asked_in: None,
                    hops: 0,
                };
                self.send_read(at, connection, read);
            }
            return Ok(());
        }
        let mut read = reads.swap_remove(random.usize(0..reads.len()));
        let connection = &self.connections[read.connection];
        let (is_gone, shard) = (connection.is_abandoned, connection.shard);
        let is_waiting = |waits: &mut Receiver<()>| waits.try_recv() == Err(TryRecvError::Empty);
        if is_gone {
            return Ok(());
        } else if read.waits.as_mut().is_some_and(is_waiting) {
            self.processes[at].apart_reads.push(read);
            return Ok(());
        }
        match read.found.take() {
            // It is read elsewhere.
            None if !self.placement.is_whole_at(shard) => return Ok(()),
            None if self.is_up_for(read.connection) => {
                read.found = Some(self.found_apart(at));
                let ticket = read.ticket;
                self.log_step(|| format!("    the read {ticket} of {at} takes effect, apart"));
            }
            None => {}
            Some(found) if read.has_arrived => {
                let ticket = read.ticket;
                self.log_step(|| format!("{at} handles the answer to the read {ticket}, apart"));
                let process = &mut self.processes[at];
                process.store_read(ticket, found.held.as_ref());
                process.state.read_apart(KEY, ticket);
                process.ledger.read_apart(ticket, found)?;
                return self.audit(at);
            }
            found => {
                read.found = found;
                read.has_arrived = true;
                read.waits = self.processes[at].state.when_settled(KEY, Ticket::MAX);
            }
        }
        self.processes[at].apart_reads.push(read);
        Ok(())
    }

    fn found_apart(&mut self, at: usize) -> ApartFound {
        let mono = self.mono();
        let writer = self.processes[at].state.writer();
        let is_made = |effect: &ServerEffect| matches!(effect, ServerEffect::Decided(..));
        ApartFound {
            held: self.server.held(mono),
            applied: self.server.applied_by(writer),
            has_risen: !self.server.has_lost_data() && self.server.effects().all(is_made),
        }
    }

    pub(super) fn handle_late_read(&mut self, at: usize, random: &mut fastrand::Rng) -> RuleResult {
        let late = &mut self.processes[at].late_reads;
        if late.is_empty() {
            return Ok(());
        }
        let late = late.swap_remove(random.usize(0..late.len()));
        self.handle_read(at, late)
    }
}

impl<R: ProcessRules> ModelProcess<R> {
    fn store_read(&mut self, ticket: Ticket, held: Option<&HeldValue>) {
        let stored = held.map(|held| Document::of(held.bytes.clone()));
        let generation = Generation::default();
        self.state
            .read(&Arc::from(KEY), ticket, generation, stored, Monotonic::ZERO);
    }
}
