//! Outbox → backend: the I/O thread's own loop, with breaker, heartbeat and backoff.
//!
//! - `layout.rs`: which shards there are, and the loop of each
//! - `batches.rs`: what is sent together, and what the answers mean

mod batches;
#[cfg(test)]
pub(in crate::client) mod failing;
mod layout;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::pending;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::backend::error::{BackendError, Recovery};
use crate::backend::shards::Shard;
use crate::base::backoff::{Backoff, Jitter};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::events::event;
use crate::client::refresher;
use crate::client::route::{Connection, Route};
use crate::client::shared::Shared;
use crate::client::state::State;
pub(crate) use batches::send;
use batches::{Batches, writes_resumed};

/// The time between two checks of a connection that nobody uses.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Tries to reconnect are spread over the whole pause, as many processes lose a server at once.
const JITTER: Jitter = Jitter::FULL;

/// Runs until the memory stops. `first` gets the outcome of the first try to connect.
pub(crate) async fn run(
    shared: &Shared,
    backend: &dyn Backend,
    first: oneshot::Sender<Result<()>>,
) {
    let _end = EndOnDrop(shared);
    tokio::select! {
        () = shared.stopped() => {}
        never = continue_abandoned(shared) => match never {},
        () = run_shards(shared, backend, first) => {}
    }
}

async fn run_shards(shared: &Shared, backend: &dyn Backend, first: oneshot::Sender<Result<()>>) {
    match shared.route(Shard::FIRST) {
        Some(only) => {
            let mut connector = Connector::new(shared, backend, only, Some(first));
            connector.keep_connected().await;
        }
        None => layout::run(shared, backend, first).await,
    }
}

/// Once all writes that waited for this connection are answered for, says what became of them.
async fn report_backlog(shared: &Shared, connection: &Connection) -> Infallible {
    let outcomes = |state: &State| (state.superseded, state.expired, state.all_letters);
    let (waited, before) = {
        let state = shared.state();
        (
            state.outbox.writes_to(connection.shard) as u64,
            outcomes(&state),
        )
    };
    if waited > 0 && shared.when_delivered().await.is_ok() {
        let after = outcomes(&shared.state());
        let (superseded, expired, dead_letters) =
            (after.0 - before.0, after.1 - before.1, after.2 - before.2);
        shared.emit(|target| {
            event!(
                INFO,
                target = &*target,
                waited,
                delivered = waited.saturating_sub(superseded + expired + dead_letters),
                superseded,
                expired,
                dead_letters,
                "the writes that waited are answered for"
            )
        });
    }
    pending().await
}

/// Ends the connection when the I/O thread ends, also by a panic, so that nobody waits for an
/// answer that never comes.
struct EndOnDrop<'a>(&'a Shared);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        let Self(shared) = self;
        let has_panicked = std::thread::panicking();
        let reason = if has_panicked {
            Error::new(ErrorKind::Closed, "the I/O thread panicked")
        } else {
            Error::closed()
        };
        for route in shared.routes().iter() {
            if let Some(connection) = route.connection() {
                connection.end(BackendError::connection_lost(&reason));
            }
            shared.lose_connection(route, &reason);
        }
        // They hold what is shared.
        drop(shared.take_abandoned());
        if has_panicked {
            shared.close();
            shared.emit(
                |target| event!(ERROR, target = &*target, error = %reason, "the memory is closed"),
            );
        }
    }
}

/// Connects, uses the connection until it cannot be used any more, and connects anew.
struct Connector<'a> {
    shared: &'a Shared,
    backend: &'a dyn Backend,
    route: Arc<Route>,
    /// Gets the outcome of the first try to connect.
    first: Option<oneshot::Sender<Result<()>>>,
    backoff: Backoff,
    /// Why the last try to connect failed, as it was logged.
    last_failure: Option<String>,
    /// The pause before the next connection is over already: reads went on meanwhile.
    has_paused: bool,
}

impl<'a> Connector<'a> {
    fn new(
        shared: &'a Shared,
        backend: &'a dyn Backend,
        route: Arc<Route>,
        first: Option<oneshot::Sender<Result<()>>>,
    ) -> Self {
        Self {
            shared,
            backend,
            route,
            first,
            backoff: Backoff::new(shared.settings.backoff, JITTER),
            last_failure: None,
            has_paused: false,
        }
    }

    async fn keep_connected(&mut self) {
        loop {
            match self.connect().await {
                Ok((connection, has_asked)) => {
                    let target = Arc::clone(&self.route.target);
                    let connected = event!(INFO, target = &*target, "connected, breaker closed");
                    self.shared.events.emit(connected);
                    self.last_failure = None;
                    report_problem(self.shared, &self.route, self.backend);
                    self.use_connection(&connection, has_asked).await;
                }
                Err(error) => {
                    self.log_failure(&error);
                    self.disconnected(&error);
                    self.pause().await;
                }
            }
        }
    }

    /// Connects, and learns the backend's clock. Also returns whether the backend was asked to
    /// notify of changes.
    async fn connect(&mut self) -> Result<(Arc<Connection>, bool), BackendError> {
        let (shared, limit) = (self.shared, self.shared.settings.timeout);
        let clock = &shared.clock;
        let silent = || {
            BackendError::connection_lost(format_args!(
                "no answer to a connection attempt within {limit:?}"
            ))
        };
        let session = clock
            .timeout(limit, self.backend.connect(&self.route.node))
            .await;
        let session = session.unwrap_or_else(|| Err(self.backend.unanswered(limit)))?;
        let connection = Arc::new(Connection::new(session, self.route.shard));

        let policy = connection.session.eviction_policy();
        if let Some(Ok(policy)) = clock.timeout(limit, policy).await {
            self.route.eviction_policy.store(policy.map(Arc::new));
        }

        // At most so long, whatever else the server sends meanwhile.
        let (now, asked, answered) = clock
            .timeout(limit, ask_time(shared, &connection))
            .await
            .ok_or_else(silent)??;
        {
            // In one step: a stamp that is issued in between would be shifted twice.
            let mut state = shared.state();
            // The stamps of this process are shifted to the backend's clock by the first connection
            // only.
            let is_first = !state.knows_clock();
            let is_clock = is_first || shared.is_clock(self.route.shard);
            let shift = is_clock.then(|| clock.adjust(now, asked, answered));
            state.connected(self.route.shard, shift.filter(|_| is_first));
        }

        // Before anybody reads over this connection.
        let has_asked = clock
            .timeout(limit, refresher::track(shared, &connection))
            .await
            .ok_or_else(silent)??;
        Ok((connection, has_asked))
    }

    /// Uses a connection until it cannot be used any more, and waits until it is time for the next
    /// one.
    async fn use_connection(&mut self, connection: &Arc<Connection>, has_asked: bool) {
        let error = self.serve(connection, has_asked).await;
        connection.end(error.clone());
        let cause = error.clone();
        let target = Arc::clone(&self.route.target);
        let lost =
            event!(WARN, target = &*target, error = %cause, "connection lost, breaker opened");
        self.shared.events.emit(lost);
        self.disconnected(&error);

        // A server that takes no writes is asked less and less often, however often it can be
        // reached.
        if error.recovery() != Recovery::PauseThenReconnect {
            self.backoff.reset();
        }
        let has_paused = std::mem::take(&mut self.has_paused);
        if !has_paused && error.recovery() != Recovery::ReconnectNow {
            self.pause().await;
        }
    }

    /// Uses a connection until it cannot be used any more. Returns why.
    async fn serve(&mut self, connection: &Arc<Connection>, has_asked: bool) -> BackendError {
        let (shared, backend) = (self.shared, self.backend);
        let route = &*Arc::clone(&self.route);
        tokio::select! {
            error = connection.ended() => error,
            error = session_ended(connection) => error,
            error = heartbeat(shared, connection) => error,
            error = keep_logged_in(shared, route, connection) => error,
            error = shared.silent(connection) => error,
            error = self.flush(connection) => error,
            error = refresher::run(shared, route, connection, has_asked) => error,
            never = report_backlog(shared, connection) => match never {},
            never = report_problems(shared, route, backend) => match never {},
        }
    }

    /// Logs why a try to connect failed: as a warning once for each cause, so that an outage does
    /// not fill the log.
    fn log_failure(&mut self, error: &BackendError) {
        let failure = error.to_string();
        let is_known = self.last_failure.as_ref() == Some(&failure);
        self.last_failure = Some(failure.clone());
        let target = Arc::clone(&self.route.target);
        self.shared.events.emit(if is_known {
            event!(DEBUG, target = &*target, error = %failure, "could not connect")
        } else {
            event!(WARN, target = &*target, error = %failure, "could not connect, breaker open")
        });
    }

    /// Makes everybody see that there is no connection, and why.
    fn disconnected(&mut self, error: &BackendError) {
        let (shared, target) = (self.shared, Arc::clone(&self.route.target));
        let failure = Error::new(error.error_kind(), format!("{target}: {error}"));
        if let Some(error) = shared.lose_connection(&self.route, &failure) {
            let broken =
                event!(WARN, target = &*target, error = %error, "a write breaks connections");
            shared.events.emit(broken);
        }
        self.report_first(Err(failure));
    }

    /// Lets callers use the connection.
    fn publish(&mut self, connection: &Arc<Connection>) {
        if !self.route.is_connected() {
            let connection = Some(Arc::clone(connection));
            self.shared.set_connection(&self.route, connection);
            self.report_first(Ok(()));
        }
    }

    fn report_first(&mut self, outcome: Result<()>) {
        if let Some(first) = self.first.take() {
            let _ = first.send(outcome);
        }
    }

    async fn pause(&mut self) {
        let wait = self.backoff.next_wait();
        tokio::select! {
            () = self.shared.clock.sleep(wait) => {}
            _ = self.backend.moves() => {}
        }
    }

    /// Sends what is queued, whenever there is something. Returns why the connection cannot be used
    /// any more.
    async fn flush(&mut self, connection: &Arc<Connection>) -> BackendError {
        loop {
            let flow = match self.drain(connection).await {
                Ok(()) => self.after_drain(connection).await,
                Err(error) => self.recover(error).await,
            };
            if let ControlFlow::Break(error) = flow {
                return error;
            }
        }
    }

    /// Waits as the failure demands. Breaks with it if the connection is to be replaced.
    async fn recover(&mut self, error: BackendError) -> ControlFlow<BackendError> {
        match error.recovery() {
            Recovery::Pause | Recovery::Confirm => {
                self.pause().await;
                ControlFlow::Continue(())
            }
            Recovery::PauseThenReconnect => {
                self.pause().await;
                self.has_paused = true;
                ControlFlow::Break(error)
            }
            // An attempt that was rejected, or is to be sent again, has an answer of its own. A
            // failure of the whole batch means that nothing is known of its attempts.
            Recovery::Reconnect
            | Recovery::ReconnectNow
            | Recovery::RetryNow
            | Recovery::Redirect
            | Recovery::ParkKey
            | Recovery::ReadApart
            | Recovery::ReadUntracked
            | Recovery::ReadWhole
            | Recovery::GiveUp => ControlFlow::Break(error),
        }
    }

    /// Waits until there may be more to send.
    async fn after_drain(&mut self, connection: &Connection) -> ControlFlow<BackendError> {
        let (shared, shard) = (self.shared, self.route.shard);
        let refusal = shared.state().take_refusal(shard);
        match refusal {
            None => self.backoff.reset(),
            // What the backend refused was withdrawn: there is nothing left to try again with.
            Some(error) => self.recover(error).await?,
        }
        writes_resumed(shared, shard, &mut shared.state());

        if shared.state().is_any_unused(shard) {
            return match forget_unused(shared, connection).await {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            };
        }
        let held_until = shared.state().held_until(shard);
        let woken = self.route.wake.notified();
        match held_until {
            Some(until) => {
                let limit = until.saturating_sub(shared.clock.mono());
                shared.clock.timeout(limit, woken).await;
            }
            None => woken.await,
        }
        ControlFlow::Continue(())
    }

    /// Sends what is queued until nothing is, several batches at a time.
    ///
    /// What is in doubt goes first: callers see the connection, and make requests of their own,
    /// only when the first batches are on their way.
    async fn drain(&mut self, connection: &Arc<Connection>) -> Result<(), BackendError> {
        let shared = self.shared;
        let mut batches = Batches::new(shared, connection);
        loop {
            batches.send_next().await?;
            self.publish(connection);

            let has_room = batches.has_room();
            tokio::select! {
                answered = batches.under_way.next() => match answered {
                    Some(answered) => batches.handle_result(answered)?,
                    None => return batches.refusal.map_or(Ok(()), Err),
                },
                () = self.route.wake.notified(), if has_room => {}
            }
        }
    }
}

/// Logs a failure after which the connection goes on, and shows it in the status.
fn report(shared: &Shared, route: &Route, failure: &BackendError) {
    let target = Arc::clone(&route.target);
    let what = Error::new(failure.error_kind(), format!("{target}: {failure}"));
    shared.state().failed(route.shard, what);
    let error = failure.to_string();
    let goes_on = event!(WARN, target = &*target, %error, "the connection goes on");
    shared.events.emit(goes_on);
}

/// Says what is wrong although the backend is there.
fn report_problem(shared: &Shared, route: &Route, backend: &dyn Backend) {
    if let Some(problem) = backend.new_problem() {
        report(shared, route, &problem);
    }
}

/// The same while the connection is used, for what goes wrong meanwhile.
async fn report_problems(shared: &Shared, route: &Route, backend: &dyn Backend) -> Infallible {
    loop {
        shared.clock.sleep(HEARTBEAT).await;
        report_problem(shared, route, backend);
    }
}

/// Continues with the requests that their callers do not wait for any more. Each ends with its
/// connection.
async fn continue_abandoned(shared: &Shared) -> Infallible {
    let mut under_way = FuturesUnordered::new();
    loop {
        under_way.extend(shared.take_abandoned());
        tokio::select! {
            Some(()) = under_way.next() => {}
            () = shared.request_abandoned() => {}
        }
    }
}

/// Ready when the session knows that its connection is gone.
async fn session_ended(connection: &Connection) -> BackendError {
    match connection.session.ended().await {
        Ok(()) => BackendError::connection_lost("the connection was closed"),
        Err(error) => error,
    }
}

/// Asks for the backend's clock, which also shows that the connection is alive. Returns what the
/// clock showed, in ns since 1970, and when it was asked and when it answered.
async fn ask_time(
    shared: &Shared,
    connection: &Connection,
) -> Result<(u64, Monotonic, Monotonic), BackendError> {
    let limit = shared.heartbeat_timeout(connection);
    let asked = shared.clock.mono();
    let answer = shared
        .unless_silent(connection, limit, connection.session.now())
        .await;
    let now = answer.unwrap_or_else(|| {
        Err(BackendError::connection_lost(format_args!(
            "no answer to a heartbeat within {limit:?}"
        )))
    })?;
    Ok((now, asked, shared.clock.mono()))
}

/// Checks the connection from time to time. Returns why it cannot be used any more.
async fn heartbeat(shared: &Shared, connection: &Connection) -> BackendError {
    loop {
        shared.clock.sleep(HEARTBEAT).await;
        match ask_time(shared, connection).await {
            Ok((now, asked, answered)) => {
                if shared.is_clock(connection.shard) {
                    shared.clock.adjust(now, asked, answered);
                }
            }
            Err(error) if error.is_connection_lost() => return error,
            // A server that refuses to answer is alive.
            Err(_) => {}
        }
    }
}

/// Logs in anew whenever the login is about to expire. A login that fails leaves the connection as
/// it is, and is tried again. Returns why the connection cannot be used any more.
async fn keep_logged_in(shared: &Shared, route: &Route, connection: &Connection) -> BackendError {
    while let Some(due) = connection.session.login_due() {
        shared.clock.sleep(due).await;
        let renewed = match connection.session.prepare_login().await {
            Ok(()) => {
                let log_in = |_| connection.session.log_in();
                shared.issue_made(connection, log_in).await
            }
            Err(error) => Err(error),
        };
        match renewed {
            Err(error) if error.is_connection_lost() => return error,
            Err(error) => report(shared, route, &error),
            Ok(()) => {}
        }
    }
    pending().await
}

/// Drops this writer's records at keys that nobody here uses any more. Those that stay behind age
/// out.
async fn forget_unused(shared: &Shared, connection: &Connection) -> Result<(), BackendError> {
    let forget = |_| {
        let mut state = shared.state();
        connection
            .session
            .forget(state.writer(), &state.take_unused(connection.shard))
    };
    let request = shared.issue_made(connection, forget);
    match shared.clock.timeout(shared.settings.timeout, request).await {
        Some(Err(error)) if error.is_connection_lost() => Err(error),
        _ => Ok(()),
    }
}
