//! Rule 14, in random orders of threads: callers that read, the I/O thread that handles
//! invalidations and refreshes, another process that writes, and a connection that is lost.
//!
//! The slot, its version and its generation are those of the library; the server and the connection
//! are a few lines here. Invalidations and answers arrive in any order, as from Dragonfly; the
//! server invalidates by prefix, or once after each read.

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

/// What the server stores, and what is on its way.
#[derive(Debug, Default)]
struct NearServer {
    value: u64,
    /// It invalidates at each change, and not only at the first one after each read.
    is_by_prefix: bool,
    is_armed: bool,
    /// The number of the connection, and whether it is tracked and may be used.
    connection: u64,
    is_tracking: bool,
    requests: VecDeque<Ticket>,
    answers: HashMap<Ticket, u64>,
    invalidations: u32,
}

impl NearServer {
    fn write(&mut self) {
        self.value += 1;
        if self.is_tracking && (self.is_by_prefix || std::mem::take(&mut self.is_armed)) {
            self.invalidations += 1;
        }
    }
}

struct NearRun {
    key: std::sync::Arc<str>,
    /// Order of locks: this one, that of the server, that of the state.
    last_ticket: Mutex<Ticket>,
    server: Mutex<NearServer>,
    state: Mutex<State>,
    version: Version,
    memo: Mutex<Option<(u64, u64)>>,
    /// Nobody writes or reads any more, and nobody sends requests.
    is_over: Mutex<bool>,
    is_closed: Mutex<bool>,
}

impl NearRun {
    fn new(is_by_prefix: bool) -> Arc<Self> {
        let key = std::sync::Arc::from(KEY);
        let mut state = State::new(1 << 20, TOMBSTONE_TTL, fastrand::Rng::with_seed(1));
        let version = state.cache.hold(&key);
        state.connected(None);
        state.cache.tracked(true, Monotonic::ZERO);
        let server = NearServer {
            is_by_prefix,
            is_tracking: true,
            ..NearServer::default()
        };
        let (server, state) = (Mutex::new(server), Mutex::new(state));
        Arc::new(Self {
            key,
            last_ticket: Mutex::new(0),
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

    /// As `refresher::load`. Does nothing if there is no connection, or if it is lost before the
    /// answer.
    fn load(&self) {
        let (connection, ticket, generation) = {
            let mut last_ticket = self.last_ticket.lock().unwrap();
            let mut server = self.server.lock().unwrap();
            if !server.is_tracking {
                return;
            }
            *last_ticket += 1;
            let generation = self.state.lock().unwrap().cache.generation(KEY);
            server.requests.push_back(*last_ticket);
            (server.connection, *last_ticket, generation)
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

    /// As `Synced::shown`, with a memo that all readers share and that is valid for one version.
    fn visible(&self) -> u64 {
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

    /// A value that counts as current is what the server stores, unless an invalidation of it is on
    /// its way.
    fn check(&self) {
        let server = self.server.lock().unwrap();
        let is_current = self
            .state
            .lock()
            .unwrap()
            .cache
            .staleness(KEY, Monotonic::MAX)
            == Some(Duration::ZERO);
        if is_current && server.is_tracking && server.invalidations == 0 {
            assert_eq!(
                self.visible(),
                server.value,
                "a stale value counts as current"
            );
        }
    }

    /// Answers the requests.
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

    /// Reads through once, and then near.
    fn call(&self) {
        self.load();
        let mut last = self.visible();
        self.state.lock().unwrap().cache.keep_near(&self.key);
        for _ in 0..3 {
            if !self.is_local() {
                self.load();
            }
            self.check();
            let now = self.visible();
            assert!(now >= last, "{now} after {last}");
            last = now;
            thread::yield_now();
        }
    }

    fn handle_invalidations(&self) {
        while !self.is_over() || self.server.lock().unwrap().invalidations > 0 {
            {
                let mut server = self.server.lock().unwrap();
                if server.invalidations > 0 {
                    server.invalidations -= 1;
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

    fn refresh(&self) {
        loop {
            let is_over = self.is_over() && self.server.lock().unwrap().invalidations == 0;
            let stale = self.state.lock().unwrap().cache.take_stale(1);
            if !stale.is_empty() {
                self.load();
            } else if is_over {
                return;
            }
            thread::yield_now();
        }
    }

    fn disconnect(&self) {
        {
            let mut server = self.server.lock().unwrap();
            let is_by_prefix = server.is_by_prefix;
            let (value, connection) = (server.value, server.connection + 1);
            *server = NearServer {
                value,
                is_by_prefix,
                connection,
                ..NearServer::default()
            };
        }
        let lost = Error::new(ErrorKind::Unavailable, "lost");
        self.state
            .lock()
            .unwrap()
            .disconnected(lost, Monotonic::ZERO);
        thread::yield_now();
        self.state.lock().unwrap().connected(None);
        thread::yield_now();
        // Tracking is confirmed before anything is read.
        self.server.lock().unwrap().is_tracking = true;
        self.state
            .lock()
            .unwrap()
            .cache
            .tracked(true, Monotonic::ZERO);
    }
}

fn in_every_order(is_by_prefix: bool, is_lost: bool) {
    let run = move || {
        let run = NearRun::new(is_by_prefix);
        let spawn = |action: fn(&NearRun)| {
            let run = Arc::clone(&run);
            thread::spawn(move || action(&run))
        };
        let serve = spawn(NearRun::serve);
        let io = [NearRun::handle_invalidations, NearRun::refresh].map(spawn);
        let write = |run: &NearRun| {
            for _ in 0..WRITES {
                run.server.lock().unwrap().write();
                thread::yield_now();
            }
        };
        let mut callers = vec![spawn(write), spawn(NearRun::call), spawn(NearRun::call)];
        callers.extend(is_lost.then(|| spawn(NearRun::disconnect)));
        for action in callers {
            action.join().unwrap();
        }
        *run.is_over.lock().unwrap() = true;
        for thread in io {
            thread.join().unwrap();
        }
        *run.is_closed.lock().unwrap() = true;
        serve.join().unwrap();
        // A reader now, who has read before.
        if run.is_local() {
            let stale = run.state.lock().unwrap().cache.stale();
            assert_eq!((run.visible(), stale), (WRITES, 0), "stale for good");
        } else {
            assert!(is_lost, "it is not read, though no connection was lost");
        }
    };
    shuttle::check_random(run, SCHEDULES);
}

#[test]
fn no_slot_is_stale_for_good_in_any_order_of_answers_and_invalidations() {
    in_every_order(true, false);
    in_every_order(false, false);
}

#[test]
fn no_slot_is_stale_for_good_when_the_connection_is_lost_at_any_time() {
    in_every_order(true, true);
    in_every_order(false, true);
}
