//! CLIENT TRACKING: the server notifies us of changes.
//!
//! With OPTIN the server tracks the keys of the one command that directly follows CLIENT CACHING
//! YES, each until it has pushed it once. So a process is notified of what it reads near or
//! watches, and a write of any other key costs nothing: with BCAST and a prefix, the server would
//! push each write of each key to each process.
//!
//! The pushes come over the same connection as everything else, for three reasons. They arrive in
//! the order in which the server sent them, among the answers: when an answer is handled, every
//! push that was sent before it is in the queue. When the connection is lost, so is the tracking,
//! and who reconnects knows that; if nothing reports the loss, the heartbeat notices it. And the
//! server tracks what is read over the connection that it notifies. A second connection would be
//! one more to lose, and its pushes would arrive in no order with the answers of the first.

use std::sync::{Arc, Mutex};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::Notify;

use super::{ask, reply};
use crate::backend::Invalidation;
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::lock::{LockGuard, lock};

/// How many keys the queue holds at most: beyond that, everything counts as changed. Pushes are
/// queued at once, so that the server need not buffer them while we are busy.
const LONGEST_QUEUE: usize = 10_000;

/// Queues the pushes of a connection.
pub(super) struct PushSender(Arc<PushQueue>);

/// Hands out what was queued.
#[derive(Debug, Clone)]
pub(super) struct PushReceiver(Arc<PushQueue>);

#[derive(Debug, Default)]
struct PushQueue {
    pending: Mutex<PendingKeys>,
    is_more: Notify,
}

#[derive(Debug, Default)]
struct PendingKeys {
    keys: Vec<Arc<str>>,
    is_all: bool,
    /// The connection is closed.
    is_closed: bool,
}

impl PushQueue {
    fn pending(&self) -> LockGuard<'_, PendingKeys> {
        lock(&self.pending)
    }
}

pub(super) fn channel() -> (PushSender, PushReceiver) {
    let queue = Arc::default();
    (PushSender(Arc::clone(&queue)), PushReceiver(queue))
}

impl PushSender {
    /// Queues an invalidation: some keys, or none if the server has dropped everything. It is
    /// called in the order in which the server sent them.
    pub(super) fn receive(&self, mut data: Vec<Value>) {
        let key_of = |key: Value| reply::text(key).ok().map(Arc::from);

        let mut pending = self.0.pending();
        match data.pop() {
            Some(Value::Array(keys)) if !pending.is_all => {
                pending.keys.extend(keys.into_iter().filter_map(key_of));
            }
            Some(Value::Array(_)) => {}
            _ => pending.is_all = true,
        }
        if pending.is_all || pending.keys.len() > LONGEST_QUEUE {
            *pending = PendingKeys {
                keys: Vec::new(),
                is_all: true,
                is_closed: pending.is_closed,
            };
        }
        drop(pending);
        self.0.is_more.notify_one();
    }
}

impl Drop for PushSender {
    fn drop(&mut self) {
        self.0.pending().is_closed = true;
        self.0.is_more.notify_one();
    }
}

impl PushReceiver {
    /// Removes and returns everything that is queued; ready when something is.
    pub(super) async fn next(self) -> Result<Invalidation, BackendError> {
        loop {
            {
                let mut pending = self.0.pending();
                if std::mem::take(&mut pending.is_all) {
                    return Ok(Invalidation::All);
                }
                if !pending.keys.is_empty() {
                    return Ok(Invalidation::Keys(std::mem::take(&mut pending.keys)));
                }
                if pending.is_closed {
                    return Err(BackendError::connection_lost("the connection was closed"));
                }
            }
            self.0.is_more.notified().await;
        }
    }
}

/// Turns tracking on for the keys that are read behind CLIENT CACHING YES.
///
/// # Errors
///
/// `Rejected` also if the server refuses only CLIENT CACHING: without it nothing is tracked.
pub(super) async fn track(connection: MultiplexedConnection) -> Result<(), BackendError> {
    let mut commands = Pipeline::with_capacity(3);
    let on = commands.cmd("CLIENT");
    on.arg("TRACKING").arg("ON").arg("OPTIN");
    add_caching(&mut commands);
    // CLIENT CACHING holds for the next command, whatever it is: so it is none that has keys.
    commands.cmd("TIME");
    let answers = ask(connection, commands).await?;
    answers
        .into_iter()
        .try_for_each(|answer| reply::checked(answer).map(drop))
}

/// Makes the server track the keys of the next command. Nothing may come in between, so both go
/// out in one write.
pub(super) fn add_caching(commands: &mut Pipeline) {
    commands.cmd("CLIENT").arg("CACHING").arg("YES");
}

/// The answer to that.
///
/// # Errors
///
/// `NotTracked` if the server refuses it for good: the right to it was taken away, or what is in
/// between does not know it. Otherwise the error of the key that was to be tracked.
pub(super) fn caching(answer: Value) -> Result<(), BackendError> {
    match reply::checked(answer) {
        Ok(_) => Ok(()),
        Err(error) if error.is_rejected() => {
            Err(BackendError::new(BackendErrorKind::NotTracked, error))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn push(sender: &PushSender, keys: impl IntoIterator<Item = String>) {
        let keys = keys
            .into_iter()
            .map(|key| Value::BulkString(key.into_bytes()))
            .collect();
        sender.receive(vec![Value::Array(keys)]);
    }

    #[test]
    fn pushes_are_handed_out_together_and_beyond_a_bound_everything_counts_as_changed() {
        let (sender, changes) = channel();
        assert_eq!(
            changes.clone().next().now_or_never().map(Result::unwrap),
            None
        );
        push(&sender, ["a".to_owned()]);
        push(&sender, ["b".to_owned(), "c".to_owned()]);
        let keys = ["a", "b", "c"].map(Arc::from).to_vec();
        assert_eq!(
            changes.clone().next().now_or_never().map(Result::unwrap),
            Some(Invalidation::Keys(keys))
        );
        for number in 0..2 * LONGEST_QUEUE {
            push(&sender, [number.to_string()]);
            assert!(sender.0.pending().keys.len() <= LONGEST_QUEUE);
        }
        assert_eq!(
            changes.clone().next().now_or_never().map(Result::unwrap),
            Some(Invalidation::All)
        );
        sender.receive(vec![Value::Nil]);
        drop(sender);
        assert_eq!(
            changes.clone().next().now_or_never().map(Result::unwrap),
            Some(Invalidation::All)
        );
        assert!(
            changes
                .next()
                .now_or_never()
                .unwrap()
                .unwrap_err()
                .is_connection_lost()
        );
    }
}
