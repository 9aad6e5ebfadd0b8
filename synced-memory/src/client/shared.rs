//! What the callers' threads and the I/O thread share: the state under its lock, the order of
//! requests, the connection if there is one.
//!
//! Order of locks: `wire` before `state`. Neither is held across I/O or a callback, except that
//! `wire` is held across the first poll of a request, in which the embedded backends do all of it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::{Either, select};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::unconstrained;

use crate::backend::error::BackendError;
use crate::backend::{Reply, Session};
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
use crate::client::large_reads::LargeReads;
use crate::client::state::{LARGE, State};
use crate::pending::journal;

/// A connection that is in use.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: Box<dyn Session>,
    /// Why it must not be used any more.
    end_reason: OnceLock<BackendError>,
    has_ended: Notify,
}

impl Connection {
    pub(crate) fn new(session: Box<dyn Session>) -> Self {
        Self {
            session,
            end_reason: OnceLock::new(),
            has_ended: Notify::new(),
        }
    }

    /// Gives the connection up: the flusher drops it and connects anew. The first reason counts.
    pub(crate) fn end(&self, error: BackendError) {
        if self.end_reason.set(error).is_ok() {
            call_out(|| self.has_ended.notify_waiters());
        }
    }

    /// Whether it was given up.
    pub(crate) fn is_ended(&self) -> bool {
        self.end_reason.get().is_some()
    }

    /// Ready when the connection was given up.
    pub(crate) async fn ended(&self) -> BackendError {
        loop {
            // Before the look: it is woken by what comes after it was made.
            let ended = self.has_ended.notified();
            if let Some(reason) = self.end_reason.get() {
                return reason.clone();
            }
            ended.await;
        }
    }
}

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
    connection: ArcSwapOption<Connection>,
    /// Not a `watch` of tokio's, as for the end of a connection: callers wait for these, and a
    /// `watch` needs a local of the thread that waits, which may be gone when the thread ends.
    connection_changed: Notify,
    /// There is something to send.
    pub(crate) wake: Notify,
    /// The slots take more than they may.
    pub(crate) cache_grew: Notify,
    /// The backend's eviction policy, as it said when last connected.
    pub(crate) eviction_policy: ArcSwapOption<String>,
    /// Something is read near or watched, or was.
    is_tracking_wanted: AtomicBool,
    /// There is something to do for the refresher.
    refresher_wake: Notify,
    pub(crate) large_reads: LargeReads,
    /// Requests that their callers do not wait for any more.
    abandoned: Mutex<Vec<AbandonedRequest>>,
    abandoned_wake: Notify,
    /// How many reads are abandoned and not answered yet.
    overdue_reads: AtomicUsize,
    no_overdue_read: Notify,
    /// A request took too long, and the connection was not silent all the time.
    line_suspected: Notify,
    closed: AtomicBool,
    stopped: watch::Sender<bool>,
    /// How many bytes are on their way in large writes.
    uploading: AtomicUsize,
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

/// A large write on its way.
#[derive(Debug)]
pub(crate) struct Uploading<'a> {
    uploading: &'a AtomicUsize,
    bytes: usize,
}

impl Drop for Uploading<'_> {
    fn drop(&mut self) {
        self.uploading.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A read that is not answered, and that nobody waits for.
struct OverdueRead(Arc<Shared>);

impl OverdueRead {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.overdue_reads.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for OverdueRead {
    fn drop(&mut self) {
        if self.0.overdue_reads.fetch_sub(1, Ordering::AcqRel) == 1 {
            call_out(|| self.0.no_overdue_read.notify_waiters());
        }
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
    /// # Errors
    ///
    /// `Journal` if there is to be one and it cannot be used.
    pub(crate) fn new(
        settings: Settings,
        target: &str,
        journal: Option<journal::JournalConfig>,
    ) -> Result<Self> {
        Self::with_clock(settings, target, journal, Clock::start())
    }

    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(crate) fn with_clock(
        settings: Settings,
        target: &str,
        journal: Option<journal::JournalConfig>,
        clock: Clock,
    ) -> Result<Self> {
        let mut state = State::new(settings.outbox_limit, settings.tombstone_ttl, random::rng());
        if let Some(config) = journal {
            state.keep_a_journal(config, journal::ClockOrigin(clock.zero()), clock.mono())?;
        }
        Ok(Self {
            settings,
            clock,
            target: target.into(),
            events: EventEmitter::default(),
            state: Mutex::new(state),
            owner: OwnerProcess::current(),
            is_inherited: AtomicBool::new(false),
            unknown_state: OnceLock::new(),
            deferred_wakes: Arc::default(),
            wire: Mutex::new(0),
            connection: ArcSwapOption::empty(),
            connection_changed: Notify::new(),
            wake: Notify::new(),
            cache_grew: Notify::new(),
            eviction_policy: ArcSwapOption::empty(),
            is_tracking_wanted: AtomicBool::new(false),
            refresher_wake: Notify::new(),
            large_reads: LargeReads::default(),
            abandoned: Mutex::default(),
            abandoned_wake: Notify::new(),
            overdue_reads: AtomicUsize::new(0),
            no_overdue_read: Notify::new(),
            line_suspected: Notify::new(),
            closed: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
            uploading: AtomicUsize::new(0),
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

    /// The connection, if there is one.
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.load_full()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.load().is_some()
    }

    pub(crate) fn set_connection(&self, connection: Option<Arc<Connection>>) {
        self.connection.store(connection);
        call_out(|| self.connection_changed.notify_waiters());
    }

    /// Makes everybody see that there is no connection. Returns the error of the write that broke
    /// it, if one did.
    pub(crate) fn lose_connection(&self, failure: Error) -> Option<Error> {
        // What is in its first poll is known as sent after that.
        self.wait_for_first_polls();
        // The state first: a call that finds no connection reads there when it was lost.
        let broken_by = self.state().disconnected(failure, self.clock.mono());
        self.set_connection(None);
        self.large_reads.clear();
        broken_by
    }

    /// Emits an event that names the backend.
    pub(crate) fn emit(&self, event: impl FnOnce(Arc<str>) -> LogEvent) {
        self.events.emit(event(Arc::clone(&self.target)));
    }

    /// The connection, if there is one other than this.
    pub(crate) fn connection_other_than(
        &self,
        given_up: Option<&Arc<Connection>>,
    ) -> Option<Arc<Connection>> {
        self.connection()
            .filter(|current| given_up.is_none_or(|given_up| !Arc::ptr_eq(current, given_up)))
    }

    /// Ready if there is a connection other than this.
    pub(crate) async fn connected_other_than(&self, given_up: Option<&Arc<Connection>>) {
        loop {
            // Before the look: it is woken by what comes after it was made.
            let changed = self.connection_changed.notified();
            if self.connection_other_than(given_up).is_some() {
                return;
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
        if let Some(error) = connection.end_reason.get() {
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

    /// Counts a write of so many bytes as under way, until what this returns is dropped.
    pub(crate) fn uploads(&self, bytes: usize) -> Uploading<'_> {
        let bytes = if bytes > LARGE { bytes } else { 0 };
        self.uploading.fetch_add(bytes, Ordering::Relaxed);
        Uploading {
            uploading: &self.uploading,
            bytes,
        }
    }

    /// Whether the connection is busy with a large write, behind which everything else waits:
    /// silence means nothing.
    pub(crate) fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Relaxed) > 0
    }

    /// How long the backend may take for an answer: the timeout of one call, and the time that the
    /// bytes before it take on a slow line (1 MB/s).
    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        let bytes = u64::try_from(self.uploading.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        self.settings
            .timeout
            .saturating_add(Duration::from_micros(bytes))
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
        if is_silent && !self.is_uploading() {
            connection.end(error);
            return false;
        }
        self.suspect_line();
        true
    }

    /// The connection is given up if it is silent from now on.
    pub(crate) fn suspect_line(&self) {
        self.line_suspected.notify_one();
    }

    /// Ready when a connection that is suspected turns out to be silent.
    pub(crate) async fn silent(&self, connection: &Connection) -> BackendError {
        let (limit, session) = (self.settings.timeout, &connection.session);
        loop {
            self.line_suspected.notified().await;
            let since = self.clock.mono();
            // If nothing was asked for long, the silence before says nothing.
            let idle = session.idle();
            let rest = limit.checked_sub(idle).filter(|rest| !rest.is_zero());
            let rest = rest.unwrap_or(limit);
            // What was not answered may have been over this connection or the one before; this is
            // to be answered in any case.
            let answer = self.clock.timeout(rest, session.now()).await;
            let is_silent = session.idle() >= self.clock.mono().saturating_sub(since);
            match answer {
                Some(Err(error)) if error.is_connection_lost() => return error,
                None if is_silent && !self.is_uploading() => {
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

    /// The same with a read: as long as it is not answered, other reads are not sent behind it, for
    /// they would come still later.
    pub(crate) fn abandon_read(self: &Arc<Self>, read: impl Future<Output = ()> + Send + 'static) {
        let overdue = OverdueRead::new(self);
        self.abandon(async move {
            read.await;
            drop(overdue);
        });
    }

    /// Ready when no read is overdue.
    pub(crate) async fn no_overdue_read(&self) {
        loop {
            // Before the look: it is woken by what comes after it was made.
            let none_is_left = self.no_overdue_read.notified();
            if self.overdue_reads.load(Ordering::Acquire) == 0 {
                return;
            }
            none_is_left.await;
        }
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
        }
    }

    pub(crate) fn is_tracking_wanted(&self) -> bool {
        self.is_tracking_wanted.load(Ordering::Acquire)
    }

    /// Makes the refresher check again what there is to do.
    pub(crate) fn wake_refresher(&self) {
        self.refresher_wake.notify_one();
    }

    /// Ready when the first slot has become near, a slot is watched that is to be read, or one
    /// could not be read.
    pub(crate) async fn refresher_woken(&self) {
        self.refresher_wake.notified().await;
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
