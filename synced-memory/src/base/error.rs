//! What can go wrong, in one opaque type.

use std::error::Error as StdError;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::{fmt, io};

/// A result whose error is this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. It is cheap to clone, names the key, and never holds a password or a value.
///
/// Decide by [`kind`](Self::kind). The message says what happened in a line; what a server, a file
/// system or a JSON parser said about it is the [`source`](std::error::Error::source), so that
/// `anyhow` and `tracing` show both, each once.
#[derive(Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(Arc<ErrorInner>);

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct ErrorInner {
    kind: ErrorKind,
    message: String,
    /// What became of each key.
    keys: Vec<(String, Option<ErrorKind>)>,
    #[source]
    cause: Option<Cause>,
}

/// What an error was caused by. The message of the error does not repeat what it says.
type Cause = Box<dyn StdError + Send + Sync>;

/// Gives each variant of an enum its name in text, and reads it back. A variant that is missing
/// here does not compile.
macro_rules! named {
    (
        $type:ident, $noun:literal, $(#[$meta:meta])*
        { $($variant:ident = $name:literal),+ $(,)? }
    ) => {
        impl $type {
            /// Every one of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];

            $(#[$meta])*
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::base::error::Error;

            /// Reads what `as_str` returns.
            fn from_str(name: &str) -> std::result::Result<Self, Self::Err> {
                Self::ALL
                    .iter()
                    .find(|one| one.as_str() == name)
                    .copied()
                    .ok_or_else(|| {
                        let names: Vec<_> = Self::ALL.iter().map(|one| one.as_str()).collect();
                        $crate::base::error::unknown_name($noun, &names)
                    })
            }
        }
    };
}
pub(crate) use named;

/// The error of a name that is none of `names`, which it lists: "`a`, `b` or `c`".
pub(crate) fn unknown_name(noun: &str, names: &[&str]) -> Error {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let expected = match quoted.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => quoted.concat(),
    };
    Error::new(ErrorKind::Config, format!("expected {noun}: {expected}"))
}

/// The classes of [`Error`]. Later versions may add one, so that a `match` needs a `_` arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing is stored, and there is no default. The backend has said so; if it was never
    /// reached, the error is `Unavailable` instead.
    Unset,
    /// JSON cannot hold the value: its `Serialize` failed, it contains a NaN, an infinity or an
    /// integer beyond 64 bits, it has more than 126 levels, or its type cannot read what it has
    /// written. Nothing was changed.
    Serialize,
    /// What is stored is not a value of this type, or no JSON at all. Other keys are not affected.
    Decode,
    /// The backend did not answer, and the call needs it: a read of a key of which this process
    /// knows nothing, or a confirmed call, which was not made and never will be. Also, the process
    /// has no descriptor or thread left to open a memory.
    Unavailable,
    /// The change does not apply to what others wrote.
    Conflict,
    /// The queued writes have reached `outbox_limit`; this one was refused.
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
    /// A confirmed call was sent, and no answer came in time: it was made once, or never. This is
    /// the only error after which a call of one key may have changed something.
    InDoubt,
}

named! {
    ErrorKind, "the kind of an error",
    /// Its name, as in `"OutboxFull"`: for logs, and where a kind is stored. It is read back by
    /// `parse`, and stays the same in later versions.
    {
        Unset = "Unset",
        Serialize = "Serialize",
        Decode = "Decode",
        Unavailable = "Unavailable",
        Conflict = "Conflict",
        OutboxFull = "OutboxFull",
        Timeout = "Timeout",
        Config = "Config",
        Rejected = "Rejected",
        Closed = "Closed",
        Journal = "Journal",
        InDoubt = "InDoubt",
    }
}

/// What an error says, and what caused it.
pub(crate) struct Reason {
    message: String,
    cause: Option<Cause>,
}

impl Reason {
    /// `message` names the class of the cause in a word or two, and does not repeat its text: who
    /// prints the error with its sources sees that next.
    pub(crate) fn caused_by(
        message: impl fmt::Display,
        cause: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self {
            message: message.to_string(),
            cause: Some(Box::new(cause)),
        }
    }

    /// What the operating system refused to do with `subject`, a path say.
    pub(crate) fn io(subject: impl fmt::Display, error: &io::Error) -> Self {
        // `io::Error` cannot be cloned.
        let cause = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        Self::caused_by(format_args!("{subject}: {}", error.kind()), cause)
    }
}

impl From<String> for Reason {
    fn from(message: String) -> Self {
        Self {
            message,
            cause: None,
        }
    }
}

impl From<&str> for Reason {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl From<fmt::Arguments<'_>> for Reason {
    fn from(message: fmt::Arguments<'_>) -> Self {
        message.to_string().into()
    }
}

/// What a server or an earlier process said, without credentials and values.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CauseText(pub(crate) String);

/// Where JSON could not be read, without any of it.
#[derive(Debug, thiserror::Error)]
#[error("{category} error at line {line} column {column}")]
pub(crate) struct JsonCause {
    category: &'static str,
    line: usize,
    column: usize,
}

impl JsonCause {
    /// The same of JSON that is valid, and not of the type: `serde_json` reports some of that as an
    /// error of syntax.
    pub(crate) fn of_valid_json(self) -> Self {
        Self {
            category: "data",
            ..self
        }
    }
}

impl From<&serde_json::Error> for JsonCause {
    fn from(error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        Self {
            category: match error.classify() {
                Category::Io => "input",
                Category::Syntax => "syntax",
                Category::Data => "data",
                Category::Eof => "end-of-input",
            },
            line: error.line(),
            column: error.column(),
        }
    }
}

// Nothing in it is ever changed.
impl UnwindSafe for Error {}
impl RefUnwindSafe for Error {}

impl Error {
    pub(crate) fn new(kind: ErrorKind, reason: impl Into<Reason>) -> Self {
        Self::of_keys(kind, reason, Vec::new())
    }

    /// An error about a call of several keys, with what became of each.
    pub(crate) fn of_keys(
        kind: ErrorKind,
        reason: impl Into<Reason>,
        keys: Vec<(String, Option<ErrorKind>)>,
    ) -> Self {
        let Reason { message, cause } = reason.into();
        Self(Arc::new(ErrorInner {
            kind,
            message,
            keys,
            cause,
        }))
    }

    /// An error about one key.
    pub(crate) fn of_key(kind: ErrorKind, key: &str, reason: impl Into<Reason>) -> Self {
        let Reason { message, cause } = reason.into();
        let message = format!("`{key}`: {message}");
        Self::new(kind, Reason { message, cause })
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the memory was closed")
    }

    /// In the child of a fork.
    pub(crate) fn opened_before_fork() -> Self {
        Self::new(
            ErrorKind::Closed,
            "the memory was opened before a fork: open one in this process",
        )
    }

    /// What became of each key, if this is the error of a confirmed call of several keys
    /// (`restore`, a delete of a key that has older names): `None` if it was made, otherwise why it
    /// was not. Empty for every other error.
    pub fn keys(&self) -> &[(String, Option<ErrorKind>)] {
        &self.0.keys
    }

    /// The class of this error, to decide by.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl fmt::Debug for Error {
    /// With the cause, since this is what `unwrap` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?}", self.0.kind, self.0.message)?;
        if let Some(cause) = &self.0.cause {
            write!(f, ", caused by {:?}", cause.to_string())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the README's table of errors: a kind and what it means.
    fn documented_kinds() -> Vec<&'static str> {
        let readme = include_str!("../../../README.md");
        let (_, errors) = readme.split_once("\n### Errors\n").expect("a section");
        let (_, table) = errors.split_once("| kind | when |").expect("a table");
        let rows = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('`').nth(1).expect("a kind"))
            .collect()
    }

    #[test]
    fn every_kind_has_a_name_that_reads_back() {
        for kind in ErrorKind::ALL {
            assert_eq!(kind.as_str(), format!("{kind:?}"));
            assert_eq!(kind.as_str().parse::<ErrorKind>().unwrap(), *kind);
        }
        let unknown = "Retired".parse::<ErrorKind>().unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::Config);
    }

    #[test]
    fn the_readme_has_a_row_for_every_kind_and_for_nothing_else() {
        let mut documented = documented_kinds();
        let mut kinds: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        documented.sort_unstable();
        kinds.sort_unstable();
        assert_eq!(documented, kinds);
    }

    #[test]
    fn the_chain_shows_the_cause_once() {
        let denied = io::Error::from_raw_os_error(13);
        let error = Error::new(ErrorKind::Journal, Reason::io("/var/state", &denied));
        assert_eq!(error.to_string(), "/var/state: permission denied");
        let source = error.source().expect("a cause");
        let source = source
            .downcast_ref::<io::Error>()
            .expect("the io::Error itself");
        assert_eq!(source.raw_os_error(), Some(13));
        assert!(!error.to_string().contains(&source.to_string()));
        assert!(error.clone().source().is_some() && Error::closed().source().is_none());
    }

    #[test]
    fn the_position_in_json_is_a_cause_without_the_json() {
        let error = serde_json::from_str::<u8>("\"s3cret\"").unwrap_err();
        let reason = Reason::caused_by("what is stored is no `u8`", JsonCause::from(&error));
        let error = Error::of_key(ErrorKind::Decode, "memory:n", reason);
        assert_eq!(error.to_string(), "`memory:n`: what is stored is no `u8`");
        let source = error.source().expect("a cause").to_string();
        assert_eq!(source, "data error at line 1 column 8");
        assert!(!format!("{error:?}").contains("s3cret"));
    }
}
