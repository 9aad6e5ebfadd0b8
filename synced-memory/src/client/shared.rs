//! What the callers' threads and the I/O thread share: the state under its lock, the order of
//! requests, the connection while there is one.
//!
//! Order of locks: `wire` before `state`. Neither is held across I/O or a callback, but for `wire`
//! across the first poll of a request, in which the embedded backend does all of it.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::{Either, select};
use tokio::sync::{Notify, oneshot, watch};

use crate::backend::error::BackendError;
use crate::backend::{Reply, Session};
use crate::base::clock::Clock;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::settings::Settings;
use crate::base::waiting::{Deferred, Defers, Signal};
use crate::cache::Ticket;
use crate::client::state::State;
use crate::pending::journal;

/// A connection that is in use.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: Box<dyn Session>,
    verdict: watch::Sender<Option<BackendError>>,
}

impl Connection {
    pub(crate) fn new(session: Box<dyn Session>) -> Self {
        Self {
            session,
            verdict: watch::Sender::new(None),
        }
    }

    /// Says that the connection is no good: the flusher drops it and connects anew.
    pub(crate) fn end(&self, error: BackendError) {
        self.verdict.send_if_modified(|verdict| {
            let first = verdict.is_none();
            verdict.get_or_insert(error);
            first
        });
    }

    /// Ready when somebody found the connection to be no good.
    pub(crate) async fn ended(&self) -> BackendError {
        let mut verdict = self.verdict.subscribe();
        // The sender is in `self`: it cannot go while this waits.
        let error = verdict
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|verdict| verdict.clone());
        error.unwrap_or_else(|| BackendError::connection_lost("the connection was given up"))
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    /// Where the backend is, without a password.
    pub(crate) target: String,
    state: Mutex<State>,
    /// Those who wait for what is told under the lock of the state.
    pub(crate) told: Arc<Deferred>,
    wire: Mutex<Ticket>,
    live: ArcSwapOption<Connection>,
    connected: watch::Sender<bool>,
    /// There is something to send.
    pub(crate) wake: Notify,
    /// The backend's eviction policy, as it said when last connected.
    pub(crate) eviction_policy: ArcSwapOption<String>,
    /// What the keys begin with that are read locally, none of them the beginning of another.
    near: Mutex<Vec<String>>,
    /// The refresher has something new to do.
    near_wanted: Notify,
    closed: AtomicBool,
    stopped: watch::Sender<bool>,
    /// How many bytes are on their way in large writes.
    uploading: AtomicUsize,
    delivered: Mutex<Vec<(u64, oneshot::Sender<()>)>>,
}

/// A write of more bytes may take longer than its caller waits.
pub(crate) const LARGE: usize = 64 << 10;

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

/// The state under its lock. The watches of what was changed, and the tasks that were told
/// something, are woken when the lock is free again: to wake one runs code of its executor.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    // In this order: fields are dropped as they are declared.
    state: MutexGuard<'a, State>,
    raised: Raised,
    told: &'a Deferred,
}

/// Wakes all these when it is dropped.
#[derive(Debug, Default)]
struct Raised {
    watches: Vec<Arc<Signal>>,
    tasks: Vec<Arc<Defers>>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.raised.watches = self.state.cache.take_raised();
        self.raised.tasks = self.told.take();
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.watches.iter().for_each(|watch| watch.wake());
        self.tasks.iter().for_each(|task| task.wake_now());
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
    /// `Journal` where there is to be one and cannot be.
    pub(crate) fn new(
        settings: Settings,
        target: &str,
        journal: Option<journal::JournalConfig>,
    ) -> Result<Self> {
        let clock = Clock::start();
        let mut state = State::new(
            settings.outbox_limit,
            settings.tombstone_ttl,
            fastrand::Rng::new(),
        );
        if let Some(place) = journal {
            state.keep_a_journal(place, journal::ClockOrigin(clock.zero()), clock.mono())?;
        }
        Ok(Self {
            settings,
            clock,
            target: target.to_owned(),
            state: Mutex::new(state),
            told: Arc::default(),
            wire: Mutex::new(0),
            live: ArcSwapOption::empty(),
            connected: watch::Sender::new(false),
            wake: Notify::new(),
            eviction_policy: ArcSwapOption::empty(),
            near: Mutex::default(),
            near_wanted: Notify::new(),
            closed: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
            uploading: AtomicUsize::new(0),
            delivered: Mutex::new(Vec::new()),
        })
    }

    /// The state. No code of the user runs under this lock, so a panic cannot have left it half
    /// changed.
    pub(crate) fn state(&self) -> Locked<'_> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked {
            state,
            raised: Raised::default(),
            told: &self.told,
        }
    }

    /// The connection, while there is one.
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        self.live.load_full()
    }

    pub(crate) fn set_connection(&self, live: Option<Arc<Connection>>) {
        let connected = live.is_some();
        self.live.store(live);
        self.connected.send_replace(connected);
    }

    /// The connection, while there is one other than this.
    pub(crate) fn connection_other_than(
        &self,
        given_up: Option<&Arc<Connection>>,
    ) -> Option<Arc<Connection>> {
        self.connection()
            .filter(|live| given_up.is_none_or(|given_up| !Arc::ptr_eq(live, given_up)))
    }

    /// Ready while there is a connection other than this.
    pub(crate) async fn connected_but(&self, given_up: Option<&Arc<Connection>>) {
        let mut changes = self.connected.subscribe();
        // The sender is in `self`: it cannot go while this waits.
        let _ = changes
            .wait_for(|_| self.connection_other_than(given_up).is_some())
            .await;
    }

    /// Makes a request: its ticket, handed to `on_sent` before it can take effect, is its place in
    /// the order in which requests take effect.
    /// A connection that was given up takes no more requests, so that its answers stay older than
    /// those of the next one.
    pub(crate) async fn issue<T>(
        &self,
        live: &Connection,
        request: Reply<T>,
        on_sent: impl FnOnce(Ticket),
    ) -> Result<T, BackendError> {
        let make = |ticket| {
            on_sent(ticket);
            request
        };
        self.issue_made(live, make).await
    }

    /// As [`issue`](Shared::issue), of a request that is made when nothing else can be sent before
    /// it.
    pub(crate) async fn issue_made<T>(
        &self,
        live: &Connection,
        make: impl FnOnce(Ticket) -> Reply<T>,
    ) -> Result<T, BackendError> {
        let mut make = Some(make);
        let first = poll_fn(|context| {
            let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
            let sent = match (&*live.verdict.borrow(), make.take()) {
                (None, Some(make)) => {
                    *wire += 1;
                    let mut request = make(*wire);
                    match request.as_mut().poll(context) {
                        Poll::Ready(answer) => Err(answer),
                        Poll::Pending => Ok(request),
                    }
                }
                (Some(error), _) => Err(Err(error.clone())),
                (None, None) => Err(Err(BackendError::connection_lost(
                    "the request was made before",
                ))),
            };
            Poll::Ready(sent)
        })
        .await;
        match first {
            Err(answer) => answer,
            // A request that is made while the connection ends may be answered by nobody, not even
            // with an error: the channel to redis's driver keeps what is pushed into it while its
            // receiver is dropped.
            Ok(request) => match select(request, pin!(live.ended())).await {
                Either::Left((answer, _)) => answer,
                Either::Right((error, _)) => Err(error),
            },
        }
    }

    /// Counts a write of so many bytes as long as the answer lives.
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

    /// How long the backend may take for an answer: longer than one call by what the bytes before
    /// it take on a slow line (1 MB/s).
    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        let bytes = u64::try_from(self.uploading.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        self.settings
            .timeout
            .saturating_add(Duration::from_micros(bytes))
    }

    /// Has changes told of keys that begin with `prefix`.
    pub(crate) fn want_near(&self, prefix: &str) {
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        if !near.iter().any(|other| prefix.starts_with(other)) {
            near.retain(|other| !other.starts_with(prefix));
            near.push(prefix.to_owned());
            self.near_wanted.notify_one();
        }
    }

    pub(crate) fn near_prefixes(&self) -> Vec<String> {
        self.near
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Has the refresher look again for what there is to do.
    pub(crate) fn wake_refresher(&self) {
        self.near_wanted.notify_one();
    }

    /// Ready when a prefix was added, a slot is watched that is to be read, or one could not be
    /// read.
    pub(crate) async fn near_wanted(&self) {
        self.near_wanted.notified().await;
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            Err(Error::closed())
        } else {
            Ok(())
        }
    }

    /// Refuses everything from now on.
    ///
    /// Set under the lock of the state: no write is accepted after that.
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
        // The sender is in `self`: it cannot go while this waits.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Ready when everything that is queued now was answered for.
    pub(crate) fn when_delivered(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let up_to = self.state().outbox.last_sequence();
        self.waiting_for_delivery().push((up_to, tell));
        self.tell_delivered();
        told
    }

    /// Tells those who wait for everything to be delivered, where it was.
    pub(crate) fn tell_delivered(&self) {
        let mut waiting = self.waiting_for_delivery();
        if waiting.is_empty() {
            return;
        }
        let oldest = self
            .state()
            .outbox
            .entries()
            .map(|(_, entry)| entry.identity.id)
            .min();
        let told: Vec<_> = waiting
            .extract_if(.., |(up_to, _)| oldest.is_none_or(|oldest| oldest > *up_to))
            .collect();
        // To tell one runs code of its executor.
        drop(waiting);
        for (_, tell) in told {
            let _ = tell.send(());
        }
    }

    fn waiting_for_delivery(&self) -> MutexGuard<'_, Vec<(u64, oneshot::Sender<()>)>> {
        self.delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// An error for a call that only the backend could have answered.
    pub(crate) fn unavailable(&self) -> Error {
        let cause = self.state().last_error.clone();
        let cause = cause.map_or_else(
            || "it has not answered yet".to_owned(),
            |cause| cause.to_string(),
        );
        Error::new(
            ErrorKind::Unavailable,
            format!("the backend {} is not available: {cause}", self.target),
        )
    }
}
