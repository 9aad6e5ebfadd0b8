//! Rule 14, in every order in which threads may come: callers that read, the I/O thread that takes
//! in what is told and reads again, somebody else who writes, and a connection that is lost.
//!
//! The slot, its version and its generation are the real ones; the server and the line are a few
//! lines here. What is told comes in any order with the answers, as on Dragonfly; by prefix, or
//! once for each read.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use super::server::{KEY, TOMBSTONE_TTL};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Ticket, Version};
use crate::client::state::State;

const SCHEDULES: usize = 1_500;
const WRITES: u64 = 3;

/// What the server holds, and what is on its way.
#[derive(Debug, Default)]
struct Server {
    value: u64,
    /// It tells of all changes, and not of one after each read.
    is_by_prefix: bool,
    is_armed: bool,
    /// Which connection there is, and whether it is told of changes and may be used.
    connection: u64,
    is_live: bool,
    requests: VecDeque<Ticket>,
    answers: HashMap<Ticket, u64>,
    told: u32,
}

impl Server {
    fn write(&mut self) {
        self.value += 1;
        if self.is_live && (self.is_by_prefix || std::mem::take(&mut self.is_armed)) {
            self.told += 1;
        }
    }
}

struct World {
    key: std::sync::Arc<str>,
    /// Order of locks: this one, that of the server, that of the state.
    wire: Mutex<Ticket>,
    server: Mutex<Server>,
    state: Mutex<State>,
    version: Version,
    memo: Mutex<Option<(u64, u64)>>,
    /// Nobody writes or calls any more; and nobody asks.
    is_over: Mutex<bool>,
    is_closed: Mutex<bool>,
}

impl World {
    fn new(is_by_prefix: bool) -> Arc<Self> {
        let key = std::sync::Arc::from(KEY);
        let mut state = State::new(1 << 20, TOMBSTONE_TTL, fastrand::Rng::with_seed(1));
        let version = state.cache.hold(&key);
        state.connected(None);
        state.cache.tracked(true, Monotonic::ZERO);
        let server = Server {
            is_by_prefix,
            is_live: true,
            ..Server::default()
        };
        let (server, state) = (Mutex::new(server), Mutex::new(state));
        Arc::new(Self {
            key,
            wire: Mutex::new(0),
            server,
            state,
            version,
            memo: Mutex::new(None),
            is_over: Mutex::new(false),
            is_closed: Mutex::new(false),
        })
    }

    fn is_over(&self) -> bool {
        *self.is_over.lock().unwrap()
    }

    /// As `refresher::load`. Nothing is taken in where there is no connection, or it is lost before
    /// the answer.
    fn load(&self) {
        let (connection, ticket, generation) = {
            let mut wire = self.wire.lock().unwrap();
            let mut server = self.server.lock().unwrap();
            if !server.is_live {
                return;
            }
            *wire += 1;
            let generation = self.state.lock().unwrap().cache.generation(KEY);
            server.requests.push_back(*wire);
            (server.connection, *wire, generation)
        };
        let value = loop {
            let mut server = self.server.lock().unwrap();
            if let Some(value) = server.answers.remove(&ticket) {
                break value;
            }
            if server.connection != connection {
                return;
            }
            drop(server);
            thread::yield_now();
        };
        let stored = Bytes::from(value.to_string());
        self.state
            .lock()
            .unwrap()
            .read(&self.key, ticket, generation, Some(stored));
    }

    /// As `Synced::shown`, by way of a memo that all readers share and that holds for one version.
    fn shown(&self) -> u64 {
        let memo = *self.memo.lock().unwrap();
        if let Some((version, value)) = memo
            && version == self.version.load(Ordering::Acquire)
        {
            return value;
        }
        let (version, view) = {
            let state = self.state.lock().unwrap();
            (
                self.version.load(Ordering::Acquire),
                state.view(KEY, Monotonic::ZERO),
            )
        };
        thread::yield_now();
        let value = view
            .value()
            .map_or(0, |value| value.as_str().parse().unwrap());
        *self.memo.lock().unwrap() = Some((version, value));
        value
    }

    fn is_local(&self) -> bool {
        self.state.lock().unwrap().is_local(std::iter::once(KEY))
    }

    /// What counts as current is what the server holds, unless it says otherwise already.
    fn check(&self) {
        let server = self.server.lock().unwrap();
        let is_current = self
            .state
            .lock()
            .unwrap()
            .cache
            .staleness(KEY, Monotonic::MAX)
            == Some(Duration::ZERO);
        if is_current && server.is_live && server.told == 0 {
            assert_eq!(self.shown(), server.value, "taken for current");
        }
    }

    /// Answers what is asked.
    fn serve(&self) {
        loop {
            let is_closed = *self.is_closed.lock().unwrap();
            {
                let mut server = self.server.lock().unwrap();
                if let Some(ticket) = server.requests.pop_front() {
                    server.is_armed = true;
                    let value = server.value;
                    server.answers.insert(ticket, value);
                } else if is_closed {
                    return;
                }
            }
            thread::yield_now();
        }
    }

    /// Reads as one that does not care for changes, and then as one that does.
    fn call(&self) {
        self.load();
        let mut seen = self.shown();
        self.state.lock().unwrap().cache.keep_near(&self.key);
        for _ in 0..3 {
            if !self.is_local() {
                self.load();
            }
            self.check();
            let now = self.shown();
            assert!(now >= seen, "{now} after {seen}");
            seen = now;
            thread::yield_now();
        }
    }

    fn take_in(&self) {
        while !self.is_over() || self.server.lock().unwrap().told > 0 {
            {
                let mut server = self.server.lock().unwrap();
                if server.told > 0 {
                    server.told -= 1;
                    self.state
                        .lock()
                        .unwrap()
                        .cache
                        .invalidated(&self.key, Monotonic::ZERO);
                }
            }
            self.check();
            thread::yield_now();
        }
    }

    fn read_again(&self) {
        loop {
            let is_over = self.is_over() && self.server.lock().unwrap().told == 0;
            let stale = self.state.lock().unwrap().cache.take_stale(1);
            if !stale.is_empty() {
                self.load();
            } else if is_over {
                return;
            }
            thread::yield_now();
        }
    }

    fn lose_the_connection(&self) {
        {
            let mut server = self.server.lock().unwrap();
            let is_by_prefix = server.is_by_prefix;
            let (value, connection) = (server.value, server.connection + 1);
            *server = Server {
                value,
                is_by_prefix,
                connection,
                ..Server::default()
            };
        }
        let lost = Error::new(ErrorKind::Unavailable, "lost");
        self.state.lock().unwrap().lost(lost, Monotonic::ZERO);
        thread::yield_now();
        self.state.lock().unwrap().connected(None);
        thread::yield_now();
        // Confirmed first; then everything is read.
        self.server.lock().unwrap().is_live = true;
        self.state
            .lock()
            .unwrap()
            .cache
            .tracked(true, Monotonic::ZERO);
    }
}

fn in_every_order(is_by_prefix: bool, is_lost: bool) {
    let run = move || {
        let world = World::new(is_by_prefix);
        let spawn = |act: fn(&World)| {
            let world = Arc::clone(&world);
            thread::spawn(move || act(&world))
        };
        let serve = spawn(World::serve);
        let io = [World::take_in, World::read_again].map(spawn);
        let write = |world: &World| {
            for _ in 0..WRITES {
                world.server.lock().unwrap().write();
                thread::yield_now();
            }
        };
        let mut acts = vec![spawn(write), spawn(World::call), spawn(World::call)];
        acts.extend(is_lost.then(|| spawn(World::lose_the_connection)));
        for act in acts {
            act.join().unwrap();
        }
        *world.is_over.lock().unwrap() = true;
        for thread in io {
            thread.join().unwrap();
        }
        *world.is_closed.lock().unwrap() = true;
        serve.join().unwrap();
        // Whoever reads it now, and did before.
        if world.is_local() {
            let stale = world.state.lock().unwrap().cache.stale();
            assert_eq!((world.shown(), stale), (WRITES, 0), "stale for good");
        } else {
            assert!(is_lost, "it was read with nobody in the way");
        }
    };
    shuttle::check_random(run, SCHEDULES);
}

#[test]
fn no_slot_is_stale_for_good_in_any_order_of_answers_and_what_is_told() {
    in_every_order(true, false);
    in_every_order(false, false);
}

#[test]
fn no_slot_is_stale_for_good_when_the_connection_is_lost_in_any_of_it() {
    in_every_order(true, true);
    in_every_order(false, true);
}
