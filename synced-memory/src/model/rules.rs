//! What is to be held against random histories: how a process writes, and what the rules say of
//! that.

use std::fmt::Debug;

use super::Check;
use super::schedule::Act;
use super::server::{Held, KEY, Server};
use super::world::World;
use crate::backend::commit::{Attempt, Outcome, Sequence};
use crate::backend::error::BackendError;
use crate::base::clock::Monotonic;
use crate::cache::Ticket;
use crate::client::state::{Link, State};

/// What the rules say of one process. It is told what is asked of the state and what is answered,
/// and says what must have come of it.
pub(super) trait Rules: Debug + Sized {
    /// The writes, with how often they come.
    const WRITES: &'static [(Act, u32)];
    /// Those that only some schedules know.
    const RARE: &'static [(Act, u32)];
    /// What the rules say of an attempt that is on its way.
    type Sent: Debug;
    /// What is remembered of the whole history.
    type Log: Debug;

    fn log(seed: u64) -> Self::Log;

    fn new() -> Self;

    /// The process writes something.
    fn write(world: &mut World<Self>, at: usize, act: Act, random: &mut fastrand::Rng) -> Check;

    /// Somebody who knows nothing of processes and stamps stores something.
    fn foreign_set(world: &mut World<Self>, random: &mut fastrand::Rng) -> Check;

    /// The server decides on an attempt.
    fn commit(
        server: &mut Server,
        log: &mut Self::Log,
        attempt: &Attempt,
        sent: &Self::Sent,
        mono: Monotonic,
    ) -> Check<Outcome>;

    /// What came of all writes of a process in the end.
    fn ended(world: &World<Self>, at: usize) -> Check;

    /// What all of it came to, once everything is delivered.
    fn finished(_world: &World<Self>, _held: Option<&Held>) -> Check {
        Ok(())
    }

    /// What the callers of a process do when they were told that they are to write anew.
    fn go_on(_world: &mut World<Self>, _at: usize) -> Check {
        Ok(())
    }

    /// The writes that somebody waits for.
    fn awaited(&self) -> Vec<Sequence>;

    /// The time of whoever waits for this write is over.
    fn give_up(&mut self, state: &mut State, sequence: Sequence) -> Check {
        state.outbox.report_queued(KEY, sequence);
        self.promised(sequence)
    }

    /// Whether nobody has anything in hand yet.
    fn is_idle(&self) -> bool {
        true
    }

    /// Nobody waits for this write any more.
    fn promised(&mut self, sequence: Sequence) -> Check;

    /// A batch was taken from the outbox. Returns what was withdrawn with an error.
    fn drawn(&mut self, state: &State, batch: &[Attempt], mono: Monotonic) -> Check<Vec<Sequence>>;

    /// The same by a caller who asked for the first write, to send it itself.
    fn drawn_by_its_caller(
        &mut self,
        state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> Check<Vec<Sequence>>;

    fn sent(&mut self, attempt: &Attempt, ticket: Ticket) -> Self::Sent;

    /// An attempt was answered. `held` is what was there then. Returns what was withdrawn with an
    /// error.
    fn answered(
        &mut self,
        state: &State,
        sent: (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<Held>,
    ) -> Check<Vec<Sequence>>;

    /// A read was answered.
    fn read(&mut self, ticket: Ticket, held: Option<Held>);

    fn connected(&mut self, shift: Option<i64>);

    /// The server is away, or takes no writes: everybody is told that the write is queued.
    fn interrupted(&mut self, link: Link) -> Check;

    /// The server takes writes again.
    fn thawed(&mut self);

    /// The state must be what the rules say. `version` is that of what it shows.
    fn audit(&mut self, state: &State, version: u64, mono: Monotonic) -> Check;
}
