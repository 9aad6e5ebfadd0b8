//! Reads: each asks the backend if it is available, for a bounded time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Core;
use crate::backend::error::{BackendError, Recovery};
use crate::backend::{KeyRead, ReadKind, WithExpiry};
use crate::base::callback::is_io_thread;
use crate::base::clock::Deadline;
use crate::base::error::{Error, Result};
use crate::base::waiting::until;
use crate::cache::{Generation, Ticket};
use crate::client::refresher::{self, LargeAnswers, SlotAnswers};
use crate::client::shared::{Connection, Shared};
use crate::client::state::Link;

impl Core {
    /// Asks the backend for keys if it is available; if not, their slots show what is known.
    /// Returns whether it has answered.
    ///
    /// # Errors
    ///
    /// Of the first key that the server rejects.
    pub(crate) async fn load(&self, keys: &[Arc<str>]) -> Result<bool> {
        if self.shared.is_inherited() {
            return Ok(false);
        }
        self.load_checked(keys).await
    }

    /// As [`load`](Self::load), for a call that has checked that the memory is open.
    pub(crate) async fn load_checked(&self, keys: &[Arc<str>]) -> Result<bool> {
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
        self.shared.check_not_closed()?;
        if is_io_thread() {
            return Ok(false);
        }
        let deadline = self.deadline();
        let mut given_up = None;
        loop {
            let limit = || Deadline::after(grace(given_up.is_some()).min(deadline.remaining()));
            let Some(connection) = self.connection_within(given_up.as_ref(), limit).await else {
                return Ok(false);
            };
            if until(self.shared.no_overdue_read(), deadline)
                .await
                .is_none()
            {
                return Ok(false);
            }
            let mut load = Box::pin(load_on(&self.shared, &connection, keys));
            match self.ask_on(&connection, &mut load, deadline).await {
                Some(Ok((mut answers, large))) => {
                    // They come over another connection: that this one is quiet says nothing.
                    match until(large.arrive(keys, &mut answers), deadline).await {
                        Some(Ok(())) => {
                            return answers.into_iter().collect::<Result<()>>().map(|()| true);
                        }
                        Some(Err(_)) => given_up = Some(connection),
                        None => return Ok(false),
                    }
                }
                Some(Err(_)) => given_up = Some(connection),
                None => {
                    if !connection.is_ended() {
                        self.shared.abandon_read(async move {
                            if let Err(error) = load.await
                                && error.is_connection_lost()
                            {
                                connection.end(error);
                            }
                        });
                    }
                    return Ok(false);
                }
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
            let mut ticket = 0;
            let through = |key| KeyRead::new(key, ReadKind::Through);
            let reads: Vec<_> = keys.iter().map(through).collect();
            let read = connection.session.read(&reads);
            let read = self
                .shared
                .issue(&connection, read, |sent_as| ticket = sent_as);
            match self.ask_on(&connection, read, deadline).await {
                Some(Ok(mut answers)) => {
                    let large = keys.iter().zip(&mut answers);
                    for (key, answer) in large.filter(|(_, answer)| is_large(answer)) {
                        let value = self.large_value(key, ticket);
                        let silent = || Err(self.silent("a read"));
                        *answer = until(value, deadline).await.unwrap_or_else(silent);
                    }
                    return answers
                        .into_iter()
                        .map(|answer| answer.map(|(stored, _)| stored).map_err(error_of_key))
                        .collect();
                }
                Some(Err(error)) if error.is_connection_lost() => given_up = Some(connection),
                Some(Err(error)) => return Err(error_of_key(error)),
                None => return Err(error_of_key(self.silent("a read"))),
            }
        }
    }

    /// The value of a key whose read was answered with `TooLarge`.
    async fn large_value(
        &self,
        key: &Arc<str>,
        ticket: Ticket,
    ) -> Result<WithExpiry, BackendError> {
        // A through read: its key is not tracked.
        let untracked = Generation::default();
        let answer = self.shared.large_reads.ask(key, ticket, untracked);
        self.shared.wake_refresher();
        let lost = |_| BackendError::connection_lost("the connection was closed");
        answer.await.map_err(lost)?
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
        if state.link == Link::Down || is_io_thread() {
            Err(state.unavailable_error(key))
        } else {
            Ok(())
        }
    }

    /// How long a read waits for a connection: if something is known of each key, not at all. If
    /// not, an unset value would be a guess, and shortly after a loss, while the breaker is not
    /// open yet, the connection may be about to come back.
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

    /// Makes a request on the connection; `None` if there is none, it does not answer in time, or
    /// this is an I/O thread, on which nothing waits.
    pub(crate) async fn ask<T, F: Future<Output = Result<T, BackendError>>>(
        &self,
        request: impl FnOnce(Arc<Connection>) -> F,
    ) -> Option<Result<T, BackendError>> {
        let connection = self.shared.connection().filter(|_| !is_io_thread())?;
        let request = request(Arc::clone(&connection));
        self.ask_on(&connection, request, self.deadline()).await
    }

    /// Waits for a request on this connection, which is given up if it is lost or silent. If only
    /// the answer takes long, the connection stays, and others go on.
    async fn ask_on<T>(
        &self,
        connection: &Connection,
        request: impl Future<Output = Result<T, BackendError>>,
        deadline: Deadline,
    ) -> Option<Result<T, BackendError>> {
        let is_late = self.is_late(deadline);
        let answer = until(request, deadline).await;
        match &answer {
            None if is_late => self.shared.suspect_line(),
            None => _ = self.shared.not_answered(connection, self.silent("a read")),
            Some(Err(error)) if error.is_connection_lost() => connection.end(error.clone()),
            Some(_) => {}
        }
        answer
    }
}

/// [`refresher::load`], which may outlive its caller.
fn load_on(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    keys: &[Arc<str>],
) -> impl Future<Output = Result<(SlotAnswers, LargeAnswers), BackendError>> + Send + use<> {
    let (shared, connection) = (Arc::clone(shared), Arc::clone(connection));
    let keys = keys.to_vec();
    async move { refresher::load(&shared, &connection, &keys).await }
}

fn is_large(answer: &Result<WithExpiry, BackendError>) -> bool {
    matches!(answer, Err(error) if error.recovery() == Recovery::ReadApart)
}
