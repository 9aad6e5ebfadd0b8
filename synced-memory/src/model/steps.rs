//! Performs the steps of a schedule, and at the end lets everything heal.

use std::collections::VecDeque;

use super::action::{ScheduleStep, ScheduledAction};
use super::check::{RuleResult, ensure};
use super::process::{ModelProcess, ProcessRules};
use super::rules::Rules;
use super::server::KEY;
use super::world::{FaultMode, ModelRequest, World, one_of};
use crate::backend::shards::Shard;

const LONGER_THAN_ANY_TTL: u64 = 3_600_000_000_000;

/// Requests, by the index of their connection.
type LateRequests<R> = VecDeque<(usize, VecDeque<ModelRequest<<R as ProcessRules>::InFlight>>)>;

impl<R: Rules> World<R> {
    pub(super) fn step(&mut self, step: &ScheduleStep) -> RuleResult {
        let mut random = fastrand::Rng::with_seed(step.seed);
        self.nanos += one_of(&mut random, &[0, 300, 5_000, 1_000_000]);
        let (at, mono) = (step.process, self.mono());
        let shard = self.placement.any(&mut random);

        match step.action {
            ScheduledAction::Put | ScheduledAction::PutWithTtl | ScheduledAction::Delete => {
                R::write(self, at, step.action, &mut random)?;
                self.processes[at].wake_flushers();
                if step.action == ScheduledAction::Put && random.bool() {
                    self.send_own(at)?;
                }
            }
            ScheduledAction::TimeOut => self.time_out(at, &mut random)?,
            ScheduledAction::Connect => self.connect(at, shard, &mut random)?,
            ScheduledAction::Send if random.u8(0..16) == 0 => {
                self.disconnect_before_sending(at, shard)?;
            }
            ScheduledAction::Send => self.send(at, shard)?,
            ScheduledAction::Serve => self.serve_any(&mut random)?,
            ScheduledAction::Deliver => self.deliver_any(&mut random)?,
            ScheduledAction::RoundTrip => self.round_trip(at, shard, &mut random)?,
            ScheduledAction::Read => self.read(at),
            ScheduledAction::ReadApart => {
                for _ in 0..random.u8(1..=3) {
                    self.read_apart(at, &mut random)?;
                }
            }
            ScheduledAction::HandleLateRead => self.handle_late_read(at, &mut random)?,
            ScheduledAction::Disconnect => self.disconnect(at, shard, &mut random)?,
            ScheduledAction::StopServer => self.stop_server(shard, &mut random),
            ScheduledAction::StartServer => self.are_up.fill(true),
            ScheduledAction::BreakServer => {
                let modes = [
                    FaultMode::Unavailable,
                    FaultMode::NotPrimary,
                    FaultMode::Rejecting,
                    FaultMode::ScriptMissing,
                ];
                self.fault_modes[shard.index()] = one_of(&mut random, &modes);
            }
            ScheduledAction::RepairServer => self.fault_modes.fill(FaultMode::None),
            ScheduledAction::ForeignSet if self.is_owner_up() => {
                R::foreign_set(self, &mut random)?;
            }
            ScheduledAction::ForeignDelete if self.is_owner_up() => {
                self.log_step(|| "a foreign DEL".to_owned());
                self.server.store_foreign(None, mono)?;
            }
            ScheduledAction::Flush if self.is_owner_up() => {
                self.log_step(|| "FLUSHALL".to_owned());
                self.server.flush(mono);
            }
            ScheduledAction::Replicate if self.placement.is_whole_at(shard) => {
                self.server.replicate(shard);
            }
            ScheduledAction::FailOver => {
                self.log_step(|| "the replica takes over".to_owned());
                self.fail_over(shard)?;
            }
            ScheduledAction::MoveSlot => self.move_slot(),
            ScheduledAction::OpenSlot => self.open_slot(),
            ScheduledAction::MovePart => self.move_part(random.bool()),
            ScheduledAction::GiveUpMigration => self.give_up_migration(),
            ScheduledAction::PointAway => self.placement.point_away(random.u8(0..3) > 0),
            ScheduledAction::LearnLayout => self.learn_layout(at, random.u8(0..4) == 0),
            ScheduledAction::Lag => self.lags[shard.index()] = random.bool(),
            ScheduledAction::ForeignSet
            | ScheduledAction::ForeignDelete
            | ScheduledAction::Replicate
            | ScheduledAction::Flush => {}
            ScheduledAction::Close => self.close(at, random.bool())?,
            ScheduledAction::Wait => self.nanos += random.u64(0..3_000_000_000),
            ScheduledAction::WaitForDays => {
                self.nanos +=
                    9 * 24 * 3_600_000_000_000 + random.u64(0..3 * 24 * 3_600_000_000_000);
            }
        }
        self.audit(at)
    }

    fn time_out(&mut self, at: usize, random: &mut fastrand::Rng) -> RuleResult {
        let process = &mut self.processes[at];
        let awaited = process.ledger.awaited_writes();
        if awaited.is_empty() {
            return Ok(());
        }
        let sequence = one_of(random, &awaited);
        process
            .ledger
            .caller_timed_out(&mut process.state, sequence)?;
        self.log_step(|| format!("{at} waits for {sequence} no longer"));
        Ok(())
    }

    /// A shard stops: it may lose the requests that have arrived, and keeps what it stores.
    fn stop_server(&mut self, shard: Shard, random: &mut fastrand::Rng) {
        self.are_up[shard.index()] = false;
        let connections = self.connections.iter_mut();
        for connection in connections.filter(|connection| connection.shard == shard) {
            if random.bool() {
                connection.requests.clear();
                connection.is_cut = true;
            }
        }
        self.log_step(|| "the server is away".to_owned());
    }

    /// Everything heals, everything is delivered, and all processes read: they must see what the
    /// server stores, and every write must have ended.
    pub(super) fn finish(&mut self) -> RuleResult {
        self.are_up.fill(true);
        self.fault_modes.fill(FaultMode::None);
        let mut random = self.random.fork();
        self.log_step(|| "everything heals".to_owned());
        self.heal_cluster();
        for at in 0..3 {
            for shard in self.placement.shards() {
                let connection = self.processes[at].route(*shard).connection;
                if connection.is_some_and(|connection| self.connections[connection].is_cut) {
                    self.disconnect(at, *shard, &mut random)?;
                }
            }
        }

        let late = if random.bool() {
            self.requests_of_abandoned_connections()
        } else {
            VecDeque::new()
        };
        self.deliver_everything(&mut random)?;
        self.read_everywhere(&mut random)?;
        self.check_end()?;

        if late.is_empty() {
            Ok(())
        } else {
            self.late_requests_arrive(late, &mut random)
        }
    }

    /// The requests that arrive only when everything is over, by connection.
    fn requests_of_abandoned_connections(&mut self) -> LateRequests<R> {
        let connections = self.connections.iter_mut().enumerate();
        connections
            .filter(|(_, connection)| connection.is_abandoned)
            .map(|(index, connection)| (index, std::mem::take(&mut connection.requests)))
            .collect()
    }

    fn deliver_everything(&mut self, random: &mut fastrand::Rng) -> RuleResult {
        for _ in 0..200 {
            for at in 0..3 {
                if self.processes[at].wants_layout {
                    self.learn_layout(at, false);
                    self.audit(at)?;
                }
                for shard in self.placement.shards() {
                    self.connect(at, *shard, random)?;
                    self.audit(at)?;
                    self.send(at, *shard)?;
                    self.audit(at)?;
                    self.nanos += 1_000;
                }
            }
            while self.connections.iter().any(|one| !one.requests.is_empty()) {
                self.serve_any(random)?;
            }
            while self.connections.iter().any(|one| !one.answers.is_empty()) {
                self.deliver_any(random)?;
            }
            let is_usable = |process: &ModelProcess<R>| process.usable_connection().is_some();
            let is_done = |process: &ModelProcess<R>| is_usable(process) && process.is_done();
            if self.processes.iter().all(is_done) {
                break;
            }
        }
        Ok(())
    }

    /// All processes read, and read again when every time to live is over.
    fn read_everywhere(&mut self, random: &mut fastrand::Rng) -> RuleResult {
        for wait in [0, LONGER_THAN_ANY_TTL] {
            self.nanos += wait;
            for at in 0..3 {
                self.read(at);
                // It may be sent from one shard to the other.
                for shard in self
                    .placement
                    .shards()
                    .repeat(self.placement.shards().len())
                {
                    self.round_trip(at, shard, random)?;
                }
                while !self.processes[at].late_reads.is_empty() {
                    self.handle_late_read(at, random)?;
                }
                while !self.processes[at].apart_reads.is_empty() {
                    self.read_apart(at, random)?;
                }
                self.audit(at)?;
            }
        }
        Ok(())
    }

    fn check_end(&mut self) -> RuleResult {
        let mono = self.mono();
        let held = self.server.held(mono);
        R::finished(self, held.as_ref())?;
        let held = held.map(|held| held.bytes);
        for at in 0..3 {
            ensure!(
                self.processes[at].state.outbox.len() == 0,
                "rule 2: {at} still has something to deliver"
            );
            R::ended(self, at)?;
            self.check_replicated(at)?;
            let visible = self.processes[at].state.view(KEY, mono).bytes();
            ensure!(
                visible == held,
                "rule 1: a read of {at} returns {visible:?}, and the server stores {held:?}"
            );
        }
        Ok(())
    }

    /// All processes have closed, and a foreign client has written, when requests of abandoned
    /// connections arrive: they must change nothing.
    fn late_requests_arrive(
        &mut self,
        late: LateRequests<R>,
        random: &mut fastrand::Rng,
    ) -> RuleResult {
        for at in 0..3 {
            self.close(at, true)?;
        }
        let mono = self.mono();
        let foreign = random.bool().then(|| ("0".into(), 0));
        self.server.store_foreign(foreign, mono)?;
        for (connection, requests) in late {
            self.connections[connection].requests = requests;
            while !self.connections[connection].requests.is_empty() {
                self.serve(connection)?;
            }
        }
        Ok(())
    }
}
