//! A line to the server that is open and logged in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ProtocolVersion};
use redis::{RedisConnectionInfo, RedisError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::stream::Stream;
use super::{ask_one, reply};
use crate::backend::error::BackendError;
use crate::base::clock::LastActivity;
use crate::base::credentials::Credentials;
use crate::base::events::{EventEmitter, event};

/// How many requests may wait for the driver to take them: more than there will ever be. If the
/// queue were full, a request would be sent later than its ticket says.
const DRIVER_QUEUE: usize = 1 << 24;

/// A server, and how to log in to it.
pub(super) struct ServerLogin {
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    /// What to write in order to give a password.
    with_password: String,
    name: Arc<ClientName>,
    _credentials: Option<Credentials>,
}

/// What the server's `CLIENT LIST` calls our connections; nothing if it is empty.
struct ClientName {
    name: String,
    /// The server, for messages.
    target: String,
    /// An event has said that the server refuses it.
    is_reported: AtomicBool,
    events: EventEmitter,
}

/// An open line. It is closed when this is dropped.
pub(super) struct Line {
    pub(super) requests: MultiplexedConnection,
    activity: Arc<LastActivity>,
    driver: JoinHandle<()>,
}

impl ServerLogin {
    /// `target` names the server in messages, and `client_name` us in its `CLIENT LIST`.
    pub(super) fn new(server: &ConnectionInfo, target: &str, client_name: String) -> Self {
        let login = server.redis_settings().clone();
        Self {
            address: server.addr().clone(),
            with_password: with_password(target, login.username()),
            name: Arc::new(ClientName {
                name: client_name,
                target: target.to_owned(),
                is_reported: AtomicBool::new(false),
                events: EventEmitter::default(),
            }),
            _credentials: login.password().map(Credentials::new),
            login: login.set_protocol(ProtocolVersion::RESP3),
        }
    }

    /// Opens a line. `config`: what becomes of pushes.
    pub(super) async fn open(&self, config: AsyncConnectionConfig) -> Result<Line, BackendError> {
        // Callers bound their own waits: a timeout of the driver's would need the runtime on their
        // threads.
        let config = config
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(DRIVER_QUEUE);
        let stream = Stream::open(&self.address)
            .await
            .map_err(BackendError::connection_lost)?;
        let activity = stream.activity();
        let (requests, driver) =
            MultiplexedConnection::new_with_config(&self.login, stream, config)
                .await
                .map_err(|error| self.login_error(&error))?;
        if !self.name.name.is_empty() {
            // Before the driver: when that runs first, it finds this request and the one that our
            // caller makes next, and sends both at once.
            tokio::spawn(Arc::clone(&self.name).set_on(requests.clone()));
        }
        Ok(Line {
            requests,
            activity,
            driver: tokio::spawn(driver),
        })
    }

    fn login_error(&self, error: &RedisError) -> BackendError {
        if error.code() == Some("NOAUTH") && self.login.password().is_none() {
            return BackendError::rejected(format_args!(
                "the server asks for a password (NOAUTH), and none was given: write {}",
                self.with_password
            ));
        }
        reply::connect_error(error)
    }
}

impl ClientName {
    /// Names the connection. A refusal is no error: all that is lost is a name to look for.
    async fn set_on(self: Arc<Self>, connection: MultiplexedConnection) {
        let mut command = redis::cmd("CLIENT");
        command.arg("SETNAME").arg(&self.name);
        let Err(error) = ask_one(connection, command).await else {
            return;
        };
        if !error.is_connection_lost() && !self.is_reported.swap(true, Ordering::Relaxed) {
            let (name, target) = (self.name.clone(), self.target.clone());
            self.events.emit(event!(
                DEBUG,
                target,
                name,
                %error,
                "the server does not let the connection have a name (CLIENT SETNAME)"
            ));
        }
    }
}

/// The URL of this target with a place for the password.
fn with_password(target: &str, user: Option<&str>) -> String {
    let user = user.unwrap_or_default();
    match target.split_once("://") {
        Some(("redis+unix", path)) if user.is_empty() => {
            format!("redis+unix://{path}?password=…")
        }
        Some(("redis+unix", path)) => format!("redis+unix://{path}?user={user}&password=…"),
        Some((scheme, host)) => format!("{scheme}://{user}:password@{host}"),
        None => "redis://:password@host".to_owned(),
    }
}

impl Line {
    /// How long the other side has sent nothing, and made no room for what waits to be written.
    pub(super) fn idle(&self) -> Duration {
        self.activity.elapsed()
    }

    /// Whether it was not closed, as far as known.
    pub(super) fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    /// What `request` returns; on the I/O thread.
    ///
    /// # Errors
    ///
    /// That of the request, and if the other side is silent for `limit`.
    pub(super) async fn unless_silent<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let mut request = std::pin::pin!(request);
        let mut wait = limit;
        while !wait.is_zero() {
            if let Ok(answer) = timeout(wait, request.as_mut()).await {
                return answer;
            }
            wait = limit.saturating_sub(self.idle());
        }
        let what = format!("nothing arrived for {limit:?}");
        Err(BackendError::connection_lost(what))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_is_missing_has_its_place_in_the_url() {
        for (target, user, expected) in [
            ("redis://host:6379/0", None, "redis://:password@host:6379/0"),
            (
                "valkey://host:1/2",
                Some("alice"),
                "valkey://alice:password@host:1/2",
            ),
            (
                "redis+unix:///run/redis.sock",
                None,
                "redis+unix:///run/redis.sock?password=…",
            ),
            (
                "redis+unix:///run/redis.sock",
                Some("alice"),
                "redis+unix:///run/redis.sock?user=alice&password=…",
            ),
        ] {
            assert_eq!(with_password(target, user), expected);
        }
    }
}
