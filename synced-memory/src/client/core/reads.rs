//! Reads: each asks the backend if it is available, for a bounded time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Core;
use crate::backend::error::{BackendError, BackendErrorKind, Recovery};
use crate::backend::layout::Node;
use crate::backend::shards::Shard;
use crate::backend::{KeyRead, ReadKind, WithExpiry};
use crate::base::callback::is_io_thread;
use crate::base::clock::{Deadline, Monotonic};
use crate::base::error::{Error, Result};
use crate::base::waiting::until;
use crate::cache::{Generation, Ticket};
use crate::client::refresher::{self, ReadAnswers, Redirected};
use crate::client::route::Connection;
use crate::client::shared::Shared;
use crate::client::state::Link;
use crate::value::document::Document;

/// How long a read of keys waits for a connection, given whether that was just lost.
type Grace<'a> = dyn Fn(&[Arc<str>], bool) -> Duration + Sync + 'a;

/// Where a key is read, and after how many other tries.
#[derive(Debug, Clone, Copy)]
struct ReadAt {
    shard: Shard,
    /// The shard is to answer although it does not have the slot yet.
    asking: bool,
    hops: u8,
}

impl ReadAt {
    /// Servers that send us to each other all the time are not followed for ever.
    const MOST_HOPS: u8 = 8;

    fn shard(shard: Shard) -> Self {
        Self {
            shard,
            asking: false,
            hops: 0,
        }
    }

    /// Where a server has sent us.
    fn hop(self, shard: Shard, asking: bool) -> Option<Self> {
        let hops = self.hops + 1;
        (hops <= Self::MOST_HOPS).then_some(Self {
            shard,
            asking,
            hops,
        })
    }
}

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
        self.load_with(keys, &|keys, is_just_lost| self.grace(keys, is_just_lost))
            .await
    }

    /// The same for a call that only the backend can answer: after a loss it waits for the
    /// connection.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and `Unavailable`, at once if the backend is not available.
    pub(crate) async fn load_now(&self, keys: &[Arc<str>]) -> Result<bool> {
        self.check_connected(keys)?;
        self.load_with(keys, &|_, _| self.shared.settings.timeout)
            .await
    }

    /// `grace`: how long a read of keys waits for a connection, given whether that was just lost.
    async fn load_with(&self, keys: &[Arc<str>], grace: &Grace<'_>) -> Result<bool> {
        self.shared.check_not_closed()?;
        if is_io_thread() {
            return Ok(false);
        }
        let deadline = self.deadline();
        let Some(shards) = self.by_shard(keys) else {
            return self.load_from_one(keys, grace, deadline).await;
        };
        // One round trip to each shard, at once.
        let loads = shards.iter().map(|(shard, keys)| {
            let at = ReadAt::shard(*shard);
            self.load_from(keys, at, grace, deadline)
        });
        let mut outcomes = join_all(loads).await.into_iter();
        outcomes.try_fold(true, |have_all, outcome| Ok(outcome? && have_all))
    }

    /// The keys of each shard, if they are of several.
    fn by_shard(&self, keys: &[Arc<str>]) -> Option<BTreeMap<Shard, Vec<Arc<str>>>> {
        if !self.shared.map.is_cluster() || keys.len() < 2 {
            return None;
        }
        Some(self.shared.map.by_shard(keys.iter().cloned()))
    }

    async fn load_from_one(
        &self,
        keys: &[Arc<str>],
        grace: &Grace<'_>,
        deadline: Deadline,
    ) -> Result<bool> {
        let Some(key) = keys.first() else {
            return Ok(true);
        };
        let at = ReadAt::shard(self.shared.map.shard_of(key));
        self.load_from(keys, at, grace, deadline).await
    }

    async fn load_from(
        &self,
        keys: &[Arc<str>],
        at: ReadAt,
        grace: &Grace<'_>,
        deadline: Deadline,
    ) -> Result<bool> {
        let mut given_up = None;
        loop {
            let is_just_lost = given_up.is_some();
            let limit = || Deadline::after(grace(keys, is_just_lost).min(deadline.remaining()));
            let connection = self.connection_within(at.shard, given_up.as_ref(), limit);
            let Some(connection) = connection.await else {
                return Ok(false);
            };
            if until(connection.no_overdue_read(), deadline)
                .await
                .is_none()
            {
                return Ok(false);
            }
            let mut load = Box::pin(load_on(&self.shared, &connection, keys, at.asking));
            match self.ask_on(&connection, &mut load, deadline).await {
                Some(Ok(mut loaded)) => {
                    // They come over another connection: that this one is quiet says nothing.
                    let large = loaded.large;
                    let large = large.arrive(&self.shared, keys, &mut loaded.answers);
                    match until(large, deadline).await {
                        Some(Ok(redirected)) => {
                            loaded.answers.into_iter().collect::<Result<()>>()?;
                            loaded.redirected.extend(redirected);
                            let elsewhere = loaded.redirected;
                            return self
                                .load_elsewhere(keys, elsewhere, at, grace, deadline)
                                .await;
                        }
                        Some(Err(_)) => given_up = Some(connection),
                        None => return Ok(false),
                    }
                }
                Some(Err(_)) => given_up = Some(connection),
                None => {
                    if !connection.is_ended() {
                        let read_over = Arc::clone(&connection);
                        self.shared.abandon_read(&connection, async move {
                            if let Err(error) = load.await
                                && error.is_connection_lost()
                            {
                                read_over.end(error);
                            }
                        });
                    }
                    return Ok(false);
                }
            }
        }
    }

    /// Reads what other shards have of these keys.
    async fn load_elsewhere(
        &self,
        keys: &[Arc<str>],
        redirected: Vec<Redirected>,
        from: ReadAt,
        grace: &Grace<'_>,
        deadline: Deadline,
    ) -> Result<bool> {
        let mut have_all = true;
        for redirected in redirected {
            let key = std::slice::from_ref(&keys[redirected.index]);
            let Redirected {
                to, node, asking, ..
            } = redirected;
            let to = match to {
                Some(to) => Some(to),
                None => self.shard_at(node, deadline).await,
            };
            if let Some(to) = to.filter(|to| self.shared.state().is_untried(*to)) {
                // What is known of the key is out of date, and the server is about to be there.
                self.connection_within(to, None, || deadline).await;
            }
            let Some(at) = to.and_then(|shard| from.hop(shard, asking)) else {
                have_all = false;
                continue;
            };
            have_all &= Box::pin(self.load_from(key, at, grace, deadline)).await?;
        }
        Ok(have_all)
    }

    /// The shard of a server of which nothing was known so far, as soon as there is a connection.
    async fn shard_at(&self, node: Option<Node>, deadline: Deadline) -> Option<Shard> {
        let node = node?;
        let found = || self.shared.connected_shard(&node);
        until(self.shared.when_connected(found), deadline).await
    }

    /// A connection to a shard that was not given up: the present one, or one that is made until
    /// the deadline. `deadline` is called only if there is none at present.
    pub(super) async fn connection_within(
        &self,
        shard: Shard,
        given_up: Option<&Arc<Connection>>,
        deadline: impl Fn() -> Deadline,
    ) -> Option<Arc<Connection>> {
        let found = || self.shared.connection_other_than(shard, given_up);
        if let Some(connection) = found() {
            return Some(connection);
        }
        until(self.shared.when_connected(found), deadline()).await
    }

    /// What the backend has under these keys, without the writes that are pending here.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it does not answer; else of the first key that the server rejects.
    pub(crate) async fn read_now(&self, keys: &[Arc<str>]) -> Result<Vec<Option<Document>>> {
        let deadline = self.deadline();
        self.check_connected(keys)?;
        let Some(shards) = self.by_shard(keys) else {
            let Some(key) = keys.first() else {
                return Ok(Vec::new());
            };
            let at = ReadAt::shard(self.shared.map.shard_of(key));
            return self.read_at(keys, at, deadline).await;
        };
        let reads = shards.iter().map(|(shard, keys)| async move {
            let found = self.read_at(keys, ReadAt::shard(*shard), deadline).await?;
            Ok(keys.iter().zip(found).collect::<Vec<_>>())
        });
        let mut found = HashMap::new();
        for of_shard in join_all(reads).await {
            found.extend(of_shard?);
        }
        let found = keys.iter().map(|key| found.get(key).cloned().flatten());
        Ok(found.collect())
    }

    async fn read_at(
        &self,
        keys: &[Arc<str>],
        at: ReadAt,
        deadline: Deadline,
    ) -> Result<Vec<Option<Document>>> {
        let key = &keys[0];
        let error_of_key = |error: BackendError| Error::of_key(error.error_kind(), key, error);
        let mut given_up = None;
        loop {
            let connection = self.connection_within(at.shard, given_up.as_ref(), || deadline);
            let Some(connection) = connection.await else {
                return Err(self.shared.state().unavailable_error(key));
            };
            let mut ticket = 0;
            let through = |key| KeyRead {
                asking: at.asking,
                ..KeyRead::new(key, ReadKind::Through)
            };
            let reads: Vec<_> = keys.iter().map(through).collect();
            let read = connection.session.read(&reads);
            let read = self
                .shared
                .issue(&connection, read, |sent_as| ticket = sent_as);
            match self.ask_on(&connection, read, deadline).await {
                Some(Ok(answers)) => {
                    let mut found = Vec::with_capacity(keys.len());
                    for (key, mut answer) in keys.iter().zip(answers) {
                        if is_large(&answer) {
                            let value = self.large_value(key, at, ticket);
                            let silent = || Err(self.silent("a read"));
                            answer = until(value, deadline).await.unwrap_or_else(silent);
                        }
                        found.push(match answer {
                            Ok((stored, _)) => stored,
                            Err(error) => {
                                let to = self.redirected(at, &error, deadline).await;
                                let to = to.ok_or_else(|| error_of_key(error))?;
                                let key = std::slice::from_ref(key);
                                let read = Box::pin(self.read_at(key, to, deadline)).await?;
                                read.into_iter().next().flatten()
                            }
                        });
                    }
                    return Ok(found);
                }
                Some(Err(error)) if error.is_connection_lost() => given_up = Some(connection),
                Some(Err(error)) => return Err(error_of_key(error)),
                None => return Err(error_of_key(self.silent("a read"))),
            }
        }
    }

    /// Where a server has sent us that was to answer a read.
    async fn redirected(
        &self,
        from: ReadAt,
        error: &BackendError,
        deadline: Deadline,
    ) -> Option<ReadAt> {
        let redirect = error.redirect.as_deref()?;
        let to = self.shared.state().redirected(error);
        let to = match to {
            Some((shard, _)) => Some(shard),
            None => self.shard_at(Some(redirect.node.clone()), deadline).await,
        };
        from.hop(to?, error.kind == BackendErrorKind::Ask)
    }

    /// The value of a key whose read was answered with `TooLarge`.
    async fn large_value(
        &self,
        key: &Arc<str>,
        at: ReadAt,
        ticket: Ticket,
    ) -> Result<WithExpiry, BackendError> {
        let lost = || BackendError::connection_lost("the connection was closed");
        let route = self.shared.route(at.shard).ok_or_else(lost)?;
        // A through read: its key is not tracked.
        let untracked = Generation::default();
        let answer = route.large_reads.ask(key, ticket, untracked, at.asking);
        route.refresher_wake.notify_one();
        answer.await.map_err(|_| lost())?
    }

    /// Checks that the backend is available, for a call that only it can answer. It may take no
    /// writes, and still answer.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Closed`.
    fn check_connected(&self, keys: &[Arc<str>]) -> Result<()> {
        self.shared.check_open()?;
        let state = self.shared.state();
        let is_away = |key: &&Arc<str>| state.link_of(key) == Link::Down || is_io_thread();
        match keys.iter().find(is_away) {
            Some(key) => Err(state.unavailable_error(key)),
            None => Ok(()),
        }
    }

    /// How long a read waits for a connection: if something is known of each key, not at all. If
    /// not, an unset value would be a guess, and shortly after a loss, while the breaker is not
    /// open yet, the connection may be about to come back.
    fn grace(&self, keys: &[Arc<str>], is_just_lost: bool) -> Duration {
        let limit = self.shared.settings.timeout;
        let state = self.shared.state();
        let unknown = keys.iter().find(|key| !state.is_known(key));
        let Some(unknown) = unknown else {
            return Duration::ZERO;
        };
        // The I/O thread is about to notice the loss, or to publish the connection.
        if is_just_lost || state.link_of(unknown) != Link::Down {
            return limit;
        }
        let mono = self.shared.clock.mono();
        let since_loss = |lost: Monotonic| (lost + limit).saturating_sub(mono);
        state.lost_at(unknown).map_or(Duration::ZERO, since_loss)
    }

    /// Makes a request to a shard; `None` if there is no connection, it does not answer in time, or
    /// this is an I/O thread, on which nothing waits.
    pub(super) async fn ask<T, F: Future<Output = Result<T, BackendError>>>(
        &self,
        shard: Shard,
        request: impl FnOnce(Arc<Connection>) -> F,
    ) -> Option<Result<T, BackendError>> {
        let connection = self.shared.connection(shard);
        let connection = connection.filter(|_| !is_io_thread())?;
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
            None if is_late => connection.suspect(),
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
    asking: bool,
) -> impl Future<Output = Result<ReadAnswers, BackendError>> + Send + use<> {
    let (shared, connection) = (Arc::clone(shared), Arc::clone(connection));
    let keys = keys.to_vec();
    async move { refresher::load(&shared, &connection, &keys, asking).await }
}

fn is_large(answer: &Result<WithExpiry, BackendError>) -> bool {
    matches!(answer, Err(error) if error.recovery() == Recovery::ReadApart)
}
