//! Outbox → backend: the I/O thread's own loop, with batches, breaker and backoff.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::backend::Backend;
use crate::backend::commit::{Attempt, Outcome};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind, Result};
use crate::cache::Ticket;
use crate::client::refresher::{self, Tracked};
use crate::client::shared::{Connection, Shared};
use crate::client::state::{Link, State};

/// So many writes go out together at most: enough to fill a round trip, few enough to be answered
/// soon.
const BATCH: usize = 512;
/// And so many bytes, beyond which no more writes are added.
const BATCH_BYTES: usize = 1 << 20;
/// So many batches are under way at a time at most: a write need not wait for the answer to others.
const BATCHES: usize = 8;
/// Between two looks at a connection on which nobody asks anything.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Runs until the memory stops. `first` is told how the first try to connect ended.
pub(crate) async fn run(
    shared: &Shared,
    backend: &dyn Backend,
    first: oneshot::Sender<Result<()>>,
) {
    let _ended = Ended(shared);
    tokio::select! {
        () = shared.stopped() => {}
        () = keep_connected(shared, backend, first) => {}
    }
}

/// Nothing is sent any more once it is dropped; also where that is a panic, so that nobody waits
/// for what never comes.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let Self(shared) = self;
        let has_panicked = std::thread::panicking();
        let why = if has_panicked {
            Error::new(ErrorKind::Closed, "the I/O thread panicked")
        } else {
            Error::closed()
        };
        shared.state().lost(why.clone(), shared.clock.mono());
        shared.set_connection(None);
        if has_panicked {
            tracing::error!(target = shared.target, error = %why, "the memory is closed");
            shared.close();
        }
    }
}

/// Whoever waits for how the first try to connect ends.
type First = Option<oneshot::Sender<Result<()>>>;

async fn keep_connected(
    shared: &Shared,
    backend: &dyn Backend,
    first: oneshot::Sender<Result<()>>,
) {
    let mut first: First = Some(first);
    let mut backoff = Backoff::new(shared.settings.backoff);
    let mut was_connected = false;
    let mut said = None;
    loop {
        let error = match connect(shared, backend, &mut was_connected).await {
            Ok((live, tracked)) => {
                tracing::info!(target = shared.target, "connected, breaker closed");
                said = None;
                let error = serve(shared, &live, tracked, &mut backoff, &mut first).await;
                live.end(error.clone());
                // One that takes no writes is asked less and less often, however often it can be
                // reached.
                if error.kind != BackendErrorKind::NotPrimary {
                    backoff.reset();
                }
                tracing::warn!(target = shared.target, error = %error, "connection lost, breaker opened");
                error
            }
            Err(error) => {
                // Once for each cause: an outage must not fill the log.
                if said.as_ref() == Some(&error.to_string()) {
                    tracing::debug!(target = shared.target, error = %error, "could not connect");
                } else {
                    tracing::warn!(target = shared.target, error = %error, "could not connect, breaker open");
                    said = Some(error.to_string());
                }
                error
            }
        };
        let kind = if error.is_rejected() {
            ErrorKind::Rejected
        } else {
            ErrorKind::Unavailable
        };
        let failure = Error::new(kind, format!("{}: {error}", shared.target));
        // Before anybody can see that there is no connection: a read of what is unknown asks since
        // when.
        shared.state().lost(failure.clone(), shared.clock.mono());
        shared.set_connection(None);
        if let Some(first) = first.take() {
            let _ = first.send(Err(failure));
        }
        // Where another server may have taken over, the wait is over already: reads went on in it.
        if error.kind != BackendErrorKind::NotPrimary {
            sleep(backoff.next()).await;
        }
    }
}

/// Connects, and learns the backend's clock. Returns also of which keys changes are told from now
/// on.
async fn connect(
    shared: &Shared,
    backend: &dyn Backend,
    was_connected: &mut bool,
) -> Result<(Arc<Connection>, Tracked), BackendError> {
    let limit = shared.settings.timeout;
    let silent = |_| {
        BackendError::connection_lost(format_args!(
            "no answer to a connection attempt within {limit:?}"
        ))
    };
    let session = timeout(limit, backend.connect()).await.map_err(silent)??;
    let live = Arc::new(Connection::new(session));
    if let Ok(Ok(policy)) = timeout(limit, live.session.eviction_policy()).await {
        shared.eviction_policy.store(policy.map(Arc::new));
    }
    let (now, asked, answered) = ask_time(shared, &live).await?;
    let first = !std::mem::replace(was_connected, true);
    {
        // In one step: a stamp that is issued in between would be moved twice.
        let mut state = shared.state();
        let shift = shared.clock.adjust(now, asked, answered);
        state.connected(first.then_some(shift));
    }
    // Before anybody reads over this connection.
    let tracked = timeout(limit, refresher::track(shared, &live))
        .await
        .map_err(silent)??;
    Ok((live, tracked))
}

/// Asks for the backend's clock, which also shows that the connection is alive. Returns what it
/// stood at, in ns since 1970, and when that was asked and answered.
async fn ask_time(
    shared: &Shared,
    live: &Connection,
) -> Result<(u64, Monotonic, Monotonic), BackendError> {
    let limit = shared.heartbeat_timeout();
    let asked = shared.clock.mono();
    match timeout(limit, live.session.now()).await {
        Ok(Ok(now)) => Ok((now, asked, shared.clock.mono())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(BackendError::connection_lost(format_args!(
            "no answer to a heartbeat within {limit:?}"
        ))),
    }
}

/// Uses a connection until it is no good any more, and says why.
async fn serve(
    shared: &Shared,
    live: &Arc<Connection>,
    tracked: Tracked,
    backoff: &mut Backoff,
    first: &mut First,
) -> BackendError {
    tokio::select! {
        error = live.ended() => error,
        ended = live.session.ended() => ended.err().unwrap_or_else(|| BackendError::connection_lost("the connection was closed")),
        error = heartbeat(shared, live) => error,
        error = flush(shared, live, backoff, first) => error,
        error = refresher::run(shared, live, tracked) => error,
    }
}

async fn heartbeat(shared: &Shared, live: &Connection) -> BackendError {
    loop {
        sleep(HEARTBEAT).await;
        match ask_time(shared, live).await {
            Ok((now, asked, answered)) => _ = shared.clock.adjust(now, asked, answered),
            Err(error) if error.kind == BackendErrorKind::ConnectionLost => return error,
            Err(_) => {}
        }
    }
}

async fn flush(
    shared: &Shared,
    live: &Arc<Connection>,
    backoff: &mut Backoff,
    first: &mut First,
) -> BackendError {
    let mut on_sent = Some(|| {
        shared.set_connection(Some(Arc::clone(live)));
        if let Some(first) = first.take() {
            let _ = first.send(Ok(()));
        }
    });
    loop {
        match drain(shared, live, &mut on_sent).await {
            Ok(()) => {
                let refusal = shared.state().refusal.take();
                match refusal {
                    None => backoff.reset(),
                    // What it did not take was withdrawn, and nothing is left to try it with.
                    Some(error) => {
                        sleep(backoff.next()).await;
                        if error.kind == BackendErrorKind::NotPrimary {
                            return error;
                        }
                    }
                }
                take_writes_again(shared, &mut shared.state());
                if shared.state().is_any_unused() {
                    if let Err(error) = forget_unused(shared, live).await {
                        return error;
                    }
                    continue;
                }
                let mono = shared.clock.mono();
                let held = shared.state().held_until(mono);
                match held {
                    Some(until) => {
                        _ = timeout(until.saturating_sub(mono), shared.wake.notified()).await;
                    }
                    None => shared.wake.notified().await,
                }
            }
            Err(error) if error.kind == BackendErrorKind::Unavailable => {
                sleep(backoff.next()).await
            }
            Err(error) if error.kind == BackendErrorKind::NotPrimary => {
                sleep(backoff.next()).await;
                return error;
            }
            Err(error) => return error,
        }
    }
}

/// Drops this writer's records at keys that nobody here uses any more. Those that stay behind age
/// out.
async fn forget_unused(shared: &Shared, live: &Connection) -> Result<(), BackendError> {
    let forget = |_| {
        let mut state = shared.state();
        live.session.forget(state.writer(), &state.take_unused())
    };
    match timeout(shared.settings.timeout, shared.issue_made(live, forget)).await {
        Ok(Err(error)) if error.is_connection_lost() => Err(error),
        _ => Ok(()),
    }
}

/// Sends what waits until nothing does, several batches at a time. `on_sent` is called once the
/// first batches are on their way.
///
/// What is in doubt goes first: only then do others see the connection and make requests of their
/// own.
async fn drain(
    shared: &Shared,
    live: &Connection,
    on_sent: &mut Option<impl FnOnce()>,
) -> Result<(), BackendError> {
    let mut under_way = FuturesUnordered::new();
    // Why nothing more is sent for now. The answers that are on their way are still taken in.
    let mut held_back = None;
    loop {
        while under_way.len() < BATCHES && held_back.is_none() {
            let Some(mut batch) = next_batch(shared, live) else {
                break;
            };
            // Its first poll sends it.
            match poll_once(&mut batch).await {
                Poll::Ready(done) => {
                    pause_on_error(done, &mut held_back)?;
                    // The embedded backends never let anything else run by themselves.
                    yield_now().await;
                }
                Poll::Pending => under_way.push(batch),
            }
        }
        if let Some(on_sent) = on_sent.take() {
            on_sent();
        }
        tokio::select! {
            done = under_way.next() => match done {
                Some(done) => pause_on_error(done, &mut held_back)?,
                None => return held_back.map_or(Ok(()), Err),
            },
            () = shared.wake.notified(), if under_way.len() < BATCHES && held_back.is_none() => {}
        }
    }
}

/// Whether the connection is still good after a batch.
fn pause_on_error(
    done: Result<(), BackendError>,
    held_back: &mut Option<BackendError>,
) -> Result<(), BackendError> {
    match done {
        Err(error)
            if matches!(
                error.kind,
                BackendErrorKind::Unavailable | BackendErrorKind::NotPrimary
            ) =>
        {
            *held_back = Some(error);
            Ok(())
        }
        done => done,
    }
}

/// The next batch on its way, if there is anything to send.
fn next_batch<'a>(shared: &'a Shared, live: &'a Connection) -> Option<Sending<'a>> {
    let mono = shared.clock.mono();
    let batch = shared.state().next_batch(BATCH, BATCH_BYTES, mono);
    if batch.is_empty() {
        shared.tell_delivered();
        return None;
    }
    let uploading = shared.uploads(batch.iter().map(Attempt::size).sum());
    let limit = shared.heartbeat_timeout();
    Some(Box::pin(async move {
        let _uploading = uploading;
        let silent = |_| {
            BackendError::connection_lost(format_args!(
                "no answer to {} writes within {limit:?}",
                batch.len()
            ))
        };
        timeout(limit, send(shared, live, &batch))
            .await
            .map_err(silent)?
    }))
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), BackendError>> + Send + 'a>>;

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// Sends attempts that were taken from the outbox, and takes in what became of them.
pub(crate) async fn send(
    shared: &Shared,
    live: &Connection,
    batch: &[Attempt],
) -> Result<(), BackendError> {
    let mut ticket = 0;
    let request = live.session.commit(batch, shared.clock.at().now);
    let request = shared.issue(live, request, |place| {
        ticket = place;
        shared.state().sent(batch, place, shared.clock.mono());
    });
    let answers = request.await;
    if ticket == 0 {
        // The connection was given up before: nothing was sent.
        shared.state().requeue_batch(batch);
    }
    let answers = answers?;
    let held_back = handle_answers(shared, batch, ticket, answers);
    shared.tell_delivered();
    held_back
}

fn handle_answers(
    shared: &Shared,
    batch: &[Attempt],
    ticket: Ticket,
    answers: Vec<Result<Outcome, BackendError>>,
) -> Result<(), BackendError> {
    let mut passing = None;
    let mut taken = 0;
    let mut state = shared.state();
    for (attempt, answer) in batch.iter().zip(answers) {
        let error = answer.as_ref().err().cloned();
        let is_contended = matches!(
            answer,
            Ok(Outcome::Applied {
                contended: Some(_),
                ..
            })
        );
        if !state.answered(attempt, ticket, answer) {
            continue;
        }
        if is_contended {
            state.hold(&attempt.key, shared.clock.mono());
        }
        match error {
            Some(error)
                if matches!(
                    error.kind,
                    BackendErrorKind::Unavailable | BackendErrorKind::NotPrimary
                ) =>
            {
                passing.get_or_insert((error, &attempt.key));
            }
            _ => taken += 1,
        }
    }
    if let Some((error, key)) = passing {
        tracing::warn!(target = shared.target, error = %error, "the backend takes no writes now");
        state.busy(Error::of_key(ErrorKind::Unavailable, key, &error));
        state.refusal = Some(error.clone());
        return Err(error);
    }
    if taken > 0 {
        take_writes_again(shared, &mut state);
    }
    tracing::debug!(target = shared.target, writes = batch.len(), "flushed");
    Ok(())
}

fn take_writes_again(shared: &Shared, state: &mut State) {
    state.refusal = None;
    if state.link == Link::Busy {
        tracing::info!(target = shared.target, "the backend takes writes again");
        state.link = Link::Up;
    }
}

/// Waits that double up to a bound, each drawn between nothing and its full length.
struct Backoff {
    least: Duration,
    most: Duration,
    current: Duration,
}

impl Backoff {
    fn new((least, most): (Duration, Duration)) -> Self {
        Self {
            least,
            most,
            current: least,
        }
    }

    fn reset(&mut self) {
        self.current = self.least;
    }

    fn next(&mut self) -> Duration {
        let wait = self.current.mul_f64(fastrand::f64());
        self.current = (self.current * 2).min(self.most);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::process::ProcessBackend;
    use crate::base::policy::WritePolicy;
    use crate::base::settings::Settings;
    use crate::client::state::Request;
    use crate::value::envelope::Unsealed;
    use std::cell::Cell;

    #[test]
    fn whatever_else_runs_on_the_io_thread_has_its_turn_after_each_batch() {
        let backend = ProcessBackend::open("", Duration::from_secs(1));
        let shared = Shared::new(Settings::default(), backend.target(), None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let live = Connection::new(backend.connect().await.unwrap());
            for n in 0..4 * BATCH {
                let value = Unsealed::encode(&n).unwrap();
                let write = Request::Put { value, ttl: None };
                shared
                    .state()
                    .write(
                        &n.to_string().into(),
                        write,
                        WritePolicy::Behind,
                        shared.clock.at(),
                    )
                    .unwrap();
            }
            let (turns, mut on_sent) = (Cell::new(0), None::<fn()>);
            let others = async {
                loop {
                    turns.set(turns.get() + 1);
                    yield_now().await;
                }
            };
            tokio::select! {
                drained = drain(&shared, &live, &mut on_sent) => drained.unwrap(),
                () = others => {}
            }
            assert_eq!(shared.state().outbox.entries().count(), 0);
            assert!(turns.get() >= 4, "{} turns", turns.get());
        });
    }

    #[test]
    fn the_waits_double_up_to_the_bound_and_begin_anew_after_a_success() {
        let (least, most) = (Duration::from_millis(50), Duration::from_secs(5));
        let mut backoff = Backoff::new((least, most));
        for round in 0..12 {
            let bound = (least * (1 << round)).min(most);
            assert!(backoff.next() <= bound);
        }
        assert_eq!(backoff.current, most);
        backoff.reset();
        assert!(backoff.next() <= least);
    }
}
