//! How a backend fails, by what is to be done about it.

use std::fmt;

/// A backend's failure to do what it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The connection is gone or silent; whether the request took effect is not known.
    Lost,
    /// The backend answered that it cannot do this now; it did nothing.
    Busy,
    /// As `Busy`, and another server may have taken over: connect anew before the next try.
    Elsewhere,
    /// It was not done, for a reason that is gone: it is to be sent again at once.
    Again,
    /// The backend answered that it will not do this; it did nothing.
    Refused,
}

impl Fault {
    pub(crate) fn lost(message: impl fmt::Display) -> Self {
        Self {
            kind: FaultKind::Lost,
            message: message.to_string(),
        }
    }

    pub(crate) fn busy(message: impl fmt::Display) -> Self {
        Self {
            kind: FaultKind::Busy,
            message: message.to_string(),
        }
    }

    pub(crate) fn elsewhere(message: impl fmt::Display) -> Self {
        Self {
            kind: FaultKind::Elsewhere,
            message: message.to_string(),
        }
    }

    pub(crate) fn again(cause: Self) -> Self {
        Self {
            kind: FaultKind::Again,
            ..cause
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.kind == FaultKind::Lost
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.kind == FaultKind::Refused
    }

    pub(crate) fn refused(message: impl fmt::Display) -> Self {
        Self {
            kind: FaultKind::Refused,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
