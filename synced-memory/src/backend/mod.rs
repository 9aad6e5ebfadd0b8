//! What carries the state from process to process, and the contract that every backend keeps.
//!
//! - `open.rs`: opening a backend
//! - `process.rs`, `sqlite/`, `redis/`: the backends
//! - `mod.rs`: the traits and their contract
//! - `layout.rs`: which server has which keys; `shards.rs`: the same, as the client keeps it
//! - `commit.rs`, `effects.rs`: the accept-or-refuse rule
//! - `sidecar.rs`: the names of what is kept beside a key
//! - `contract/`: the suite that every backend passes; `test_servers/`: what it runs on

pub(crate) mod commit;
#[cfg(test)]
mod contract;
mod effects;
pub(crate) mod error;
pub(crate) mod layout;
pub(crate) mod open;
pub(crate) mod process;
#[cfg(feature = "redis")]
mod redis;
pub(crate) mod shards;
pub(crate) mod sidecar;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(test)]
mod test_servers;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::BackendError;
use crate::backend::layout::{ClusterLayout, LayoutQuery, Node};
use crate::value::document::Document;

/// An answer that is on its way. The request takes effect from the first poll on, and not before. A
/// reply that is dropped after that leaves it unknown whether the request took effect.
pub(crate) type Reply<T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send>>;

/// Some of the names.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) names: Vec<String>,
    /// Names that are not UTF-8. No key of ours has one: another program made it.
    pub(crate) unreadable: Vec<Vec<u8>>,
    /// The cursor of the next page; `None` after the last.
    pub(crate) next: Option<String>,
}

/// Which keys may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Invalidation {
    Keys(Vec<Arc<str>>),
    /// Perhaps all of them.
    #[cfg_attr(
        not(any(feature = "redis", feature = "sqlite")),
        allow(dead_code, reason = "this process forgets none")
    )]
    All,
}

/// A value of more bytes is large: it is not read together with others (rule 16).
pub(crate) const LARGE_VALUE: usize = 1 << 20;

/// What is known of the size of a value before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SizeHint {
    /// It was not large when it was last read, or there was none.
    Small,
    Unknown,
}

/// Whether the answer to a read is to be kept current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadKind {
    /// It is not: nothing needs to be notified because of this read.
    Through,
    /// Changes of the key are to be notified.
    Tracked,
}

/// A key to read, and how.
#[derive(Debug, Clone)]
pub(crate) struct KeyRead {
    pub(crate) key: Arc<str>,
    pub(crate) kind: ReadKind,
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what servers alone ask")
    )]
    pub(crate) size: SizeHint,
    /// The server is to answer although it does not have the slot yet: another one sent us there.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what servers alone ask")
    )]
    pub(crate) asking: bool,
    /// What the caller has of it. A backend may make the answer of it, with what has changed since.
    pub(crate) known: Option<KnownValue>,
}

/// What a reader has of a key.
#[cfg_attr(
    not(any(feature = "redis", feature = "sqlite")),
    allow(dead_code, reason = "what servers alone ask")
)]
#[derive(Debug, Clone)]
pub(crate) struct KnownValue {
    pub(crate) document: Document,
    /// The same stamp and length say that it is still there. Somebody who edits by hand may have
    /// kept both.
    pub(crate) trusts_stamp: bool,
}

impl KeyRead {
    /// A read of a value of unknown size.
    pub(crate) fn new(key: &Arc<str>, kind: ReadKind) -> Self {
        Self {
            key: Arc::clone(key),
            kind,
            size: SizeHint::Unknown,
            asking: false,
            known: None,
        }
    }
}

/// When a key expires.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "servers expire keys unseen")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// The backend notifies us when it does, as soon as of any other change; or nobody has asked.
    Tracked,
    For(Duration),
    Forever,
}

/// What is stored under a key, and when it expires.
pub(crate) type WithExpiry = (Option<Document>, Expiry);

/// A place where the state is kept. It knows neither types nor JSON paths: it carries bytes and
/// stamps.
pub(crate) trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Whether several servers share the keys out.
    fn is_cluster(&self) -> bool {
        false
    }

    /// Which servers a cluster has, and which of them has which keys. `known`: those of the last
    /// answer.
    fn layout(&self, _known: &[Node], _query: LayoutQuery) -> Reply<ClusterLayout> {
        Box::pin(async { Err(BackendError::rejected("this backend is no cluster")) })
    }

    /// Connects to a server of the cluster, or to the one that there is. An error of kind
    /// `Rejected` means that it makes no sense to try again (a wrong password).
    fn connect(&self, node: &Node) -> Reply<Box<dyn Session>>;

    /// Its address, for messages; without a password.
    fn target(&self) -> &str;

    /// Whose state a journal belongs to. It says the same however the servers are listed.
    fn identity(&self) -> &str {
        self.target()
    }

    /// The error for an attempt to connect that is given up after `limit`.
    fn unanswered(&self, limit: Duration) -> BackendError {
        BackendError::connection_lost(format_args!(
            "no answer to a connection attempt within {limit:?}"
        ))
    }

    /// Ready when another server is to be connected to than the last one: it makes no sense to wait
    /// any longer before the next connect.
    fn moves(&self) -> Reply<()> {
        Box::pin(std::future::pending())
    }

    /// Something that is wrong although it can be connected to, once for each occasion.
    fn new_problem(&self) -> Option<BackendError> {
        None
    }
}

impl Backend for Box<dyn Backend> {
    fn is_cluster(&self) -> bool {
        (**self).is_cluster()
    }

    fn layout(&self, known: &[Node], query: LayoutQuery) -> Reply<ClusterLayout> {
        (**self).layout(known, query)
    }

    fn connect(&self, node: &Node) -> Reply<Box<dyn Session>> {
        (**self).connect(node)
    }

    fn target(&self) -> &str {
        (**self).target()
    }

    fn identity(&self) -> &str {
        (**self).identity()
    }

    fn unanswered(&self, limit: Duration) -> BackendError {
        (**self).unanswered(limit)
    }

    fn moves(&self) -> Reply<()> {
        (**self).moves()
    }

    fn new_problem(&self) -> Option<BackendError> {
        (**self).new_problem()
    }
}

/// A connection to a backend.
///
/// # Contract
///
/// Each paragraph is checked on every backend by the suite in `contract/`, and the suite is checked
/// with a faulty backend for each promise.
///
/// **Order.** Requests take effect in the order in which their replies are first polled, on
/// whatever thread. `ConnectionLost` is the only error that leaves open whether a request took
/// effect.
///
/// **Commits.** An attempt is decided on and made in one atomic step, by the rule of
/// [`decide`](crate::backend::commit::decide): the look at what is stored, the change, the
/// tombstone and the record of its sequence number. Once a change was answered, every read of every
/// session returns it, until the next change. Records of sequence numbers and tombstones are kept
/// at least for the sidecar's time to live.
///
/// **Notifications.** After [`track`](Session::track) was answered, each read of the kind
/// [`Tracked`](ReadKind::Tracked) leaves its key *tracked* until the key is next reported. It does
/// not matter whether the key exists, what else the same request reads, or how often the key was
/// reported before. When another session changes a tracked key,
/// [`invalidations`](Session::invalidations) soon reports that key, or [`All`](Invalidation::All).
/// This includes a change that takes effect while the answer to the read is on its way and does not
/// contain it. After a report of a key, or of `All`, the key need not be tracked any more, until it
/// is read again. More may be reported than has changed: keys that are not tracked, and the
/// session's own changes. A backend that turns out not to track keys answers a request with tracked
/// reads with `NotTracked` as a whole; through reads go on. An error of one key leaves it open
/// whether that key is tracked.
///
/// **Through reads.** A read of the kind [`Through`](ReadKind::Through) makes nothing tracked, and
/// ends no tracking. A backend that knows which key has changed reports nothing because of it.
///
/// **Expiry.** A tracked read either says when the key expires, or says `Tracked`, and then its
/// expiry is notified like a change.
///
/// **Known values.** If a read names what its caller has, the answer is what is stored all the
/// same. A backend that cannot say what has changed since answers the request as a whole with
/// `ChangesUnknown` or `ChangesWrong`, and does so only then.
///
/// **Large values.** If an answer would hold up others, the read of a large value may be answered
/// with `TooLarge`; a tracked read leaves the key tracked all the same.
/// [`read_apart`](Session::read_apart) then takes effect some time after its first poll, in no
/// order with other requests. Its failure, of whatever kind, says nothing of the session.
///
/// **The end.** A session ends with its connection. If the other side can close the connection,
/// [`ended`](Session::ended) is ready soon after that, and never before. Every session answers
/// [`now`](Session::now), the heartbeat, with `ConnectionLost` once what it was connected to is
/// gone. After one request was answered with `ConnectionLost`, or `ended` is ready, the session is
/// not used again.
pub(crate) trait Session: fmt::Debug + Send + Sync {
    /// What is stored under each key, in their order. An error of one key concerns that key alone.
    fn read(&self, reads: &[KeyRead]) -> Reply<Vec<Result<WithExpiry, BackendError>>>;

    /// Reads one value, however large. `asking`: as for [`KeyRead`]. It is polled on the I/O thread
    /// alone.
    fn read_apart(&self, key: &Arc<str>, asking: bool) -> Reply<WithExpiry> {
        let read = self.read(&[KeyRead {
            asking,
            ..KeyRead::new(key, ReadKind::Through)
        }]);
        Box::pin(async move {
            let no_answer = || Err(BackendError::rejected("a read without an answer"));
            read.await?.pop().unwrap_or_else(no_answer)
        })
    }

    /// Makes attempts, each for a key of its own, and answers each in their order. `now` is the
    /// backend's clock as estimated, in ns since 1970.
    fn commit(&self, batch: &[Attempt], now: u64) -> Reply<Vec<Result<Outcome, BackendError>>>;

    /// A page of the full names of the keys that begin with `prefix`, and the cursor of the next
    /// page. A name may come twice; one that exists all the time comes at least once.
    fn names(&self, prefix: &str, cursor: Option<String>) -> Reply<Page>;

    /// Drops the records of a writer that will not write to these keys again.
    fn forget(&self, writer: Writer, keys: &[Arc<str>]) -> Reply<()>;

    /// The backend's clock, in ns since 1970.
    fn now(&self) -> Reply<u64>;

    /// How the backend chooses what to evict when memory is short, if it says so.
    fn eviction_policy(&self) -> Reply<Option<String>>;

    /// Notifies of changes of the keys that are read by tracked reads, from the answer on. An error
    /// of kind `Rejected`: this backend cannot notify us of changes.
    fn track(&self) -> Reply<()>;

    /// Nobody follows the key any more: a backend that keeps a list of what it tracks in this
    /// process may remove it. It is called under locks, and sends nothing.
    fn untrack(&self, _key: &str) {}

    /// What has changed since the last call; ready when something has. It may be costly, and is
    /// called only after [`track`](Session::track). It is polled on the I/O thread alone, one call
    /// at a time.
    fn invalidations(&self) -> Reply<Invalidation>;

    /// How long the other side has sent nothing, and made no room for what waits to be written. A
    /// backend that is in this process has no other side.
    fn idle(&self) -> Duration {
        Duration::MAX
    }

    /// Ready when the connection is known to be closed; with an error of kind `Replaced` if another
    /// server is to be used from now on.
    fn ended(&self) -> Reply<()>;

    /// When the session is to log in anew, counted from now; `None` if its login does not expire.
    fn login_due(&self) -> Option<Duration> {
        None
    }

    /// Gets what the next login needs. It may take long, and is no request. It is polled on the I/O
    /// thread alone.
    fn prepare_login(&self) -> Reply<()> {
        Box::pin(async { Ok(()) })
    }

    /// Logs in with what was prepared. If that is refused, the login of before goes on.
    fn log_in(&self) -> Reply<()> {
        Box::pin(async { Ok(()) })
    }
}
