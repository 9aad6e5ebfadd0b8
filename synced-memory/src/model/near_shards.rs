//! Rule 14 in a cluster of two shards, in random orders of threads: a near slot goes from one to
//! the other, with an invalidation or in silence, at once or in parts, while others write.
//!
//! Beside `near.rs`, in the same way: the slot, its lines and its map are those of the library;
//! what the servers and the I/O threads of the shards do is a few lines here.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use super::server::{KEY, TOMBSTONE_TTL};
use crate::backend::ReadKind;
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::{Node, Redirect, slot_of};
use crate::backend::shards::{Shard, ShardMap};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Generation, Ticket, Tracking, Version};
use crate::client::state::State;
use crate::value::document::Document;

const SCHEDULES: usize = 150;
const WRITES: u64 = 2;
const NOW: Monotonic = Duration::from_secs(2);

/// At first the slot is at the first one.
const SHARDS: [Shard; 2] = [Shard::numbered(1), Shard::numbered(2)];

/// A read is sent elsewhere so many times.
const MOST_HOPS: u32 = 3;

/// What happens besides reads and writes.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct MoveCircumstances {
    /// How often the slot goes to the other shard.
    moves: u32,
    /// The server that it leaves notifies nobody.
    is_silent: bool,
    /// The key moves before its slot does.
    is_in_parts: bool,
    /// The layout is asked for only after all moves: each shard says where to go until then.
    is_known_late: bool,
    /// The connection to one of the shards is lost and made anew.
    is_lost: bool,
}

/// The writer pauses for so many turns, so that a whole read fits in between.
const PAUSE: u32 = 60;

/// One server, and what is on its way from and to it.
#[derive(Debug, Default)]
struct NearShard {
    /// The next change is notified: the key was read by a tracked read since the last one.
    is_armed: bool,
    connection: u64,
    is_tracking: bool,
    requests: VecDeque<(Ticket, ReadKind, bool)>,
    answers: HashMap<Ticket, Result<u64, BackendError>>,
    invalidations: u32,
}

impl NearShard {
    fn invalidate(&mut self) {
        if self.is_tracking && std::mem::take(&mut self.is_armed) {
            self.invalidations += 1;
        }
    }
}

#[derive(Debug)]
struct NearCluster {
    value: u64,
    shards: [NearShard; 2],
    /// The shards that have the slot, and the key.
    owner: usize,
    has_key: usize,
    /// How often the slot has moved.
    moves: u32,
}

impl NearCluster {
    fn write(&mut self) {
        self.value += 1;
        self.shards[self.has_key].invalidate();
    }

    fn key_moves(&mut self, is_silent: bool) {
        if is_silent {
            self.shards[self.has_key].is_armed = false;
        } else {
            self.shards[self.has_key].invalidate();
        }
        self.has_key = 1 - self.has_key;
    }

    fn slot_moves(&mut self) {
        self.owner = self.has_key;
        self.moves += 1;
    }

    fn read(&mut self, at: usize, kind: ReadKind, asking: bool) -> Result<u64, BackendError> {
        if at == self.owner && at != self.has_key {
            return Err(redirected(BackendErrorKind::Ask, self.has_key));
        }
        if at != self.owner && !(asking && at == self.has_key) {
            return Err(redirected(BackendErrorKind::Moved, self.owner));
        }
        // What is asked for before the slot is there is answered, and not tracked.
        if kind == ReadKind::Tracked && at == self.owner {
            self.shards[at].is_armed = true;
        }
        Ok(self.value)
    }
}

fn redirected(kind: BackendErrorKind, to: usize) -> BackendError {
    let redirect = Redirect {
        slot: slot_of(KEY),
        node: node_of(SHARDS[to]),
    };
    BackendError::redirected(kind, redirect, "it is elsewhere")
}

fn node_of(shard: Shard) -> Node {
    Node {
        host: "shard".into(),
        port: u16::try_from(shard.index()).unwrap(),
    }
}

/// Where a read was sent instead, and whether that shard is to be asked.
type SentElsewhere = Option<(Shard, bool)>;

struct ClusterRun {
    key: std::sync::Arc<str>,
    /// Order of locks: this one, that of the cluster, that of the state.
    last_ticket: Mutex<Ticket>,
    cluster: Mutex<NearCluster>,
    state: Mutex<State>,
    version: Version,
    /// The shard that has the slot by the last layout, and how often it had moved by then.
    laid_out: Mutex<(usize, u32)>,
    circumstances: MoveCircumstances,
    /// The caller has made its last call.
    is_called: Mutex<bool>,
    is_over: Mutex<bool>,
    is_closed: Mutex<bool>,
}

impl ClusterRun {
    fn new(circumstances: MoveCircumstances) -> Arc<Self> {
        let key = std::sync::Arc::from(KEY);
        let state = State::new(1 << 20, TOMBSTONE_TTL, fastrand::Rng::with_seed(1));
        let mut state = state.with_map(&ShardMap::cluster());
        let version = state.cache.hold(&key);
        for shard in SHARDS {
            state.add_shard(shard, &node_of(shard));
            state.connected(shard, None);
            state.cache.tracked(shard, Tracking::On, NOW);
        }
        state.lay_out([(slot_of(KEY), Shard::FIRST, SHARDS[0])], NOW);
        let shard = || NearShard {
            is_tracking: true,
            ..NearShard::default()
        };
        let cluster = NearCluster {
            value: 0,
            shards: [shard(), shard()],
            owner: 0,
            has_key: 0,
            moves: 0,
        };
        let (cluster, state) = (Mutex::new(cluster), Mutex::new(state));
        Arc::new(Self {
            key,
            last_ticket: Mutex::new(0),
            cluster,
            state,
            version,
            laid_out: Mutex::new((0, 0)),
            circumstances,
            is_called: Mutex::new(false),
            is_over: Mutex::new(false),
            is_closed: Mutex::new(false),
        })
    }

    /// As `refresher::load` of one shard. Does nothing if there is no connection, or if it is lost
    /// before the answer.
    fn load(&self, at: usize, asking: bool) -> SentElsewhere {
        let kind = kind_of(&self.state.lock().unwrap(), asking);
        thread::yield_now();
        let (connection, ticket, generation) = {
            let mut last_ticket = self.last_ticket.lock().unwrap();
            let mut cluster = self.cluster.lock().unwrap();
            let shard = &mut cluster.shards[at];
            if !shard.is_tracking {
                return None;
            }
            *last_ticket += 1;
            let state = self.state.lock().unwrap();
            let generation = match (kind, state.cache.is_to_be_tracked(KEY)) {
                (ReadKind::Through, true) => Generation::default(),
                _ => state.cache.generation(KEY),
            };
            drop(state);
            shard.requests.push_back((*last_ticket, kind, asking));
            (shard.connection, *last_ticket, generation)
        };
        let answer = loop {
            let mut cluster = self.cluster.lock().unwrap();
            let shard = &mut cluster.shards[at];
            if let Some(answer) = shard.answers.remove(&ticket) {
                break answer;
            }
            if shard.connection != connection {
                return None;
            }
            drop(cluster);
            thread::yield_now();
        };
        let mut state = self.state.lock().unwrap();
        match answer {
            Ok(value) => {
                let stored = Some(Bytes::from(value.to_string()));
                state.read(&self.key, ticket, generation, stored.map(Document::of), NOW);
                None
            }
            Err(error) => {
                let to = state.redirected(&error);
                state.cache.was_not_read(&self.key);
                to
            }
        }
    }

    /// As a caller reads: it follows where it is sent.
    fn load_through(&self) {
        let mut at = self.state.lock().unwrap().map.shard_of(KEY);
        let mut asking = false;
        for _ in 0..MOST_HOPS {
            match self.load(at.index() - 1, asking) {
                Some(elsewhere) => (at, asking) = elsewhere,
                None => return,
            }
        }
    }

    fn visible(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.cache.used(KEY);
        let value = state.view(KEY, NOW).value();
        value.map_or(0, |value| value.as_str().parse().unwrap())
    }

    fn is_local(&self) -> bool {
        self.state.lock().unwrap().is_local(std::iter::once(KEY))
    }

    /// A value that counts as current is what the servers store, unless an invalidation of it is on
    /// its way, or a move that nobody was notified of is not known yet.
    fn check(&self) {
        let cluster = self.cluster.lock().unwrap();
        let (_, known_moves) = *self.laid_out.lock().unwrap();
        let state = self.state.lock().unwrap();
        let is_current = state.cache.staleness(KEY, Monotonic::MAX) == Some(Duration::ZERO);
        let shard = &cluster.shards[state.map.shard_of(KEY).index() - 1];
        let is_known = !self.circumstances.is_silent
            || known_moves == cluster.moves && cluster.owner == cluster.has_key;
        let is_on_its_way = |shard: &NearShard| shard.invalidations > 0;
        if is_current && is_known && shard.is_tracking && !cluster.shards.iter().any(is_on_its_way)
        {
            let visible = state.view(KEY, NOW).value();
            let visible = visible.map(|value| value.as_str().to_owned());
            let stored = cluster.value.to_string();
            assert_eq!(visible, Some(stored), "a stale value counts as current");
        }
    }

    fn serve(&self) {
        loop {
            let is_closed = *self.is_closed.lock().unwrap();
            let mut is_idle = true;
            for at in 0..SHARDS.len() {
                let mut cluster = self.cluster.lock().unwrap();
                if let Some((ticket, kind, asking)) = cluster.shards[at].requests.pop_front() {
                    let answer = cluster.read(at, kind, asking);
                    cluster.shards[at].answers.insert(ticket, answer);
                    is_idle = false;
                }
            }
            if is_idle && is_closed {
                return;
            }
            thread::yield_now();
        }
    }

    fn call(&self) {
        self.load_through();
        self.state.lock().unwrap().cache.keep_near(&self.key);
        let mut last = self.visible();
        for _ in 0..3 {
            if !self.is_local() {
                self.load_through();
            }
            self.check();
            let now = self.visible();
            assert!(now >= last, "{now} after {last}");
            last = now;
            thread::yield_now();
        }
        *self.is_called.lock().unwrap() = true;
    }

    fn write(&self) {
        for _ in 0..WRITES {
            self.cluster.lock().unwrap().write();
            let pause = if self.circumstances.is_known_late {
                PAUSE
            } else {
                1
            };
            (0..pause).for_each(|_| thread::yield_now());
        }
    }

    fn move_slot(&self) {
        let MoveCircumstances {
            moves,
            is_silent,
            is_in_parts,
            is_known_late,
            ..
        } = self.circumstances;
        for _ in 0..moves {
            let mut cluster = self.cluster.lock().unwrap();
            cluster.key_moves(is_silent);
            if is_in_parts {
                drop(cluster);
                thread::yield_now();
                cluster = self.cluster.lock().unwrap();
            }
            cluster.slot_moves();
            drop(cluster);
            if is_known_late && !self.is_read_elsewhere() {
                // Nobody here can know that a slot was away for a moment if nobody was sent there.
                return;
            }
            thread::yield_now();
        }
    }

    /// Waits until the slot was read near at the second shard; whether it was.
    fn is_read_elsewhere(&self) -> bool {
        loop {
            let is_called = *self.is_called.lock().unwrap();
            if self.cluster.lock().unwrap().shards[1].is_armed {
                return true;
            }
            if is_called {
                return false;
            }
            thread::yield_now();
        }
    }

    /// As `flusher/layout.rs` does, once.
    fn learn_layout(&self) {
        let (owner, moves) = {
            let cluster = self.cluster.lock().unwrap();
            (cluster.owner, cluster.moves)
        };
        thread::yield_now();
        let mut laid_out = self.laid_out.lock().unwrap();
        let (before, now) = (SHARDS[laid_out.0], SHARDS[owner]);
        *laid_out = (owner, moves);
        let mut state = self.state.lock().unwrap();
        state.lay_out([(slot_of(KEY), before, now)], NOW);
    }

    fn learn_layouts(&self) {
        for _ in 0..2 {
            self.learn_layout();
            thread::yield_now();
        }
    }

    fn is_over(&self) -> bool {
        let is_on_its_way = |shard: &NearShard| shard.invalidations > 0;
        *self.is_over.lock().unwrap()
            && !self
                .cluster
                .lock()
                .unwrap()
                .shards
                .iter()
                .any(is_on_its_way)
    }

    fn handle_invalidations(&self, at: usize) {
        while !self.is_over() {
            {
                let mut cluster = self.cluster.lock().unwrap();
                if cluster.shards[at].invalidations > 0 {
                    cluster.shards[at].invalidations -= 1;
                    let mut state = self.state.lock().unwrap();
                    state.cache.invalidated(&self.key, NOW);
                }
            }
            self.check();
            thread::yield_now();
        }
    }

    /// As `refresher::keep_current` of one shard, while that is connected.
    fn refresh(&self, at: usize) {
        let shard = SHARDS[at];
        loop {
            let is_over = self.is_over();
            if !self.cluster.lock().unwrap().shards[at].is_tracking {
                thread::yield_now();
                continue;
            }
            let (stale, asked) = {
                let mut state = self.state.lock().unwrap();
                // However long a slot has to wait until it may be read again.
                let stale = state.cache.take_stale(shard, 1, Monotonic::MAX);
                let asked = state.cache.take_asked(shard);
                state.cache.queue_deferred(shard);
                (stale, asked)
            };
            if !stale.is_empty() {
                let elsewhere = self.load(at, false);
                let mut state = self.state.lock().unwrap();
                state.cache.stale_were_read(&stale, NOW);
                if let Some((to, true)) = elsewhere {
                    state.cache.ask_at(to, &self.key);
                }
            }
            if !asked.is_empty() {
                self.load(at, true);
            }
            let is_idle = stale.is_empty()
                && asked.is_empty()
                && SHARDS.iter().all(|shard| self.has_nothing_to_do(*shard));
            if is_idle && is_over {
                return;
            }
            thread::yield_now();
        }
    }

    fn has_nothing_to_do(&self, shard: Shard) -> bool {
        let state = self.state.lock().unwrap();
        state.cache.queued_reads(shard) == 0 && !state.cache.has_deferred(shard)
    }

    fn disconnect(&self) {
        let at = 1;
        {
            let mut cluster = self.cluster.lock().unwrap();
            let connection = cluster.shards[at].connection + 1;
            cluster.shards[at] = NearShard {
                connection,
                ..NearShard::default()
            };
        }
        let lost = Error::new(ErrorKind::Unavailable, "lost");
        self.state
            .lock()
            .unwrap()
            .disconnected(SHARDS[at], &lost, NOW);
        thread::yield_now();
        self.state.lock().unwrap().connected(SHARDS[at], None);
        thread::yield_now();
        // Tracking is confirmed before anything is read.
        self.cluster.lock().unwrap().shards[at].is_tracking = true;
        let mut state = self.state.lock().unwrap();
        state.cache.tracked(SHARDS[at], Tracking::On, NOW);
    }
}

fn kind_of(state: &State, asking: bool) -> ReadKind {
    if state.cache.is_to_be_tracked(KEY) && !asking {
        ReadKind::Tracked
    } else {
        ReadKind::Through
    }
}

fn in_every_order(circumstances: MoveCircumstances) {
    let run = move || {
        let run = ClusterRun::new(circumstances);
        let spawn = |action: fn(&ClusterRun)| {
            let run = Arc::clone(&run);
            thread::spawn(move || action(&run))
        };
        let serve = spawn(ClusterRun::serve);
        let io = [
            |run: &ClusterRun| run.handle_invalidations(0),
            |run: &ClusterRun| run.handle_invalidations(1),
            |run: &ClusterRun| run.refresh(0),
            |run: &ClusterRun| run.refresh(1),
        ]
        .map(spawn);
        let mut actions = vec![
            spawn(ClusterRun::write),
            spawn(ClusterRun::call),
            spawn(ClusterRun::move_slot),
        ];
        let is_known = !circumstances.is_known_late;
        actions.extend(is_known.then(|| spawn(ClusterRun::learn_layouts)));
        actions.extend(circumstances.is_lost.then(|| spawn(ClusterRun::disconnect)));
        for action in actions {
            action.join().unwrap();
        }
        // It is asked for again and again, so that the last move is known at last.
        run.learn_layout();
        *run.is_over.lock().unwrap() = true;
        for thread in io {
            thread.join().unwrap();
        }
        let value = run.cluster.lock().unwrap().value;
        if run.is_local() {
            let stale = run.state.lock().unwrap().cache.stale();
            assert_eq!((run.visible(), stale), (value, 0), "stale for good");
        } else {
            assert!(
                circumstances.is_lost,
                "its readers ask, though it is read again"
            );
            run.load_through();
            assert_eq!(run.visible(), value, "what a server has just answered");
        }
        assert!(run.version.load(std::sync::atomic::Ordering::Relaxed) > 0);
        *run.is_closed.lock().unwrap() = true;
        serve.join().unwrap();
    };
    shuttle::check_random(run, SCHEDULES);
}

/// How often the slot moves, and whether in silence. A slot that is away in silence and back before
/// anybody looks, and before anybody here is sent there, has not moved as far as can be known.
const MOVES: [(u32, bool); 3] = [(1, false), (2, false), (1, true)];

#[test]
fn no_slot_that_goes_from_shard_to_shard_is_stale_for_good() {
    for (moves, is_silent) in MOVES {
        for is_in_parts in [false, true] {
            in_every_order(MoveCircumstances {
                moves,
                is_silent,
                is_in_parts,
                ..MoveCircumstances::default()
            });
        }
    }
}

/// Two looks at the layout show the same, and the slot was elsewhere in between.
#[test]
fn no_slot_that_went_to_another_shard_and_back_is_stale_for_good() {
    for is_in_parts in [false, true] {
        in_every_order(MoveCircumstances {
            moves: 2,
            is_silent: true,
            is_in_parts,
            is_known_late: true,
            is_lost: false,
        });
    }
}

#[test]
fn no_slot_is_stale_for_good_when_the_shard_that_it_goes_to_is_lost() {
    for (moves, is_silent) in MOVES {
        in_every_order(MoveCircumstances {
            moves,
            is_silent,
            is_in_parts: true,
            is_known_late: false,
            is_lost: true,
        });
    }
}
