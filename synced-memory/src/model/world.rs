//! All that takes part: three processes, their connections, and the server, which is one or a
//! cluster of two shards.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::placement::{Placement, Topology};
use super::process::{ModelProcess, ProcessRules};
use super::server::{HeldValue, KEY, ModelServer};
use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::BackendError;
use crate::backend::shards::Shard;
use crate::base::clock::{Moment, Monotonic};
use crate::cache::Ticket;

const EPOCH: u64 = 1_700_000_000_000_000_000;
const HOUR: i64 = 3_600_000_000_000;
/// The clock of a host that was never set.
const SINCE_1970: i64 = -EPOCH.cast_signed();

/// How the server answers attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultMode {
    None,
    Unavailable,
    NotPrimary,
    Rejecting,
    /// The script is not loaded, until it is sent again.
    ScriptMissing,
}

#[derive(Debug)]
pub(super) struct World<R: ProcessRules> {
    /// The server's clock, since `EPOCH`.
    pub(super) nanos: u64,
    /// What is stored and recorded, at whatever shard it is.
    pub(super) server: ModelServer,
    pub(super) placement: Placement,
    pub(super) log: R::RunLog,
    /// That of each shard, as what follows.
    pub(super) fault_modes: Vec<FaultMode>,
    pub(super) are_up: Vec<bool>,
    /// Its replica does not receive what is made.
    pub(super) lags: Vec<bool>,
    pub(super) processes: Vec<ModelProcess<R>>,
    pub(super) connections: Vec<ModelConnection<R::InFlight>>,
    /// How many values were written: each is written once.
    pub(super) values: u64,
    pub(super) key: Arc<str>,
    pub(super) random: fastrand::Rng,
    pub(super) trace: Option<Vec<String>>,
}

/// A connection. Requests are handled in order, and answers arrive in order.
#[derive(Debug)]
pub(super) struct ModelConnection<S> {
    pub(super) process: usize,
    pub(super) shard: Shard,
    pub(super) writer: Writer,
    pub(super) requests: VecDeque<ModelRequest<S>>,
    pub(super) answers: VecDeque<ModelAnswer>,
    /// The process uses it no longer; requests on it may still reach the server.
    pub(super) is_abandoned: bool,
    /// Its answers still arrive.
    pub(super) delivers_answers: bool,
    /// Nothing reaches the server any more.
    pub(super) is_cut: bool,
}

impl<S> ModelConnection<S> {
    pub(super) fn push_request(&mut self, request: ModelRequest<S>) {
        if !self.is_cut {
            self.requests.push_back(request);
        }
    }
}

#[derive(Debug)]
pub(super) enum ModelRequest<S> {
    Commit {
        attempt: Attempt,
        in_flight: S,
        ticket: Ticket,
    },
    Read(ModelRead),
    DropRecords,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ModelRead {
    pub(super) ticket: Ticket,
    /// The value is large: it is read apart once this was answered.
    pub(super) is_apart: bool,
    /// The era in which its shard was asked to answer although it does not have the slot.
    pub(super) asked_in: Option<u32>,
    /// How often it was sent elsewhere.
    pub(super) hops: u8,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are only a few at a time")]
pub(super) enum ModelAnswer {
    Commit {
        attempt: Box<Attempt>,
        ticket: Ticket,
        answer: Result<Outcome, BackendError>,
        held: Option<HeldValue>,
    },
    Read(Ticket, Option<HeldValue>),
    /// The value is to be read apart.
    TooLarge(Ticket),
    /// Another shard has the key. What to do then depends on the read.
    Redirected(ModelRead, BackendError),
}

impl<R: ProcessRules> World<R> {
    pub(super) fn new(seed: u64, topology: Topology, is_traced: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(!seed);
        let placement = Placement::new(topology, &mut random);
        let log = R::new_log(seed);
        let long_from = R::long_from(&log);
        let mut process = || {
            let clock_offset = one_of(&mut random, &[0, 0, 5_000, -5_000, HOUR, -HOUR, SINCE_1970]);
            ModelProcess::new(clock_offset, &placement, long_from, &mut random)
        };
        let processes = vec![process(), process(), process()];
        Self {
            nanos: 0,
            server: ModelServer::new(placement.shards().len()),
            log,
            fault_modes: placement.by_shard(FaultMode::None),
            are_up: placement.by_shard(true),
            lags: placement.by_shard(false),
            placement,
            processes,
            connections: Vec::new(),
            values: 0,
            key: KEY.into(),
            random,
            trace: is_traced.then(Vec::new),
        }
    }

    pub(super) fn trace_lines(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// Adds a line to the trace, if there is one.
    pub(super) fn log_step(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub(super) fn mono(&self) -> Monotonic {
        Duration::from_nanos(self.nanos)
    }

    /// The time by the clocks of a process.
    pub(super) fn moment(&self, at: usize) -> Moment {
        let now = (EPOCH + self.nanos).saturating_add_signed(self.processes[at].clock_offset);
        Moment {
            mono: self.mono(),
            now,
        }
    }

    /// The stamp that a foreign client writes, if any. `pending` is the stamp of a queued write.
    pub(super) fn foreign_stamp(
        &self,
        pending: Option<u64>,
        random: &mut fastrand::Rng,
    ) -> Option<u64> {
        let now = EPOCH + self.nanos;
        match random.u8(0..6) {
            0 => None,
            1 => Some(now),
            2 => Some(now.saturating_add_signed(random.i64(-HOUR..HOUR))),
            3 => Some(
                self.server
                    .stamp_to_beat()
                    .saturating_add_signed(random.i64(-2..2)),
            ),
            4 => Some(pending.unwrap_or(now)),
            _ => Some(now.saturating_add_signed(random.i64(-5_000..5_000))),
        }
    }
}

/// One of the choices, at random.
pub(super) fn one_of<T: Copy>(random: &mut fastrand::Rng, choices: &[T]) -> T {
    choices[random.usize(0..choices.len())]
}
