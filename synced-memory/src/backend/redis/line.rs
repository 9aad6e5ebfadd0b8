//! A line to a server that is open and logged in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ProtocolVersion};
use redis::{RedisConnectionInfo, RedisError};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::credentials::{Issued, Issuer};
use super::socket::Socket;
use super::stream::{Stream, StreamFailure};
#[cfg(feature = "tls")]
use super::tls::{Tls, TlsFailure, TlsFailureKind};
use super::{ask_one, reply};
use crate::backend::error::BackendError;
#[cfg(feature = "tls")]
use crate::backend::error::BackendErrorKind;
use crate::base::clock::LastActivity;
use crate::base::events::{EventEmitter, event};
use crate::base::redaction::Redaction;

/// How many requests may wait for the driver to take them: more than there will ever be. If the
/// queue were full, a request would be sent later than its ticket says.
const DRIVER_QUEUE: usize = 1 << 24;

/// How to log in to servers: to one, or to all nodes of a cluster.
pub(super) struct ServerLogin {
    login: RedisConnectionInfo,
    target: String,
    name: Arc<ClientName>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<Tls>>,
    /// A line was open once.
    was_connected: AtomicBool,
    /// What issues the user and the password, if they are not in `login`.
    issuer: Option<Issuer>,
    kind: LoginKind,
    _redaction: Option<Redaction>,
}

/// Who is logged in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoginKind {
    Servers,
    /// Their password is an option of its own.
    Sentinels,
}

/// What a server's `CLIENT LIST` calls our connections; nothing if it is empty.
struct ClientName {
    name: String,
    /// The servers, for messages.
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

/// What an attempt to open a line waits for.
#[derive(Debug, Default)]
pub(super) struct OpenStage(AtomicU8);

impl OpenStage {
    const SERVER: u8 = 0;
    #[cfg(feature = "tls")]
    const HANDSHAKE: u8 = 1;
    const CREDENTIALS: u8 = 2;

    fn enter(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }
}

impl ServerLogin {
    /// `target` names the servers in messages, and `client_name` us in their `CLIENT LIST`.
    /// `issuer`: what issues the user and the password, if `login` has none.
    pub(super) fn new(
        login: &RedisConnectionInfo,
        target: &str,
        client_name: String,
        issuer: Option<Issuer>,
    ) -> Self {
        let login = login.clone();
        Self {
            target: target.to_owned(),
            name: Arc::new(ClientName {
                name: client_name,
                target: target.to_owned(),
                is_reported: AtomicBool::new(false),
                events: EventEmitter::default(),
            }),
            #[cfg(feature = "tls")]
            tls: None,
            was_connected: AtomicBool::new(false),
            issuer,
            kind: LoginKind::Servers,
            _redaction: login.password().map(Redaction::of),
            login: login.set_protocol(ProtocolVersion::RESP3),
        }
    }

    /// The same over TLS.
    #[cfg(feature = "tls")]
    pub(super) fn over(self, tls: Arc<Tls>) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }

    /// How a server is written that is no node of a cluster.
    pub(super) fn url_of_one_server(&self) -> String {
        let family = self.family();
        let secure = if self.is_tls() { "s" } else { "" };
        format!("{family}{secure}://host:port")
    }

    /// How a cluster is written.
    pub(super) fn url_of_cluster(&self) -> String {
        let family = self.family();
        let option = if self.is_tls() { "?tls=true" } else { "" };
        format!("{family}-cluster://host:port{option}")
    }

    fn family(&self) -> &'static str {
        if self.target.starts_with("valkey") {
            "valkey"
        } else {
            "redis"
        }
    }

    #[cfg_attr(not(feature = "tls"), allow(clippy::unused_self))]
    fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// The same for sentinels.
    pub(super) fn of_sentinels(self) -> Self {
        Self {
            kind: LoginKind::Sentinels,
            ..self
        }
    }

    pub(super) fn issuer(&self) -> Option<&Issuer> {
        self.issuer.as_ref()
    }

    /// Opens a line to a server. `config`: what becomes of pushes. `stage` shows what it waits for.
    /// Also returns what was issued for the login, if anything was.
    pub(super) async fn open(
        &self,
        address: &ConnectionAddr,
        config: AsyncConnectionConfig,
        stage: &OpenStage,
    ) -> Result<(Line, Option<Arc<Issued>>), BackendError> {
        // Callers bound their own waits: a timeout of the driver's would need the runtime on their
        // threads.
        let config = config
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(DRIVER_QUEUE);
        let Some(issuer) = &self.issuer else {
            let stream = self.connect(address, stage).await?;
            let line = self.log_in(&self.login, stream, config).await?;
            return Ok((line, None));
        };
        // What was issued may be good for long, and be refused all the same: others are asked for
        // once.
        let mut refused: Option<(Arc<Issued>, BackendError)> = None;
        loop {
            // First: while the server is away, nothing is asked for.
            let stream = self.connect(address, stage).await?;
            stage.enter(OpenStage::CREDENTIALS);
            let fresh = issuer.issue(refused.as_ref().map(|(fresh, _)| fresh)).await;
            stage.enter(OpenStage::SERVER);
            let fresh = fresh?;
            let login = self.login.clone();
            let login = login
                .set_username(fresh.credentials.user())
                .set_password(fresh.credentials.password());
            match self.log_in(&login, stream, config.clone()).await {
                Ok(line) => {
                    fresh.note_used();
                    issuer.succeeded();
                    return Ok((line, Some(fresh)));
                }
                Err(error) if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => {
                    fresh.note_used();
                    if refused.is_some() {
                        return Err(issuer.refused(&error));
                    }
                    refused = Some((fresh, error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn log_in(
        &self,
        login: &RedisConnectionInfo,
        stream: Stream,
        config: AsyncConnectionConfig,
    ) -> Result<Line, BackendError> {
        let (activity, failure) = (stream.activity(), stream.failure());
        let (requests, driver) = MultiplexedConnection::new_with_config(login, stream, config)
            .await
            .map_err(|error| self.login_error(login, &error, failure.get()))?;
        self.was_connected.store(true, Ordering::Relaxed);
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

    async fn connect(
        &self,
        address: &ConnectionAddr,
        stage: &OpenStage,
    ) -> Result<Stream, BackendError> {
        stage.enter(OpenStage::SERVER);
        let socket = Socket::open(address)
            .await
            .map_err(BackendError::connection_lost)?;
        #[cfg(feature = "tls")]
        if let (Some(tls), ConnectionAddr::Tcp(host, _)) = (&self.tls, address) {
            stage.enter(OpenStage::HANDSHAKE);
            let stream = Stream::secure(socket, host, tls).await;
            stage.enter(OpenStage::SERVER);
            return stream.map_err(|failure| self.tls_error(tls, &failure));
        }
        Ok(Stream::plain(socket))
    }

    /// The URL to write if the server is a sentinel, which watches over these services.
    pub(super) fn through_sentinel(&self, services: &[String]) -> String {
        let (scheme, rest) = self.target.split_once("://").unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        let service = services.first().map_or("service", String::as_str);
        let is_secure = ["rediss", "valkeys"].contains(&scheme);
        let query = if is_secure { "?tls=true" } else { "" };
        format!("redis-sentinel://{host}/{service}{query}")
    }

    /// The error for an attempt that was at `stage` when `limit` was over.
    #[cfg_attr(not(feature = "tls"), allow(clippy::unused_self))]
    pub(super) fn unanswered(&self, stage: &OpenStage, limit: Duration) -> BackendError {
        BackendError::connection_lost(match stage.0.load(Ordering::Relaxed) {
            #[cfg(feature = "tls")]
            OpenStage::HANDSHAKE => format!(
                "no answer to the TLS handshake within {limit:?}: {}",
                self.without_tls()
            ),
            OpenStage::CREDENTIALS => {
                format!("the credentials callback has not returned within {limit:?}, and goes on")
            }
            _ => format!("no answer to a connection attempt within {limit:?}"),
        })
    }

    fn login_error(
        &self,
        login: &RedisConnectionInfo,
        error: &RedisError,
        failure: Option<&StreamFailure>,
    ) -> BackendError {
        if error.code() == Some("NOAUTH")
            && login.password().is_none()
            && self.kind == LoginKind::Sentinels
        {
            return BackendError::rejected(
                "the sentinel asks for a password (NOAUTH), and none was given: say it by \
                 `sentinel_password`; that of the servers is another one",
            );
        }
        if error.code() == Some("NOAUTH") && login.password().is_none() {
            return BackendError::rejected(format_args!(
                "the server asks for a password (NOAUTH), and none was given: write {}",
                with_password(&self.target, login.username())
            ));
        }
        if error.code().is_none()
            && let Some(explained) = failure.and_then(|failure| self.explained(failure))
        {
            return explained;
        }
        let error = reply::connect_error(error);
        if login.db() != 0 && reply::is_unknown_command(&error) {
            return BackendError::rejected(format_args!(
                "the server has no databases ({error}); if it is a sentinel, write {}",
                self.through_sentinel(&[])
            ));
        }
        error
    }

    /// The error for a login that failed with the stream.
    fn explained(&self, failure: &StreamFailure) -> Option<BackendError> {
        if matches!(failure, StreamFailure::ClosedUnanswered)
            && self.was_connected.load(Ordering::Relaxed)
        {
            // The options were right before: it is the server that ends.
            return None;
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return match failure {
                StreamFailure::Tls(failure) => Some(self.tls_error(tls, failure)),
                StreamFailure::ClosedUnanswered if !tls.has_certificate() => {
                    Some(BackendError::connection_lost(
                        "the server closed the connection instead of answering the login: if it \
                         asks for a certificate, name one by `tls_cert` and `tls_key`",
                    ))
                }
                StreamFailure::ClosedUnanswered | StreamFailure::AnsweredInTls => None,
            };
        }
        let with_tls = with_tls(&self.target)?;
        let what = match failure {
            StreamFailure::AnsweredInTls => {
                format!("the server speaks TLS at this port: write {with_tls}")
            }
            StreamFailure::ClosedUnanswered => format!(
                "the server closed the connection instead of answering the login: if it speaks \
                 TLS at this port, write {with_tls}"
            ),
            #[cfg(feature = "tls")]
            StreamFailure::Tls(_) => return None,
        };
        Some(BackendError::connection_lost(what))
    }

    /// A refusal is for good if there was no connection before. Later it may be that the
    /// certificates are being replaced.
    #[cfg(feature = "tls")]
    fn tls_error(&self, tls: &Tls, failure: &TlsFailure) -> BackendError {
        let mut what = match failure.kind {
            TlsFailureKind::RefusedHere => {
                format!("the certificate of the server is refused: {failure}")
            }
            TlsFailureKind::RefusedThere if tls.has_certificate() => {
                format!("the server refuses the TLS connection: {failure}")
            }
            TlsFailureKind::RefusedThere => format!(
                "the server refuses the TLS connection: {failure}; if it asks for a certificate, \
                 name one by `tls_cert` and `tls_key`"
            ),
            TlsFailureKind::NoTls => {
                format!(
                    "the server answers, but not in TLS: {}: {failure}",
                    self.without_tls()
                )
            }
            TlsFailureKind::Lost => format!("the TLS connection failed: {failure}"),
        };
        if let Some(problem) = tls.problem() {
            what = format!("{what}; {problem}");
        }
        let is_refusal = matches!(
            failure.kind,
            TlsFailureKind::RefusedHere | TlsFailureKind::RefusedThere
        );
        let kind = if is_refusal && !self.was_connected.load(Ordering::Relaxed) {
            BackendErrorKind::Rejected
        } else {
            BackendErrorKind::ConnectionLost
        };
        BackendError::new(kind, what)
    }

    /// What to write if the server has no TLS.
    #[cfg(feature = "tls")]
    fn without_tls(&self) -> String {
        let target = &self.target;
        if lists_hosts(target) {
            return format!("if there is no TLS at this port, write {target} without `tls=true`");
        }
        let plain = target.replacen("s://", "://", 1);
        format!("if the server has no TLS at this port, write {plain}")
    }

    /// Something that is wrong although lines can be opened, and was not reported yet.
    #[cfg_attr(not(feature = "tls"), allow(clippy::unused_self))]
    pub(super) fn new_problem(&self) -> Option<BackendError> {
        #[cfg(feature = "tls")]
        if let Some(problem) = self.tls.as_ref().and_then(|tls| tls.new_problem()) {
            return Some(BackendError::unavailable(problem));
        }
        None
    }
}

/// Whether the target is one whose URL lists hosts, so that its scheme does not say whether there
/// is TLS.
fn lists_hosts(target: &str) -> bool {
    let scheme = target.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.ends_with("-sentinel") || scheme.ends_with("-cluster"))
}

/// The URL of this target with TLS, if there is one.
fn with_tls(target: &str) -> Option<String> {
    match target.split_once("://")? {
        ("redis" | "dragonfly", host) => Some(format!("rediss://{host}")),
        ("valkey", host) => Some(format!("valkeys://{host}")),
        _ if lists_hosts(target) => Some(format!("{target}?tls=true")),
        _ => None,
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

    /// What ends the connection, and with it all that is under way.
    pub(super) fn driver(&self) -> AbortHandle {
        self.driver.abort_handle()
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
