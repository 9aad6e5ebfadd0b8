//! How a backend fails, and what is to be done about each kind of failure.

use std::fmt;

use crate::backend::layout::Redirect;
use crate::base::error::{CauseText, ErrorKind, Reason};
use crate::base::redaction::scrubbed;

/// A backend's failure to do what it was asked.
#[derive(Debug, Clone)]
pub(crate) struct BackendError {
    pub(crate) kind: BackendErrorKind,
    message: String,
    /// Where the request is to be sent instead.
    pub(crate) redirect: Option<Box<Redirect>>,
}

/// A new kind needs an arm in [`BackendErrorKind::recovery`] and [`BackendErrorKind::error_kind`],
/// and a backend that returns it; everything else decides by the recovery.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "what servers alone do")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendErrorKind {
    /// The connection is gone or silent; whether the request took effect is not known.
    ConnectionLost,
    /// The backend answered that it cannot do this now; it did nothing.
    Unavailable,
    /// As `Unavailable`, and another server may have taken over.
    NotPrimary,
    /// Another server has become the primary. Whether requests under way took effect is not known.
    Replaced,
    /// It was not done, for a reason that no longer holds.
    Retry,
    /// Another server has the key, and with it its slot; or nobody has it for now.
    Moved,
    /// Another server has the key, or will have it; its slot is being moved.
    Ask,
    /// A part of what the key needs is at another server: its slot is being moved. It did nothing.
    TryAgain,
    /// It was made, on too few replicas: it may be lost with its server.
    UnderReplicated,
    /// The value is too large to be read together with others.
    TooLarge,
    /// The backend does not track keys (any more), and was asked to. Nothing of the request counts.
    NotTracked,
    /// The backend cannot say what has changed since what the caller knows. Nothing of the request
    /// counts.
    ChangesUnknown,
    /// What the backend says has changed does not lead to what it says is there. Nothing of the
    /// request counts.
    ChangesWrong,
    /// The backend answered that it will not do this; it did nothing.
    Rejected,
}

/// What is to be done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Send it again at once, over the same connection.
    RetryNow,
    /// Send it to the server that the error names.
    Redirect,
    /// Send nothing of this key before a pause; others go on.
    ParkKey,
    /// Send it again, as what is in doubt is sent; the connection stays.
    Confirm,
    /// Read the value by itself.
    ReadApart,
    /// Read without tracking.
    ReadUntracked,
    /// Read the whole value, whatever is known of it.
    ReadWhole,
    /// Send no writes before a pause; the connection stays.
    Pause,
    /// Send no writes before a pause, and then connect anew.
    PauseThenReconnect,
    /// Give the connection up and connect anew.
    Reconnect,
    /// The same without a pause.
    ReconnectNow,
    /// Do not send it again: report the error.
    GiveUp,
}

impl BackendErrorKind {
    /// The failure policy, for every request of every backend.
    pub(crate) fn recovery(self) -> Recovery {
        match self {
            // Later answers over this connection could belong to earlier requests, and a silent
            // server says nothing about its health. What was under way is in doubt.
            Self::ConnectionLost => Recovery::Reconnect,
            // The server is out of memory, loading or locked. That passes without us, and a new
            // connection would reach the same server.
            Self::Unavailable => Recovery::Pause,
            // After a failover, the name of the server leads to the new primary only if it is
            // resolved anew. The pause comes first, so that reads go on meanwhile.
            Self::NotPrimary => Recovery::PauseThenReconnect,
            // What the old primary answers from now on is lost with it; the new one waits for us.
            Self::Replaced => Recovery::ReconnectNow,
            // The backend has already changed what stood in the way (a script was not loaded, or
            // the batch was too large for it).
            Self::Retry => Recovery::RetryNow,
            // It did nothing. What is sent to the other server is another request.
            Self::Moved | Self::Ask => Recovery::Redirect,
            // The slot of this key is being moved, and no other key has to wait for that.
            Self::TryAgain => Recovery::ParkKey,
            // Sent again under the same number, it is answered when the replicas have it.
            Self::UnderReplicated => Recovery::Confirm,
            // Behind it, everything else would wait until it has arrived.
            Self::TooLarge => Recovery::ReadApart,
            // What is not tracked cannot be kept current: its readers ask.
            Self::NotTracked => Recovery::ReadUntracked,
            // It would say the same again.
            Self::ChangesUnknown | Self::ChangesWrong => Recovery::ReadWhole,
            // A missing right or a value of another type: the same request has the same answer
            // each time, and would block the writes behind it.
            Self::Rejected => Recovery::GiveUp,
        }
    }

    /// The kind of the error that a caller gets if nothing else helps.
    pub(crate) fn error_kind(self) -> ErrorKind {
        match self {
            Self::Rejected => ErrorKind::Rejected,
            Self::ConnectionLost
            | Self::Unavailable
            | Self::NotPrimary
            | Self::Replaced
            | Self::Retry
            | Self::Moved
            | Self::Ask
            | Self::TryAgain
            | Self::UnderReplicated
            | Self::TooLarge
            | Self::NotTracked
            | Self::ChangesUnknown
            | Self::ChangesWrong => ErrorKind::Unavailable,
        }
    }
}

impl Recovery {
    /// Whether the backend is there and takes no writes for now.
    pub(crate) fn pauses_writes(self) -> bool {
        match self {
            Self::Pause | Self::PauseThenReconnect | Self::Confirm => true,
            Self::RetryNow
            | Self::Redirect
            | Self::ParkKey
            | Self::ReadApart
            | Self::ReadUntracked
            | Self::ReadWhole
            | Self::Reconnect
            | Self::ReconnectNow
            | Self::GiveUp => false,
        }
    }
}

impl Recovery {
    /// Whether the answer says nothing about whether the backend takes writes.
    pub(crate) fn is_elsewhere(self) -> bool {
        matches!(self, Self::Redirect | Self::ParkKey)
    }
}

impl BackendError {
    /// Whether nothing of the request counts that it answers, whatever key it is about.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what servers alone ask")
    )]
    pub(crate) fn is_of_request(&self) -> bool {
        matches!(
            self.recovery(),
            Recovery::ReadUntracked | Recovery::ReadWhole
        )
    }

    /// The only way for a text from outside into an error: credentials in use are taken out of it.
    pub(crate) fn new(kind: BackendErrorKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: scrubbed(message.to_string()),
            redirect: None,
        }
    }

    /// A server that names another one for a slot.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what servers alone do")
    )]
    pub(crate) fn redirected(
        kind: BackendErrorKind,
        redirect: Redirect,
        message: impl fmt::Display,
    ) -> Self {
        Self {
            redirect: Some(Box::new(redirect)),
            ..Self::new(kind, message)
        }
    }

    pub(crate) fn connection_lost(message: impl fmt::Display) -> Self {
        Self::new(BackendErrorKind::ConnectionLost, message)
    }

    #[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "SQLite's errors"))]
    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(BackendErrorKind::Unavailable, message)
    }

    #[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "SQLite's errors"))]
    pub(crate) fn not_primary(message: impl fmt::Display) -> Self {
        Self::new(BackendErrorKind::NotPrimary, message)
    }

    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "what servers alone do")
    )]
    pub(crate) fn retry(cause: Self) -> Self {
        Self {
            kind: BackendErrorKind::Retry,
            ..cause
        }
    }

    pub(crate) fn rejected(message: impl fmt::Display) -> Self {
        Self::new(BackendErrorKind::Rejected, message)
    }

    pub(crate) fn recovery(&self) -> Recovery {
        self.kind.recovery()
    }

    pub(crate) fn error_kind(&self) -> ErrorKind {
        self.kind.error_kind()
    }

    /// Whether the connection that returned this must not be used again.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(
            self.recovery(),
            Recovery::Reconnect | Recovery::ReconnectNow
        )
    }

    /// Whether the same request would fail each time.
    pub(crate) fn is_rejected(&self) -> bool {
        self.recovery() == Recovery::GiveUp
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl BackendError {
    /// Whether the server will refuse the same command for any key.
    pub(crate) fn is_of_command(&self) -> bool {
        // Scripts on Redis 7 say it in the second way.
        let said = ["NOPERM", "can't run this command", "unknown command"];
        said.iter().any(|said| self.message.contains(said))
    }

    /// The code that a server's message begins with, such as `NOPERM`.
    pub(crate) fn code(&self) -> Option<&str> {
        let code = self.message.split(' ').next()?;
        let is_code = code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        is_code.then_some(code)
    }
}

impl From<&BackendError> for Reason {
    fn from(error: &BackendError) -> Self {
        match error.code() {
            Some(code) => Self::caused_by(
                format_args!("the server answered {code}"),
                CauseText(error.message.clone()),
            ),
            // There is no shorter way to say it, and a cause would say it twice.
            None => error.message.as_str().into(),
        }
    }
}

impl From<BackendError> for Reason {
    fn from(error: BackendError) -> Self {
        (&error).into()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::base::error::Error;

    const POLICY: &[(BackendErrorKind, Recovery, ErrorKind)] = &[
        (
            BackendErrorKind::ConnectionLost,
            Recovery::Reconnect,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::Unavailable,
            Recovery::Pause,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::NotPrimary,
            Recovery::PauseThenReconnect,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::Replaced,
            Recovery::ReconnectNow,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::Retry,
            Recovery::RetryNow,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::Moved,
            Recovery::Redirect,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::Ask,
            Recovery::Redirect,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::TryAgain,
            Recovery::ParkKey,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::UnderReplicated,
            Recovery::Confirm,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::TooLarge,
            Recovery::ReadApart,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::ChangesUnknown,
            Recovery::ReadWhole,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::ChangesWrong,
            Recovery::ReadWhole,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::NotTracked,
            Recovery::ReadUntracked,
            ErrorKind::Unavailable,
        ),
        (
            BackendErrorKind::Rejected,
            Recovery::GiveUp,
            ErrorKind::Rejected,
        ),
    ];

    #[test]
    fn each_kind_of_failure_has_its_recovery_and_the_kind_that_callers_get() {
        for &(kind, recovery, error_kind) in POLICY {
            assert_eq!(
                (kind.recovery(), kind.error_kind()),
                (recovery, error_kind),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn what_was_rejected_is_what_is_given_up_and_nothing_else() {
        for &(kind, recovery, error_kind) in POLICY {
            let error = BackendError::new(kind, "");
            let is_given_up = recovery == Recovery::GiveUp;
            assert_eq!(error_kind == ErrorKind::Rejected, is_given_up, "{kind:?}");
            assert_eq!(error.is_rejected(), is_given_up, "{kind:?}");
        }
    }

    #[test]
    fn only_a_failure_after_which_the_connection_stays_for_a_while_pauses_writes() {
        let pauses: Vec<_> = POLICY
            .iter()
            .filter(|(kind, ..)| kind.recovery().pauses_writes())
            .map(|(kind, ..)| *kind)
            .collect();
        let expected = [
            BackendErrorKind::Unavailable,
            BackendErrorKind::NotPrimary,
            BackendErrorKind::UnderReplicated,
        ];
        assert_eq!(pauses, expected);
    }

    #[test]
    fn a_message_has_the_code_of_the_server_and_the_source_its_words() {
        let denied = BackendError::rejected("NOPERM this user has no permissions");
        let error = Error::of_key(ErrorKind::Rejected, "memory:n", &denied);
        assert_eq!(error.to_string(), "`memory:n`: the server answered NOPERM");
        let source = error.source().expect("a source");
        assert_eq!(source.to_string(), "NOPERM this user has no permissions");

        let locked = BackendError::unavailable("database is locked");
        let error = Error::of_key(ErrorKind::Unavailable, "memory:n", locked);
        assert_eq!(error.to_string(), "`memory:n`: database is locked");
        assert!(error.source().is_none());
    }
}
