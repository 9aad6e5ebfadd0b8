//! Redis, Valkey and Dragonfly: a multiplexed RESP3 connection to each server, and another one for
//! large values.
//!
//! - `cluster/`: several servers
//! - `socket.rs`: the bytes; `stream.rs`: the same, or TLS over them; `tls.rs`: its certificates
//! - `credentials.rs`, `expiring.rs`: logins that expire
//! - `line.rs`: the login, and requests over the stream
//! - `opening.rs`: what is asked before anything else
//! - `commit.rs`, `calls.rs`, `commit.lua`: attempts
//! - `tracking.rs`: notifications
//! - `reply.rs`: what servers answer
//! - `resolver.rs`: addresses of hosts
//! - `sentinel/`: the primary of a service that Sentinel watches over

mod calls;
pub(super) mod cluster;
mod commit;
mod credentials;
mod expiring;
mod line;
mod opening;
mod reply;
mod resolver;
pub(super) mod sentinel;
mod socket;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod tracking;

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, Pipeline};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::watch;

use super::{
    Backend, Expiry, Invalidation, KeyRead, LARGE_VALUE, Page, ReadKind, Reply, Session, SizeHint,
    WithExpiry,
};
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
        large_keys: Arc::default(),
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
    large_keys: Arc<LargeKeys>,
    apart: Arc<ApartLine>,
}

/// The keys whose values were too large when they were last read: of them a read asks for one byte.
#[derive(Debug, Default)]
struct LargeKeys(Mutex<HashSet<Arc<str>>>);

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

/// Whether the server is to track the key of this read. What another node has sent here is never
/// tracked, whatever comes first of CACHING and ASKING: each holds for the next command.
fn is_caching(read: &KeyRead) -> bool {
    read.kind == ReadKind::Tracked && !read.asking
}

/// What the error of a key means at this server.
async fn explained(error: BackendError, node: Option<&ClusterNode>) -> BackendError {
    match node {
        Some(node) => node.explained(error).await,
        None => cluster::without_redirect(error),
    }
}

impl LargeKeys {
    /// The answer to a read, from those to its commands. `was_large`: as for
    /// [`value`](Self::value).
    fn answer(
        &self,
        read: &KeyRead,
        answers: &mut impl Iterator<Item = Value>,
        was_large: bool,
    ) -> Result<WithExpiry, BackendError> {
        let is_tracked = read.kind == ReadKind::Tracked;
        let mut next = |asking| next_answer(answers, asking);
        // All of them are taken, also if one is an error.
        let exists = (read.size == SizeHint::Unknown && !is_tracked).then(|| next(read.asking));
        let caching = is_caching(read).then(|| next(false));
        let value = next(read.asking);
        let left = is_tracked.then(|| next(read.asking));

        if let Some(caching) = caching {
            tracking::caching(caching?)?;
        }
        let (exists, left) = (exists.transpose()?, left.transpose()?);
        let exists = || match &left {
            Some(left) => *left != Value::Int(reply::NO_KEY),
            None => exists != Some(Value::Int(0)),
        };
        let stored = self.stored(read, value?, was_large, exists)?;
        let expiry = left.as_ref().map_or(Expiry::Tracked, reply::expiry);
        Ok((stored.map(Document::of), expiry))
    }

    /// Asks for so much of a value that its answer says whether it is large; and for all of it, if
    /// it was not large before. Returns whether it was.
    fn add_bounded_read(&self, commands: &mut Pipeline, key: &Arc<str>) -> bool {
        let was_large = lock(&self.0).contains(key);
        let first = if was_large { LARGE_VALUE } else { 0 };
        commands
            .cmd("GETRANGE")
            .arg(&**key)
            .arg(first)
            .arg(LARGE_VALUE);
        was_large
    }

    /// The value in the answer to a read. `exists`, `was_large`: as for [`value`](Self::value).
    fn stored(
        &self,
        read: &KeyRead,
        answer: Value,
        was_large: bool,
        exists: impl FnOnce() -> bool,
    ) -> Result<Option<Bytes>, BackendError> {
        match read.size {
            SizeHint::Small => reply::stored(answer),
            SizeHint::Unknown => self.value(&read.key, answer, exists(), was_large),
        }
    }

    /// The value in the answer to a bounded read. `exists`: whether there was one at about the same
    /// time.
    /// `was_large`: as it was known when it was asked.
    ///
    /// # Errors
    ///
    /// `TooLarge` also if nothing else is certain: if it is not large any more, or may be empty.
    fn value(
        &self,
        key: &Arc<str>,
        answer: Value,
        exists: bool,
        was_large: bool,
    ) -> Result<Option<Bytes>, BackendError> {
        let stored = reply::stored(answer)?.unwrap_or_default();
        let mut large_keys = lock(&self.0);
        let is_large = stored.len() > LARGE_VALUE || was_large && !stored.is_empty();
        if is_large {
            large_keys.insert(Arc::clone(key));
        } else {
            large_keys.remove(key);
        }
        if is_large || was_large || stored.is_empty() && exists {
            let what = "the value is larger than 1 MiB, and is read apart";
            return Err(BackendError::new(BackendErrorKind::TooLarge, what));
        }
        Ok(Some(stored).filter(|stored| !stored.is_empty()))
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
    /// Of a small value it is GET. One that has become large since comes over this connection once.
    fn read(&self, reads: &[KeyRead]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        let mut commands = Pipeline::with_capacity(3 * reads.len());
        let mut were_large = Vec::with_capacity(reads.len());
        for read in reads {
            let is_tracked = read.kind == ReadKind::Tracked;
            if read.size == SizeHint::Unknown && !is_tracked {
                add_asking(&mut commands, read.asking);
                commands.cmd("EXISTS").arg(&*read.key);
            }
            if is_caching(read) {
                tracking::add_caching(&mut commands);
            }
            // Directly behind it: it is the next command that is tracked, and no other.
            add_asking(&mut commands, read.asking);
            were_large.push(match read.size {
                SizeHint::Small => {
                    commands.cmd("GET").arg(&*read.key);
                    false
                }
                SizeHint::Unknown => self.large_keys.add_bounded_read(&mut commands, &read.key),
            });
            // Expiry is not tracked: the server notifies us only when it happens to notice it.
            if is_tracked {
                add_asking(&mut commands, read.asking);
                commands.cmd("PTTL").arg(&*read.key);
            }
        }
        let (connection, reads) = (self.line.requests.clone(), reads.to_vec());
        let (large_keys, node) = (Arc::clone(&self.large_keys), self.node.clone());
        Box::pin(async move {
            let mut answers = ask(connection, commands).await?.into_iter();
            let mut found = Vec::with_capacity(reads.len());
            for (read, was_large) in reads.iter().zip(were_large) {
                match large_keys.answer(read, &mut answers, was_large) {
                    Err(error) if error.kind == BackendErrorKind::NotTracked => return Err(error),
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
                committer.answers(calls.plan, ask(connection, calls.commands).await?);
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

    /// Two reads that ask for one byte of a large value are under way. It is small when the first
    /// is answered, and large again when the second is.
    #[test]
    fn one_byte_of_a_large_value_is_never_taken_for_the_value() {
        let (large_keys, key) = (LargeKeys::default(), Arc::from("k"));
        let mut commands = Pipeline::new();
        let mut ask = || large_keys.add_bounded_read(&mut commands, &key);
        let answer = |text: &[u8], was_large| {
            let answer = Value::BulkString(text.to_vec());
            large_keys.value(&key, answer, true, was_large)
        };
        let was_large = ask();
        let read = answer(&vec![b'x'; LARGE_VALUE + 1], was_large);
        assert_eq!(read.unwrap_err().kind, BackendErrorKind::TooLarge);

        let [first, second] = [ask(), ask()];
        let read = answer(b"", first);
        assert_eq!(read.unwrap_err().kind, BackendErrorKind::TooLarge);
        let read = answer(b"x", second);
        assert_eq!(read.unwrap_err().kind, BackendErrorKind::TooLarge);

        assert!(ask(), "it is large again");
        assert_eq!(
            answer(b"", true).unwrap_err().kind,
            BackendErrorKind::TooLarge
        );
        let was_large = ask();
        assert_eq!(answer(b"y", was_large).unwrap(), Some(Bytes::from("y")));
    }
}
