//! The callers' side of one memory: open, flush and close, each with a bounded wait.
//!
//! - `reads.rs`, `writes.rs`: the calls that ask and change the backend
//! - `pending.rs`: a write whose caller waits for the answer

mod pending;
mod reads;
mod writes;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::level_filters::LevelFilter;

use crate::backend::Backend;
use crate::backend::error::BackendError;
use crate::base::clock::Deadline;
use crate::base::error::{Error, ErrorKind, Reason, Result};
use crate::base::policy::ConnectPolicy;
use crate::base::settings::Settings;
use crate::base::waiting::{block_on, until};
use crate::client::fairness::Fairness;
use crate::client::flusher;
use crate::client::reentrancy::Closures;
use crate::client::retained::RetainedSlots;
use crate::client::shared::Shared;
use crate::client::state::Link;
use crate::pending::journal;

/// How long the last drop waits at most for the I/O thread, after everything else was done.
const THREAD_END: Duration = Duration::from_millis(500);

/// One connection with its cache, outbox and I/O thread. It is the drop guard of all handles.
#[derive(Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    fairness: Fairness,
    closures: Closures,
    retained: Arc<RetainedSlots>,
    /// Ready when the I/O thread has ended.
    thread_end: oneshot::Receiver<()>,
}

impl Core {
    /// Starts the I/O thread, and waits at most `timeout` for the backend's first answer.
    ///
    /// # Errors
    ///
    /// `Rejected` if the backend rejects the connection, `Journal` if the journal cannot be used. An
    /// unavailable backend is `Unavailable` if it is required, and no error otherwise (rule 12).
    pub(crate) fn open(
        backend: impl Backend,
        settings: Settings,
        journal: Option<journal::JournalConfig>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(settings, backend.target(), journal)?);
        let deadline = Deadline::after(shared.settings.timeout);
        let (first_sender, first_outcome) = oneshot::channel();
        let (end_sender, thread_end) = oneshot::channel();
        let retained = Arc::new(RetainedSlots::new(&shared));
        let of_thread = (Arc::clone(&shared), Arc::clone(&retained));
        let spawned = std::thread::Builder::new()
            .name("synced-memory".to_owned())
            .spawn(move || {
                run_io_thread(&of_thread.0, &of_thread.1, &backend, first_sender);
                drop((backend, of_thread));
                let _ = end_sender.send(());
            });
        spawned.map_err(|error| no_thread(&error))?;
        let core = Self {
            shared,
            retained,
            fairness: Fairness::default(),
            closures: Closures::default(),
            thread_end,
        };
        match block_on(until(first_outcome, deadline)) {
            Some(Ok(Err(error))) if error.kind() == ErrorKind::Rejected => return Err(error),
            _ => {}
        }
        if core.shared.settings.connect == ConnectPolicy::Required {
            let connected = core.shared.connected_other_than(None);
            block_on(until(connected, deadline)).ok_or_else(|| core.shared.unavailable())?;
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
        self.deliver(Deadline::after(limit)).await
    }

    async fn deliver(&self, deadline: Deadline) -> Result<()> {
        self.forward();
        match until(self.shared.when_delivered(), deadline).await {
            Some(Ok(())) => Ok(()),
            _ => Err(self.undelivered()),
        }
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
        self.shared.close();
        // A close whose future was dropped has not stopped it: this one goes on.
        if self.shared.is_stopped() {
            return Ok(());
        }
        let deadline = Deadline::after(limit);
        let delivered = self.deliver(deadline).await;
        if delivered.is_ok() {
            self.forget(deadline).await;
            self.shared.state().end_journal();
        }
        self.shared.stop();
        delivered
    }

    /// Drops this writer's records at the backend: none of its writes is under way any more.
    async fn forget(&self, deadline: Deadline) {
        const KEYS_PER_REQUEST: usize = 1_000;
        let (writer, keys) = {
            let mut state = self.shared.state();
            (state.writer(), state.take_recorded())
        };
        let Some(connection) = self.shared.connection() else {
            return;
        };
        for keys in keys.chunks(KEYS_PER_REQUEST) {
            // Records that stay behind age out.
            let forgotten = until(connection.session.forget(writer, keys), deadline).await;
            if !matches!(forgotten, Some(Ok(()))) {
                return;
            }
        }
    }

    /// An error that names the first keys of what is still queued.
    fn undelivered(&self) -> Error {
        const NAMED: usize = 5;
        let mut state = self.shared.state();
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

        let cause = state.last_error.as_ref().filter(|_| state.link != Link::Up);
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
}

impl Drop for Core {
    /// Delivers what is queued for at most `shutdown_timeout`, and ends the I/O thread.
    fn drop(&mut self) {
        if self.shared.is_inherited() {
            // Connection, journal and file are the parent's. Never dropped, they stay untouched.
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        let limit = self.shared.settings.shutdown_timeout;
        match block_on(self.close(limit)) {
            Err(error) if self.shared.state().is_journalled() => {
                tracing::warn!(
                    target = self.shared.target,
                    %error,
                    "dropped with writes that the next process delivers"
                );
            }
            Err(error) => {
                tracing::error!(
                    target = self.shared.target,
                    %error,
                    "dropped with undelivered writes"
                );
                warn_on_stderr(&self.shared.target, &error);
            }
            Ok(()) => {}
        }

        self.shared.stop();
        // It ends at once, unless it is in the middle of something; no drop waits long for that.
        let _ = block_on(until(
            &mut self.thread_end,
            Deadline::after(limit.min(THREAD_END)),
        ));
    }
}

/// Says on stderr that writes are lost, in a process without a subscriber of `tracing`: otherwise a
/// program with a misspelt host would end without a word (rule 11).
fn warn_on_stderr(target: &str, error: &Error) {
    if LevelFilter::current() == LevelFilter::OFF {
        // If stderr is closed, there is nobody to warn.
        let _ = writeln!(std::io::stderr(), "synced-memory: {target}: {error}");
    }
}

/// All that the I/O thread does, until the memory stops.
fn run_io_thread(
    shared: &Shared,
    retained: &RetainedSlots,
    backend: &dyn Backend,
    first_outcome: oneshot::Sender<Result<()>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            runtime.block_on(async {
                tokio::select! {
                    () = flusher::run(shared, backend, first_outcome) => {}
                    () = retained.keep_within_limit() => {}
                }
            });
            // The end does not wait for a name that is being resolved.
            runtime.shutdown_background();
        }
        Err(error) => {
            let mono = shared.clock.mono();
            shared.state().disconnected(no_thread(&error), mono);
        }
    }
}

fn no_thread(error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Config,
        Reason::io("the I/O thread could not start", error),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Reply, Session};

    #[derive(Debug)]
    struct Panicking;

    impl Backend for Panicking {
        fn connect(&self) -> Reply<Box<dyn Session>> {
            panic!("on purpose")
        }

        fn target(&self) -> &'static str {
            "nowhere:"
        }
    }

    #[test]
    fn a_panic_of_the_io_thread_closes_the_memory_and_leaves_nobody_waiting() {
        let core = Core::open(Panicking, Settings::default(), None).unwrap();
        // It may have been opened just before.
        while core.shared().check_open().is_ok() {
            std::thread::yield_now();
        }
        let read = block_on(core.load(&["k".into()]));
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Closed);
        let last = core.shared().state().last_error.clone();
        assert!(last.is_some_and(|error| error.to_string().contains("panicked")));
    }
}
