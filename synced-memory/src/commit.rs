//! The accept-or-refuse rule: what a backend does with an attempt to write one key.
//!
//! `backend/redis/commit.lua` is the same rule for servers; the contract tests hold the two together.

use crate::clock::Stamp;
use crate::envelope;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Who writes: one number for each opened memory, drawn at random.
pub(crate) type Writer = u64;

/// A writer's own count of its writes; it rises from write to write.
pub(crate) type Sequence = u64;

/// What a write does about the time to live of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeToLive {
    /// The key keeps the one that it has.
    Keep,
    /// The key has none.
    Never,
    /// The key ends after this time.
    For(Duration),
}

/// What a write does to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Stores this envelope.
    Put { envelope: Bytes, ttl: TimeToLive },
    /// Removes the key and leaves a tombstone.
    Delete,
}

impl Change {
    /// How many bytes it carries.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Put { envelope, .. } => envelope.len(),
            Self::Delete => 0,
        }
    }
}

/// One try to bring a write to the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) key: Arc<str>,
    pub(crate) writer: Writer,
    pub(crate) sequence: Sequence,
    pub(crate) stamp: Stamp,
    pub(crate) change: Change,
    /// An earlier attempt is in doubt, and may yet arrive.
    pub(crate) retry: bool,
}

impl Attempt {
    /// How many bytes it carries.
    pub(crate) fn size(&self) -> usize {
        self.change.size()
    }
}

/// What the backend did with an attempt that it looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The change was made now. `existed` says whether the key was there before.
    Applied { existed: bool },
    /// An earlier attempt with this sequence number had made it; nothing was done now.
    Already(Found),
    /// Something as new or newer is there; nothing was done.
    Refused(Found),
}

/// What was at the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    pub(crate) stored: Option<Bytes>,
    pub(crate) tombstone: Stamp,
}

impl Found {
    /// The stamp that a write has to beat. A key that exists ignores its tombstone.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stored.as_deref().map_or(self.tombstone, envelope::stamp_of)
    }
}

/// What a backend is to do with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Apply,
    Already,
    Refuse,
}

/// Decides on an attempt, given what is at its key and the last sequence number that was recorded
/// for its writer there (zero where there is no record).
///
/// A retry that is refused is recorded all the same: what was superseded stays so, also when the attempt in
/// doubt arrives at last.
///
/// The sequence number comes first: an attempt that was applied once is never applied again, not even
/// where somebody has since stored an older stamp (DESIGN, rules 4 and 6).
pub(crate) fn decide(sequence: Sequence, stamp: Stamp, found: Stamp, recorded: Sequence) -> Verdict {
    if sequence <= recorded {
        Verdict::Already
    } else if stamp > found {
        Verdict::Apply
    } else {
        Verdict::Refuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stamp_wins_strictly_and_a_recorded_attempt_is_never_applied_again() {
        for (sequence, stamp, found, recorded, verdict) in [
            (1, 5, 0, 0, Verdict::Apply),
            (1, 5, 4, 0, Verdict::Apply),
            (1, 5, 5, 0, Verdict::Refuse),
            (1, 5, 6, 0, Verdict::Refuse),
            (1, 5, 0, 1, Verdict::Already),
            (1, 5, 6, 1, Verdict::Already),
            (2, 5, 0, 1, Verdict::Apply),
        ] {
            assert_eq!(decide(sequence, Stamp::new(stamp), Stamp::new(found), recorded), verdict);
        }
    }

    #[test]
    fn a_key_that_exists_ignores_its_tombstone() {
        let tombstone = Stamp::new(9);
        assert_eq!(Found { stored: Some(Bytes::from_static(b"5")), tombstone }.stamp(), Stamp::ZERO);
        assert_eq!(Found { stored: None, tombstone }.stamp(), tombstone);
    }
}
