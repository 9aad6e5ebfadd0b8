//! Processes that assign whole values, and delete them.

use std::time::Duration;

use super::ledger::{Fate, Ledger};
use super::rules::Rules;
use super::schedule::Act;
use super::server::{Held, KEY, Server};
use super::world::{World, one_of};
use super::{Check, hold};
use crate::backend::commit::{Attempt, Outcome, Sequence};
use crate::backend::error::BackendError;
use crate::base::clock::Monotonic;
use crate::base::error::ErrorKind;
use crate::cache::Ticket;
use crate::client::state::{Link, Request, State};
use crate::value::envelope::Unsealed;

impl Rules for Ledger {
    const WRITES: &'static [(Act, u32)] = &[(Act::Put, 14), (Act::Delete, 6)];
    const RARE: &'static [(Act, u32)] = &[(Act::PutForAWhile, 6)];
    /// When the time to live of its value is over.
    type Sent = Option<Monotonic>;
    type Log = ();

    fn log(_seed: u64) {}

    fn new() -> Self {
        Self::new()
    }

    fn write(world: &mut World<Self>, at: usize, act: Act, random: &mut fastrand::Rng) -> Check {
        let puts = act != Act::Delete;
        let ttl = (act == Act::PutForAWhile)
            .then(|| Duration::from_millis(one_of(random, &[1, 2_000, 20_000])));
        world.values += 1;
        let (value, mono, moment) = (world.values, world.mono(), world.moment(at));
        let process = &mut world.processes[at];
        let request = if puts {
            let value = Unsealed::encode(&value).expect("a number is JSON");
            Request::Put { value, ttl }
        } else {
            Request::Delete
        };
        let existed = process.state.view(KEY, mono).stored.is_some();
        match process.state.write(
            &world.key,
            request,
            crate::base::policy::WritePolicy::Through,
            moment,
        ) {
            Ok(accepted) => {
                let sequence = accepted.sequence;
                let asked = (puts.then_some(value), ttl);
                process
                    .ledger
                    .accepted(&process.state, asked, moment, existed, accepted)?;
                let stamp = process.ledger.last_stamp();
                world.tell(|| {
                    let what = if puts {
                        format!("puts {value}")
                    } else {
                        "deletes".to_owned()
                    };
                    format!("{at} {what} for {ttl:?} as {sequence}, stamped {stamp:?}")
                });
                Ok(())
            }
            Err(error) => {
                let full =
                    error.kind() == ErrorKind::OutboxFull && process.ledger.last_stamp().is_some();
                hold!(full, "rule 2: a write was refused: {error}");
                Ok(())
            }
        }
    }

    /// Without a stamp or with any.
    fn foreign_set(world: &mut World<Self>, random: &mut fastrand::Rng) -> Check {
        world.values += 1;
        let value = world.values;
        let pending = world.processes[random.usize(0..3)].ledger.last_stamp();
        let stamp = world.foreign_stamp(pending, random);
        let stored = match stamp {
            Some(stamp) => format!(r#"{{"value": {value}, "last_modified": {stamp}}}"#),
            None => value.to_string(),
        };
        world.tell(|| format!("a foreign SET {stored}"));
        world
            .server
            .raw(Some((stored.into(), stamp.unwrap_or(0))), world.mono())
    }

    fn commit(
        server: &mut Server,
        _log: &mut (),
        attempt: &Attempt,
        over: &Option<Monotonic>,
        mono: Monotonic,
    ) -> Check<Outcome> {
        server.commit(attempt, *over, mono)
    }

    fn ended(world: &World<Self>, at: usize) -> Check {
        let process = &world.processes[at];
        for (sequence, fate) in process.ledger.fates() {
            let made = world.server.made(process.state.writer(), sequence);
            // It was never applied, and is superseded for good; but the answer to that was lost,
            // and so it is not counted.
            let made = made
                || fate == Some(Fate::Stored)
                    && world.server.is_superseded(process.state.writer(), sequence);
            match fate {
                None => return Err(format!("rule 2: {at}/{sequence} never came to an end")),
                Some(Fate::Stored) => hold!(
                    made,
                    "{at}/{sequence} was called stored, and was never applied"
                ),
                Some(Fate::Withdrawn) => hold!(
                    !made,
                    "{at}/{sequence} was called withdrawn, and was applied"
                ),
                Some(Fate::Found | Fate::Superseded | Fate::Expired | Fate::SetAside) => {}
            }
        }
        Ok(())
    }

    fn awaited(&self) -> Vec<Sequence> {
        self.awaited().collect()
    }

    fn promised(&mut self, sequence: Sequence) -> Check {
        self.promised(sequence)
    }

    fn drawn(
        &mut self,
        _state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> Check<Vec<Sequence>> {
        self.drawn(batch, mono)
    }

    fn drawn_by_its_caller(
        &mut self,
        _state: &State,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> Check<Vec<Sequence>> {
        Ok(self.drawn_by_its_caller(batch, mono)?.into_iter().collect())
    }

    fn sent(&mut self, attempt: &Attempt, ticket: Ticket) -> Option<Monotonic> {
        self.sent(attempt.sequence, ticket);
        self.over(attempt.sequence)
    }

    fn answered(
        &mut self,
        state: &State,
        sent: (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<Held>,
    ) -> Check<Vec<Sequence>> {
        Ok(self
            .answered(state, sent, answer, held)?
            .into_iter()
            .collect())
    }

    fn read(&mut self, ticket: Ticket, held: Option<Held>) {
        self.read(ticket, held);
    }

    fn connected(&mut self, shift: Option<i64>) {
        self.connected(shift);
    }

    fn interrupted(&mut self, link: Link) -> Check {
        self.interrupted(link)
    }

    fn thawed(&mut self) {
        self.thawed();
    }

    fn audit(&mut self, state: &State, version: u64, mono: Monotonic) -> Check {
        self.audit(state, version, mono)
    }
}
