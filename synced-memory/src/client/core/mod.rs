//! The callers' side of one connection: reads, writes and the end of it, each with a bounded wait.
//!
//! - `pending.rs`: a write whose caller waits for what comes of it

mod pending;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::backend::error::BackendError;
use crate::base::clock::{Deadline, Monotonic};
use crate::base::error::{Error, ErrorKind, Reason, Result};
use crate::base::policy::WritePolicy;
use crate::base::settings::Settings;
use crate::base::waiting::{block_on, is_blocking, pause, until};
use crate::client::fairness::Fairness;
use crate::client::reentrancy::Closures;
use crate::client::shared::{Connection, LARGE, Shared};
use crate::client::state::{Accepted, Link, Request};
use crate::client::{flusher, reentrancy, refresher};
use crate::pending::journal;
use crate::pending::outbox::{Answer, Written};
use pending::Pending;

/// So long the last drop waits at most for the I/O thread, after everything else was done.
const THREAD_END: Duration = Duration::from_millis(500);

/// One connection with its cache, outbox and I/O thread. Its drop is the drop guard of all handles.
#[derive(Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    fairness: Fairness,
    closures: Closures,
    /// Told when the I/O thread has ended.
    thread: oneshot::Receiver<()>,
}

impl Core {
    /// Starts the I/O thread, and waits at most `timeout` for the backend's first answer.
    ///
    /// # Errors
    ///
    /// `Rejected` where the backend refuses for good, `Journal` where the journal cannot be used;
    /// the backend's absence is no error (rule 12).
    pub(crate) fn open(
        backend: impl Backend,
        settings: Settings,
        journal: Option<journal::JournalConfig>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(settings, backend.target(), journal)?);
        let deadline = Deadline::after(shared.settings.timeout);
        let (tell_first, first) = oneshot::channel();
        let (tell_end, thread) = oneshot::channel();
        let seen = Arc::clone(&shared);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => {
                    runtime.block_on(flusher::run(&seen, &backend, tell_first));
                    // A name that is being resolved must not hold up the end.
                    runtime.shutdown_background();
                }
                Err(error) => seen.state().lost(no_thread(&error), seen.clock.mono()),
            }
            drop((backend, seen));
            let _ = tell_end.send(());
        };
        let spawned = std::thread::Builder::new()
            .name("synced-memory".to_owned())
            .spawn(run);
        spawned.map_err(|error| no_thread(&error))?;
        let core = Self {
            shared,
            fairness: Fairness::default(),
            closures: Closures::default(),
            thread,
        };
        match block_on(until(first, deadline)) {
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

    /// Asks the backend for keys, where it is there; else their slots show what is known. Returns
    /// whether it has answered.
    ///
    /// # Errors
    ///
    /// The first key that the server refuses for good.
    pub(crate) async fn load(&self, keys: &[Arc<str>]) -> Result<bool> {
        self.load_with(keys, |just_lost| self.grace(keys, just_lost))
            .await
    }

    /// The same for a call that only the backend can answer: after a loss it waits for the
    /// connection.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and `Unavailable`, at once where the backend is away.
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
            let Some(live) = self.connection_within(given_up.as_ref(), limit).await else {
                return Ok(false);
            };
            match self
                .ask_on(&live, refresher::load(&self.shared, &live, keys), deadline)
                .await
            {
                Some(Ok(answers)) => {
                    return answers.into_iter().collect::<Result<()>>().map(|()| true);
                }
                Some(Err(_)) => given_up = Some(live),
                None => return Ok(false),
            }
        }
    }

    /// A connection that was not given up: the one that is there, or that comes until the deadline,
    /// which is asked for where none is.
    async fn connection_within(
        &self,
        given_up: Option<&Arc<Connection>>,
        deadline: impl Fn() -> Deadline,
    ) -> Option<Arc<Connection>> {
        loop {
            if let Some(live) = self.shared.connection_other_than(given_up) {
                return Some(live);
            }
            until(self.shared.connected_but(given_up), deadline()).await?;
        }
    }

    /// What the backend has under these keys, whatever waits here.
    ///
    /// # Errors
    ///
    /// `Unavailable` where it does not answer; the first key that the server refuses for good.
    pub(crate) async fn read_now(&self, keys: &[Arc<str>]) -> Result<Vec<Option<Bytes>>> {
        let (key, deadline) = (&keys[0], self.deadline());
        self.check_connected(key)?;
        let unavailable = |error: BackendError| {
            let kind = if error.is_rejected() {
                ErrorKind::Rejected
            } else {
                ErrorKind::Unavailable
            };
            Error::of_key(kind, key, error)
        };
        let mut given_up = None;
        loop {
            let Some(live) = self.connection_within(given_up.as_ref(), || deadline).await else {
                return Err(self.shared.state().unavailable_error(key));
            };
            let read = self.shared.issue(&live, live.session.read(keys), |_| ());
            match self.ask_on(&live, read, deadline).await {
                Some(Ok(answers)) => {
                    return answers
                        .into_iter()
                        .map(|answer| answer.map_err(unavailable))
                        .collect();
                }
                Some(Err(error)) if error.is_connection_lost() => given_up = Some(live),
                Some(Err(error)) => return Err(unavailable(error)),
                None => return Err(unavailable(self.silent("a read"))),
            }
        }
    }

    /// Whether the backend is there, for a call that only it can answer. It may answer, and take no
    /// writes.
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

    /// Whether so little is left of the time of a call that a connection that is only slow would be
    /// taken for a silent one.
    fn is_late(&self, deadline: Deadline) -> bool {
        deadline.remaining() <= self.shared.settings.timeout / 2
    }

    /// How long a read waits for a connection. Where something is known of each key, not at all.
    /// Else an unset value would be a guess, and shortly after a loss, while the breaker is not
    /// open yet, the connection may be about to come back.
    fn grace(&self, keys: &[Arc<str>], just_lost: bool) -> Duration {
        let limit = self.shared.settings.timeout;
        let state = self.shared.state();
        if keys.iter().all(|key| state.is_known(key)) {
            return Duration::ZERO;
        }
        // It is there already, and is about to be used.
        if just_lost || state.link != Link::Down {
            return limit;
        }
        let mono = self.shared.clock.mono();
        state
            .lost_at
            .map_or(Duration::ZERO, |lost| (lost + limit).saturating_sub(mono))
    }

    /// Makes a request on the connection; `None` where there is none, or it is silent.
    pub(crate) async fn ask<T, F: Future<Output = Result<T, BackendError>>>(
        &self,
        request: impl FnOnce(Arc<Connection>) -> F,
    ) -> Option<Result<T, BackendError>> {
        let live = self.shared.connection()?;
        self.ask_on(&live, request(Arc::clone(&live)), self.deadline())
            .await
    }

    /// Waits for a request on this connection, which is given up when it is lost or silent.
    async fn ask_on<T>(
        &self,
        live: &Connection,
        request: impl Future<Output = Result<T, BackendError>>,
        deadline: Deadline,
    ) -> Option<Result<T, BackendError>> {
        let is_late = self.is_late(deadline);
        let answer = until(request, deadline).await;
        match &answer {
            // Behind a large write there is no telling; the flusher ends it where that takes too
            // long.
            None if !is_late && !self.shared.is_uploading() => live.end(self.silent("a read")),
            Some(Err(error)) if error.is_connection_lost() => live.end(error.clone()),
            None | Some(_) => {}
        }
        answer
    }

    fn silent(&self, request: &str) -> BackendError {
        let limit = self.shared.settings.timeout;
        BackendError::connection_lost(format_args!("no answer to {request} within {limit:?}"))
    }

    /// Queues a write, and waits for its answer where the backend is there.
    ///
    /// Where it is the only thing to send for its key, it is sent from this thread, which is then
    /// the one that the answer wakes; the flusher sends everything else.
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

    /// The same of a write whose answer is waited for, until the deadline.
    pub(crate) async fn write_within(
        &self,
        key: &Arc<str>,
        request: Request,
        policy: WritePolicy,
        deadline: Deadline,
    ) -> Result<Answer> {
        let mut last_try = self.shared.clock.mono();
        let answer = self
            .send(key, request, policy, deadline, &mut last_try)
            .await?;
        // What was taken is lost with a future that is dropped from here on.
        let may_wait = answer.taken.is_none() || is_blocking().await;
        if let Some(waiting) = answer.contended.filter(|_| may_wait) {
            let took = self.shared.clock.mono().saturating_sub(last_try);
            pause(Deadline::after(self.fairness.wait(waiting, took))).await;
        }
        Ok(answer)
    }

    /// `last_try` becomes when it was tried last from here.
    async fn send(
        &self,
        key: &Arc<str>,
        request: Request,
        policy: WritePolicy,
        deadline: Deadline,
        last_try: &mut Monotonic,
    ) -> Result<Answer> {
        reentrancy::check(&self.shared, key)?;
        // A future that is dropped half done would leave nobody to take in the answer.
        let is_free = is_blocking().await && !self.shared.is_uploading() && !self.is_late(deadline);
        let live = if is_free {
            self.shared.connection()
        } else {
            None
        };
        let (mut accepted, mut own) = {
            let mut state = self.shared.state();
            self.shared.check_open()?;
            // Under the lock: the clock and what it has stamped move in one step.
            let at = self.shared.clock.at();
            let accepted = state.write(key, request, policy, at)?;
            let own = live
                .as_ref()
                .and_then(|_| state.take_small(key, LARGE, at.mono));
            (Pending::new(&self.shared, key, accepted, policy), own)
        };
        while let Some((live, attempt)) = live.as_ref().zip(own.take()) {
            *last_try = self.shared.clock.mono();
            match until(flusher::send(&self.shared, live, &[attempt]), deadline).await {
                Some(Err(error)) if error.is_connection_lost() => live.end(error),
                None => live.end(self.silent("a write")),
                Some(Ok(())) => {
                    if let Some(answer) = accepted.answer() {
                        self.forward();
                        return answer;
                    }
                    // Something else was there: it goes out again, on that.
                    if !self.is_late(deadline) {
                        own = self
                            .shared
                            .state()
                            .take_small(key, LARGE, self.shared.clock.mono());
                    }
                }
                // What was not done is the flusher's, which finds out when to try again, also where
                // it was withdrawn.
                Some(Err(_)) => self.shared.wake.notify_one(),
            }
        }
        self.forward();
        accepted.wait(deadline).await
    }

    /// Queues several writes, and waits for their answers together, which are those of one call.
    ///
    /// # Errors
    ///
    /// The first one; of confirmed writes `InDoubt` where others of them were made.
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
                let became = answers
                    .iter()
                    .map(|answer| answer.as_ref().err().map(Error::kind));
                let keys: Vec<_> = keys.iter().map(ToString::to_string).zip(became).collect();
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
        let accept = |(key, request)| {
            let accepted = self.accept(&key, request, policy);
            (key, accepted)
        };
        self.shared.check_open()?;
        let (keys, accepted): (Vec<_>, Vec<_>) = writes.into_iter().map(accept).unzip();
        self.forward();
        let waits = |(key, accepted): (_, Result<_>)| {
            accepted.map(|accepted| Pending::new(&self.shared, key, accepted, policy))
        };
        let pending: Vec<_> = keys.iter().zip(accepted).map(waits).collect();
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

    /// Sees to it that what is queued is sent.
    fn forward(&self) {
        let is_anything_to_do = {
            let state = self.shared.state();
            state.outbox.is_anything_ready() || state.is_any_unused()
        };
        if is_anything_to_do {
            self.shared.wake.notify_one();
        }
        // What was taken out to be sent may have been settled without.
        self.shared.tell_delivered();
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
        // One that was begun and dropped is gone on with.
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

    /// Drops this writer's records: nothing of it is under way any more.
    async fn forget(&self, deadline: Deadline) {
        let (writer, keys) = {
            let mut state = self.shared.state();
            (state.writer(), state.take_recorded())
        };
        let Some(live) = self.shared.connection() else {
            return;
        };
        for keys in keys.chunks(1_000) {
            // Records that stay behind age out.
            let forgotten = until(live.session.forget(writer, keys), deadline).await;
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
        // It ends at once, unless it is in the middle of something: no drop waits for that for
        // long.
        let _ = block_on(until(
            &mut self.thread,
            Deadline::after(limit.min(THREAD_END)),
        ));
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
            panic!("it does on purpose")
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
