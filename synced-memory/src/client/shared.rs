//! What the callers' threads and the I/O thread share: the state under its lock, the order of
//! requests, the connection if there is one.
//!
//! Order of locks: `wire` before `state`. Neither is held across I/O or a callback, except that
//! `wire` is held across the first poll of a request, in which the embedded backends do all of it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::{Either, select};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::unconstrained;

use crate::backend::Reply;
use crate::backend::error::BackendError;
use crate::backend::layout::Node;
use crate::backend::shards::{Shard, ShardMap};
use crate::base::callback::{call_out, is_io_thread};
use crate::base::clock::Clock;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::events::{EventEmitter, LogEvent};
use crate::base::fork::{OwnerProcess, try_lock_inherited};
use crate::base::lock::{LockGuard, lock};
use crate::base::random;
use crate::base::settings::Settings;
use crate::base::waiting::{DeferredWake, DeferredWakes, Signal};
use crate::cache::Ticket;
use crate::client::route::{Connection, OverdueRead, Route};
use crate::client::state::State;
use crate::pending::journal;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    /// Where the backend is, without a password.
    pub(crate) target: Arc<str>,
    pub(crate) events: EventEmitter,
    state: Mutex<State>,
    owner: OwnerProcess,
    /// This process is a child of the owner, as far as it has noticed.
    is_inherited: AtomicBool,
    /// In a child: stands for the state if the owner held its lock at the fork.
    unknown_state: OnceLock<Mutex<State>>,
    /// The tasks that are answered under the lock of the state.
    pub(crate) deferred_wakes: Arc<DeferredWakes>,
    /// The ticket of the last request. Requests are sent under this lock, in the order of their
    /// tickets.
    wire: Mutex<Ticket>,
    /// Which shard has which key.
    pub(crate) map: ShardMap,
    routes: ArcSwap<Routes>,
    /// Not a `watch` of tokio's, as for the end of a connection: callers wait for these, and a
    /// `watch` needs a local of the thread that waits, which may be gone when the thread ends.
    connection_changed: Notify,
    /// Slots may have moved: the layout is to be asked for.
    pub(crate) layout_wanted: Notify,
    /// Those who wait until it was asked for.
    layout_waiters: Mutex<Vec<LayoutWaiter>>,
    /// The slots take more than they may.
    pub(crate) cache_grew: Notify,
    /// Something is read near or watched, or was.
    is_tracking_wanted: AtomicBool,
    /// Requests that their callers do not wait for any more.
    abandoned: Mutex<Vec<AbandonedRequest>>,
    abandoned_wake: Notify,
    closed: AtomicBool,
    stopped: watch::Sender<bool>,
    /// Those who wait until all writes up to a number are answered for.
    delivery_waiters: Mutex<DeliveryWaiters>,
}

// A panic leaves it sound: code of the user runs under none of its locks, and what is changed
// without a lock is one atomic value each.
impl UnwindSafe for Shared {}
impl RefUnwindSafe for Shared {}

/// The rest of a request that its caller made, with the handling of its answer.
struct AbandonedRequest(Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for AbandonedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AbandonedRequest")
    }
}

type DeliveryWaiters = Vec<(u64, oneshot::Sender<()>)>;

/// What a look at the layout of a cluster has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayoutCheck {
    /// It rises with each change that was seen.
    pub(crate) version: u64,
    /// Some slot was being moved.
    pub(crate) is_moving: bool,
}

pub(crate) type LayoutWaiter = oneshot::Sender<Result<LayoutCheck, BackendError>>;

/// The ways to all shards.
#[derive(Debug)]
pub(crate) struct Routes {
    /// By the number of the shard; `None` where there is none.
    by_shard: Vec<Option<Arc<Route>>>,
    /// The shards that serve slots, that of the lowest slot first.
    pub(crate) in_order: Vec<Shard>,
    /// Those that serve none yet, and have keys of slots that are being moved there.
    pub(crate) importing: Vec<Shard>,
    /// Every slot is served.
    pub(crate) is_complete: bool,
}

impl Routes {
    /// `in_order`: as in the field of that name.
    pub(crate) fn new(routes: Vec<Arc<Route>>, in_order: Vec<Shard>, is_complete: bool) -> Self {
        let mut by_shard = Vec::new();
        for route in routes {
            let at = route.shard.index();
            by_shard.resize_with(by_shard.len().max(at + 1), || None);
            by_shard[at] = Some(route);
        }
        Self {
            by_shard,
            in_order,
            importing: Vec::new(),
            is_complete,
        }
    }

    /// The same, with the shards that serve no slot yet.
    pub(crate) fn with_importing(self, importing: Vec<Shard>) -> Self {
        Self { importing, ..self }
    }

    /// The same without the way to this shard.
    pub(crate) fn without(&self, shard: Shard) -> Self {
        let others = self.iter().filter(|route| route.shard != shard);
        let routes = Self::new(
            others.cloned().collect(),
            self.in_order.clone(),
            self.is_complete,
        );
        routes.with_importing(self.importing.clone())
    }

    pub(crate) fn get(&self, shard: Shard) -> Option<&Arc<Route>> {
        self.by_shard.get(shard.index())?.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_shard.iter().flatten()
    }

    /// Whether every key can be read and written.
    pub(crate) fn is_connected(&self) -> bool {
        let is_connected = |shard: &Shard| self.get(*shard).is_some_and(|it| it.is_connected());
        self.is_complete && self.in_order.iter().all(is_connected)
    }
}

/// The state under its lock. The watches of what was changed, and the tasks that were answered, are
/// woken when the lock is free again, and what has happened is logged then: that runs code of
/// executors and subscribers (rule 18).
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    // In this order: fields are dropped in the order of their declaration.
    state: LockGuard<'a, State>,
    callbacks: CallbacksOnDrop<'a>,
}

#[derive(Debug)]
struct CallbacksOnDrop<'a> {
    shared: &'a Shared,
    watches: Vec<Arc<Signal>>,
    tasks: Vec<Arc<DeferredWake>>,
    events: Vec<LogEvent>,
}

impl<'a> CallbacksOnDrop<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            watches: Vec::new(),
            tasks: Vec::new(),
            events: Vec::new(),
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let shared = self.callbacks.shared;
        // The child of a fork wakes nobody, and has nothing to log.
        if shared.is_inherited.load(Ordering::Relaxed) {
            return;
        }
        self.callbacks.watches = self.state.cache.take_raised();
        self.callbacks.tasks = shared.deferred_wakes.take();
        self.callbacks.events = std::mem::take(&mut self.state.events);
        if self.state.cache.take_alarm() {
            shared.cache_grew.notify_one();
        }
        if self.state.take_layout_wanted() {
            shared.layout_wanted.notify_one();
        }
        if self.state.take_strayed() {
            shared.wake_all();
        }
    }
}

impl Drop for CallbacksOnDrop<'_> {
    fn drop(&mut self) {
        self.watches.iter().for_each(|watch| watch.wake());
        self.tasks.iter().for_each(|task| task.wake_now());
        // Last: a subscriber may be slow.
        for event in self.events.drain(..) {
            self.shared.events.emit(event);
        }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Shared {
    /// What a memory shares whose backend is one server.
    #[cfg(test)]
    pub(crate) fn new(
        settings: Settings,
        target: &str,
        journal: Option<journal::JournalConfig>,
    ) -> Result<Self> {
        Self::with_clock(settings, target, ShardMap::One, journal, Clock::start())
    }

    /// # Errors
    ///
    /// `Journal` if there is to be one and it cannot be used.
    pub(crate) fn with_clock(
        settings: Settings,
        target: &str,
        map: ShardMap,
        journal: Option<journal::JournalConfig>,
        clock: Clock,
    ) -> Result<Self> {
        let state = State::new(settings.outbox_limit, settings.tombstone_ttl, random::rng());
        let mut state = state.with_map(&map);
        if let Some(config) = journal {
            state.keep_a_journal(config, journal::ClockOrigin(clock.zero()), clock.mono())?;
        }
        let target: Arc<str> = target.into();
        let routes = if map.is_cluster() {
            Routes::new(Vec::new(), Vec::new(), false)
        } else {
            let only = Route::new(Shard::FIRST, Node::only(), Arc::clone(&target));
            Routes::new(vec![Arc::new(only)], vec![Shard::FIRST], true)
        };
        Ok(Self {
            settings,
            clock,
            target,
            events: EventEmitter::default(),
            state: Mutex::new(state),
            owner: OwnerProcess::current(),
            is_inherited: AtomicBool::new(false),
            unknown_state: OnceLock::new(),
            deferred_wakes: Arc::default(),
            wire: Mutex::new(0),
            map,
            routes: ArcSwap::from_pointee(routes),
            connection_changed: Notify::new(),
            layout_wanted: Notify::new(),
            layout_waiters: Mutex::default(),
            cache_grew: Notify::new(),
            is_tracking_wanted: AtomicBool::new(false),
            abandoned: Mutex::default(),
            abandoned_wake: Notify::new(),
            closed: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
            delivery_waiters: Mutex::default(),
        })
    }

    /// Whether this process is a child of the one that opened the memory (rule 17). To be asked
    /// at the beginning of each call that takes a lock, and of each drop: it is a system call.
    pub(crate) fn is_inherited(&self) -> bool {
        if !self.is_inherited.load(Ordering::Relaxed) && !self.owner.is_current() {
            self.is_inherited.store(true, Ordering::Relaxed);
        }
        self.is_inherited.load(Ordering::Relaxed)
    }

    /// The state in a child of the process that opened the memory.
    fn inherited_state(&self) -> LockGuard<'_, State> {
        if let Some(unknown) = self.unknown_state.get() {
            // Nobody will release the lock of the other one: only the first call tries.
            return lock(unknown);
        }
        try_lock_inherited(&self.state).unwrap_or_else(|| {
            let unknown = self.unknown_state.get_or_init(|| {
                let Settings {
                    outbox_limit,
                    tombstone_ttl,
                    ..
                } = self.settings;
                Mutex::new(State::new(outbox_limit, tombstone_ttl, random::rng()))
            });
            lock(unknown)
        })
    }

    pub(crate) fn state(&self) -> Locked<'_> {
        if self.is_inherited.load(Ordering::Relaxed) {
            return Locked {
                state: self.inherited_state(),
                callbacks: CallbacksOnDrop::new(self),
            };
        }
        debug_assert!(self.owner.is_current(), "a call that did not ask");
        Locked {
            state: lock(&self.state),
            callbacks: CallbacksOnDrop::new(self),
        }
    }

    /// The ways to all shards.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    pub(crate) fn set_routes(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
    }

    /// The way to a shard, if it is still there.
    pub(crate) fn route(&self, shard: Shard) -> Option<Arc<Route>> {
        self.routes.load().get(shard).cloned()
    }

    /// The connection to a shard, if there is one.
    pub(crate) fn connection(&self, shard: Shard) -> Option<Arc<Connection>> {
        self.routes.load().get(shard)?.connection()
    }

    /// The connection to the shard of `key`, if there is one.
    pub(crate) fn connection_of(&self, key: &str) -> Option<Arc<Connection>> {
        self.connection(self.map.shard_of(key))
    }

    /// The shard at this server, if it is connected.
    pub(crate) fn connected_shard(&self, node: &Node) -> Option<Shard> {
        let routes = self.routes.load();
        let mut connected = routes.iter().filter(|route| route.is_connected());
        let found = connected.find(|route| route.node == *node);
        found.map(|route| route.shard)
    }

    /// Whether every key can be read and written.
    pub(crate) fn is_connected(&self) -> bool {
        self.routes.load().is_connected()
    }

    /// Whether the backend's clock is read from this shard: it is that of the server with the
    /// lowest slot which answers, so that all processes have the same one.
    pub(crate) fn is_clock(&self, shard: Shard) -> bool {
        let routes = self.routes.load();
        let is_before = |other: &&Shard| **other != shard;
        let mut before = routes.in_order.iter().take_while(is_before);
        !before.any(|other| routes.get(*other).is_some_and(|it| it.is_connected()))
    }

    pub(crate) fn set_connection(&self, route: &Route, connection: Option<Arc<Connection>>) {
        route.set_connection(connection);
        call_out(|| self.connection_changed.notify_waiters());
    }

    /// Makes everybody see that there is no connection to a shard. Returns the error of the write
    /// that broke it, if one did.
    pub(crate) fn lose_connection(&self, route: &Route, failure: &Error) -> Option<Error> {
        // What is in its first poll is known as sent after that.
        self.wait_for_first_polls();
        // The state first: a call that finds no connection reads there when it was lost.
        let mono = self.clock.mono();
        let broken_by = self.state().disconnected(route.shard, failure, mono);
        self.set_connection(route, None);
        route.large_reads.clear();
        broken_by
    }

    /// Wakes the flushers of these shards: there is something to send.
    pub(crate) fn wake(&self, shards: impl IntoIterator<Item = Shard>) {
        let routes = self.routes.load();
        for route in shards.into_iter().filter_map(|shard| routes.get(shard)) {
            route.wake.notify_one();
        }
    }

    /// What the next look at the layout shows; every server is asked.
    pub(crate) fn check_layout(&self) -> oneshot::Receiver<Result<LayoutCheck, BackendError>> {
        let (waiter, check) = oneshot::channel();
        lock(&self.layout_waiters).push(waiter);
        self.layout_wanted.notify_one();
        check
    }

    pub(crate) fn has_layout_waiters(&self) -> bool {
        !lock(&self.layout_waiters).is_empty()
    }

    pub(crate) fn take_layout_waiters(&self) -> Vec<LayoutWaiter> {
        std::mem::take(&mut *lock(&self.layout_waiters))
    }

    /// How the servers choose what to evict: of several, what one says that evicts.
    pub(crate) fn eviction_policy(&self) -> Option<String> {
        let routes = self.routes.load();
        let policies = routes
            .iter()
            .filter_map(|route| route.eviction_policy.load_full());
        let policy = policies.max_by_key(|policy| match policy.split('-').next() {
            Some("noeviction") => 0,
            Some("volatile") => 1,
            _ => 2,
        });
        policy.map(|policy| policy.to_string())
    }

    /// Makes all loops of all shards look again what there is to do.
    pub(crate) fn wake_all(&self) {
        for route in self.routes.load().iter() {
            route.wake.notify_one();
            route.refresher_wake.notify_one();
        }
    }

    /// Emits an event that names the backend.
    pub(crate) fn emit(&self, event: impl FnOnce(Arc<str>) -> LogEvent) {
        self.events.emit(event(Arc::clone(&self.target)));
    }

    /// The connection to a shard, if there is one other than this.
    pub(crate) fn connection_other_than(
        &self,
        shard: Shard,
        given_up: Option<&Arc<Connection>>,
    ) -> Option<Arc<Connection>> {
        self.connection(shard)
            .filter(|current| given_up.is_none_or(|given_up| !Arc::ptr_eq(current, given_up)))
    }

    /// Ready with what `found` returns, which is asked whenever a connection was made or lost.
    pub(crate) async fn when_connected<T>(&self, found: impl Fn() -> Option<T>) -> T {
        loop {
            // Before the look: it is woken by what comes after it was made.
            let changed = self.connection_changed.notified();
            if let Some(found) = found() {
                return found;
            }
            changed.await;
        }
    }

    /// Makes a request. Its ticket is its number in the order in which requests take effect, and is
    /// passed to `on_sent` before the request can take effect.
    ///
    /// A connection that was given up takes no more requests, so that its answers are older than
    /// those of the next one.
    pub(crate) async fn issue<T>(
        &self,
        connection: &Connection,
        request: Reply<T>,
        on_sent: impl FnOnce(Ticket),
    ) -> Result<T, BackendError> {
        let make = |ticket| {
            on_sent(ticket);
            request
        };
        self.issue_made(connection, make).await
    }

    /// As [`issue`](Shared::issue), of a request that is made at a time when nothing else can be
    /// sent before it.
    pub(crate) async fn issue_made<T>(
        &self,
        connection: &Connection,
        make: impl FnOnce(Ticket) -> Reply<T>,
    ) -> Result<T, BackendError> {
        match self.first_poll(connection, make) {
            Err(answer) => answer,
            // A request that is made while the connection ends may never be answered, not even with
            // an error: the channel to redis's driver keeps what is pushed into it while its
            // receiver is dropped.
            Ok(request) => match select(request, pin!(connection.ended())).await {
                Either::Left((answer, _)) => answer,
                Either::Right((error, _)) => Err(error),
            },
        }
    }

    /// Sends a request, which its first poll does; an error if it is over by then. The caller's
    /// waker is not passed to that poll: it is code of the user's, which does not run under a lock.
    fn first_poll<T>(
        &self,
        connection: &Connection,
        make: impl FnOnce(Ticket) -> Reply<T>,
    ) -> Result<Reply<T>, Result<T, BackendError>> {
        let mut last_ticket = lock(&self.wire);
        if let Some(error) = connection.end_reason() {
            return Err(Err(error.clone()));
        }
        *last_ticket += 1;
        let mut request = make(*last_ticket);
        // Unconstrained: in a task that has used up its budget, tokio's primitives would send
        // nothing yet, and the request would take effect later than its ticket says.
        let mut first = unconstrained(request.as_mut());
        let polled = Pin::new(&mut first).poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(answer) => Err(answer),
            Poll::Pending => Ok(request),
        }
    }

    /// Waits until nobody is in the first poll of a request. After a connection was given up, every
    /// request that went out over it is known as one that did.
    fn wait_for_first_polls(&self) {
        drop(lock(&self.wire));
    }

    /// How long the backend may take for an answer: the timeout of one call, and the time that the
    /// bytes before it take on a slow line (1 MB/s).
    pub(crate) fn heartbeat_timeout(&self, connection: &Connection) -> Duration {
        let timeout = self.settings.timeout;
        timeout.saturating_add(connection.upload_time())
    }

    /// What a request over this connection returns; `None` if the other side was silent for
    /// `limit`. An answer that takes longer is waited for as long as bytes come (rule 16).
    pub(crate) async fn unless_silent<F: Future>(
        &self,
        connection: &Connection,
        limit: Duration,
        request: F,
    ) -> Option<F::Output> {
        let mut request = pin!(request);
        let mut wait = limit;
        loop {
            let answer = self.clock.timeout(wait, request.as_mut()).await;
            wait = limit.saturating_sub(connection.session.idle());
            if answer.is_some() || wait.is_zero() {
                return answer;
            }
        }
    }

    /// A request over this connection was not answered within `timeout`, and `error` says so. The
    /// connection is given up if it was silent for as long, or else as soon as it was. Returns
    /// whether it stays for now.
    pub(crate) fn not_answered(&self, connection: &Connection, error: BackendError) -> bool {
        // Behind a large write, silence means nothing. The flusher ends the connection if that
        // write takes too long.
        let is_silent = connection.session.idle() >= self.settings.timeout;
        if is_silent && !connection.is_uploading() {
            connection.end(error);
            return false;
        }
        connection.suspect();
        true
    }

    /// Ready when a connection that is suspected turns out to be silent.
    pub(crate) async fn silent(&self, connection: &Connection) -> BackendError {
        let (limit, session) = (self.settings.timeout, &connection.session);
        loop {
            connection.suspected.notified().await;
            let since = self.clock.mono();
            // If nothing was asked for long, the silence before says nothing.
            let idle = session.idle();
            let rest = limit.checked_sub(idle).filter(|rest| !rest.is_zero());
            let rest = rest.unwrap_or(limit);
            let answer = self.clock.timeout(rest, session.now()).await;
            let is_silent = session.idle() >= self.clock.mono().saturating_sub(since);
            match answer {
                Some(Err(error)) if error.is_connection_lost() => return error,
                None if is_silent && !connection.is_uploading() => {
                    return BackendError::connection_lost(format_args!(
                        "nothing arrived for {limit:?}, and a request was not answered"
                    ));
                }
                None | Some(_) => {}
            }
        }
    }

    /// The I/O thread continues with this, since its caller does not wait any more.
    pub(crate) fn abandon(&self, request: impl Future<Output = ()> + Send + 'static) {
        lock(&self.abandoned).push(AbandonedRequest(Box::pin(request)));
        self.abandoned_wake.notify_one();
        // Not before: the I/O thread may end meanwhile.
        if self.is_stopped() {
            // They would never be continued, and hold what is shared.
            drop(self.take_abandoned());
        }
    }

    /// The same with a read over a connection: as long as it is not answered, other reads are not
    /// sent behind it, for they would come still later.
    pub(crate) fn abandon_read(
        &self,
        connection: &Arc<Connection>,
        read: impl Future<Output = ()> + Send + 'static,
    ) {
        let overdue = OverdueRead::new(connection);
        self.abandon(async move {
            read.await;
            drop(overdue);
        });
    }

    pub(crate) fn take_abandoned(&self) -> Vec<impl Future<Output = ()> + Send + use<>> {
        let abandoned = std::mem::take(&mut *lock(&self.abandoned));
        abandoned.into_iter().map(|request| request.0).collect()
    }

    /// Ready when a request was abandoned.
    pub(crate) async fn request_abandoned(&self) {
        self.abandoned_wake.notified().await;
    }

    /// Makes the backend notify of changes from now on, of what is read for a near slot.
    pub(crate) fn want_tracking(&self) {
        if !self.is_tracking_wanted.swap(true, Ordering::AcqRel) {
            self.wake_refresher();
            // From now on it is looked at more often.
            self.layout_wanted.notify_one();
        }
    }

    pub(crate) fn is_tracking_wanted(&self) -> bool {
        self.is_tracking_wanted.load(Ordering::Acquire)
    }

    /// Makes the refreshers check again what there is to do: the first slot has become near, a slot
    /// is watched that is to be read, or one could not be read.
    pub(crate) fn wake_refresher(&self) {
        for route in self.routes.load().iter() {
            route.refresher_wake.notify_one();
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_inherited() {
            Err(Error::opened_before_fork())
        } else {
            self.check_not_closed()
        }
    }

    /// The same without the system call: `check_open` or `is_inherited` was asked before. For calls
    /// under the lock of the state.
    pub(crate) fn check_not_closed(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            Err(Error::closed())
        } else {
            Ok(())
        }
    }

    /// Refuses all calls from now on.
    ///
    /// Takes the lock of the state, under which writes are accepted: none is accepted after that.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        self.closed.store(true, Ordering::Relaxed);
        state.cache.touch_near();
    }

    /// Ends the I/O thread.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Ready when the I/O thread is to end.
    pub(crate) async fn stopped(&self) {
        // The sender is in `self`, and lives as long as this waits.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Ready when everything that is queued now was answered for.
    pub(crate) fn when_delivered(&self) -> oneshot::Receiver<()> {
        let (sender, delivered) = oneshot::channel();
        let up_to = self.state().outbox.last_sequence();
        let gone: Vec<_> = {
            let mut waiters = lock(&self.delivery_waiters);
            waiters.push((up_to, sender));
            waiters
                .extract_if(.., |(_, sender)| sender.is_closed())
                .collect()
        };
        // Under no lock: it drops wakers.
        drop(gone);
        self.notify_delivered();
        delivered
    }

    /// Notifies those who wait for writes to be delivered, as far as they were.
    pub(crate) fn notify_delivered(&self) {
        if lock(&self.delivery_waiters).is_empty() {
            return;
        }
        // The one lock is not taken under the other: when it is released, code of the user runs.
        // Who begins to wait in between looks again by itself.
        let oldest = self
            .state()
            .outbox
            .entries()
            .map(|(_, entry)| entry.identity.id)
            .min();
        let delivered: Vec<_> = lock(&self.delivery_waiters)
            .extract_if(.., |(up_to, _)| oldest.is_none_or(|oldest| oldest > *up_to))
            .collect();
        for (_, sender) in delivered {
            call_out(|| _ = sender.send(()));
        }
    }

    /// An error for a call that only the backend could have answered.
    pub(crate) fn unavailable(&self) -> Error {
        if self.is_inherited() {
            return Error::opened_before_fork();
        }
        let what = if is_io_thread() {
            format!(
                "a waker on an I/O thread cannot wait for the backend {}",
                self.target
            )
        } else {
            let cause = self.state().last_cause();
            format!("the backend {} is not available: {cause}", self.target)
        };
        Error::new(ErrorKind::Unavailable, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_child_only_the_first_call_tries_the_lock_that_its_parent_held() {
        let shared = Shared::new(Settings::default(), "test", None).unwrap();
        let held = lock(&shared.state);
        shared.is_inherited.store(true, Ordering::Relaxed);
        shared.state().superseded = 7;
        drop(held);
        assert_eq!(shared.state().superseded, 7, "what the first one got");
    }
}
