//! A process: its state, what the rules say of that, and its clock.

use std::fmt::Debug;

use super::check::RuleResult;
use super::server::{HeldValue, KEY, ModelServer, TOMBSTONE_TTL};
use crate::backend::commit::{Attempt, Outcome, Sequence};
use crate::backend::error::BackendError;
use crate::backend::shards::Shard;
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Ticket, Version};
use crate::client::state::{Link, State};

/// What the rules say of one process. It is notified of everything that the state is asked and
/// answered, and checks what the state makes of it.
pub(super) trait ProcessRules: Debug + Sized {
    /// What the rules say of an attempt that is on its way.
    type InFlight: Debug;
    /// What is recorded about the whole history.
    type RunLog: Debug;

    fn new_log(seed: u64) -> Self::RunLog;

    fn new() -> Self;

    /// The server decides on an attempt.
    fn commit(
        server: &mut ModelServer,
        log: &mut Self::RunLog,
        attempt: &Attempt,
        in_flight: &Self::InFlight,
        mono: Monotonic,
    ) -> RuleResult<Outcome>;

    /// The writes that a caller waits for.
    fn awaited_writes(&self) -> Vec<Sequence>;

    /// The caller of this write waits no longer.
    fn caller_timed_out(&mut self, state: &mut State, sequence: Sequence) -> RuleResult {
        state.outbox.report_queued(KEY, sequence);
        self.reported_queued(sequence)
    }

    /// Whether no caller has yet to pick up an element that was taken for it.
    fn is_idle(&self) -> bool {
        true
    }

    /// The callers of this write were answered that it is queued.
    fn reported_queued(&mut self, sequence: Sequence) -> RuleResult;

    /// The flusher took a batch from the outbox. Returns what was withdrawn with an error.
    fn batch_taken(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> RuleResult<Vec<Sequence>>;

    /// A caller took a batch from the outbox, to send its own write itself. Returns what was
    /// withdrawn with an error.
    fn taken_by_its_caller(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> RuleResult<Vec<Sequence>>;

    fn sent(&mut self, attempt: &Attempt, ticket: Ticket) -> Self::InFlight;

    /// An attempt was answered; the server then stored `held`. Returns what was withdrawn with an
    /// error.
    fn answered(
        &mut self,
        state: &State,
        sent: (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<HeldValue>,
    ) -> RuleResult<Vec<Sequence>>;

    /// A read was answered.
    fn read(&mut self, ticket: Ticket, held: Option<HeldValue>);

    fn connected(&mut self, shift: Option<i64>);

    /// The server is away, or takes no writes: all writes are reported as queued.
    fn interrupted(&mut self, link: Link) -> RuleResult;

    /// The server takes writes again.
    fn recovered(&mut self);

    /// Checks the state. `version` is that of the view.
    fn audit(&mut self, state: &State, version: u64, mono: Monotonic) -> RuleResult;
}

#[derive(Debug)]
pub(super) struct ModelProcess<R> {
    pub(super) state: State,
    pub(super) version: Version,
    pub(super) ledger: R,
    /// How far its clock is ahead of the server's.
    pub(super) clock_offset: i64,
    pub(super) was_connected: bool,
    /// The index of its connection.
    pub(super) connection: Option<usize>,
    /// Callers may use the connection: what was in doubt has been sent.
    pub(super) is_usable: bool,
    pub(super) is_under_way: bool,
    pub(super) tickets: Ticket,
    /// Answers to reads that are handled later.
    pub(super) late_reads: Vec<(Ticket, Option<HeldValue>)>,
}

impl<R: ProcessRules> ModelProcess<R> {
    pub(super) fn new(clock_offset: i64, random: &mut fastrand::Rng) -> Self {
        let limit = if random.u8(0..8) == 0 { 700 } else { 1 << 20 };
        let mut state = State::new(limit, TOMBSTONE_TTL, random.fork());
        state.letters_limit = usize::MAX;
        let version = state.cache.hold(&KEY.into());

        Self {
            state,
            version,
            ledger: R::new(),
            clock_offset,
            was_connected: false,
            connection: None,
            is_usable: false,
            is_under_way: false,
            tickets: 0,
            late_reads: Vec::new(),
        }
    }

    /// Whether everything is delivered to the server, and to the callers.
    pub(super) fn is_done(&self) -> bool {
        self.state.outbox.len() == 0 && self.ledger.is_idle()
    }

    pub(super) fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    pub(super) fn disconnected(&mut self, mono: Monotonic) -> RuleResult {
        self.is_usable = false;
        self.is_under_way = false;
        self.connection = None;
        let lost = Error::new(ErrorKind::Unavailable, "lost");
        self.state.disconnected(Shard::FIRST, &lost, mono);
        self.ledger.interrupted(Link::Down)
    }
}
