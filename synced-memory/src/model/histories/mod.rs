//! Single histories by name: the shortest that can break a rule, most of them found by the model.
//!
//! A process is a `State`, and the server a `Store`; every call is one that the flusher or a caller
//! makes.
//!
//! - `additions.rs`: of processes that add to a list
//! - `assignments.rs`, `found.rs`: of processes that assign whole values
//! - `mutations.rs`, `closures.rs`, `confirmed.rs`: of processes that change parts of a value;
//!   `calls.rs`: how they make their calls

mod additions;
mod assignments;
mod calls;
mod closures;
mod confirmed;
mod found;
mod mutations;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::server::{KEY, TOMBSTONE_TTL};
use crate::backend::commit::{Attempt, Expects, KeyChange, Outcome, TimeToLive};
use crate::backend::process::Store;
use crate::backend::shards::Shard;
use crate::base::clock::{Moment, Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::cache::{Generation, Ticket};
use crate::client::state::{Accepted, Request, State};
use crate::pending::outbox::{Answer, Written};
use crate::value::envelope::{self, Unsealed};

const NOW: u64 = 1_700_000_000_000_000_000;
const AN_HOUR: u64 = 3_600_000_000_000;

struct ScenarioServer {
    store: Store,
    foreign_writers: u64,
}

impl ScenarioServer {
    fn new() -> Self {
        Self {
            store: Store::new(2 * TOMBSTONE_TTL),
            foreign_writers: 0,
        }
    }

    fn commit(&mut self, attempt: &Attempt) -> Outcome {
        self.store.commit(attempt, Monotonic::ZERO)
    }

    fn stored(&mut self) -> Option<Bytes> {
        let stored = self.store.read(KEY, Monotonic::ZERO)?;
        Some(stored.to_bytes())
    }

    fn value(&mut self) -> Option<String> {
        value(self.stored())
    }

    /// A SET by a foreign client that knows nothing of stamps.
    fn set_foreign(&mut self, text: impl Into<Bytes>) {
        self.foreign_writers += 1;
        let change = KeyChange::Put {
            envelope: text.into(),
            ttl: TimeToLive::Keep,
        };
        let (writer, stamp) = (self.foreign_writers, Stamp::MAX);
        let (key, expects) = (KEY.into(), Expects::Anything);
        let outcome = self.commit(&Attempt {
            key,
            writer,
            sequence: 1,
            stamp,
            change,
            expects,
            retry: None,
            recorded: None,
            asking: false,
        });
        assert!(matches!(outcome, Outcome::Applied { .. }));
    }
}

struct ScenarioProcess {
    state: State,
    key: Arc<str>,
    tickets: Ticket,
    mono: Monotonic,
    now: u64,
}

impl ScenarioProcess {
    /// A process that has never been connected.
    fn offline(seed: u64) -> Self {
        let mut state = State::new(1 << 20, TOMBSTONE_TTL, fastrand::Rng::with_seed(seed));
        let key: Arc<str> = KEY.into();
        state.cache.hold(&key);
        Self {
            state,
            key,
            tickets: 0,
            mono: Monotonic::ZERO,
            now: NOW,
        }
    }

    fn connected(seed: u64) -> Self {
        let mut process = Self::offline(seed);
        process.state.connected(Shard::FIRST, None);
        process
    }

    fn write(&mut self, request: Request) -> Accepted {
        self.write_as(request, WritePolicy::Through)
    }

    fn write_as(&mut self, request: Request, policy: WritePolicy) -> Accepted {
        self.now += 1_000_000;
        let at = Moment {
            mono: self.mono,
            now: self.now,
        };
        self.state
            .write(&self.key, request, policy, at)
            .expect("there is room in the outbox")
    }

    fn put(&mut self, value: &str, ttl: Option<Duration>) -> Accepted {
        self.write(Request::Put {
            value: Unsealed::encode(&value).expect("text is JSON"),
            ttl,
        })
    }

    fn set(&mut self, value: &str) -> Accepted {
        self.put(value, None)
    }

    fn delete(&mut self) -> Accepted {
        self.write(Request::Delete)
    }

    /// The next attempt, on its way under the ticket.
    fn send(&mut self) -> Option<(Attempt, Ticket)> {
        let batch = self.state.next_batch(Shard::FIRST, 512, 1 << 20, self.mono);
        assert!(batch.len() < 2, "one attempt per key");
        self.tickets += 1;
        self.state.sent(&batch, self.tickets, self.mono);
        Some((batch.into_iter().next()?, self.tickets))
    }

    /// Sends everything that is queued, and handles the answers.
    fn deliver(&mut self, server: &mut ScenarioServer) {
        while let Some((attempt, ticket)) = self.send() {
            let outcome = server.store.commit(&attempt, self.mono);
            self.state
                .answered(&attempt, ticket, Ok(outcome), self.mono);
        }
    }

    fn disconnect(&mut self) {
        self.state.disconnected(
            Shard::FIRST,
            &Error::new(ErrorKind::Unavailable, "lost"),
            self.mono,
        );
    }

    fn read(&mut self, server: &mut ScenarioServer) {
        self.tickets += 1;
        self.state.cache.asked(KEY, self.tickets, self.mono);
        self.state.read(
            &self.key,
            self.tickets,
            Generation::default(),
            server.store.read(KEY, self.mono),
            self.mono,
        );
    }

    fn visible(&self) -> Option<String> {
        value(self.state.view(KEY, self.mono).bytes())
    }

    /// How many changes each of its dead letters has.
    fn dead_changes(&self) -> Vec<usize> {
        let letters = self.state.letters.iter();
        letters.map(|record| record.changes().len()).collect()
    }

    fn is_done(&self) -> bool {
        self.state.outbox.len() == 0
    }
}

fn value(stored: Option<Bytes>) -> Option<String> {
    stored.map(|stored| envelope::decode(&stored).expect("it is text"))
}

fn answer(accepted: &mut Accepted) -> Option<Result<Written, ErrorKind>> {
    let answer: Result<Answer> = accepted.answer.try_recv().ok()?;
    Some(
        answer
            .map(|answer| answer.written)
            .map_err(|error| error.kind()),
    )
}
