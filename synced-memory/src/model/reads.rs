//! Reads: where they are sent, and how their answers are handled, late or not.

use std::sync::Arc;

use super::check::RuleResult;
use super::network::at_shard;
use super::rules::Rules;
use super::server::{HeldValue, KEY};
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
            self.send_read(at, connection, None, 0);
        }
    }

    fn send_read(&mut self, at: usize, connection: usize, asked_in: Option<u32>, hops: u8) {
        let mono = self.mono();
        let process = &mut self.processes[at];
        let ticket = process.next_ticket();
        process.state.cache.asked(KEY, ticket, mono);
        let connection = &mut self.connections[connection];
        let shard = connection.shard;
        connection.push_request(ModelRequest::Read(ModelRead {
            ticket,
            asked_in,
            hops,
        }));
        self.log_step(|| {
            let asking = if asked_in.is_some() { ", asking" } else { "" };
            format!("{at} reads (ticket {ticket}){}{asking}", at_shard(shard))
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
            let asked_in = asking.then_some(self.placement.era());
            self.send_read(at, connection, asked_in, read.hops + 1);
        }
    }

    /// An answer says nothing of a mutation that is under way, or may be, and was sent before the
    /// read: it is handled when that was answered.
    pub(super) fn handle_read(
        &mut self,
        at: usize,
        ticket: Ticket,
        held: Option<HeldValue>,
    ) -> RuleResult {
        let process = &mut self.processes[at];
        if process.state.when_settled(KEY, ticket).is_some() {
            process.late_reads.push((ticket, held));
            return Ok(());
        }
        self.log_step(|| format!("{at} handles the answer to the read {ticket}"));
        let process = &mut self.processes[at];
        process.state.read(
            &Arc::from(KEY),
            ticket,
            Generation::default(),
            held.as_ref().map(|held| Document::of(held.bytes.clone())),
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
}
