//! A process: its state, what the rules say of that, and its clock.

use std::fmt::Debug;

use tokio::sync::oneshot::Receiver;

use super::check::RuleResult;
use super::placement::Placement;
use super::server::{HeldValue, KEY, ModelServer, TOMBSTONE_TTL};
use crate::backend::commit::{self, Attempt, Outcome, Sequence};
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

    /// From how many bytes on its values are long.
    fn long_from(_log: &Self::RunLog) -> usize {
        commit::LONG
    }

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

    /// The flusher took a batch from the outbox. `is_rest_elsewhere`: what did not end unsent is in
    /// line at another shard. Returns what was withdrawn with an error.
    fn batch_taken(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
        is_rest_elsewhere: bool,
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

    /// A read of a large value was answered.
    fn read_apart(&mut self, ticket: Ticket, found: ApartFound) -> RuleResult {
        self.read(ticket, found.held);
        Ok(())
    }

    /// The writes that were answered as made.
    fn made(&self) -> Vec<Sequence>;

    fn connected(&mut self, shift: Option<i64>);

    /// Whether writes can be sent to the shard that has the key, as this process knows it.
    fn link_is(&mut self, link: Link);

    /// The connection was lost over which an attempt is under way.
    fn lost_under_way(&mut self) -> RuleResult;

    /// The server is away, or (`is_busy`) takes no writes: all writes are reported as queued.
    fn interrupted(&mut self, is_busy: bool) -> RuleResult;

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
    /// By the number of the shard.
    pub(super) routes: Vec<ModelRoute>,
    /// The shard to which an attempt is under way.
    pub(super) sent_to: Option<Shard>,
    /// The layout of the cluster is to be asked for.
    pub(super) wants_layout: bool,
    /// The shard of the key, as the last layout said.
    pub(super) laid_out: Shard,
    pub(super) tickets: Ticket,
    /// Answers to reads that are handled later.
    pub(super) late_reads: Vec<LateRead>,
    pub(super) apart_reads: Vec<ApartRead>,
}

/// The answer to a read that came over the connection of this index, and is not handled yet.
#[derive(Debug)]
pub(super) struct LateRead {
    pub(super) connection: usize,
    pub(super) ticket: Ticket,
    pub(super) held: Option<HeldValue>,
}

/// A read of a large value: it takes effect in no order with other requests.
#[derive(Debug)]
pub(super) struct ApartRead {
    /// The index of the connection whose end it does not outlive.
    pub(super) connection: usize,
    pub(super) ticket: Ticket,
    /// It goes on once the mutation was answered that is under way.
    pub(super) waits: Option<Receiver<()>>,
    /// What it has found.
    pub(super) found: Option<ApartFound>,
    pub(super) has_arrived: bool,
}

/// What a read of a large value has found when it took effect.
#[derive(Debug)]
pub(super) struct ApartFound {
    pub(super) held: Option<HeldValue>,
    /// The writes of its process that had been applied.
    pub(super) applied: Vec<Sequence>,
    /// Every change so far was made by a process, and none was lost: stamps have risen.
    pub(super) has_risen: bool,
}

/// The way of a process to one shard.
#[derive(Debug, Clone)]
pub(super) struct ModelRoute {
    /// The index of its connection.
    pub(super) connection: Option<usize>,
    /// Callers may use the connection: what was in doubt has been sent.
    pub(super) is_usable: bool,
    /// The flusher waits for the answer to an attempt.
    pub(super) is_under_way: bool,
    /// There may be something for the flusher to send.
    pub(super) is_awake: bool,
    pub(super) link: Link,
}

impl Default for ModelRoute {
    fn default() -> Self {
        Self {
            connection: None,
            is_usable: false,
            is_under_way: false,
            is_awake: false,
            link: Link::Down,
        }
    }
}

impl<R: ProcessRules> ModelProcess<R> {
    pub(super) fn new(
        clock_offset: i64,
        placement: &Placement,
        long_from: usize,
        random: &mut fastrand::Rng,
    ) -> Self {
        let limit = if random.u8(0..8) == 0 { 700 } else { 1 << 20 };
        let state = State::new(limit, TOMBSTONE_TTL, random.fork());
        let mut state = placement.share_out(state.with_long_values_from(long_from));
        state.letters_limit = usize::MAX;
        let version = state.cache.hold(&KEY.into());

        Self {
            state,
            version,
            ledger: R::new(),
            clock_offset,
            was_connected: false,
            routes: placement.by_shard(ModelRoute::default()),
            sent_to: None,
            wants_layout: placement.is_cluster(),
            laid_out: Shard::FIRST,
            tickets: 0,
            late_reads: Vec::new(),
            apart_reads: Vec::new(),
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

    pub(super) fn route(&mut self, shard: Shard) -> &mut ModelRoute {
        &mut self.routes[shard.index()]
    }

    /// The shard that the key has in the map of this process.
    pub(super) fn shard(&self) -> Shard {
        self.state.map.shard_of(KEY)
    }

    /// Whether a caller may use the connection to the shard of the key.
    pub(super) fn usable_connection(&self) -> Option<usize> {
        let route = &self.routes[self.shard().index()];
        route.connection.filter(|_| route.is_usable)
    }

    /// Whether the writes to the key wait for this shard.
    fn waits_for(&self, shard: Shard) -> bool {
        self.state.outbox.shard_of_head(KEY) == shard
    }

    /// The connection to a shard is lost, or could not be made.
    pub(super) fn disconnected(&mut self, shard: Shard, mono: Monotonic) -> RuleResult {
        *self.route(shard) = ModelRoute::default();
        let is_lost = self.sent_to.take_if(|sent_to| *sent_to == shard).is_some();
        let is_reported = is_lost || self.waits_for(shard);
        let lost = Error::new(ErrorKind::Unavailable, "lost");
        self.state.disconnected(shard, &lost, mono);
        self.know_link();
        if is_lost {
            self.ledger.lost_under_way()?;
        }
        if is_reported {
            self.ledger.interrupted(false)?;
        }
        Ok(())
    }

    /// The shard takes no writes now.
    pub(super) fn paused(&mut self, shard: Shard) -> RuleResult {
        self.route(shard).link = Link::Paused;
        let is_reported = self.waits_for(shard);
        let busy = Error::new(ErrorKind::Unavailable, "busy");
        self.state.paused(shard, busy, None);
        self.know_link();
        if is_reported {
            self.ledger.interrupted(true)?;
        }
        Ok(())
    }

    /// The shard takes writes.
    pub(super) fn resumed(&mut self, shard: Shard) {
        if self.state.resumed(shard) {
            self.route(shard).link = Link::Up;
            self.know_link();
        }
    }

    fn know_link(&mut self) {
        let link = self.routes[self.shard().index()].link;
        self.ledger.link_is(link);
    }

    /// The lock around the state is released: whoever has something to do is woken.
    pub(super) fn unlocked(&mut self) {
        self.know_link();
        self.wants_layout |= self.state.take_layout_wanted();
        if self.state.take_strayed() {
            self.wake_all();
        }
    }

    pub(super) fn wake_all(&mut self) {
        self.routes
            .iter_mut()
            .for_each(|route| route.is_awake = true);
    }

    /// A caller has queued something, or was answered: it wakes the flushers with work.
    pub(super) fn wake_flushers(&mut self) {
        for shard in self.state.shards_with_work() {
            self.routes[shard.index()].is_awake = true;
        }
    }
}
