//! The primary of a service that Sentinel watches over: whoever it is at each connect.
//!
//! - `watch.rs`: the sentinels, and what they say
//! - `answer.rs`: what one of them answers
//! - `choice.rs`: which primary counts

mod answer;
mod choice;
mod watch;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{ConnectionAddr, RedisConnectionInfo, Value};

use self::choice::NamedPrimary;
use self::watch::{NoPrimary, Sentinels};
use super::credentials::Issuer;
use super::line::{OpenStage, ServerLogin};
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{RedisSession, SessionOptions, ask_one, in_session, open_session};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::Node;
use crate::backend::{Backend, Reply, Session};
use crate::base::address_map::AddressMap;
use crate::base::credentials::CredentialsCallback;
use crate::base::error::Result;
use crate::base::lock::lock;
use crate::base::settings::Settings;

/// A service, and the sentinels that know where it is.
pub(crate) struct SentinelTarget {
    pub(crate) sentinels: Vec<Node>,
    pub(crate) service: String,
    /// For the servers.
    pub(crate) login: RedisConnectionInfo,
    /// The URL for messages, without a password.
    pub(crate) target: String,
    /// What issues the login, if none is in `login`.
    pub(crate) credentials: Option<CredentialsCallback>,
    /// From what sentinels say to where that is.
    pub(crate) addresses: Option<AddressMap>,
    /// A configuration of the user's, instead of the options.
    #[cfg(feature = "tls")]
    pub(crate) tls_config: Option<Arc<rustls::ClientConfig>>,
}

/// The backend of `redis-sentinel://`.
pub(crate) struct SentinelBackend {
    state: Arc<SentinelState>,
    target: String,
    identity: String,
}

struct SentinelState {
    sentinels: Arc<Sentinels>,
    login: Arc<ServerLogin>,
    stage: Arc<OpenStage>,
    timeout: Duration,
    options: SessionOptions,
    /// The primary that was last connected to, or was tried.
    last: Mutex<Option<NamedPrimary>>,
    /// A sentinel has named a primary once.
    was_resolved: AtomicBool,
    /// The silence of all sentinels was reported, since any of them answered.
    is_silence_reported: AtomicBool,
}

/// What a session needs to know when another server becomes the primary.
#[derive(Clone)]
pub(super) struct Following {
    sentinels: Arc<Sentinels>,
    primary: NamedPrimary,
}

impl Following {
    /// Ready when another server is the primary.
    pub(super) async fn replaced(self) -> BackendError {
        let other = self.sentinels.replaced(Some(&self.primary)).await;
        BackendError::new(
            BackendErrorKind::Replaced,
            format_args!(
                "Sentinel has made {} the primary, in place of {}",
                other.node, self.primary.node
            ),
        )
    }
}

impl SentinelBackend {
    /// # Errors
    ///
    /// `Config` for certificates of TLS that cannot be used.
    #[cfg_attr(
        not(feature = "tls"),
        allow(clippy::unnecessary_wraps, reason = "only TLS reads files here")
    )]
    pub(crate) fn new(
        target: SentinelTarget,
        client_name: &str,
        settings: &Settings,
    ) -> Result<Self> {
        let issuer = target.credentials.map(Issuer::new);
        let login = |login: &RedisConnectionInfo, issuer| {
            ServerLogin::new(login, &target.target, client_name.to_owned(), issuer)
        };
        let mut to_sentinels = RedisConnectionInfo::default();
        if let Some(user) = &settings.sentinel_user {
            to_sentinels = to_sentinels.set_username(user);
        }
        if let Some(password) = &settings.sentinel_password {
            to_sentinels = to_sentinels.set_password(password.text());
        }
        let sentinels = login(&to_sentinels, None).of_sentinels();
        let servers = login(&target.login, issuer);
        #[cfg(feature = "tls")]
        let (sentinels, servers) = if settings.tls {
            let tls = Arc::new(match target.tls_config {
                Some(config) => Tls::given(config, settings)?,
                None => Tls::from_files(settings)?,
            });
            for sentinel in &target.sentinels {
                tls.check_host(&sentinel.host)?;
            }
            (sentinels.over(Arc::clone(&tls)), servers.over(tls))
        } else {
            (sentinels, servers)
        };
        let name = settings.name.as_ref().unwrap_or(&target.service);
        let identity = format!("redis-sentinel:{name}/{}", target.login.db());
        Ok(Self {
            state: Arc::new(SentinelState {
                sentinels: Arc::new(Sentinels::new(
                    target.sentinels,
                    target.service,
                    sentinels,
                    target.addresses,
                    settings.timeout,
                )),
                login: Arc::new(servers),
                stage: Arc::default(),
                timeout: settings.timeout,
                options: SessionOptions::of(settings),
                last: Mutex::default(),
                was_resolved: AtomicBool::new(false),
                is_silence_reported: AtomicBool::new(false),
            }),
            target: target.target,
            identity,
        })
    }
}

impl Drop for SentinelBackend {
    fn drop(&mut self) {
        self.state.sentinels.end();
    }
}

impl fmt::Debug for SentinelBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentinelBackend")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Backend for SentinelBackend {
    fn connect(&self, _node: &Node) -> Reply<Box<dyn Session>> {
        let state = Arc::clone(&self.state);
        Box::pin(async move { state.connect().await })
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn unanswered(&self, limit: Duration) -> BackendError {
        let error = self.state.login.unanswered(&self.state.stage, limit);
        match &*lock(&self.state.last) {
            Some(primary) => at(&primary.node, &error),
            None => error,
        }
    }

    fn moves(&self) -> Reply<()> {
        let state = Arc::clone(&self.state);
        let last = lock(&state.last).clone();
        Box::pin(async move {
            state.sentinels.replaced(last.as_ref()).await;
            Ok(())
        })
    }

    fn new_problem(&self) -> Option<BackendError> {
        let state = &self.state;
        state
            .new_silence()
            .or_else(|| state.login.new_problem())
            .or_else(|| state.sentinels.login().new_problem())
    }
}

impl SentinelState {
    async fn connect(&self) -> Result<Box<dyn Session>, BackendError> {
        let last = lock(&self.last).clone();
        // Half of the time is left for the server, should no sentinel answer.
        let resolved = self.sentinels.resolve(last.as_ref(), self.timeout / 2);
        let (primary, silence) = match (resolved.await, last) {
            (Ok(primary), _) => (primary, None),
            (Err(no_primary), Some(last)) if !no_primary.is_unknown => {
                (last, Some(no_primary.text))
            }
            (Err(no_primary), _) => return Err(self.unresolved(&no_primary)),
        };
        *lock(&self.last) = Some(primary.clone());
        self.was_resolved.store(true, Ordering::Relaxed);
        let session = self.connect_to(primary).await;
        match silence {
            None => session,
            Some(silence) => {
                self.is_silence_reported.store(false, Ordering::Relaxed);
                session.map_err(|error| {
                    BackendError::new(
                        error.kind,
                        format_args!(
                            "no sentinel answers ({silence}), and neither does the last known \
                             primary: {error}"
                        ),
                    )
                })
            }
        }
    }

    async fn connect_to(&self, primary: NamedPrimary) -> Result<Box<dyn Session>, BackendError> {
        let node = primary.node.clone();
        let address = ConnectionAddr::Tcp(node.host.to_string(), node.port);
        let opened = open_session(
            address,
            Arc::clone(&self.login),
            &self.stage,
            self.options,
            None,
        );
        let (mut session, issued) = opened.await.map_err(|error| at(&node, &error))?;
        check_role(&session)
            .await
            .map_err(|error| at(&node, &error))?;
        session.following = Some(Following {
            sentinels: Arc::clone(&self.sentinels),
            primary,
        });
        Ok(in_session(session, Arc::clone(&self.login), issued))
    }

    /// It is for good if there was a primary never before.
    fn unresolved(&self, no_primary: &NoPrimary) -> BackendError {
        let NoPrimary {
            text,
            is_for_good,
            is_unknown,
        } = no_primary;
        let was_resolved = self.was_resolved.load(Ordering::Relaxed);
        let kind = if *is_for_good && !was_resolved {
            BackendErrorKind::Rejected
        } else {
            BackendErrorKind::ConnectionLost
        };
        let what = if *is_unknown {
            "the sentinels know no such service"
        } else {
            "no sentinel says where the primary is"
        };
        BackendError::new(kind, format_args!("{what} ({text})"))
    }

    fn new_silence(&self) -> Option<BackendError> {
        let Some(silence) = self.sentinels.silence() else {
            self.is_silence_reported.store(false, Ordering::Relaxed);
            return None;
        };
        if self.is_silence_reported.swap(true, Ordering::Relaxed) {
            return None;
        }
        let last = lock(&self.last).clone()?;
        Some(BackendError::unavailable(format_args!(
            "no sentinel answers ({silence}): {} is used, the last known primary, and a failover \
             would not be noticed",
            last.node
        )))
    }
}

/// The error of this server.
fn at(node: &Node, error: &BackendError) -> BackendError {
    BackendError::new(error.kind, format_args!("the primary {node}: {error}"))
}

/// A sentinel that has not heard of a failover names the old primary, which may be a replica now.
///
/// # Errors
///
/// `NotPrimary`. A user without the right to ask gets none: what a replica answers to a write is
/// that kind of error, too.
async fn check_role(session: &RedisSession) -> Result<(), BackendError> {
    let role = match ask_one(session.line.requests.clone(), redis::cmd("ROLE")).await {
        Ok(role) => role,
        Err(error) if error.is_connection_lost() => return Err(error),
        Err(_) => return Ok(()),
    };
    match role {
        Value::Array(parts) if is_text(parts.first(), "master") => Ok(()),
        _ => Err(BackendError::not_primary(
            "Sentinel names it, and it says that it is no primary (ROLE)",
        )),
    }
}

fn is_text(value: Option<&Value>, expected: &str) -> bool {
    match value {
        Some(Value::BulkString(text)) => text == expected.as_bytes(),
        Some(Value::SimpleString(text)) => text == expected,
        _ => false,
    }
}

/// The services that a server watches over, if it is a sentinel.
pub(super) fn watched_services(role: Value) -> Option<Vec<String>> {
    let Value::Array(parts) = role else {
        return None;
    };
    if !is_text(parts.first(), "sentinel") {
        return None;
    }
    let services = parts.into_iter().nth(1);
    Some(redis::from_redis_value(services?).unwrap_or_default())
}
