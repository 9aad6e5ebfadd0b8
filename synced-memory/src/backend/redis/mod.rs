//! Redis, Valkey and Dragonfly: a multiplexed RESP3 connection to each server, and another one for
//! large values.
//!
//! - `cluster/`: several servers
//! - `socket.rs`: the bytes; `stream.rs`: the same, or TLS over them; `tls.rs`: its certificates
//! - `credentials.rs`, `expiring.rs`: logins that expire
//! - `line.rs`: the login, and requests over the stream
//! - `opening.rs`: what is asked before anything else
//! - `commit.rs`, `calls.rs`, `commit.lua`, `edit.lua`: attempts
//! - `reads.rs`, `known.rs`, `read.lua`: reads; `log.lua`: what has changed since
//! - `script.rs`: the scripts, put together
//! - `tracking.rs`: notifications
//! - `reply.rs`: what servers answer
//! - `resolver.rs`: addresses of hosts
//! - `sentinel/`: the primary of a service that Sentinel watches over

mod calls;
pub(super) mod cluster;
mod commit;
mod credentials;
mod expiring;
mod known;
mod line;
mod opening;
mod reads;
mod reply;
mod resolver;
mod script;
pub(super) mod sentinel;
mod socket;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod tracking;

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, Pipeline};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::watch;

use super::{Backend, Invalidation, KeyRead, Page, Reply, Session, WithExpiry};
use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::Node;
use crate::backend::sidecar;
use crate::base::credentials::CredentialsCallback;
use crate::base::lock::lock;
use crate::base::settings::Settings;
use crate::value::document::Document;
use cluster::ClusterNode;
use commit::Committer;
use credentials::{Issued, Issuer};
use expiring::ExpiringSession;
use line::{Line, OpenStage, ServerLogin};
use reads::{ReadCommands, Reader};
use sentinel::Following;
#[cfg(feature = "tls")]
use {
    crate::base::error::{Error, ErrorKind},
    tls::Tls,
};

/// The backend of every `redis://` URL.
pub(crate) struct RedisBackend {
    address: ConnectionAddr,
    login: Arc<ServerLogin>,
    /// What the attempt to connect waits for that is under way.
    stage: Arc<OpenStage>,
    target: String,
    options: SessionOptions,
}

/// What holds for all sessions of a backend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionOptions {
    /// After this time without a byte the connection for large values counts as lost.
    pub(crate) timeout: Duration,
    pub(crate) sidecar_ttl: Duration,
    /// How many replicas a write has to be on.
    pub(crate) replicas: u16,
}

impl SessionOptions {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            timeout: settings.timeout,
            sidecar_ttl: settings.tombstone_ttl,
            replicas: settings.replicas,
        }
    }
}

impl RedisBackend {
    /// The server that `server` describes; `target` names it in messages, and `client_name` names
    /// us in its `CLIENT LIST`, if it is not empty. `credentials` issue the login, if there are
    /// any.
    pub(crate) fn new(
        server: &ConnectionInfo,
        target: String,
        client_name: String,
        credentials: Option<CredentialsCallback>,
        options: SessionOptions,
    ) -> Self {
        let issuer = credentials.map(Issuer::new);
        let login = ServerLogin::new(server.redis_settings(), &target, client_name, issuer);
        Self {
            address: server.addr().clone(),
            login: Arc::new(login),
            stage: Arc::default(),
            target,
            options,
        }
    }

    /// The same over TLS: by `config`, or else as the options say.
    ///
    /// # Errors
    ///
    /// `Config` for certificates that cannot be used, and for a server without a host.
    #[cfg(feature = "tls")]
    pub(crate) fn over_tls(
        self,
        config: Option<Arc<rustls::ClientConfig>>,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let ConnectionAddr::Tcp(host, _) = &self.address else {
            let what = "TLS needs a host, as in rediss://host:port";
            return Err(Error::new(ErrorKind::Config, what));
        };
        let tls = match config {
            Some(config) => Tls::given(config, settings)?,
            None => Tls::from_files(settings)?,
        };
        tls.check_host(host)?;
        let login = Arc::into_inner(self.login).expect("nobody else has it yet");
        Ok(Self {
            login: Arc::new(login.over(Arc::new(tls))),
            ..self
        })
    }
}

impl std::fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBackend")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Backend for RedisBackend {
    fn connect(&self, _node: &Node) -> Reply<Box<dyn Session>> {
        let (login, stage) = (Arc::clone(&self.login), Arc::clone(&self.stage));
        let address = self.address.clone();
        let options = self.options;
        Box::pin(async move {
            let opened = open_session(address, Arc::clone(&login), &stage, options, None);
            let (session, issued) = opened.await?;
            Ok(in_session(session, login, issued))
        })
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn unanswered(&self, limit: Duration) -> BackendError {
        self.login.unanswered(&self.stage, limit)
    }

    fn new_problem(&self) -> Option<BackendError> {
        self.login.new_problem()
    }
}

/// Connects to the server at `address`, which is `node` if it is one of a cluster. Also returns
/// what was issued for the login, if anything was.
async fn open_session(
    address: ConnectionAddr,
    login: Arc<ServerLogin>,
    stage: &OpenStage,
    options: SessionOptions,
    node: Option<ClusterNode>,
) -> Result<(RedisSession, Option<Arc<Issued>>), BackendError> {
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
    let config = AsyncConnectionConfig::new().set_push_sender(on_push);
    let (line, issued) = login.open(&address, config, stage).await?;
    let committer = Committer::new(options, node.is_some());
    let is_alone = node.is_none().then_some(&*login);
    opening::prepare(&line.requests, &committer, is_alone).await?;
    let session = RedisSession {
        line,
        ended,
        following: None,
        node,
        committer: Arc::new(committer),
        changes,
        reader: Arc::default(),
        apart: Arc::new(ApartLine {
            address,
            login,
            timeout: options.timeout,
            open: tokio::sync::Mutex::default(),
            requests: Mutex::default(),
        }),
    };
    Ok((session, issued))
}

/// The session as it is used: one whose login was issued logs in anew before it expires.
fn in_session(
    session: RedisSession,
    login: Arc<ServerLogin>,
    issued: Option<Arc<Issued>>,
) -> Box<dyn Session> {
    match issued {
        Some(issued) => Box::new(ExpiringSession::new(session, login, issued)),
        None => Box::new(session),
    }
}

struct RedisSession {
    line: Line,
    /// If another server may become the primary in place of this one.
    following: Option<Following>,
    ended: watch::Receiver<bool>,
    /// `None` if the server is to have all keys.
    node: Option<ClusterNode>,
    committer: Arc<Committer>,
    changes: tracking::PushReceiver,
    reader: Arc<Reader>,
    apart: Arc<ApartLine>,
}

/// The second line, over which large values come. It is opened for the first of them.
struct ApartLine {
    address: ConnectionAddr,
    login: Arc<ServerLogin>,
    timeout: Duration,
    open: tokio::sync::Mutex<Option<Line>>,
    /// Those of the open line, also while a read uses it; `None` if the line is not to be used.
    requests: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for RedisSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSession").finish_non_exhaustive()
    }
}

/// What the error of a key means at this server.
async fn explained(error: BackendError, node: Option<&ClusterNode>) -> BackendError {
    match node {
        Some(node) => node.explained(error).await,
        None => cluster::without_redirect(error),
    }
}

impl ApartLine {
    async fn open(&self) -> Result<Line, BackendError> {
        let stage = OpenStage::default();
        let config = AsyncConnectionConfig::new();
        let line = self.login.open(&self.address, config, &stage);
        let (line, _) = tokio::time::timeout(self.timeout, line)
            .await
            .unwrap_or_else(|_| Err(self.login.unanswered(&stage, self.timeout)))?;
        *lock(&self.requests) = Some(line.requests.clone());
        Ok(line)
    }

    /// Logs the line in anew, if there is one. If that fails, the next read opens another line.
    async fn log_in(&self, issued: &Issued) {
        let Some(requests) = lock(&self.requests).clone() else {
            return;
        };
        if ask_one(requests, expiring::auth(issued)).await.is_err() {
            lock(&self.requests).take();
        }
    }

    fn is_usable(&self, line: &Line) -> bool {
        line.is_open() && lock(&self.requests).is_some()
    }

    /// On the I/O thread.
    async fn read(&self, key: &str, asking: bool) -> Result<WithExpiry, BackendError> {
        let mut open = self.open.lock().await;
        let line = match open.take() {
            Some(line) if self.is_usable(&line) => line,
            _ => self.open().await?,
        };

        let mut commands = Pipeline::with_capacity(4);
        for command in ["GET", "PTTL"] {
            add_asking(&mut commands, asking);
            commands.cmd(command).arg(key);
        }
        let request = ask(line.requests.clone(), commands);
        let mut answers = line.unless_silent(self.timeout, request).await?.into_iter();
        *open = Some(line);
        let mut next = || next_answer(&mut answers, asking);
        let stored = reply::stored(next()?)?;
        Ok((stored.map(Document::of), reply::expiry(&next()?)))
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

/// Lets a node of a cluster answer the next command although it does not have the slot yet. It
/// holds for one command, so both go out in one write.
fn add_asking(commands: &mut Pipeline, asking: bool) {
    if asking {
        commands.cmd("ASKING");
    }
}

/// The answer to a command that may be behind ASKING.
fn next_answer(
    answers: &mut impl Iterator<Item = Value>,
    asking: bool,
) -> Result<Value, BackendError> {
    let allowed = asking.then(|| answers.next()).flatten();
    match (answers.next().unwrap_or_default(), allowed) {
        (Value::ServerError(_), Some(Value::ServerError(refusal))) => {
            Err(reply::asking_refused(&refusal))
        }
        (answer, _) => Ok(answer),
    }
}

/// Sends one command.
async fn ask_one(connection: MultiplexedConnection, command: Cmd) -> Result<Value, BackendError> {
    let mut commands = Pipeline::new();
    commands.add_command(command);
    let answer = ask(connection, commands).await?.pop().unwrap_or_default();
    reply::checked(answer)
}

impl Session for RedisSession {
    fn read(&self, reads: &[KeyRead]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        let ReadCommands {
            commands,
            were_large,
        } = self.reader.commands(reads);
        let (connection, reads) = (self.line.requests.clone(), reads.to_vec());
        let (reader, node) = (Arc::clone(&self.reader), self.node.clone());
        Box::pin(async move {
            let mut answers = ask(connection, commands).await?.into_iter();
            let mut found = Vec::with_capacity(reads.len());
            for (read, was_large) in reads.iter().zip(were_large) {
                match reader.answer(read, &mut answers, was_large) {
                    Err(error) if error.is_of_request() => return Err(error),
                    Err(error) => found.push(Err(explained(error, node.as_ref()).await)),
                    answer => found.push(answer),
                }
            }
            Ok(found)
        })
    }

    fn read_apart(&self, key: &Arc<str>, asking: bool) -> Reply<WithExpiry> {
        let (apart, key) = (Arc::clone(&self.apart), Arc::clone(key));
        let node = self.node.clone();
        Box::pin(async move {
            match apart.read(&key, asking).await {
                // It says nothing of the connection of this session.
                Err(error) if error.kind == BackendErrorKind::ConnectionLost => {
                    Err(BackendError::new(
                        BackendErrorKind::Unavailable,
                        format_args!("the connection for large values: {error}"),
                    ))
                }
                Err(error) => Err(explained(error, node.as_ref()).await),
                answer => answer,
            }
        })
    }

    fn commit(&self, batch: &[Attempt], now: u64) -> Reply<Vec<Result<Outcome, BackendError>>> {
        let calls = self.committer.calls(batch, now);
        let (connection, committer) = (self.line.requests.clone(), Arc::clone(&self.committer));
        let node = self.node.clone();
        Box::pin(async move {
            let mut outcomes =
                committer.answers(calls.planned, ask(connection, calls.commands).await?);
            for outcome in &mut outcomes {
                if let Err(error) = outcome {
                    *error = explained(error.clone(), node.as_ref()).await;
                }
            }
            Ok(outcomes)
        })
    }

    fn names(&self, prefix: &str, cursor: Option<String>) -> Reply<Page> {
        let mut commands = Pipeline::with_capacity(2);
        let scan = cursor.as_deref().map(Scan::of_cursor).unwrap_or_default();
        commands
            .cmd("SCAN")
            .arg(scan.cursor)
            .arg("MATCH")
            .arg(format!("{}*", escaped(prefix)))
            .arg("COUNT")
            .arg(SCANNED);
        if scan.left.is_none() {
            commands.cmd("DBSIZE");
        }
        let (connection, prefix) = (self.line.requests.clone(), prefix.to_owned());
        let left = scan.left;
        Box::pin(async move {
            let mut answers = ask(connection, commands).await?.into_iter();
            let page = reply::checked(answers.next().unwrap_or_default())?;
            let (next, keys) = reply::page(page)?;
            let left = match left {
                Some(left) => left,
                None => Scan::longest(&answers.next().unwrap_or_default()),
            };
            let left = left.checked_sub(1 + keys.len() / SCANNED).ok_or_else(|| {
                BackendError::rejected("SCAN does not end: it has listed far more than there is")
            })?;
            let next = Some(next).filter(|next| next != "0");
            let mut page = Page {
                next: next.map(|next| format!("{next} {left}")),
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
        let connection = self.line.requests.clone();
        Box::pin(async move { ask(connection, forgets).await.map(drop) })
    }

    fn now(&self) -> Reply<u64> {
        let (connection, login) = (self.line.requests.clone(), Arc::clone(&self.apart.login));
        Box::pin(async move {
            match ask_one(connection.clone(), redis::cmd("TIME")).await {
                Ok(time) => reply::time(time),
                Err(error) if reply::is_unknown_command(&error) => {
                    let role = ask_one(connection, redis::cmd("ROLE")).await;
                    let services = role.ok().and_then(sentinel::watched_services);
                    Err(services.map_or(error, |services| {
                        let url = login.through_sentinel(&services);
                        BackendError::rejected(format_args!("it is a sentinel: write {url}"))
                    }))
                }
                Err(error) => Err(error),
            }
        })
    }

    fn eviction_policy(&self) -> Reply<Option<String>> {
        let connection = self.line.requests.clone();
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

    fn track(&self) -> Reply<()> {
        Box::pin(tracking::track(self.line.requests.clone()))
    }

    fn invalidations(&self) -> Reply<Invalidation> {
        Box::pin(self.changes.clone().next())
    }

    fn idle(&self) -> Duration {
        self.line.idle()
    }

    fn ended(&self) -> Reply<()> {
        let (mut ended, following) = (self.ended.clone(), self.following.clone());
        let driver = self.line.driver();
        let replaced = async move {
            match following {
                Some(following) => following.replaced().await,
                None => pending().await,
            }
        };
        Box::pin(async move {
            tokio::select! {
                // If the sender was dropped with the driver's task, the connection has ended, too.
                _ = ended.wait_for(|ended| *ended) => Ok(()),
                error = replaced => {
                    // Whoever still waits for an answer must not get it from the old primary.
                    driver.abort();
                    Err(error)
                }
            }
        })
    }
}

/// About how many keys the server looks at for one page.
const SCANNED: usize = 1_000;

/// How far an iteration with SCAN has got. It ends whatever the server answers (rule 9).
struct Scan<'a> {
    /// The server's cursor.
    cursor: &'a str,
    /// How many more pages it may have; `None` before the first.
    left: Option<usize>,
}

impl Default for Scan<'_> {
    fn default() -> Self {
        Self {
            cursor: "0",
            left: None,
        }
    }
}

impl<'a> Scan<'a> {
    /// Reads the cursor of a page: the server's, and how many more pages there may be.
    fn of_cursor(cursor: &'a str) -> Self {
        let (cursor, left) = cursor.split_once(' ').unwrap_or((cursor, "0"));
        Self {
            cursor,
            left: Some(left.parse().unwrap_or(0)),
        }
    }

    /// How many pages an iteration may have, given the answer to DBSIZE: ten times as many as the
    /// keys need, and as many as an emptied table of a hundred million keys needs, which a server
    /// that is saving does not shrink.
    fn longest(keys: &Value) -> usize {
        const OF_EMPTY_TABLE: usize = 10_000;
        /// If the user has no right to ask.
        const OF_UNKNOWN: usize = 1_000_000;
        match keys {
            Value::Int(keys) => {
                OF_EMPTY_TABLE + usize::try_from(*keys).unwrap_or(0) / (SCANNED / 10)
            }
            _ => OF_UNKNOWN,
        }
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
    use super::*;

    #[test]
    fn a_pattern_matches_its_prefix_literally() {
        assert_eq!(escaped("a*b?[c]\\"), "a\\*b\\?\\[c\\]\\\\");
    }
}
