//! Writes: queued, sent from the caller's thread if that is possible, and waited for.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::pending::Pending;
use crate::backend::commit::Attempt;
use crate::backend::error::{BackendError, Recovery};
use crate::base::backoff::waits_of_tried;
use crate::base::callback::is_io_thread;
use crate::base::clock::{Deadline, Monotonic};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::base::waiting::{WaitMode, pause, until};
use crate::client::route::Connection;
use crate::client::shared::Shared;
use crate::client::state::{Accepted, LARGE, Request};
use crate::client::{flusher, reentrancy};
use crate::pending::outbox::{Answer, Written};

impl Core {
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
        let policy = self.policy_here(key, policy)?;
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

    /// What a write waits for on this thread: on an I/O thread nothing waits.
    ///
    /// # Errors
    ///
    /// `Unavailable` for a confirmed write, which only an answer could confirm.
    pub(crate) fn policy_here(&self, key: &str, policy: WritePolicy) -> Result<WritePolicy> {
        match policy {
            _ if !is_io_thread() => Ok(policy),
            WritePolicy::Through | WritePolicy::Behind => Ok(WritePolicy::Behind),
            WritePolicy::Confirmed => {
                self.shared.check_open()?;
                Err(self.shared.state().unavailable_error(key))
            }
        }
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
        let mut last_try = Monotonic::ZERO;
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
        self.check_may_write(key, &request)?;
        let connection = self.connection_for_own_send(key, mode, deadline);
        let (mut pending, mut attempt) = {
            let mut state = self.shared.state();
            self.shared.check_not_closed()?;
            // Under the lock: the clock and the stamps that it has issued are shifted in one step.
            let at = self.shared.clock.at();
            *last_try = at.mono;
            let accepted = state.write(key, request, policy, at)?;
            let attempt = connection
                .as_ref()
                .and_then(|connection| state.take_small(key, connection.shard, LARGE, at.mono));
            (Pending::new(&self.shared, key, accepted, policy), attempt)
        };

        let mut refusals = 0;
        while let Some((connection, own)) = connection.as_ref().zip(attempt.take()) {
            let mut sending = Box::pin(send_own(&self.shared, connection, own));
            match until(&mut sending, deadline).await {
                Some(Ok(())) => {
                    if let Some(answer) = pending.answer() {
                        self.forward();
                        return answer;
                    }
                    // The backend had another value: the write goes out again, on top of that one.
                    refusals += 1;
                    if let Some(waits) = waits_of_tried(refusals) {
                        let took = self.shared.clock.mono().saturating_sub(*last_try);
                        self.retreat(waits, took).await;
                    }
                    if !self.is_late(deadline) {
                        *last_try = self.shared.clock.mono();
                        let mut state = self.shared.state();
                        attempt = state.take_small(key, connection.shard, LARGE, *last_try);
                    }
                }
                Some(Err(error)) => leave_to_flusher(&self.shared, connection, error),
                None => self.leave_unanswered(connection, sending),
            }
        }
        self.forward();
        pending.wait(deadline).await
    }

    /// Waits, since others win again and again; see [`Fairness::retreat`].
    ///
    /// [`Fairness::retreat`]: crate::client::fairness::Fairness::retreat
    pub(crate) async fn retreat(&self, waits: u32, took: Duration) {
        pause(Deadline::after(self.fairness.retreat(waits, took))).await;
    }

    /// The connection over which a caller sends its write itself, if it may.
    fn connection_for_own_send(
        &self,
        key: &str,
        mode: WaitMode,
        deadline: Deadline,
    ) -> Option<Arc<Connection>> {
        // If a future is dropped after it has sent, nobody is left to handle the answer.
        if !mode.is_blocking() || self.is_late(deadline) {
            return None;
        }
        let connection = self.shared.connection_of(key);
        connection.filter(|connection| !connection.is_uploading())
    }

    /// A write of a caller's own was not answered in time. If its connection is not silent, the I/O
    /// thread waits for the answer.
    fn leave_unanswered(
        &self,
        connection: &Arc<Connection>,
        sending: impl Future<Output = Result<(), BackendError>> + Send + 'static,
    ) {
        let (shared, sent_over) = (Arc::clone(&self.shared), Arc::clone(connection));
        if self.shared.not_answered(connection, self.silent("a write")) {
            self.shared.abandon(async move {
                if let Err(error) = sending.await {
                    leave_to_flusher(&shared, &sent_over, error);
                }
                // What was queued behind it may be ready now.
                forward(&shared);
            });
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
        match answers.iter().find_map(|answer| answer.as_ref().err()) {
            Some(first) if policy == WritePolicy::Confirmed && keys.len() > 1 => {
                Err(not_all_confirmed(&keys, &answers, first))
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
        let policy = match writes.first() {
            Some((key, _)) => self.policy_here(key, policy)?,
            None => policy,
        };
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
        self.shared.check_open()?;
        let deadline = self.deadline();
        let (key, accepted) = {
            let mut state = self.shared.state();
            self.shared.check_not_closed()?;
            let policy = if is_io_thread() {
                WritePolicy::Behind
            } else {
                WritePolicy::Through
            };
            state.retry_letter(id, policy, self.shared.clock.at())?
        };
        self.forward();
        let id = accepted.id;
        let answer = Pending::new(&self.shared, &key, accepted, WritePolicy::Through)
            .wait(deadline)
            .await;
        self.shared.state().letter_is_over(id);
        Ok(answer?.written)
    }

    /// What every write has to pass, before the state is locked.
    fn check_may_write(&self, key: &str, request: &Request) -> Result<()> {
        reentrancy::check_not_updating(&self.shared, key)?;
        self.shared.check_open()?;
        request.check_levels(key)
    }

    fn accept(&self, key: &Arc<str>, request: Request, policy: WritePolicy) -> Result<Accepted> {
        self.check_may_write(key, &request)?;
        let mut state = self.shared.state();
        self.shared.check_not_closed()?;
        state.write(key, request, policy, self.shared.clock.at())
    }

    fn forward(&self) {
        forward(&self.shared);
    }
}

/// Sends a write of a caller's own, and handles the answer.
fn send_own(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    own: Attempt,
) -> impl Future<Output = Result<(), BackendError>> + Send + use<> {
    let (shared, connection) = (Arc::clone(shared), Arc::clone(connection));
    async move { flusher::send(&shared, &connection, &[own]).await }
}

/// A write of a caller's own has failed: the flusher goes on with it.
fn leave_to_flusher(shared: &Shared, connection: &Connection, error: BackendError) {
    match error.recovery() {
        Recovery::Reconnect | Recovery::ReconnectNow => connection.end(error),
        // The flusher pauses, and tries again. It does so even if the write was withdrawn, to find
        // out when the backend takes writes again.
        Recovery::RetryNow
        | Recovery::Redirect
        | Recovery::ParkKey
        | Recovery::Confirm
        | Recovery::ReadApart
        | Recovery::ReadUntracked
        | Recovery::ReadWhole
        | Recovery::Pause
        | Recovery::PauseThenReconnect
        | Recovery::GiveUp => shared.wake([connection.shard]),
    }
}

/// Wakes the flusher if there is anything to do for it.
pub(super) fn forward(shared: &Shared) {
    let to_wake: Vec<_> = shared.state().shards_with_work().collect();
    shared.wake(to_wake);
    // The last write of the queue may have been settled here.
    shared.notify_delivered();
}

/// The error of one confirmed call whose writes were not all made: the `first` one, and what became
/// of each key.
fn not_all_confirmed(keys: &[Arc<str>], answers: &[Result<Answer>], first: &Error) -> Error {
    let may_be_made = |answer: &Result<Answer>| match answer {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::InDoubt,
    };
    let kind = if answers.iter().any(may_be_made) {
        ErrorKind::InDoubt
    } else {
        first.kind()
    };
    let outcomes = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(Error::kind));
    let keys: Vec<_> = keys.iter().map(ToString::to_string).zip(outcomes).collect();
    let missing = keys.iter().filter(|(_, error)| error.is_some()).count();
    let message = format!(
        "{missing} of {} keys were not confirmed, the first of them {first}",
        keys.len()
    );
    Error::of_keys(kind, message, keys)
}
