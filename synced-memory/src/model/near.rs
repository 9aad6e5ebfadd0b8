//! Rule 14, in random orders of threads: callers that read, the I/O thread that handles
//! invalidations and refreshes, another process that writes, and a connection that is lost.
//!
//! The slot, its version and its generation are those of the library; the server and the connection
//! are a few lines here. The server tracks what is read by tracked reads, and invalidates it once.
//! Invalidations and answers arrive in any order, as from Dragonfly.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use super::server::{KEY, TOMBSTONE_TTL};
use crate::backend::ReadKind;
use crate::backend::shards::Shard;
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Generation, Ticket, Tracking, Version};
use crate::client::state::State;
use crate::value::document::Document;

const SCHEDULES: usize = 1_000;
const WRITES: u64 = 3;

/// So much time passes whenever somebody asks for it, if it passes at all: whatever nobody has
/// looked at counts as unused.
const TICK: Monotonic = Duration::from_secs(2);

/// What happens besides reads and writes.
#[derive(Debug, Clone, Copy, Default)]
struct Circumstances {
    /// The connection is lost and made anew.
    is_lost: bool,
    /// The server tracks nothing from some time on, and says so to tracked reads.
    is_refused: bool,
    /// Time passes, so that slots are left to their readers.
    is_slow: bool,
}

/// What the server stores, and what is on its way.
#[derive(Debug, Default)]
struct NearServer {
    value: u64,
    /// The next change is notified: the key was read by a tracked read since the last one.
    is_armed: bool,
    refuses: bool,
    /// The number of the connection, and whether it is tracked and may be used.
    connection: u64,
    is_tracking: bool,
    requests: VecDeque<(Ticket, ReadKind)>,
    /// `None`: tracking was refused.
    answers: HashMap<Ticket, Option<u64>>,
    invalidations: u32,
}

impl NearServer {
    fn write(&mut self) {
        self.value += 1;
        if self.is_tracking && std::mem::take(&mut self.is_armed) {
            self.invalidations += 1;
        }
    }

    fn read(&mut self, kind: ReadKind) -> Option<u64> {
        match kind {
            ReadKind::Tracked if self.refuses => return None,
            ReadKind::Tracked => self.is_armed = true,
            ReadKind::Through => {}
        }
        Some(self.value)
    }
}

/// What became of a read.
#[derive(Debug, PartialEq, Eq)]
enum ReadEnd {
    Answer,
    /// There was no connection, or it was lost.
    Nothing,
    NotTracked,
}

struct NearRun {
    key: std::sync::Arc<str>,
    /// Order of locks: this one, that of the server, that of the state.
    last_ticket: Mutex<Ticket>,
    server: Mutex<NearServer>,
    state: Mutex<State>,
    version: Version,
    memo: Mutex<Option<(u64, u64)>>,
    circumstances: Circumstances,
    mono: Mutex<Monotonic>,
    /// Nobody writes or reads any more, and nobody sends requests.
    is_over: Mutex<bool>,
    is_closed: Mutex<bool>,
}

impl NearRun {
    fn new(circumstances: Circumstances) -> Arc<Self> {
        let key = std::sync::Arc::from(KEY);
        let mut state = State::new(1 << 20, TOMBSTONE_TTL, fastrand::Rng::with_seed(1));
        let version = state.cache.hold(&key);
        state.connected(Shard::FIRST, None);
        state
            .cache
            .tracked(Shard::FIRST, Tracking::On, Monotonic::ZERO);
        let mut server = NearServer {
            is_tracking: true,
            ..NearServer::default()
        };
        let mut last_ticket = 0;
        if circumstances.is_slow {
            // Somebody has read the slot long ago, and nobody since: the first change leaves it to
            // its readers.
            last_ticket = 1;
            state.cache.keep_near(&key);
            let generation = state.cache.generation(KEY);
            let stored = server
                .read(ReadKind::Tracked)
                .map(|value| value.to_string());
            state.read(
                &key,
                last_ticket,
                generation,
                stored.map(|stored| Document::of(stored.into())),
                TICK,
            );
        }
        let (server, state) = (Mutex::new(server), Mutex::new(state));
        Arc::new(Self {
            key,
            last_ticket: Mutex::new(last_ticket),
            server,
            state,
            version,
            memo: Mutex::new(None),
            circumstances,
            mono: Mutex::new(TICK),
            is_over: Mutex::new(false),
            is_closed: Mutex::new(false),
        })
    }

    fn is_over(&self) -> bool {
        *self.is_over.lock().unwrap()
    }

    fn now(&self) -> Monotonic {
        let mut mono = self.mono.lock().unwrap();
        if self.circumstances.is_slow {
            *mono += TICK;
        }
        *mono
    }

    /// As `refresher::load`. Does nothing if there is no connection, or if it is lost before the
    /// answer.
    fn load(&self) {
        while self.load_once() == ReadEnd::NotTracked {
            let mono = self.now();
            self.state
                .lock()
                .unwrap()
                .tracking_was_refused(Shard::FIRST, mono);
        }
    }

    /// As `refresher::load_once`.
    fn load_once(&self) -> ReadEnd {
        let kind = kind_of(&self.state.lock().unwrap());
        thread::yield_now();
        let (connection, ticket, generation) = {
            let mut last_ticket = self.last_ticket.lock().unwrap();
            let mut server = self.server.lock().unwrap();
            if !server.is_tracking {
                return ReadEnd::Nothing;
            }
            *last_ticket += 1;
            let state = self.state.lock().unwrap();
            let generation = match (kind, kind_of(&state)) {
                (ReadKind::Through, ReadKind::Tracked) => Generation::default(),
                _ => state.cache.generation(KEY),
            };
            drop(state);
            server.requests.push_back((*last_ticket, kind));
            (server.connection, *last_ticket, generation)
        };
        let answer = loop {
            let mut server = self.server.lock().unwrap();
            if let Some(answer) = server.answers.remove(&ticket) {
                break answer;
            }
            if server.connection != connection {
                return ReadEnd::Nothing;
            }
            drop(server);
            thread::yield_now();
        };
        let Some(value) = answer else {
            return ReadEnd::NotTracked;
        };
        let (stored, mono) = (Bytes::from(value.to_string()), self.now());
        self.state.lock().unwrap().read(
            &self.key,
            ticket,
            generation,
            Some(Document::of(stored)),
            mono,
        );
        ReadEnd::Answer
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
            let mut state = self.state.lock().unwrap();
            state.cache.used(KEY);
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
                if let Some((ticket, kind)) = server.requests.pop_front() {
                    let answer = server.read(kind);
                    server.answers.insert(ticket, answer);
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
                    let mono = self.now();
                    self.state
                        .lock()
                        .unwrap()
                        .cache
                        .invalidated(&self.key, mono);
                }
            }
            self.check();
            thread::yield_now();
        }
    }

    fn refresh(&self) {
        loop {
            let is_over = self.is_over() && self.server.lock().unwrap().invalidations == 0;
            // However long a slot has to wait until it may be read again.
            let due = Monotonic::MAX;
            let stale = self
                .state
                .lock()
                .unwrap()
                .cache
                .take_stale(Shard::FIRST, 1, due);
            if !stale.is_empty() {
                self.load();
                let mono = self.now();
                self.state
                    .lock()
                    .unwrap()
                    .cache
                    .stale_were_read(&stale, mono);
            } else if is_over {
                return;
            }
            thread::yield_now();
        }
    }

    fn disconnect(&self) {
        {
            let mut server = self.server.lock().unwrap();
            let (value, connection) = (server.value, server.connection + 1);
            *server = NearServer {
                value,
                connection,
                refuses: server.refuses,
                ..NearServer::default()
            };
        }
        let lost = Error::new(ErrorKind::Unavailable, "lost");
        let mono = self.now();
        self.state
            .lock()
            .unwrap()
            .disconnected(Shard::FIRST, &lost, mono);
        thread::yield_now();
        self.state.lock().unwrap().connected(Shard::FIRST, None);
        thread::yield_now();
        // Tracking is confirmed before anything is read.
        let refuses = {
            let mut server = self.server.lock().unwrap();
            server.is_tracking = true;
            server.refuses
        };
        let (mut state, mono) = (self.state.lock().unwrap(), *self.mono.lock().unwrap());
        if refuses {
            state.tracking_was_refused(Shard::FIRST, mono);
        } else {
            state.cache.tracked(Shard::FIRST, Tracking::On, mono);
        }
    }

    fn refuse(&self) {
        thread::yield_now();
        self.server.lock().unwrap().refuses = true;
    }
}

fn kind_of(state: &State) -> ReadKind {
    if state.cache.is_to_be_tracked(KEY) {
        ReadKind::Tracked
    } else {
        ReadKind::Through
    }
}

fn in_every_order(circumstances: Circumstances) {
    let run = move || {
        let run = NearRun::new(circumstances);
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
        callers.extend(circumstances.is_lost.then(|| spawn(NearRun::disconnect)));
        callers.extend(circumstances.is_refused.then(|| spawn(NearRun::refuse)));
        for action in callers {
            action.join().unwrap();
        }
        *run.is_over.lock().unwrap() = true;
        for thread in io {
            thread.join().unwrap();
        }
        // A reader now, who has read before.
        if run.is_local() {
            let stale = run.state.lock().unwrap().cache.stale();
            assert_eq!((run.visible(), stale), (WRITES, 0), "stale for good");
        } else {
            let is_expected =
                circumstances.is_lost || circumstances.is_refused || circumstances.is_slow;
            assert!(is_expected, "its readers ask, though it is read again");
            run.load();
            assert_eq!(run.visible(), WRITES, "what the server has just answered");
        }
        *run.is_closed.lock().unwrap() = true;
        serve.join().unwrap();
    };
    shuttle::check_random(run, SCHEDULES);
}

/// With and without time that passes.
fn at_any_pace(circumstances: Circumstances) {
    for is_slow in [false, true] {
        in_every_order(Circumstances {
            is_slow,
            ..circumstances
        });
    }
}

#[test]
fn no_slot_is_stale_for_good_in_any_order_of_answers_and_invalidations() {
    at_any_pace(Circumstances::default());
}

#[test]
fn no_slot_is_stale_for_good_when_the_connection_is_lost_at_any_time() {
    at_any_pace(Circumstances {
        is_lost: true,
        ..Circumstances::default()
    });
}

#[test]
fn no_slot_is_stale_for_good_when_tracking_is_refused_at_any_time() {
    for is_lost in [false, true] {
        at_any_pace(Circumstances {
            is_lost,
            is_refused: true,
            ..Circumstances::default()
        });
    }
}
