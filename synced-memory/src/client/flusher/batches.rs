//! Batches of writes: several are under way at a time, and their answers are handled in any order.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::stream::FuturesUnordered;
use tokio::task::yield_now;

use crate::backend::commit::{Attempt, Outcome};
use crate::backend::error::BackendError;
use crate::backend::shards::Shard;
use crate::base::error::{Error, Result};
use crate::base::events::event;
use crate::cache::Ticket;
use crate::client::route::Connection;
use crate::client::shared::Shared;
use crate::client::state::State;

/// The most writes in one batch: enough to fill a round trip, few enough to be answered soon.
pub(super) const BATCH: usize = 512;
/// No more writes are added to a batch of this size.
const BATCH_BYTES: usize = 1 << 20;
/// The most batches that are under way at a time: a write need not wait for the answers to others.
const BATCHES: usize = 8;

/// The batches that one connection has under way.
pub(super) struct Batches<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    pub(super) under_way: FuturesUnordered<Sending<'a>>,
    /// Why nothing more is sent for now. The answers that are on their way are still handled.
    pub(super) refusal: Option<BackendError>,
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), BackendError>> + Send + 'a>>;

impl<'a> Batches<'a> {
    pub(super) fn new(shared: &'a Shared, connection: &'a Connection) -> Self {
        Self {
            shared,
            connection,
            under_way: FuturesUnordered::new(),
            refusal: None,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < BATCHES && self.refusal.is_none()
    }

    /// Sends batches while there is something to send and room for it.
    pub(super) async fn send_next(&mut self) -> Result<(), BackendError> {
        while self.has_room() {
            let Some(mut batch) = next_batch(self.shared, self.connection) else {
                break;
            };
            // Its first poll sends it.
            match poll_once(&mut batch).await {
                Poll::Ready(answered) => {
                    self.handle_result(answered)?;
                    // The embedded backends answer in the first poll, and would never let anything
                    // else on this thread run.
                    yield_now().await;
                }
                Poll::Pending => self.under_way.push(batch),
            }
        }
        Ok(())
    }

    /// Keeps a refusal for later.
    ///
    /// # Errors
    ///
    /// The connection cannot be used any more.
    pub(super) fn handle_result(
        &mut self,
        result: Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        match result {
            Err(error) if error.recovery().pauses_writes() => {
                self.refusal = Some(error);
                Ok(())
            }
            result => result,
        }
    }
}

/// The next batch, if there is anything to send. Its first poll sends it.
fn next_batch<'a>(shared: &'a Shared, connection: &'a Connection) -> Option<Sending<'a>> {
    let mono = shared.clock.mono();
    let shard = connection.shard;
    let batch = shared.state().next_batch(shard, BATCH, BATCH_BYTES, mono);
    if batch.is_empty() {
        shared.notify_delivered();
        return None;
    }
    let uploading = connection.uploads(batch.iter().map(Attempt::size).sum());
    let limit = shared.heartbeat_timeout(connection);
    Some(Box::pin(async move {
        let _uploading = uploading;
        let sent = shared
            .unless_silent(connection, limit, send(shared, connection, &batch))
            .await;
        sent.unwrap_or_else(|| {
            Err(BackendError::connection_lost(format_args!(
                "no answer to {} writes within {limit:?}",
                batch.len()
            )))
        })
    }))
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// Sends attempts that were taken from the outbox, and handles the answers to them.
pub(crate) async fn send(
    shared: &Shared,
    connection: &Connection,
    batch: &[Attempt],
) -> Result<(), BackendError> {
    let mut ticket = 0;
    let request = connection.session.commit(batch, shared.clock.at().now);
    let request = shared.issue(connection, request, |sent_as| {
        ticket = sent_as;
        shared.state().sent(batch, ticket, shared.clock.mono());
    });
    let answers = request.await;
    if ticket == 0 {
        // The connection was given up before: nothing was sent.
        shared.state().requeue_batch(batch);
    }
    let result = handle_answers(shared, connection.shard, batch, ticket, answers?);
    shared.notify_delivered();
    result
}

/// # Errors
///
/// The backend takes no writes for now.
fn handle_answers(
    shared: &Shared,
    shard: Shard,
    batch: &[Attempt],
    ticket: Ticket,
    answers: Vec<Result<Outcome, BackendError>>,
) -> Result<(), BackendError> {
    let mut refusal = None;
    let mut is_any_accepted = false;
    let (mut state, mono) = (shared.state(), shared.clock.mono());
    for (attempt, answer) in batch.iter().zip(answers) {
        let error = answer.as_ref().err().cloned();
        let contended = answer.as_ref().ok().and_then(Outcome::contended);
        let is_refused = matches!(answer, Ok(Outcome::Refused(_)));
        if !state.answered(attempt, ticket, answer, mono) {
            continue;
        }
        if contended.is_some() {
            state.hold(&attempt.key, mono);
        } else if is_refused {
            state.retreat(&attempt.key, mono);
        }
        match error {
            Some(error) if error.recovery().pauses_writes() => {
                refusal.get_or_insert((error, &attempt.key));
            }
            Some(error) if error.recovery().is_elsewhere() => {}
            _ => is_any_accepted = true,
        }
    }

    if let Some((error, key)) = refusal {
        let reason = Error::of_key(error.error_kind(), key, &error);
        state.paused(shard, reason, Some(error.clone()));
        let (target, returned) = (Arc::clone(&shared.target), error.clone());
        state.events.push(event!(
            WARN,
            target = &*target,
            error = %error,
            "the backend takes no writes now"
        ));
        return Err(returned);
    }
    if is_any_accepted {
        writes_resumed(shared, shard, &mut state);
    }
    let (target, writes) = (Arc::clone(&shared.target), batch.len());
    state
        .events
        .push(event!(DEBUG, target = &*target, writes, "flushed"));
    Ok(())
}

/// The backend takes writes: ends the pause, if there was one.
pub(super) fn writes_resumed(shared: &Shared, shard: Shard, state: &mut State) {
    if state.resumed(shard) {
        let target = Arc::clone(&shared.target);
        state.events.push(event!(
            INFO,
            target = &*target,
            "the backend takes writes again"
        ));
    }
}
