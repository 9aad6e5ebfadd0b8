//! CLIENT TRACKING: the server tells what has changed.
//!
//! On the one connection that does everything else as well: when it is lost, so is the tracking, and whoever connects
//! anew knows that.

use super::{ask, reply};
use crate::backend::Changed;
use crate::fault::Fault;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};

/// Where the pushes of a connection go.
pub(super) struct Told(mpsc::UnboundedSender<Changed>);

/// What they say.
#[derive(Debug, Clone)]
pub(super) struct Changes(Arc<Mutex<mpsc::UnboundedReceiver<Changed>>>);

pub(super) fn channel() -> (Told, Changes) {
    let (tell, told) = mpsc::unbounded_channel();
    (Told(tell), Changes(Arc::new(Mutex::new(told))))
}

impl Told {
    /// An invalidation: some keys, or nothing where the server has dropped everything. It is called in the order in
    /// which the server has sent it, and only passes it on.
    pub(super) fn take_in(&self, mut data: Vec<Value>) {
        let text = |key: Value| reply::text(key).ok().map(Arc::from);
        let changed = match data.pop() {
            Some(Value::Array(keys)) => Changed::Keys(keys.into_iter().filter_map(text).collect()),
            _ => Changed::All,
        };
        // Nobody listens any more: nor does anybody read.
        let _ = self.0.send(changed);
    }
}

impl Changes {
    pub(super) async fn next(self) -> Result<Changed, Fault> {
        let mut told = self.0.lock().await;
        told.recv().await.ok_or_else(|| Fault::lost("the connection was closed"))
    }
}

/// Turns tracking on for keys that begin with these prefixes. A server that does not know prefixes (Dragonfly) tracks
/// what this connection reads: here that is the same, since everything that is told is read again here.
pub(super) async fn track(connection: MultiplexedConnection, prefixes: Vec<String>) -> Result<(), Fault> {
    // Prefixes can only be added to, and may not overlap.
    let mut commands = Pipeline::with_capacity(2);
    commands.cmd("CLIENT").arg("TRACKING").arg("OFF");
    let on = commands.cmd("CLIENT").arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in prefixes {
        on.arg("PREFIX").arg(prefix);
    }
    match ask(connection.clone(), commands).await?.pop() {
        Some(Value::ServerError(error)) if error.code() == "ERR" => {
            let mut commands = Pipeline::with_capacity(1);
            commands.cmd("CLIENT").arg("TRACKING").arg("ON");
            ask(connection, commands).await?.pop().map_or(Ok(()), |answer| reply::checked(answer).map(drop))
        }
        Some(answer) => reply::checked(answer).map(drop),
        None => Ok(()),
    }
}
