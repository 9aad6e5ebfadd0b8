//! How a backend fails, by what is to be done about it.

use std::fmt;

use crate::base::error::{CauseText, Reason};

/// A backend's failure to do what it was asked.
#[derive(Debug, Clone)]
pub(crate) struct BackendError {
    pub(crate) kind: BackendErrorKind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendErrorKind {
    /// The connection is gone or silent; whether the request took effect is not known.
    ConnectionLost,
    /// The backend answered that it cannot do this now; it did nothing.
    Unavailable,
    /// As `Busy`, and another server may have taken over: connect anew before the next try.
    NotPrimary,
    /// It was not done, for a reason that is gone: it is to be sent again at once.
    Retry,
    /// The backend answered that it will not do this; it did nothing.
    Rejected,
}

impl BackendError {
    pub(crate) fn connection_lost(message: impl fmt::Display) -> Self {
        Self {
            kind: BackendErrorKind::ConnectionLost,
            message: message.to_string(),
        }
    }

    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self {
            kind: BackendErrorKind::Unavailable,
            message: message.to_string(),
        }
    }

    pub(crate) fn not_primary(message: impl fmt::Display) -> Self {
        Self {
            kind: BackendErrorKind::NotPrimary,
            message: message.to_string(),
        }
    }

    pub(crate) fn retry(cause: Self) -> Self {
        Self {
            kind: BackendErrorKind::Retry,
            ..cause
        }
    }

    pub(crate) fn is_connection_lost(&self) -> bool {
        self.kind == BackendErrorKind::ConnectionLost
    }

    pub(crate) fn is_rejected(&self) -> bool {
        self.kind == BackendErrorKind::Rejected
    }

    pub(crate) fn rejected(message: impl fmt::Display) -> Self {
        Self {
            kind: BackendErrorKind::Rejected,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl BackendError {
    /// The code that a server's message begins with, such as `NOPERM`.
    fn code(&self) -> Option<&str> {
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
    use crate::base::error::{Error, ErrorKind};

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
