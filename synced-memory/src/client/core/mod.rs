//! The callers' side of one memory: open, flush and close, each with a bounded wait.
//!
//! - `reads.rs`, `writes.rs`: the calls that ask and change the backend
//! - `names.rs`: the names that all servers have
//! - `pending.rs`: a write whose caller waits for the answer

mod names;
mod pending;
mod reads;
#[cfg(test)]
mod tests;
mod writes;

pub(crate) use names::FoundNames;

use std::io::Write;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::backend::error::BackendError;
use crate::backend::shards::ShardMap;
use crate::base::callback::{become_io_thread, is_io_thread};
use crate::base::clock::{Clock, Deadline};
use crate::base::error::{Error, ErrorKind, Reason, Result};
use crate::base::events::{self, event};
use crate::base::policy::ConnectPolicy;
use crate::base::settings::Settings;
use crate::base::waiting::{block_on, until};
use crate::client::fairness::Fairness;
use crate::client::flusher;
use crate::client::reentrancy::Closures;
use crate::client::retained::RetainedSlots;
use crate::client::shared::Shared;
use crate::pending::journal;

/// How much longer opening waits for the reason if a required backend does not answer in time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the last drop waits at most for the I/O thread, after everything else was done.
const THREAD_END: Duration = Duration::from_millis(500);

/// One connection with its cache, outbox and I/O thread. It is the drop guard of all handles.
#[derive(Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    fairness: Fairness,
    closures: Closures,
    retained: Arc<RetainedSlots>,
    /// Ready when the I/O thread has ended; `None` once somebody waits for that.
    thread_end: Option<oneshot::Receiver<()>>,
}

// As `Shared`; `thread_end` is polled by the drop alone.
impl UnwindSafe for Core {}
impl RefUnwindSafe for Core {}

/// The runtime of the I/O thread. To drop it in an async context is no error: its end does not wait
/// for what still runs, such as the resolution of a name.
struct IoRuntime(Option<Runtime>);

impl Core {
    /// Starts the I/O thread, and waits at most `timeout` for the backend's first answer.
    ///
    /// # Errors
    ///
    /// `Rejected` if the backend rejects the connection, `Journal` if the journal cannot be used,
    /// `Unavailable` if the process has no descriptors or threads left for the I/O thread. An
    /// unavailable backend is `Unavailable` if it is required, and no error otherwise (rule 12).
    pub(crate) fn open(
        backend: impl Backend,
        settings: Settings,
        journal: Option<journal::JournalConfig>,
    ) -> Result<Self> {
        // On this thread, which can still say that it failed.
        let runtime = IoRuntime::start()?;
        let map = if backend.is_cluster() {
            ShardMap::cluster()
        } else {
            ShardMap::One
        };
        let target = backend.target();
        let shared = Shared::with_clock(settings, target, map, journal, Clock::start())?;
        let shared = Arc::new(shared);
        let deadline = Deadline::after(shared.settings.timeout);
        let (first_sender, mut first_outcome) = oneshot::channel();
        let (end_sender, thread_end) = oneshot::channel();
        let retained = Arc::new(RetainedSlots::new(&shared));
        let of_thread = (Arc::clone(&shared), Arc::clone(&retained));
        let spawned = std::thread::Builder::new()
            .name("synced-memory".to_owned())
            .spawn(move || {
                become_io_thread();
                let (shared, retained) = of_thread;
                runtime.run(async {
                    tokio::select! {
                        () = flusher::run(&shared, &backend, first_sender) => {}
                        never = retained.keep_within_limit() => match never {},
                    }
                });
                drop(runtime);
                let events = shared.events.clone();
                drop((backend, retained, shared));
                events.finish();
                let _ = end_sender.send(());
            });
        spawned.map_err(|error| not_started(&error))?;
        let core = Self {
            shared,
            retained,
            fairness: Fairness::default(),
            closures: Closures::default(),
            thread_end: Some(thread_end),
        };
        if is_io_thread() {
            // Nothing waits there.
            return match core.shared.settings.connect {
                ConnectPolicy::Required => Err(core.shared.unavailable()),
                ConnectPolicy::Optional => Ok(core),
            };
        }
        let outcome = block_on(until(&mut first_outcome, deadline));
        match outcome {
            Some(Ok(Err(error))) if error.kind() == ErrorKind::Rejected => return Err(error),
            _ => {}
        }
        if core.shared.settings.connect == ConnectPolicy::Required {
            let shared = &core.shared;
            let connected = shared.when_connected(|| shared.is_connected().then_some(()));
            if block_on(until(connected, deadline)).is_none() {
                if outcome.is_none() {
                    // It fails at about the same time, and says why.
                    block_on(until(first_outcome, Deadline::after(LAST_WORDS)));
                }
                return Err(core.shared.unavailable());
            }
        }
        Ok(core)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn closures(&self) -> &Closures {
        &self.closures
    }

    pub(crate) fn retained(&self) -> &RetainedSlots {
        &self.retained
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.shared.settings.timeout)
    }

    /// Whether so little time is left for a call that a connection that is only slow would be taken
    /// for a silent one.
    fn is_late(&self, deadline: Deadline) -> bool {
        deadline.remaining() <= self.shared.settings.timeout / 2
    }

    fn silent(&self, request: &str) -> BackendError {
        let limit = self.shared.settings.timeout;
        BackendError::connection_lost(format_args!("no answer to {request} within {limit:?}"))
    }

    /// Waits until everything that is queued now is answered for.
    ///
    /// # Errors
    ///
    /// `Timeout`, with what was not delivered.
    pub(crate) async fn flush(&self, limit: Duration) -> Result<()> {
        self.shared.check_open()?;
        deliver(&self.shared, Deadline::after(limit)).await
    }

    /// Refuses all further calls, delivers what is queued, and ends the I/O thread.
    ///
    /// # Errors
    ///
    /// `Timeout`, with what was not delivered.
    pub(crate) async fn close(&self, limit: Duration) -> Result<()> {
        if self.shared.is_inherited() {
            return Err(Error::opened_before_fork());
        }
        if is_io_thread() && self.shared.when_delivered().try_recv().is_err() {
            return Err(undelivered(&self.shared));
        }
        close(&self.shared, limit).await
    }
}

impl Drop for Core {
    /// Delivers what is queued for at most `shutdown_timeout`, and ends the I/O thread.
    fn drop(&mut self) {
        if self.shared.is_inherited() {
            // Connection, journal and file are the parent's. Never dropped, they stay untouched.
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        let (shared, thread_end) = (Arc::clone(&self.shared), self.thread_end.take());
        if !is_io_thread() {
            return shut_down(&shared, thread_end);
        }
        // It may be the I/O thread that delivers: another one waits for that.
        shared.close();
        let of_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("synced-memory-end".to_owned())
            .spawn(move || shut_down(&of_thread, thread_end));
        if spawned.is_err() {
            report_end(&shared, Err(undelivered(&shared)));
            shared.stop();
        }
    }
}

/// Says on stderr that writes are lost, in a process without a subscriber of `tracing`: otherwise a
/// program with a misspelt host would end without a word (rule 11).
fn warn_on_stderr(target: &str, error: &Error) {
    if !events::has_subscriber() {
        // If stderr is closed, there is nobody to warn.
        let _ = writeln!(std::io::stderr(), "synced-memory: {target}: {error}");
    }
}

/// Waits until everything that is queued now is answered for; on an I/O thread, not at all.
async fn deliver(shared: &Shared, deadline: Deadline) -> Result<()> {
    writes::forward(shared);
    let mut delivered = shared.when_delivered();
    if is_io_thread() {
        return delivered.try_recv().map_err(|_| undelivered(shared));
    }
    match until(delivered, deadline).await {
        Some(Ok(())) => Ok(()),
        _ => Err(undelivered(shared)),
    }
}

async fn close(shared: &Shared, limit: Duration) -> Result<()> {
    shared.close();
    // A close whose future was dropped has not stopped it: this one goes on.
    if shared.is_stopped() {
        return Ok(());
    }
    let deadline = Deadline::after(limit);
    let delivered = deliver(shared, deadline).await;
    if delivered.is_ok() {
        if !is_io_thread() {
            forget(shared, deadline).await;
        }
        shared.state().end_journal();
    }
    shared.stop();
    delivered
}

/// Drops this writer's records at the backend: none of its writes is under way any more.
async fn forget(shared: &Shared, deadline: Deadline) {
    const KEYS_PER_REQUEST: usize = 1_000;
    let (writer, keys) = {
        let mut state = shared.state();
        (state.writer(), state.take_recorded())
    };
    let shards = shared.map.by_shard(keys);
    let forgotten = shards.iter().map(|(shard, keys)| async {
        let Some(connection) = shared.connection(*shard) else {
            return;
        };
        for keys in keys.chunks(KEYS_PER_REQUEST) {
            // Records that stay behind age out. A server that hangs is waited for only until its
            // connection is given up.
            let request = connection.session.forget(writer, keys);
            let request = shared.issue(&connection, request, |_| {});
            let forgotten = until(request, deadline).await;
            if !matches!(forgotten, Some(Ok(()))) {
                return;
            }
        }
    });
    join_all(forgotten).await;
}

/// What the last drop does.
fn shut_down(shared: &Shared, mut thread_end: Option<oneshot::Receiver<()>>) {
    let limit = shared.settings.shutdown_timeout;
    report_end(shared, block_on(close(shared, limit)));
    shared.stop();
    // It ends at once, unless it is in the middle of something; no drop waits long for that.
    if let Some(thread_end) = &mut thread_end {
        let deadline = Deadline::after(limit.min(THREAD_END));
        let _ = block_on(until(thread_end, deadline));
    }
}

/// Logs what the last drop could not deliver.
fn report_end(shared: &Shared, delivered: Result<()>) {
    let Err(error) = delivered else {
        return;
    };
    let is_kept = shared.state().is_journalled();
    if !is_kept {
        warn_on_stderr(&shared.target, &error);
    }
    shared.emit(|target| {
        if is_kept {
            let what = "dropped with writes that the next process delivers";
            event!(WARN, target = &*target, %error, "{what}")
        } else {
            event!(ERROR, target = &*target, %error, "dropped with undelivered writes")
        }
    });
}

/// An error that names the first keys of what is still queued.
fn undelivered(shared: &Shared) -> Error {
    const NAMED: usize = 5;
    let mut state = shared.state();
    let mut keys: Vec<_> = state
        .outbox
        .entries()
        .map(|(key, _)| format!("`{key}`"))
        .collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    let more = if keys.len() > NAMED { ", …" } else { "" };
    keys.truncate(NAMED);

    let cause = state.last_error.as_ref();
    let cause = cause.filter(|_| !state.is_all_up() || state.map.is_cluster());
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let kept = if state.is_journalled() {
        "; they are kept in the journal"
    } else {
        ""
    };
    let (writes, verb) = if count == 1 {
        ("write", "was")
    } else {
        ("writes", "were")
    };
    let message = format!(
        "{count} {writes} {verb} not delivered ({}{more}){cause}{kept}",
        keys.join(", ")
    );
    Error::new(ErrorKind::Timeout, message)
}

impl IoRuntime {
    /// # Errors
    ///
    /// `Unavailable` if the process has no descriptors left.
    fn start() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| not_started(&error))
    }

    /// Runs all that the I/O thread does.
    fn run(&self, flusher: impl Future<Output = ()>) {
        if let Some(runtime) = &self.0 {
            runtime.block_on(flusher);
        }
    }
}

impl Drop for IoRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn not_started(error: &std::io::Error) -> Error {
    let what = Reason::io("the I/O thread could not start", error);
    Error::new(ErrorKind::Unavailable, what)
}
