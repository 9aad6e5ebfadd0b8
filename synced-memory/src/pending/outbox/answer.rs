//! What has become of a write, and how those who wait for it are notified.

use tokio::sync::oneshot;

use crate::backend::commit::{Sequence, Writer};
use crate::base::error::Result;

/// What has become of a write.
///
/// It is not `#[must_use]`: each of the three is a success, and the write is never lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Written {
    /// Somebody else's write is newer, and was kept instead; a read shows it.
    Superseded,
    /// It is queued, and will be sent.
    Queued,
    /// The backend has it, as safely as its own persistence makes it.
    Stored,
}

/// Whose entry it is, and the first of its sequence numbers: what stays the same when another
/// process adopts the entry.
pub(crate) type EntryName = (Writer, Sequence);

/// What the caller of a write gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) written: Written,
    /// Whether the key was there before, as far as known.
    pub(crate) existed: bool,
    /// It was withdrawn, since something else is stored than what it was recorded on: its caller
    /// records it anew.
    pub(crate) outdated: Option<Outdated>,
    /// This other writer tries to change the same key.
    pub(crate) contended: Option<Writer>,
    /// The name of the entry whose taken element is to be handed out.
    pub(crate) taken: Option<EntryName>,
}

/// What showed that a write was recorded on something else than what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outdated {
    /// The current view of this process.
    InView,
    /// The backend's answer to it.
    ByAnswer,
}

impl Answer {
    pub(crate) fn new(written: Written, existed: bool) -> Self {
        Self {
            written,
            existed,
            outdated: None,
            contended: None,
            taken: None,
        }
    }

    pub(crate) fn outdated(outdated: Outdated) -> Self {
        Self {
            outdated: Some(outdated),
            ..Self::new(Written::Superseded, false)
        }
    }
}

/// Somebody who waits for the answer to a write.
pub(crate) type Waiter = oneshot::Sender<Result<Answer>>;
