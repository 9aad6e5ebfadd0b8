//! CLIENT TRACKING: the server tells what has changed.
//!
//! On the one connection that does everything else as well, and that is enough. Its pushes come in
//! the order in which the server has made them, among the answers: whoever takes in an answer can
//! be sure that all that was told before it is in the queue. When the connection is lost, so is the
//! tracking, and whoever connects anew knows that; the heartbeat finds out where nobody says so.
//! What a push tells is read again over the same connection: that is what a server without prefixes
//! (Dragonfly) tracks. A connection of its own would be one more to lose, whose pushes and the
//! other's answers come in no order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::Notify;

use super::{ask, reply};
use crate::backend::Invalidation;
use crate::backend::error::BackendError;

/// So many keys wait to be taken in at most: beyond that it is as if everything had changed. What
/// is told is taken in at once, so that the server need not keep it, whatever becomes of it here.
const MOST: usize = 10_000;

/// Where the pushes of a connection go.
pub(super) struct PushSender(Arc<PushQueue>);

/// What they say.
#[derive(Debug, Clone)]
pub(super) struct PushReceiver(Arc<PushQueue>);

#[derive(Debug, Default)]
struct PushQueue {
    waiting: Mutex<PendingKeys>,
    is_more: Notify,
}

#[derive(Debug, Default)]
struct PendingKeys {
    keys: Vec<Arc<str>>,
    is_all: bool,
    /// The connection is gone.
    is_over: bool,
}

impl PushQueue {
    fn waiting(&self) -> MutexGuard<'_, PendingKeys> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn channel() -> (PushSender, PushReceiver) {
    let queue = Arc::default();
    (PushSender(Arc::clone(&queue)), PushReceiver(queue))
}

impl PushSender {
    /// An invalidation: some keys, or nothing where the server has dropped everything. It is called
    /// in the order in which the server has sent it, and only passes it on.
    pub(super) fn receive(&self, mut data: Vec<Value>) {
        let text = |key: Value| reply::text(key).ok().map(Arc::from);
        let mut waiting = self.0.waiting();
        match data.pop() {
            Some(Value::Array(keys)) if !waiting.is_all => {
                waiting.keys.extend(keys.into_iter().filter_map(text));
            }
            Some(Value::Array(_)) => {}
            _ => waiting.is_all = true,
        }
        if waiting.is_all || waiting.keys.len() > MOST {
            *waiting = PendingKeys {
                keys: Vec::new(),
                is_all: true,
                is_over: waiting.is_over,
            };
        }
        drop(waiting);
        self.0.is_more.notify_one();
    }
}

impl Drop for PushSender {
    fn drop(&mut self) {
        self.0.waiting().is_over = true;
        self.0.is_more.notify_one();
    }
}

impl PushReceiver {
    /// All that was told by now; ready when that is something.
    pub(super) async fn next(self) -> Result<Invalidation, BackendError> {
        loop {
            {
                let mut waiting = self.0.waiting();
                if std::mem::take(&mut waiting.is_all) {
                    return Ok(Invalidation::All);
                }
                if !waiting.keys.is_empty() {
                    return Ok(Invalidation::Keys(std::mem::take(&mut waiting.keys)));
                }
                if waiting.is_over {
                    return Err(BackendError::connection_lost("the connection was closed"));
                }
            }
            self.0.is_more.notified().await;
        }
    }
}

/// Turns tracking on for keys that begin with these prefixes. A server that does not know prefixes
/// (Dragonfly) tracks what this connection reads: here that is the same, since everything that is
/// told is read again here.
pub(super) async fn track(
    connection: MultiplexedConnection,
    prefixes: Vec<String>,
) -> Result<(), BackendError> {
    // Prefixes can only be added to, and may not overlap. What changes in between is not told:
    // whoever asks for this reads everything afterwards.
    let mut commands = Pipeline::with_capacity(2);
    commands.cmd("CLIENT").arg("TRACKING").arg("OFF");
    let on = commands
        .cmd("CLIENT")
        .arg("TRACKING")
        .arg("ON")
        .arg("BCAST");
    for prefix in prefixes {
        on.arg("PREFIX").arg(prefix);
    }
    match ask(connection.clone(), commands).await?.pop() {
        Some(Value::ServerError(error)) if error.code() == "ERR" => {
            let mut commands = Pipeline::with_capacity(1);
            commands.cmd("CLIENT").arg("TRACKING").arg("ON");
            ask(connection, commands)
                .await?
                .pop()
                .map_or(Ok(()), |answer| reply::checked(answer).map(drop))
        }
        Some(answer) => reply::checked(answer).map(drop),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn push(told: &PushSender, keys: impl IntoIterator<Item = String>) {
        let keys = keys
            .into_iter()
            .map(|key| Value::BulkString(key.into_bytes()))
            .collect();
        told.receive(vec![Value::Array(keys)]);
    }

    #[test]
    fn what_is_told_waits_together_and_beyond_a_bound_it_is_everything() {
        let (told, changes) = channel();
        assert_eq!(
            changes.clone().next().now_or_never().map(Result::unwrap),
            None
        );
        push(&told, ["a".to_owned()]);
        push(&told, ["b".to_owned(), "c".to_owned()]);
        let keys = ["a", "b", "c"].map(Arc::from).to_vec();
        assert_eq!(
            changes.clone().next().now_or_never().map(Result::unwrap),
            Some(Invalidation::Keys(keys))
        );
        for some in 0..2 * MOST {
            push(&told, [some.to_string()]);
            assert!(told.0.waiting().keys.len() <= MOST);
        }
        assert_eq!(
            changes.clone().next().now_or_never().map(Result::unwrap),
            Some(Invalidation::All)
        );
        told.receive(vec![Value::Nil]);
        drop(told);
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
