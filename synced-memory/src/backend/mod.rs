//! What carries the state from process to process, and the contract that each backend keeps.

pub(crate) mod commit;
#[cfg(test)]
mod contract;
pub(crate) mod error;
pub(crate) mod process;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod sidecar;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod step;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::BackendError;

/// An answer on its way. The request is made at the call and takes effect from the first poll on; a
/// reply that is dropped leaves it unknown whether the request took effect.
pub(crate) type Reply<T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send>>;

/// Some names, and where the next ones begin; `None` after the last.
pub(crate) type Page = (Vec<String>, Option<String>);

/// What has changed, by whomever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Invalidation {
    Keys(Vec<Arc<str>>),
    /// Perhaps everything.
    All,
}

/// How long what is stored lives yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Its end is told in time, as other changes are.
    Tracked,
    For(Duration),
    Forever,
}

/// What is stored under a key, and how long it lives yet.
pub(crate) type WithExpiry = (Option<Bytes>, Expiry);

/// A place where the state lives. It knows neither types nor JSON paths: it carries bytes and
/// stamps.
pub(crate) trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Connects. A error of kind `Refused` means that trying again makes no sense (a wrong
    /// password).
    fn connect(&self) -> Reply<Box<dyn Session>>;

    /// Where that is, for messages; without a password.
    fn target(&self) -> &str;
}

/// A connection to a backend.
///
/// # Contract
///
/// - Requests take effect in the order in which their replies are first polled, on whatever thread.
///   `Fault::Lost` is the one error that leaves open whether a request took effect.
/// - An attempt is decided on and made in one atomic step, by the rule of
///   [`crate::backend::commit::decide`]: what it found, the change, the tombstone and the record of its
///   sequence number.
/// - A change that was answered for is seen by every later read of every session, until another
///   change.
/// - Records of sequence numbers and tombstones are kept for the sidecar's time to live at the
///   least.
/// - A change by another session that takes effect after [`Session::track`] was answered is told by
///   [`Session::changed`], sooner or later; so is the end of a time to live. More may be told than
///   that.
/// - After one request was answered with `Lost`, or [`Session::ended`] is ready, the session is not
///   used again.
pub(crate) trait Session: fmt::Debug + Send + Sync {
    /// What is stored under each key, in their order. A error of one key is that key's alone.
    fn read(&self, keys: &[Arc<str>]) -> Reply<Vec<Result<Option<Bytes>, BackendError>>>;

    /// As [`read`](Session::read), with how long each lives yet where its end is told late.
    fn read_with_expiry(&self, keys: &[Arc<str>]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        all_tracked(self.read(keys))
    }

    /// Makes attempts, of which each has its own key, and answers for each in their order. `now` is
    /// the backend's clock as estimated, in ns since 1970.
    fn commit(&self, batch: &[Attempt], now: u64) -> Reply<Vec<Result<Outcome, BackendError>>>;

    /// A page of the full names of the keys that begin with `prefix`, and where the next one
    /// begins. A name may come twice; one that is there all the time comes at least once.
    fn names(&self, prefix: &str, cursor: Option<String>) -> Reply<Page>;

    /// Drops the records of a writer that will not write to these keys again.
    fn forget(&self, writer: Writer, keys: &[Arc<str>]) -> Reply<()>;

    /// The backend's clock, in ns since 1970.
    fn now(&self) -> Reply<u64>;

    /// How the backend chooses what it throws away when memory is short, where it says so.
    fn eviction_policy(&self) -> Reply<Option<String>>;

    /// From the answer on, changes of keys that begin with one of these prefixes are told. Each
    /// call replaces the prefixes of the one before. A error of kind `Refused`: they cannot be told
    /// here.
    fn track(&self, prefixes: &[String]) -> Reply<()>;

    /// What has changed since the last call; ready when something has. It may cost something, and
    /// is asked only while something is tracked. It is polled on the I/O thread alone, one call at
    /// a time.
    fn invalidations(&self) -> Reply<Invalidation>;

    /// Ready when the connection is known to be gone.
    fn ended(&self) -> Reply<()>;
}

/// A read that says nothing of ends.
pub(crate) fn all_tracked(
    read: Reply<Vec<Result<Option<Bytes>, BackendError>>>,
) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
    let living = |answer: Result<_, BackendError>| answer.map(|stored| (stored, Expiry::Tracked));
    Box::pin(async move { Ok(read.await?.into_iter().map(living).collect()) })
}
