//! The callers' side of one memory: reads, writes and the close, each with a bounded wait.
//!
//! - `pending.rs`: a write whose caller waits for the answer

mod pending;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::backend::error::{BackendError, Recovery};
use crate::base::clock::{Deadline, Monotonic};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::base::settings::Settings;
use crate::base::waiting::{WaitMode, block_on, pause, until};
use crate::client::fairness::Fairness;
use crate::client::reentrancy::Closures;
use crate::client::shared::{Connection, LARGE, Shared};
use crate::client::state::{Accepted, Link, Request};
use crate::client::{flusher, reentrancy, refresher};
use crate::pending::journal;
use crate::pending::outbox::{Answer, Written};
use pending::Pending;

/// How long the last drop waits at most for the I/O thread, after everything else was done.
const THREAD_END: Duration = Duration::from_millis(500);

/// One connection with its cache, outbox and I/O thread. It is the drop guard of all handles.
#[derive(Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    fairness: Fairness,
    closures: Closures,
    /// Ready when the I/O thread has ended.
    thread_end: oneshot::Receiver<()>,
}

impl Core {
    /// Starts the I/O thread, and waits at most `timeout` for the backend's first answer.
    ///
    /// # Errors
    ///
    /// `Rejected` if the backend rejects the connection, `Journal` if the journal cannot be used. An
    /// unavailable backend is no error (rule 12).
    pub(crate) fn open(
        backend: impl Backend,
        settings: Settings,
        journal: Option<journal::JournalConfig>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(settings, backend.target(), journal)?);
        let deadline = Deadline::after(shared.settings.timeout);
        let (first_sender, first_outcome) = oneshot::channel();
        let (end_sender, thread_end) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("synced-memory".to_owned())
            .spawn(move || {
                run_io_thread(&of_thread, &backend, first_sender);
                drop((backend, of_thread));
                let _ = end_sender.send(());
            });
        spawned.map_err(|error| no_thread(&error))?;
        let core = Self {
            shared,
            fairness: Fairness::default(),
            closures: Closures::default(),
            thread_end,
        };
        match block_on(until(first_outcome, deadline)) {
            Some(Ok(Err(error))) if error.kind() == ErrorKind::Rejected => Err(error),
            _ => Ok(core),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn closures(&self) -> &Closures {
        &self.closures
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.shared.settings.timeout)
    }

    /// Asks the backend for keys if it is available; if not, their slots show what is known. Returns
    /// whether it has answered.
    ///
    /// # Errors
    ///
    /// Of the first key that the server rejects.
    pub(crate) async fn load(&self, keys: &[Arc<str>]) -> Result<bool> {
        self.load_with(keys, |is_just_lost| self.grace(keys, is_just_lost))
            .await
    }

    /// The same for a call that only the backend can answer: after a loss it waits for the
    /// connection.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and `Unavailable`, at once if the backend is not available.
    pub(crate) async fn load_now(&self, keys: &[Arc<str>]) -> Result<bool> {
        self.check_connected(&keys[0])?;
        self.load_with(keys, |_| self.shared.settings.timeout).await
    }

    /// `grace`: how long it waits for a connection, given whether that was just lost.
    async fn load_with(&self, keys: &[Arc<str>], grace: impl Fn(bool) -> Duration) -> Result<bool> {
        self.shared.check_open()?;
        let deadline = self.deadline();
        let mut given_up = None;
        loop {
            let limit = || Deadline::after(grace(given_up.is_some()).min(deadline.remaining()));
            let Some(connection) = self.connection_within(given_up.as_ref(), limit).await else {
                return Ok(false);
            };
            let load = refresher::load(&self.shared, &connection, keys);
            match self.ask_on(&connection, load, deadline).await {
                Some(Ok(answers)) => {
                    return answers.into_iter().collect::<Result<()>>().map(|()| true);
                }
                Some(Err(_)) => given_up = Some(connection),
                None => return Ok(false),
            }
        }
    }

    /// A connection that was not given up: the present one, or one that is made until the deadline.
    /// `deadline` is called only if there is none at present.
    async fn connection_within(
        &self,
        given_up: Option<&Arc<Connection>>,
        deadline: impl Fn() -> Deadline,
    ) -> Option<Arc<Connection>> {
        loop {
            if let Some(connection) = self.shared.connection_other_than(given_up) {
                return Some(connection);
            }
            until(self.shared.connected_other_than(given_up), deadline()).await?;
        }
    }

    /// What the backend has under these keys, without the writes that are pending here.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it does not answer; else of the first key that the server rejects.
    pub(crate) async fn read_now(&self, keys: &[Arc<str>]) -> Result<Vec<Option<Bytes>>> {
        let (key, deadline) = (&keys[0], self.deadline());
        self.check_connected(key)?;
        let error_of_key = |error: BackendError| Error::of_key(error.error_kind(), key, error);
        let mut given_up = None;
        loop {
            let Some(connection) = self.connection_within(given_up.as_ref(), || deadline).await
            else {
                return Err(self.shared.state().unavailable_error(key));
            };
            let read = connection.session.read(keys);
            let read = self.shared.issue(&connection, read, |_| ());
            match self.ask_on(&connection, read, deadline).await {
                Some(Ok(answers)) => {
                    return answers
                        .into_iter()
                        .map(|answer| answer.map_err(error_of_key))
                        .collect();
                }
                Some(Err(error)) if error.is_connection_lost() => given_up = Some(connection),
                Some(Err(error)) => return Err(error_of_key(error)),
                None => return Err(error_of_key(self.silent("a read"))),
            }
        }
    }

    /// Checks that the backend is available, for a call that only it can answer. It may take no
    /// writes, and still answer.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Closed`.
    fn check_connected(&self, key: &str) -> Result<()> {
        self.shared.check_open()?;
        let state = self.shared.state();
        if state.link == Link::Down {
            Err(state.unavailable_error(key))
        } else {
            Ok(())
        }
    }

    /// Whether so little time is left for a call that a connection that is only slow would be taken
    /// for a silent one.
    fn is_late(&self, deadline: Deadline) -> bool {
        deadline.remaining() <= self.shared.settings.timeout / 2
    }

    /// How long a read waits for a connection: if something is known of each key, not at all. If
    /// not, an unset value would be a guess, and shortly after a loss, while the breaker is not open
    /// yet, the connection may be about to come back.
    fn grace(&self, keys: &[Arc<str>], is_just_lost: bool) -> Duration {
        let limit = self.shared.settings.timeout;
        let state = self.shared.state();
        if keys.iter().all(|key| state.is_known(key)) {
            return Duration::ZERO;
        }
        // The I/O thread is about to notice the loss, or to publish the connection.
        if is_just_lost || state.link != Link::Down {
            return limit;
        }
        let mono = self.shared.clock.mono();
        state
            .lost_at
            .map_or(Duration::ZERO, |lost| (lost + limit).saturating_sub(mono))
    }

    /// Makes a request on the connection; `None` if there is none, or it is silent.
    pub(crate) async fn ask<T, F: Future<Output = Result<T, BackendError>>>(
        &self,
        request: impl FnOnce(Arc<Connection>) -> F,
    ) -> Option<Result<T, BackendError>> {
        let connection = self.shared.connection()?;
        let request = request(Arc::clone(&connection));
        self.ask_on(&connection, request, self.deadline()).await
    }

    /// Waits for a request on this connection, which is given up if it is lost or silent.
    async fn ask_on<T>(
        &self,
        connection: &Connection,
        request: impl Future<Output = Result<T, BackendError>>,
        deadline: Deadline,
    ) -> Option<Result<T, BackendError>> {
        let is_late = self.is_late(deadline);
        let answer = until(request, deadline).await;
        match &answer {
            // Behind a large write, silence means nothing. The flusher ends the connection if that
            // write takes too long.
            None if !is_late && !self.shared.is_uploading() => {
                connection.end(self.silent("a read"));
            }
            Some(Err(error)) if error.is_connection_lost() => connection.end(error.clone()),
            None | Some(_) => {}
        }
        answer
    }

    fn silent(&self, request: &str) -> BackendError {
        let limit = self.shared.settings.timeout;
        BackendError::connection_lost(format_args!("no answer to {request} within {limit:?}"))
    }

    /// Queues a write, and waits for its answer if the backend is available.
    ///
    /// A write that is the only one to send for its key is sent from the thread of a blocking
    /// caller, so that the answer wakes that thread directly. The flusher sends everything else.
    pub(crate) async fn write(
        &self,
        key: &Arc<str>,
        request: Request,
        policy: WritePolicy,
    ) -> Result<Answer> {
        if policy == WritePolicy::Behind {
            let mut accepted = self.accept(key, request, policy)?;
            self.forward();
            return accepted
                .answer
                .try_recv()
                .unwrap_or(Ok(Answer::new(Written::Queued, false)));
        }
        self.write_within(key, request, policy, self.deadline())
            .await
    }

    /// The same for a write whose answer is waited for, until the deadline.
    pub(crate) async fn write_within(
        &self,
        key: &Arc<str>,
        request: Request,
        policy: WritePolicy,
        deadline: Deadline,
    ) -> Result<Answer> {
        let mode = WaitMode::of_caller().await;
        let mut last_try = self.shared.clock.mono();
        let answer = self
            .submit(key, request, policy, mode, deadline, &mut last_try)
            .await?;

        // An element that was taken would be lost with a future that is dropped in this wait.
        let may_wait = answer.taken.is_none() || mode.is_blocking();
        if let Some(starved) = answer.contended.filter(|_| may_wait) {
            let took = self.shared.clock.mono().saturating_sub(last_try);
            pause(Deadline::after(self.fairness.wait_for(starved, took))).await;
        }
        Ok(answer)
    }

    /// Queues a write, and sends it from this thread if that is possible. `last_try` becomes the
    /// time of the last try from here.
    async fn submit(
        &self,
        key: &Arc<str>,
        request: Request,
        policy: WritePolicy,
        mode: WaitMode,
        deadline: Deadline,
        last_try: &mut Monotonic,
    ) -> Result<Answer> {
        reentrancy::check(&self.shared, key)?;
        let connection = self.connection_for_own_send(mode, deadline);
        let (mut pending, mut attempt) = {
            let mut state = self.shared.state();
            self.shared.check_open()?;
            // Under the lock: the clock and the stamps that it has issued are shifted in one step.
            let at = self.shared.clock.at();
            let accepted = state.write(key, request, policy, at)?;
            let attempt = connection
                .as_ref()
                .and_then(|_| state.take_small(key, LARGE, at.mono));
            (Pending::new(&self.shared, key, accepted, policy), attempt)
        };

        while let Some((connection, own)) = connection.as_ref().zip(attempt.take()) {
            *last_try = self.shared.clock.mono();
            let sent = until(flusher::send(&self.shared, connection, &[own]), deadline).await;
            match sent {
                Some(Ok(())) => {
                    if let Some(answer) = pending.answer() {
                        self.forward();
                        return answer;
                    }
                    // The backend had another value: the write goes out again, on top of that one.
                    if !self.is_late(deadline) {
                        let mono = self.shared.clock.mono();
                        attempt = self.shared.state().take_small(key, LARGE, mono);
                    }
                }
                Some(Err(error)) => self.leave_to_flusher(connection, error),
                None => connection.end(self.silent("a write")),
            }
        }
        self.forward();
        pending.wait(deadline).await
    }

    /// The connection over which a caller sends its write itself, if it may.
    fn connection_for_own_send(
        &self,
        mode: WaitMode,
        deadline: Deadline,
    ) -> Option<Arc<Connection>> {
        // If a future is dropped after it has sent, nobody is left to handle the answer.
        let may_send = mode.is_blocking() && !self.shared.is_uploading() && !self.is_late(deadline);
        if may_send {
            self.shared.connection()
        } else {
            None
        }
    }

    /// A write of a caller's own has failed: the flusher goes on with it.
    fn leave_to_flusher(&self, connection: &Connection, error: BackendError) {
        match error.recovery() {
            Recovery::Reconnect => connection.end(error),
            // The flusher pauses, and tries again. It does so even if the write was withdrawn, to
            // find out when the backend takes writes again.
            Recovery::RetryNow
            | Recovery::Pause
            | Recovery::PauseThenReconnect
            | Recovery::GiveUp => self.shared.wake.notify_one(),
        }
    }

    /// Queues several writes, and waits for their answers together, which are those of one call.
    ///
    /// # Errors
    ///
    /// The first one; of confirmed writes `InDoubt` if others of them were made.
    pub(crate) async fn write_together(
        &self,
        writes: Vec<(Arc<str>, Request)>,
        policy: WritePolicy,
    ) -> Result<Vec<Answer>> {
        let keys: Vec<Arc<str>> = writes.iter().map(|(key, _)| Arc::clone(key)).collect();
        let answers = self.write_all(writes, policy).await?;
        let is_any_made = answers.iter().any(|answer| match answer {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::InDoubt,
        });
        let first = answers
            .iter()
            .find_map(|answer| answer.as_ref().err())
            .cloned();
        match first {
            Some(first) if policy == WritePolicy::Confirmed && keys.len() > 1 => {
                let kind = if is_any_made {
                    ErrorKind::InDoubt
                } else {
                    first.kind()
                };
                let outcomes = answers
                    .iter()
                    .map(|answer| answer.as_ref().err().map(Error::kind));
                let keys: Vec<_> = keys.iter().map(ToString::to_string).zip(outcomes).collect();
                let missing = keys.iter().filter(|(_, error)| error.is_some()).count();
                let what = format!(
                    "{missing} of {} keys were not confirmed, the first of them {first}",
                    keys.len()
                );
                Err(Error::of_keys(kind, what, keys))
            }
            _ => answers.into_iter().collect(),
        }
    }

    /// Queues several writes, and waits for their answers together. One answer per write.
    pub(crate) async fn write_all(
        &self,
        writes: Vec<(Arc<str>, Request)>,
        policy: WritePolicy,
    ) -> Result<Vec<Result<Answer>>> {
        let deadline = self.deadline();
        self.shared.check_open()?;
        let (keys, accepted): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .map(|(key, request)| {
                let accepted = self.accept(&key, request, policy);
                (key, accepted)
            })
            .unzip();
        self.forward();

        // All of them before the first wait: whichever is not answered yet is withdrawn if this
        // future is dropped.
        let pending: Vec<Result<_>> = keys
            .iter()
            .zip(accepted)
            .map(|(key, accepted)| Ok(Pending::new(&self.shared, key, accepted?, policy)))
            .collect();
        let mut answers = Vec::with_capacity(pending.len());
        for pending in pending {
            answers.push(match pending {
                Ok(pending) => pending.wait(deadline).await,
                Err(error) => Err(error),
            });
        }
        Ok(answers)
    }

    /// Makes a new write of a dead letter.
    pub(crate) async fn retry(&self, id: u64) -> Result<Written> {
        let deadline = self.deadline();
        let (key, accepted) = {
            let mut state = self.shared.state();
            self.shared.check_open()?;
            state.retry_letter(id, self.shared.clock.at())?
        };
        self.forward();
        let id = accepted.sequence;
        let answer = Pending::new(&self.shared, &key, accepted, WritePolicy::Through)
            .wait(deadline)
            .await;
        self.shared.state().letter_is_over(id);
        Ok(answer?.written)
    }

    fn accept(&self, key: &Arc<str>, request: Request, policy: WritePolicy) -> Result<Accepted> {
        reentrancy::check(&self.shared, key)?;
        let mut state = self.shared.state();
        self.shared.check_open()?;
        state.write(key, request, policy, self.shared.clock.at())
    }

    /// Wakes the flusher if there is anything to do for it.
    fn forward(&self) {
        let is_anything_to_do = {
            let state = self.shared.state();
            state.outbox.is_anything_ready() || state.is_any_unused()
        };
        if is_anything_to_do {
            self.shared.wake.notify_one();
        }
        // The last write of the queue may have been settled here.
        self.shared.notify_delivered();
    }

    /// Waits until what is queued now was answered for.
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
        let (writer, keys) = {
            let mut state = self.shared.state();
            (state.writer(), state.take_recorded())
        };
        let Some(connection) = self.shared.connection() else {
            return;
        };
        for keys in keys.chunks(1_000) {
            // Records that stay behind age out.
            let forgotten = until(connection.session.forget(writer, keys), deadline).await;
            if !matches!(forgotten, Some(Ok(()))) {
                return;
            }
        }
    }

    fn undelivered(&self) -> Error {
        const NAMED: usize = 5;
        let state = self.shared.state();
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
        let what = format!(
            "{count} writes were not delivered ({}{more}){cause}{kept}",
            keys.join(", ")
        );
        Error::new(ErrorKind::Timeout, what)
    }
}

impl Drop for Core {
    /// Delivers what is queued for at most `shutdown_timeout`, and ends the I/O thread.
    fn drop(&mut self) {
        let limit = self.shared.settings.shutdown_timeout;
        match block_on(self.close(limit)) {
            Err(error) if self.shared.state().is_journalled() => {
                tracing::warn!(target = self.shared.target, %error, "dropped with writes that the next process delivers");
            }
            Err(error) => {
                tracing::error!(target = self.shared.target, %error, "dropped with undelivered writes");
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

/// All that the I/O thread does, until the memory stops.
fn run_io_thread(
    shared: &Shared,
    backend: &dyn Backend,
    first_outcome: oneshot::Sender<Result<()>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            runtime.block_on(flusher::run(shared, backend, first_outcome));
            // The end does not wait for a name that is being resolved.
            runtime.shutdown_background();
        }
        Err(error) => {
            let mono = shared.clock.mono();
            shared.state().lost(no_thread(&error), mono);
        }
    }
}

fn no_thread(error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("the I/O thread could not start: {error}"),
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
