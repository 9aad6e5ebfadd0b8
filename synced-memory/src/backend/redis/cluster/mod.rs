//! Redis Cluster: a session for each primary, and the layout, which nodes are asked for.
//!
//! - `mod.rs`: the backend, and what an error means that a node answers with
//! - `survey.rs`: asking nodes for the layout
//! - `layout.rs`: what they say, and what most of them say

pub(super) mod layout;
mod survey;
#[cfg(all(test, unix))]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, RedisConnectionInfo};

use super::credentials::Issuer;
use super::line::{OpenStage, ServerLogin};
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{SessionOptions, in_session, open_session};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::{ClusterLayout, LayoutQuery, Node, Redirect, SlotNumber};
use crate::backend::{Backend, Reply, Session};
use crate::base::address_map::AddressMap;
use crate::base::clock::Deadline;
use crate::base::credentials::CredentialsCallback;
use crate::base::error::Error;
use crate::base::lock::lock;
use crate::base::settings::Settings;
use survey::Survey;

/// The nodes of a cluster, and how they are spoken to.
pub(crate) struct ClusterTarget {
    /// The nodes that the URL names, for messages.
    pub(crate) target: String,
    /// The same: at least one.
    pub(crate) seeds: Vec<Node>,
    pub(crate) login: RedisConnectionInfo,
    /// What issues the login, if none is in `login`.
    pub(crate) credentials: Option<CredentialsCallback>,
    /// Where the addresses lead to that servers name.
    pub(crate) addresses: Option<AddressMap>,
    /// How TLS is spoken, if the options ask for it and do not say so themselves.
    #[cfg(feature = "tls")]
    pub(crate) tls_config: Option<Arc<rustls::ClientConfig>>,
}

#[cfg(test)]
impl ClusterTarget {
    /// The nodes at these ports of this host.
    pub(crate) fn of_ports(ports: impl IntoIterator<Item = u16>) -> Self {
        let host = Arc::from("127.0.0.1");
        let seeds = ports.into_iter().map(|port| Node {
            host: Arc::clone(&host),
            port,
        });
        Self {
            target: "redis-cluster://test".to_owned(),
            seeds: seeds.collect(),
            login: RedisConnectionInfo::default(),
            credentials: None,
            addresses: None,
            #[cfg(feature = "tls")]
            tls_config: None,
        }
    }
}

/// The backend of every `redis-cluster://` URL.
pub(crate) struct ClusterBackend {
    /// For all nodes.
    login: Arc<ServerLogin>,
    /// What the newest attempt to connect waits for that is under way.
    stage: Arc<OpenStage>,
    options: SessionOptions,
    target: String,
    /// Whose state a journal belongs to.
    identity: String,
    cluster: Arc<Cluster>,
}

/// What is known of a cluster besides its layout.
struct Cluster {
    /// The nodes that the URL names. They are only asked for the layout.
    seeds: Vec<Node>,
    /// Where the addresses lead to that servers name.
    addresses: Option<AddressMap>,
    /// The connections of the newest session of each node, over which the layout is asked for.
    lines: Mutex<HashMap<Node, MultiplexedConnection>>,
    /// Which node had a slot by the last `MOVED`, which a layout may not show yet.
    moved: Mutex<HashMap<SlotNumber, (Node, Deadline)>>,
    /// How often a single node was asked.
    glances: AtomicUsize,
}

/// A node that a session is connected to.
#[derive(Clone)]
pub(super) struct ClusterNode {
    node: Node,
    cluster: Arc<Cluster>,
}

/// How long a `MOVED` says more than a layout: all nodes know of a move after some seconds.
const MOVED_COUNTS_FOR: Duration = Duration::from_secs(10);

impl ClusterBackend {
    /// # Errors
    ///
    /// `Config` for certificates of TLS that cannot be used.
    #[cfg_attr(
        not(feature = "tls"),
        allow(clippy::unnecessary_wraps, reason = "only TLS reads files here")
    )]
    pub(crate) fn new(
        target: ClusterTarget,
        client_name: &str,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let issuer = target.credentials.map(Issuer::new);
        let client_name = client_name.to_owned();
        let login = ServerLogin::new(&target.login, &target.target, client_name, issuer);
        #[cfg(feature = "tls")]
        let login = if settings.tls {
            let tls = match target.tls_config {
                Some(config) => Tls::given(config, settings)?,
                None => Tls::from_files(settings)?,
            };
            for seed in &target.seeds {
                tls.check_host(&seed.host)?;
            }
            login.over(Arc::new(tls))
        } else {
            login
        };
        Ok(Self {
            login: Arc::new(login),
            stage: Arc::default(),
            options: SessionOptions::of(settings),
            identity: identity(settings.name.as_deref(), &target.seeds),
            target: target.target,
            cluster: Arc::new(Cluster {
                seeds: target.seeds,
                addresses: target.addresses,
                lines: Mutex::default(),
                moved: Mutex::default(),
                glances: AtomicUsize::default(),
            }),
        })
    }
}

/// Whose state a journal belongs to. The seeds say it only as long as they are the same.
fn identity(name: Option<&str>, seeds: &[Node]) -> String {
    if let Some(name) = name {
        return format!("redis-cluster:{name}");
    }
    let mut seeds: Vec<_> = seeds.iter().map(Node::to_string).collect();
    seeds.sort();
    seeds.dedup();
    format!("redis-cluster:{}", seeds.join(","))
}

impl fmt::Debug for ClusterBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBackend")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Backend for ClusterBackend {
    fn is_cluster(&self) -> bool {
        true
    }

    fn layout(&self, known: &[Node], query: LayoutQuery) -> Reply<ClusterLayout> {
        let survey = Survey {
            login: Arc::clone(&self.login),
            target: self.target.clone(),
            timeout: self.options.timeout,
            cluster: Arc::clone(&self.cluster),
        };
        let known = known.to_vec();
        Box::pin(async move { survey.layout(known, query).await })
    }

    fn connect(&self, node: &Node) -> Reply<Box<dyn Session>> {
        let node = ClusterNode {
            node: node.clone(),
            cluster: Arc::clone(&self.cluster),
        };
        let (login, stage) = (Arc::clone(&self.login), Arc::clone(&self.stage));
        let options = self.options;
        Box::pin(async move {
            let address = address_of(&node.node);
            let of_node = Some(node.clone());
            let opened = open_session(address, Arc::clone(&login), &stage, options, of_node);
            let (session, issued) = opened.await?;
            let line = session.line.requests.clone();
            lock(&node.cluster.lines).insert(node.node, line);
            Ok(in_session(session, login, issued))
        })
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn unanswered(&self, limit: Duration) -> BackendError {
        self.login.unanswered(&self.stage, limit)
    }

    fn new_problem(&self) -> Option<BackendError> {
        self.login.new_problem()
    }
}

fn address_of(node: &Node) -> ConnectionAddr {
    ConnectionAddr::Tcp(node.host.to_string(), node.port)
}

impl Cluster {
    /// Where the address leads to that a server names. It may call code of the user's.
    fn reached_at(&self, node: Node) -> Result<Node, BackendError> {
        let Some(addresses) = &self.addresses else {
            return Ok(node);
        };
        let mapped = addresses.call(&node.host, node.port);
        let (host, port) = mapped.map_err(BackendError::unavailable)?;
        let host = host.into();
        Ok(Node { host, port })
    }

    fn line(&self, node: &Node) -> Option<MultiplexedConnection> {
        lock(&self.lines).get(node).cloned()
    }

    /// Drops the connections of nodes that are not among these.
    fn keep_lines_of(&self, nodes: &[Node]) {
        lock(&self.lines).retain(|node, _| nodes.contains(node));
    }

    fn note_moved(&self, redirect: &Redirect) {
        let end = Deadline::after(MOVED_COUNTS_FOR);
        lock(&self.moved).insert(redirect.slot, (redirect.node.clone(), end));
    }

    /// Where slots are by what requests were told lately.
    fn moved_lately(&self) -> HashMap<SlotNumber, Node> {
        let mut moved = lock(&self.moved);
        moved.retain(|_, (_, end)| !end.remaining().is_zero());
        let nodes = moved.iter().map(|(slot, (node, _))| (*slot, node.clone()));
        nodes.collect()
    }

    /// Counts the times that a single node is asked.
    fn next_glance(&self) -> usize {
        self.glances.fetch_add(1, Ordering::Relaxed)
    }
}

impl ClusterNode {
    /// What an error says that this node answers a request with. It does not return with the first
    /// poll, which may be made under a lock, if it calls code of the user's.
    pub(super) async fn explained(&self, mut error: BackendError) -> BackendError {
        match error.kind {
            BackendErrorKind::Moved | BackendErrorKind::Ask => {
                if let Some(redirect) = error.redirect.take() {
                    error.redirect = self.followed(*redirect).await.map(Box::new);
                }
                if let (BackendErrorKind::Moved, Some(redirect)) = (error.kind, &error.redirect) {
                    self.cluster.note_moved(redirect);
                }
            }
            _ => {}
        }
        error
    }

    /// Where a redirect of this node leads to; `None` if that cannot be said.
    async fn followed(&self, redirect: Redirect) -> Option<Redirect> {
        let Redirect { slot, mut node } = redirect;
        if node.host.is_empty() {
            node.host = Arc::clone(&self.node.host);
        }
        if self.cluster.addresses.is_some() {
            tokio::task::yield_now().await;
        }
        let node = self.cluster.reached_at(node).ok()?;
        Some(Redirect { slot, node })
    }
}

/// What an error of a request means that is not sent to another server: a node of a cluster that
/// should be the only server sends it there, until it is.
pub(super) fn without_redirect(mut error: BackendError) -> BackendError {
    if matches!(error.kind, BackendErrorKind::Moved | BackendErrorKind::Ask) {
        error.kind = BackendErrorKind::Unavailable;
        error.redirect = None;
    }
    error
}
