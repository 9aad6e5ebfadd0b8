//! What became of a write, and how those who wait for it are told.

use tokio::sync::oneshot;

use crate::backend::commit::{Sequence, Writer};
use crate::base::error::Result;

/// What became of a write.
///
/// It is not `#[must_use]`: each of the three is a success, and the write is never lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Written {
    /// Somebody else's write is newer, and was kept instead; a read shows it.
    Superseded,
    /// It waits for the backend, and will be sent.
    Queued,
    /// The backend has it, as safely as its own persistence makes it.
    Stored,
}

/// What a writer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) written: Written,
    /// Whether the key was there before, as far as known.
    pub(crate) existed: bool,
    /// It was withdrawn, since it was recorded on something else than is there: it is to be
    /// recorded anew.
    pub(crate) again: Option<Again>,
    /// Others try to change the same key.
    pub(crate) contended: Option<Writer>,
    /// What it has taken is to be handed out, under this name.
    pub(crate) taken: Option<(Writer, Sequence)>,
}

/// How it turned out that a write was recorded on something else than is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// By what this process shows by now.
    Shown,
    /// By what the backend answered to it.
    Answered,
}

impl Answer {
    pub(crate) fn new(written: Written, existed: bool) -> Self {
        Self {
            written,
            existed,
            again: None,
            contended: None,
            taken: None,
        }
    }

    pub(crate) fn again(how: Again) -> Self {
        Self {
            again: Some(how),
            ..Self::new(Written::Superseded, false)
        }
    }
}

/// Somebody who waits for the answer to a write.
pub(crate) type Waiter = oneshot::Sender<Result<Answer>>;
