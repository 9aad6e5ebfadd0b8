//! The accept-or-refuse rule: what a backend does with an attempt to write one key.
//!
//! `backend/redis/commit.lua` is the same rule for servers; the contract suite checks that both
//! decide alike.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Stamp;
use crate::value::addition::Addition;
use crate::value::document::{Document, GuardedEdit};

/// Who writes: a random number for each opened memory.
pub(crate) type Writer = u64;

/// A value whose envelope has at least so many bytes is not sent for a change to a part of it, if
/// that can be helped.
pub(crate) const LONG: usize = 4 << 10;

/// A writer's own count of its writes.
pub(crate) type Sequence = u64;

/// What a write does about the time to live of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeToLive {
    /// The key keeps the time to live that it has.
    Keep,
    /// The key never expires.
    Never,
    /// The key expires after this time.
    For(Duration),
}

/// What a write does to its key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum KeyChange {
    /// Stores this envelope.
    Put { envelope: Bytes, ttl: TimeToLive },
    /// Removes the key and leaves a tombstone.
    Delete,
    /// Replaces bytes of what is stored, which has the stamp and the length of this base, and makes
    /// this of it.
    Edit {
        base: Document,
        ranges: Vec<GuardedEdit>,
        made: Document,
        ttl: TimeToLive,
        /// Set if it only adds a member at the end of an object: it may be made behind members that
        /// others have added since, with a stamp that is at least so far above theirs.
        step: Option<u64>,
    },
    /// Adds to what is stored, whatever that is by then: it needs no base.
    Blind {
        addition: Addition,
        ttl: TimeToLive,
        /// How far its stamp is at least above that of what it is added to.
        step: u64,
    },
}

impl KeyChange {
    /// How many bytes it carries.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Put { envelope, .. } => envelope.len(),
            Self::Delete => 0,
            Self::Blind { addition, .. } => addition.size(),
            Self::Edit { ranges, .. } => ranges.iter().map(GuardedEdit::size).sum(),
        }
    }

    pub(crate) fn is_blind(&self) -> bool {
        matches!(self, Self::Blind { .. })
    }

    /// Whether it adds items to a list.
    #[cfg(feature = "sqlite")]
    pub(crate) fn adds_items(&self) -> bool {
        let Self::Blind { addition, .. } = self else {
            return false;
        };
        matches!(addition, Addition::Items(_))
    }

    /// Whether it carries less than all that is stored once it was made.
    pub(crate) fn is_of_part(&self) -> bool {
        matches!(self, Self::Blind { .. } | Self::Edit { .. })
    }

    /// What it does about the time to live of its key.
    pub(crate) fn ttl(&self) -> TimeToLive {
        match self {
            Self::Put { ttl, .. } | Self::Edit { ttl, .. } | Self::Blind { ttl, .. } => *ttl,
            Self::Delete => TimeToLive::Never,
        }
    }

    /// The same with this time to live.
    pub(crate) fn with_ttl(self, ttl: TimeToLive) -> Self {
        match self {
            Self::Put { envelope, .. } => Self::Put { envelope, ttl },
            Self::Delete => Self::Delete,
            Self::Edit {
                base,
                ranges,
                made,
                step,
                ..
            } => Self::Edit {
                base,
                ranges,
                made,
                ttl,
                step,
            },
            Self::Blind { addition, step, .. } => Self::Blind {
                addition,
                ttl,
                step,
            },
        }
    }
}

/// What an attempt expects to be stored. A compare-and-set compares stamp and length, or the bytes
/// if a value has no stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expects {
    /// Nothing in particular: the stamps decide.
    Anything,
    Absent,
    Stamped {
        stamp: Stamp,
        length: usize,
    },
    Unstamped(Bytes),
    /// What is never there: the attempt is refused, and learns what is there.
    Nothing,
}

impl Expects {
    /// Expects exactly this document.
    pub(crate) fn of_document(stored: Option<&Document>) -> Self {
        match stored {
            None => Self::Absent,
            Some(stored) if stored.stamp() == Stamp::ZERO => Self::Unstamped(stored.to_bytes()),
            Some(stored) => Self::Stamped {
                stamp: stored.stamp(),
                length: stored.len(),
            },
        }
    }

    /// Expects exactly what is stored.
    #[cfg(test)]
    pub(crate) fn of(stored: Option<&Bytes>) -> Self {
        Self::of_document(stored.cloned().map(Document::of).as_ref())
    }

    fn is_met_by(&self, stored: Option<&Document>) -> bool {
        *self == Self::Anything || *self == Self::of_document(stored)
    }

    /// The same, of a value with a stamp.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_met_by_value(&self, ValueId { stamp, length }: ValueId) -> bool {
        *self == Self::Anything || *self == Self::Stamped { stamp, length }
    }
}

/// One try to bring a write to the backend.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) key: Arc<str>,
    pub(crate) writer: Writer,
    pub(crate) sequence: Sequence,
    /// It has to be newer than the stamp of what is there. The stamp in the envelope may be later.
    pub(crate) stamp: Stamp,
    pub(crate) change: KeyChange,
    pub(crate) expects: Expects,
    /// Set if an earlier attempt is in doubt and may still arrive: how long ago the first one was
    /// made.
    pub(crate) retry: Option<Duration>,
    /// The sequence number that is on record for the writer, if that is known and recent. It is a
    /// hint that saves the backend work; it never changes the outcome.
    pub(crate) recorded: Option<Sequence>,
    /// The server is to answer although it does not have the slot yet: another one sent us there.
    pub(crate) asking: bool,
}

impl Attempt {
    /// How many bytes it carries.
    pub(crate) fn size(&self) -> usize {
        self.change.size()
    }

    /// What it makes of what is stored now; `None` if it is not to be made.
    pub(crate) fn made_of(&self, current: &KeyState) -> Option<KeyAfter> {
        let found = current.stamp();
        if let KeyChange::Blind { addition, step, .. } = &self.change {
            let stamp = blind_stamp(self.stamp, found, *step)?;
            let stored = current.stored.as_ref()?;
            return Some(KeyAfter::Stored(addition.to(stored, stamp)?));
        }
        let is_met = self.expects.is_met_by(current.stored.as_ref());
        (is_met && self.stamp > found).then(|| match &self.change {
            KeyChange::Put { envelope, .. } => KeyAfter::Stored(Document::of(envelope.clone())),
            KeyChange::Edit { made, .. } => KeyAfter::Stored(made.clone()),
            KeyChange::Delete | KeyChange::Blind { .. } => KeyAfter::Removed,
        })
    }
}

/// What a key has once an attempt was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyAfter {
    /// This is stored.
    Stored(Document),
    Removed,
}

/// The stamp of what is made of a value that has the stamp `found`; `None` if there is none above
/// that.
pub(crate) fn blind_stamp(own: Stamp, found: Stamp, step: u64) -> Option<Stamp> {
    let stamp = own.get().max(found.get().saturating_add(step));
    (stamp <= Stamp::MAX.get()).then(|| Stamp::new(stamp))
}

/// Which of its values a key has: two of them differ in at least one of these, unless somebody
/// edits by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueId {
    pub(crate) stamp: Stamp,
    /// Of the envelope, in bytes.
    pub(crate) length: usize,
}

impl ValueId {
    pub(crate) fn of(stored: &Document) -> Self {
        Self {
            stamp: stored.stamp(),
            length: stored.len(),
        }
    }
}

/// What the backend did with an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The change was made now. `existed` says whether the key was there before; `contended` is
    /// another writer that is starved: its change was refused, and has not been made since.
    Applied {
        existed: bool,
        contended: Option<Writer>,
    },
    /// A blind change was made now, to what was there before, and has this stamp. `sum`: what an
    /// integer has become.
    Added {
        before: ValueId,
        stamp: Stamp,
        sum: Option<i64>,
        contended: Option<Writer>,
    },
    /// An edit was made now, behind what others have added since its base: what had the stamp
    /// `before` has become this.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "servers do so"))]
    AddedBehind {
        before: Stamp,
        made: Document,
        contended: Option<Writer>,
    },
    /// An earlier attempt with this sequence number has made the change; nothing was done now.
    AlreadyApplied(KeyState),
    /// Something as new or newer is there, or not what was expected; nothing was done.
    Refused(KeyState),
    /// Whether an earlier attempt was applied is not known any more; nothing was done.
    RecordExpired(KeyState),
}

impl Outcome {
    /// Whether the change was made now.
    pub(crate) fn is_made_now(&self) -> bool {
        matches!(
            self,
            Self::Applied { .. } | Self::Added { .. } | Self::AddedBehind { .. }
        )
    }

    /// Another writer that is starved, if the change was made now.
    pub(crate) fn contended(&self) -> Option<Writer> {
        match self {
            Self::Applied { contended, .. }
            | Self::Added { contended, .. }
            | Self::AddedBehind { contended, .. } => *contended,
            Self::AlreadyApplied(_) | Self::Refused(_) | Self::RecordExpired(_) => None,
        }
    }
}

/// What a backend found at a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeyState {
    pub(crate) stored: Option<Document>,
    pub(crate) tombstone: Stamp,
}

impl KeyState {
    /// The stamp that a write has to be newer than. A key that exists ignores its tombstone.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stored.as_ref().map_or(self.tombstone, Document::stamp)
    }
}

/// What a backend has on record about a writer at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterRecord {
    /// Of the last attempt that was decided on.
    pub(crate) sequence: Sequence,
    /// That attempt was a retry, and was refused.
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
    /// Whether it goes on record. A refused retry does: the attempt in doubt has to be refused too,
    /// if it arrives later.
    pub(crate) fn is_recorded(self, attempt: &Attempt) -> bool {
        self == Self::Apply || (self == Self::Refuse && attempt.retry.is_some())
    }

    /// The answer if nothing is done, given what was found.
    pub(crate) fn finding(self, found: KeyState) -> Outcome {
        match self {
            Self::AlreadyApplied => Outcome::AlreadyApplied(found),
            Self::RecordExpired => Outcome::RecordExpired(found),
            Self::Refuse | Self::Apply => Outcome::Refused(found),
        }
    }
}

/// What a backend is to do with an attempt, and what that makes of the key if it is made.
#[derive(Debug)]
pub(crate) struct Decision<M = KeyAfter> {
    pub(crate) verdict: Verdict,
    pub(crate) made: Option<M>,
}

impl<M> From<Verdict> for Decision<M> {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            made: None,
        }
    }
}

/// Decides on an attempt, given what is on record for its writer at its key. `may_lack_record`:
/// records as old as its first try may have been dropped. `make`: what it makes of what is stored
/// now, by the rule of [`made_of`](Attempt::made_of); `None` if it is not to be made.
///
/// The sequence number is compared first: an attempt that was applied once is never applied again,
/// not even if an older stamp was stored since (rules 4 and 6).
pub(crate) fn decide<M>(
    attempt: &Attempt,
    record: Option<WriterRecord>,
    may_lack_record: bool,
    make: impl FnOnce() -> Option<M>,
) -> Decision<M> {
    match record {
        Some(record) if attempt.sequence < record.sequence => {
            return Verdict::AlreadyApplied.into();
        }
        Some(record) if attempt.sequence == record.sequence => {
            return Decision::from(if record.refused {
                Verdict::Refuse
            } else {
                Verdict::AlreadyApplied
            });
        }
        None if may_lack_record && attempt.retry.is_some() => {
            return Verdict::RecordExpired.into();
        }
        _ => {}
    }
    let made = make();
    let verdict = match made {
        Some(_) => Verdict::Apply,
        None => Verdict::Refuse,
    };
    Decision { verdict, made }
}

/// How many records a key has at most: writers come and go.
pub(crate) const RECORDS: usize = 256;

/// How long a record's time may lag behind: for this long, later records of the same writer may
/// replace it without a new time. Sidecars are kept for that much longer.
pub(crate) fn recent(sidecar_ttl: Duration) -> Duration {
    LONGEST_RECENT.min(sidecar_ttl / 20)
}

/// The most of that, whatever the `sidecar_ttl` of the writer.
pub(crate) const LONGEST_RECENT: Duration = Duration::from_secs(60);

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
            asking: false,
        }
    }

    fn key_state(stored: &'static str, tombstone: u64) -> KeyState {
        let stored = (!stored.is_empty()).then(|| Bytes::from_static(stored.as_bytes()));
        KeyState {
            stored: stored.map(Document::of),
            tombstone: Stamp::new(tombstone),
        }
    }

    fn decide(
        attempt: &Attempt,
        current: &KeyState,
        record: Option<WriterRecord>,
        may_lack_record: bool,
    ) -> Decision {
        super::decide(attempt, record, may_lack_record, || {
            attempt.made_of(current)
        })
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
                decide(&attempt, &key_state("", tombstone), recorded, false).verdict,
                verdict
            );
        }
    }

    #[test]
    fn an_attempt_that_expects_something_is_refused_if_it_finds_something_else() {
        const STAMPED: &str = r#"{"value": 1,"last_modified": 5}"#;
        const LONGER: &str = r#"{"value": 11,"last_modified": 5}"#;
        const NEWER: &str = r#"{"value": 1,"last_modified": 6}"#;
        for before in ["", "1", STAMPED] {
            let expects = Expects::of_document(key_state(before, 0).stored.as_ref());
            for there in ["", "1", "2", STAMPED, LONGER, NEWER] {
                let expected = if there == before {
                    Verdict::Apply
                } else {
                    Verdict::Refuse
                };
                assert_eq!(
                    decide(
                        &attempt(1, 9, expects.clone(), false),
                        &key_state(there, 0),
                        None,
                        false
                    )
                    .verdict,
                    expected
                );
                assert_eq!(
                    decide(
                        &attempt(1, 9, Expects::Nothing, false),
                        &key_state(there, 0),
                        None,
                        false
                    )
                    .verdict,
                    Verdict::Refuse
                );
            }
            // A deleted key stays deleted.
            let expected = if before.is_empty() {
                Verdict::Refuse
            } else {
                Verdict::Apply
            };
            assert_eq!(
                decide(
                    &attempt(1, 9, expects, false),
                    &key_state(before, 9),
                    None,
                    false
                )
                .verdict,
                expected
            );
        }
    }

    #[test]
    fn a_retry_whose_record_may_have_been_dropped_is_not_applied() {
        let retry = attempt(3, 9, Expects::Anything, true);
        assert_eq!(
            decide(&retry, &key_state("", 0), None, true).verdict,
            Verdict::RecordExpired
        );
        assert_eq!(
            decide(&retry, &key_state("", 0), None, false).verdict,
            Verdict::Apply
        );
        assert_eq!(
            decide(&retry, &key_state("", 0), APPLIED, true).verdict,
            Verdict::Apply
        );
        assert_eq!(
            decide(
                &attempt(3, 9, Expects::Anything, false),
                &key_state("", 0),
                None,
                true
            )
            .verdict,
            Verdict::Apply
        );
    }

    #[test]
    fn a_key_that_exists_ignores_its_tombstone() {
        assert_eq!(key_state("5", 9).stamp(), Stamp::ZERO);
        assert_eq!(key_state("", 9).stamp(), Stamp::new(9));
    }
}
