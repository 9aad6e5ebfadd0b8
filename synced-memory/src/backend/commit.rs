//! The accept-or-refuse rule: what a backend does with an attempt to write one key.
//!
//! `backend/redis/commit.lua` is the same rule for servers; the contract tests hold the two
//! together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Stamp;
use crate::value::envelope::{self, Text};

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
pub(crate) enum KeyChange {
    /// Stores this envelope.
    Put { envelope: Bytes, ttl: TimeToLive },
    /// Removes the key and leaves a tombstone.
    Delete,
}

impl KeyChange {
    /// How many bytes it carries.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Put { envelope, .. } => envelope.len(),
            Self::Delete => 0,
        }
    }

    /// The value that it stores, as text.
    pub(crate) fn own_value(&self) -> Option<Text> {
        match self {
            Self::Put { envelope, .. } => Some(envelope::own_value_of(envelope)),
            Self::Delete => None,
        }
    }
}

/// What an attempt was made on: a compare-and-set is on the stamp and the length, and on the bytes
/// where a value has no stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expects {
    /// Whatever is there: the stamps decide.
    Anything,
    Absent,
    Stamped {
        stamp: Stamp,
        length: usize,
    },
    Unstamped(Bytes),
    /// What is never there: the attempt asks what is.
    Nothing,
}

impl Expects {
    /// Exactly what is stored.
    pub(crate) fn of(stored: Option<&Bytes>) -> Self {
        let Some(stored) = stored else {
            return Self::Absent;
        };
        match envelope::stamp_of(stored) {
            Stamp::ZERO => Self::Unstamped(stored.clone()),
            stamp => Self::Stamped {
                stamp,
                length: stored.len(),
            },
        }
    }

    fn is_met_by(&self, stored: Option<&Bytes>) -> bool {
        *self == Self::Anything || *self == Self::of(stored)
    }
}

/// One try to bring a write to the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) key: Arc<str>,
    pub(crate) writer: Writer,
    pub(crate) sequence: Sequence,
    /// It has to be newer than what is there. The envelope that it carries may have a later one.
    pub(crate) stamp: Stamp,
    pub(crate) change: KeyChange,
    pub(crate) expects: Expects,
    /// An earlier attempt is in doubt, and may yet arrive: the first one was made so long ago.
    pub(crate) retry: Option<Duration>,
    /// The sequence number that is on record for the writer, where that is known and was not long
    /// ago. It changes nothing of what is done, but for how much there is to look at.
    pub(crate) recorded: Option<Sequence>,
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
    /// The change was made now. `existed` says whether the key was there before, `contended` by
    /// whom another change was refused that has not been made since.
    Applied {
        existed: bool,
        contended: Option<Writer>,
    },
    /// An earlier attempt with this sequence number had made it; nothing was done now.
    AlreadyApplied(KeyState),
    /// Something as new or newer is there, or something else than expected; nothing was done.
    Refused(KeyState),
    /// Whether an earlier attempt was made is not known any more; nothing was done.
    RecordExpired(KeyState),
}

/// What was at the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeyState {
    pub(crate) stored: Option<Bytes>,
    pub(crate) tombstone: Stamp,
}

impl KeyState {
    /// The stamp that a write has to beat. A key that exists ignores its tombstone.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stored
            .as_deref()
            .map_or(self.tombstone, envelope::stamp_of)
    }
}

/// What a backend has on record about a writer at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterRecord {
    /// The attempt that was decided on last.
    pub(crate) sequence: Sequence,
    /// That one was refused, as a retry.
    pub(crate) refused: bool,
}

/// What a backend is to do with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Apply,
    AlreadyApplied,
    Refuse,
    RecordExpired,
}

impl Verdict {
    /// Whether it goes on record. A retry that is refused does: what was refused stays so, also
    /// when the attempt in doubt arrives at last.
    pub(crate) fn is_recorded(self, attempt: &Attempt) -> bool {
        self == Self::Apply || (self == Self::Refuse && attempt.retry.is_some())
    }
}

/// Decides on an attempt, given what is at its key, and what is on record for its writer there.
/// `forgets`: records that are as old as its first try may have been dropped.
///
/// The sequence number comes first: an attempt that was applied once is never applied again, not
/// even where somebody has since stored an older stamp (rules 4 and 6).
pub(crate) fn decide(
    attempt: &Attempt,
    found: &KeyState,
    record: Option<WriterRecord>,
    forgets: bool,
) -> Verdict {
    match record {
        Some(record) if attempt.sequence < record.sequence => return Verdict::AlreadyApplied,
        Some(record) if attempt.sequence == record.sequence => {
            return if record.refused {
                Verdict::Refuse
            } else {
                Verdict::AlreadyApplied
            };
        }
        None if forgets && attempt.retry.is_some() => return Verdict::RecordExpired,
        _ => {}
    }
    if attempt.expects.is_met_by(found.stored.as_ref()) && attempt.stamp > found.stamp() {
        Verdict::Apply
    } else {
        Verdict::Refuse
    }
}

/// So many records a key has at most: writers come and go.
pub(crate) const RECORDS: usize = 256;

/// For so long after a record was put down with its time, later ones of its writer may take its
/// place without. Sidecars are kept for that much longer.
pub(crate) fn recent(sidecar_ttl: Duration) -> Duration {
    const MOST: Duration = Duration::from_secs(60);
    MOST.min(sidecar_ttl / 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(sequence: Sequence, stamp: u64, expects: Expects, retry: bool) -> Attempt {
        let retry = retry.then_some(Duration::ZERO);
        Attempt {
            key: "k".into(),
            writer: 1,
            sequence,
            stamp: Stamp::new(stamp),
            change: KeyChange::Delete,
            expects,
            retry,
            recorded: None,
        }
    }

    fn found(stored: &'static str, tombstone: u64) -> KeyState {
        let stored = (!stored.is_empty()).then(|| Bytes::from_static(stored.as_bytes()));
        KeyState {
            stored,
            tombstone: Stamp::new(tombstone),
        }
    }

    const APPLIED: Option<WriterRecord> = Some(WriterRecord {
        sequence: 1,
        refused: false,
    });
    const REFUSED: Option<WriterRecord> = Some(WriterRecord {
        sequence: 1,
        refused: true,
    });

    #[test]
    fn the_newest_stamp_wins_strictly_and_a_recorded_attempt_is_never_applied_again() {
        for (sequence, stamp, tombstone, recorded, verdict) in [
            (1, 5, 0, None, Verdict::Apply),
            (1, 5, 4, None, Verdict::Apply),
            (1, 5, 5, None, Verdict::Refuse),
            (1, 5, 6, None, Verdict::Refuse),
            (1, 5, 0, APPLIED, Verdict::AlreadyApplied),
            (1, 5, 6, APPLIED, Verdict::AlreadyApplied),
            (1, 5, 0, REFUSED, Verdict::Refuse),
            (0, 5, 0, REFUSED, Verdict::AlreadyApplied),
            (2, 5, 0, APPLIED, Verdict::Apply),
            (2, 5, 0, REFUSED, Verdict::Apply),
        ] {
            let attempt = attempt(sequence, stamp, Expects::Anything, false);
            assert_eq!(
                decide(&attempt, &found("", tombstone), recorded, false),
                verdict
            );
        }
    }

    #[test]
    fn an_attempt_that_expects_something_is_refused_where_it_finds_something_else() {
        const STAMPED: &str = r#"{"value": 1,"last_modified": 5}"#;
        const LONGER: &str = r#"{"value": 11,"last_modified": 5}"#;
        const NEWER: &str = r#"{"value": 1,"last_modified": 6}"#;
        for seen in ["", "1", STAMPED] {
            let expects = Expects::of(found(seen, 0).stored.as_ref());
            for there in ["", "1", "2", STAMPED, LONGER, NEWER] {
                let expected = if there == seen {
                    Verdict::Apply
                } else {
                    Verdict::Refuse
                };
                assert_eq!(
                    decide(
                        &attempt(1, 9, expects.clone(), false),
                        &found(there, 0),
                        None,
                        false
                    ),
                    expected
                );
                assert_eq!(
                    decide(
                        &attempt(1, 9, Expects::Nothing, false),
                        &found(there, 0),
                        None,
                        false
                    ),
                    Verdict::Refuse
                );
            }
            // What is deleted stays deleted.
            let expected = if seen.is_empty() {
                Verdict::Refuse
            } else {
                Verdict::Apply
            };
            assert_eq!(
                decide(&attempt(1, 9, expects, false), &found(seen, 9), None, false),
                expected
            );
        }
    }

    #[test]
    fn a_retry_of_which_no_record_may_be_left_is_not_tried() {
        let retry = attempt(3, 9, Expects::Anything, true);
        assert_eq!(
            decide(&retry, &found("", 0), None, true),
            Verdict::RecordExpired
        );
        assert_eq!(decide(&retry, &found("", 0), None, false), Verdict::Apply);
        assert_eq!(decide(&retry, &found("", 0), APPLIED, true), Verdict::Apply);
        assert_eq!(
            decide(
                &attempt(3, 9, Expects::Anything, false),
                &found("", 0),
                None,
                true
            ),
            Verdict::Apply
        );
    }

    #[test]
    fn a_key_that_exists_ignores_its_tombstone() {
        assert_eq!(found("5", 9).stamp(), Stamp::ZERO);
        assert_eq!(found("", 9).stamp(), Stamp::new(9));
    }
}
