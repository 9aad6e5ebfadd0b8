//! What can go wrong, in one opaque type.

use std::fmt;
use std::sync::Arc;

/// A result whose error is this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. It is cheap to clone, names the key, and never holds a password or a value.
#[derive(Clone)]
pub struct Error {
    inner: Arc<ErrorInner>,
}

struct ErrorInner {
    kind: ErrorKind,
    message: String,
    /// What became of each key.
    keys: Vec<(String, Option<ErrorKind>)>,
}

/// The classes of [`Error`]; a `match` needs a `_` arm, since versions to come may add one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing is stored, and there is no default. The backend has said so; where it was never
    /// asked, it is `Unavailable`.
    Unset,
    /// A value that JSON cannot hold: its `Serialize` failed, or it has a NaN, an infinity or an
    /// integer beyond 64 bits. Nothing was changed.
    Serialize,
    /// What is stored is not a value of this type, or no JSON at all. Other keys are not affected.
    Decode,
    /// The backend did not answer, and this process does not know: of a read, nothing is known of
    /// the key; a confirmed call was not made, and never will be.
    Unavailable,
    /// What others wrote does not go together with this change.
    Conflict,
    /// The writes that wait for the backend have reached `outbox_limit`; this one was refused.
    OutboxFull,
    /// The time that the caller gave is over.
    Timeout,
    /// A URL, a name or an option that makes no sense.
    Config,
    /// The server refused for good: a wrong password, a missing right, a key of another type.
    Rejected,
    /// The memory was closed.
    Closed,
    /// The journal on disk could not be written or read.
    Journal,
    /// A confirmed call was sent, and no answer came in time: it was made once, or never. It is the
    /// one error after which something may have been changed.
    InDoubt,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(ErrorInner {
                kind,
                message: message.into(),
                keys: Vec::new(),
            }),
        }
    }

    /// An error about a call of several keys, with what became of each.
    pub(crate) fn of_keys(
        kind: ErrorKind,
        message: impl Into<String>,
        keys: Vec<(String, Option<ErrorKind>)>,
    ) -> Self {
        Self {
            inner: Arc::new(ErrorInner {
                kind,
                message: message.into(),
                keys,
            }),
        }
    }

    /// An error about one key.
    pub(crate) fn of_key(kind: ErrorKind, key: &str, what: impl fmt::Display) -> Self {
        Self::new(kind, format!("`{key}`: {what}"))
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the memory was closed")
    }

    /// What became of each key, of a confirmed call of several keys (`restore`, a delete of a key
    /// that has older names): `None` where it was made, else why it was not. Empty for every other
    /// error.
    pub fn keys(&self) -> &[(String, Option<ErrorKind>)] {
        &self.inner.keys
    }

    /// The class of this error, to decide by.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.inner.kind, self.inner.message)
    }
}

impl std::error::Error for Error {}
