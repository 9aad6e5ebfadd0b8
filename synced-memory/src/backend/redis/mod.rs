//! Redis, Valkey and Dragonfly: one multiplexed RESP3 connection.
//!
//! - `commit.rs`, `commit.lua`: attempts
//! - `tracking.rs`: notifications
//! - `reply.rs`: what servers answer

mod commit;
mod reply;
mod tracking;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    PushKind, Value,
};
use tokio::sync::watch;

use super::{Backend, Invalidation, Page, Reply, Session, WithExpiry};
use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::BackendError;
use crate::backend::sidecar;
use commit::Committer;

/// How many requests may wait for the driver to take them: more than there will ever be.
const DRIVER_QUEUE: usize = 1 << 24;

/// The backend of every `redis://` URL.
#[derive(Debug)]
pub(crate) struct RedisBackend {
    client: Client,
    target: String,
    timeout: Duration,
    sidecar_ttl: Duration,
}

impl RedisBackend {
    /// The server that `server` describes; `target` names it in messages.
    pub(crate) fn new(
        server: ConnectionInfo,
        target: String,
        timeout: Duration,
        sidecar_ttl: Duration,
    ) -> Result<Self, BackendError> {
        let settings = server
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        // A small request must not wait for the acknowledgement of the one before (Nagle).
        let server = server
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(server).map_err(|error| reply::backend_error(&error))?;
        Ok(Self {
            client,
            target,
            timeout,
            sidecar_ttl,
        })
    }
}

impl Backend for RedisBackend {
    fn connect(&self) -> Reply<Box<dyn Session>> {
        let (client, timeout, sidecar_ttl) = (self.client.clone(), self.timeout, self.sidecar_ttl);
        Box::pin(async move {
            let (closed, ended) = watch::channel(false);
            let (sender, changes) = tracking::channel();
            let on_push = move |push: PushInfo| {
                match push.kind {
                    PushKind::Disconnection => _ = closed.send_replace(true),
                    PushKind::Invalidate => sender.receive(push.data),
                    _ => {}
                }
                Ok::<(), Infallible>(())
            };
            // Callers bound their own waits: a timeout of the driver's would need the runtime on
            // their threads.
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(timeout))
                .set_response_timeout(None)
                // If the queue to the driver were full, a request would be sent later than its
                // ticket says.
                .set_pipeline_buffer_size(DRIVER_QUEUE)
                .set_push_sender(on_push);
            let connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(|error| reply::connect_error(&error))?;
            let committer = Arc::new(Committer::new(sidecar_ttl));
            let session: Box<dyn Session> = Box::new(RedisSession {
                connection,
                ended,
                committer,
                changes,
            });
            Ok(session)
        })
    }

    fn target(&self) -> &str {
        &self.target
    }
}

struct RedisSession {
    connection: MultiplexedConnection,
    ended: watch::Receiver<bool>,
    committer: Arc<Committer>,
    changes: tracking::PushReceiver,
}

impl std::fmt::Debug for RedisSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSession").finish_non_exhaustive()
    }
}

/// Sends commands in one write, and returns an answer for each.
async fn ask(
    mut connection: MultiplexedConnection,
    commands: Pipeline,
) -> Result<Vec<Value>, BackendError> {
    let count = commands.cmd_iter().count();
    if count == 0 {
        return Ok(Vec::new());
    }
    connection
        .send_packed_commands(&commands, 0, count)
        .await
        .map_err(|error| reply::backend_error(&error))
}

/// Sends one command.
async fn ask_one(connection: MultiplexedConnection, command: Cmd) -> Result<Value, BackendError> {
    let mut commands = Pipeline::new();
    commands.add_command(command);
    let answer = ask(connection, commands).await?.pop().unwrap_or_default();
    reply::checked(answer)
}

impl Session for RedisSession {
    fn read(&self, keys: &[Arc<str>]) -> Reply<Vec<Result<Option<Bytes>, BackendError>>> {
        let mut gets = Pipeline::with_capacity(keys.len());
        for key in keys {
            gets.cmd("GET").arg(&**key);
        }
        let connection = self.connection.clone();
        Box::pin(async move {
            Ok(ask(connection, gets)
                .await?
                .into_iter()
                .map(reply::stored)
                .collect())
        })
    }

    /// Expiry is not tracked: the server notifies us only when it happens to notice it.
    fn read_with_expiry(&self, keys: &[Arc<str>]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        let mut commands = Pipeline::with_capacity(2 * keys.len());
        for key in keys {
            commands.cmd("GET").arg(&**key).cmd("PTTL").arg(&**key);
        }
        let connection = self.connection.clone();
        Box::pin(async move {
            let mut answers = ask(connection, commands).await?.into_iter();
            let pairs = std::iter::from_fn(|| Some((answers.next()?, answers.next()?)));
            Ok(pairs
                .map(|(stored, left)| Ok((reply::stored(stored)?, reply::expiry(&left))))
                .collect())
        })
    }

    fn commit(&self, batch: &[Attempt], now: u64) -> Reply<Vec<Result<Outcome, BackendError>>> {
        let calls = self.committer.calls(batch, now);
        let (connection, committer) = (self.connection.clone(), Arc::clone(&self.committer));
        Box::pin(async move {
            Ok(committer.answers(calls.sizes, ask(connection, calls.commands).await?))
        })
    }

    fn names(&self, prefix: &str, cursor: Option<String>) -> Reply<Page> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor.as_deref().unwrap_or("0"))
            .arg("MATCH")
            .arg(format!("{}*", escaped(prefix)));
        scan.arg("COUNT").arg(1_000);
        let (connection, prefix) = (self.connection.clone(), prefix.to_owned());
        Box::pin(async move {
            let (next, keys) = reply::page(ask_one(connection, scan).await?)?;
            let mut page = Page {
                next: Some(next).filter(|next| next != "0"),
                ..Page::default()
            };
            for key in keys {
                let is_ours = key.starts_with(prefix.as_bytes())
                    && !key.starts_with(sidecar::SIDECARS.as_bytes());
                match String::from_utf8(key) {
                    _ if !is_ours => {}
                    Ok(name) => page.names.push(name),
                    Err(error) => page.unreadable.push(error.into_bytes()),
                }
            }
            Ok(page)
        })
    }

    fn forget(&self, writer: Writer, keys: &[Arc<str>]) -> Reply<()> {
        let mut forgets = Pipeline::with_capacity(keys.len());
        for key in keys {
            forgets
                .cmd("HDEL")
                .arg(sidecar::sidecar(key))
                .arg(&commit::record_fields(writer));
        }
        let connection = self.connection.clone();
        Box::pin(async move { ask(connection, forgets).await.map(drop) })
    }

    fn now(&self) -> Reply<u64> {
        let connection = self.connection.clone();
        Box::pin(async move { reply::time(ask_one(connection, redis::cmd("TIME")).await?) })
    }

    fn eviction_policy(&self) -> Reply<Option<String>> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let mut info = redis::cmd("INFO");
            info.arg("memory");
            let text: String =
                redis::from_redis_value(ask_one(connection, info).await?).unwrap_or_default();
            let policy = text
                .lines()
                .find_map(|line| line.strip_prefix("maxmemory_policy:"));
            Ok(policy.map(|policy| policy.trim().to_owned()))
        })
    }

    fn track(&self, prefixes: &[String]) -> Reply<()> {
        Box::pin(tracking::track(self.connection.clone(), prefixes.to_vec()))
    }

    fn invalidations(&self) -> Reply<Invalidation> {
        Box::pin(self.changes.clone().next())
    }

    fn ended(&self) -> Reply<()> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            // If the sender was dropped with the driver's task, the connection has ended, too.
            let _ = ended.wait_for(|ended| *ended).await;
            Ok(())
        })
    }
}

/// A SCAN pattern that matches exactly `literal`.
fn escaped(literal: &str) -> String {
    let mut pattern = String::with_capacity(literal.len());
    for character in literal.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_pattern_matches_its_prefix_literally() {
        assert_eq!(super::escaped("a*b?[c]\\"), "a\\*b\\?\\[c\\]\\\\");
    }
}
