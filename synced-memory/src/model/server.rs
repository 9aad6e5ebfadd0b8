//! The server: a `Store` as the library has it, and beside it what the rules say that is there.

use std::time::Duration;

use bytes::Bytes;

use super::{Check, hold};
use crate::backend::commit::{Attempt, Expects, KeyChange, Outcome, Sequence, TimeToLive, Writer};
use crate::backend::process::Store;
use crate::base::clock::{Monotonic, Stamp};
use crate::pending::outbox::NUMBERS;
use crate::value::envelope;

pub(super) const KEY: &str = "k";

/// How long deletes are remembered, and a day longer the sidecars.
pub(super) const TOMBSTONE_TTL: Duration = Duration::from_secs(10 * 24 * 3600);
const SIDECAR_TTL: Duration = Duration::from_secs(11 * 24 * 3600);

/// Rule 8: stamps above 2^62 count as 0.
pub(super) fn counted(stamp: u64) -> u64 {
    if stamp > 1 << 62 { 0 } else { stamp }
}

/// The write that an attempt with this number is of.
pub(super) fn write_of(number: Sequence) -> Sequence {
    number - number % NUMBERS
}

/// A value that is stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) stamp: u64,
    /// When its time to live is over, counted from the write.
    pub(super) over: Option<Monotonic>,
    /// When the server removes it: later than that by what the write took to get there.
    gone: Option<Monotonic>,
}

impl Held {
    pub(super) fn is_over(&self, mono: Monotonic) -> bool {
        self.over.is_some_and(|over| over <= mono)
    }
}

/// What the rules say that the server holds and knows.
#[derive(Debug, Clone, Default)]
struct Truth {
    held: Option<Held>,
    tombstone: u64,
    applied: Vec<(Writer, Sequence)>,
    /// What was superseded, and stays so.
    superseded: Vec<(Writer, Sequence)>,
}

impl Truth {
    /// The stamp that a write has to beat: a key that exists ignores its tombstone.
    fn standing(&self) -> u64 {
        self.held.as_ref().map_or(self.tombstone, |held| held.stamp)
    }
}

/// What took effect, for a replica that has not seen all of it.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    /// An attempt was decided on; whether it was made.
    Recorded(Attempt, bool),
    Raw(Option<Bytes>),
    Flushed,
}

#[derive(Debug)]
pub(super) struct Server {
    store: Store,
    truth: Truth,
    effects: Vec<(Monotonic, Effect)>,
    /// How much of it the replica has, and what that comes to.
    replica: (usize, Truth),
    /// Writes that ended in an error: they must not take effect any more.
    withdrawn: Vec<(Writer, Sequence)>,
    /// All that ever took effect.
    made: Vec<(Writer, Sequence)>,
    /// All that was ever recorded as superseded.
    superseded: Vec<(Writer, Sequence)>,
    raws: Writer,
    has_forgotten: bool,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            store: Store::new(SIDECAR_TTL),
            truth: Truth::default(),
            effects: Vec::new(),
            replica: (0, Truth::default()),
            withdrawn: Vec::new(),
            made: Vec::new(),
            superseded: Vec::new(),
            raws: 0,
            has_forgotten: false,
        }
    }

    pub(super) fn held(&mut self, mono: Monotonic) -> Option<Held> {
        if self
            .truth
            .held
            .as_ref()
            .and_then(|held| held.gone)
            .is_some_and(|gone| gone <= mono)
        {
            self.truth.held = None;
        }
        self.truth.held.clone()
    }

    pub(super) fn standing(&self) -> u64 {
        self.truth.standing()
    }

    /// What took effect, in its order, as far as no server has forgotten it.
    pub(super) fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter().map(|(_, effect)| effect)
    }

    /// Whether the write ever took effect.
    pub(super) fn made(&self, writer: Writer, sequence: Sequence) -> bool {
        self.made
            .iter()
            .any(|made| (made.0, write_of(made.1)) == (writer, sequence))
    }

    /// Whether it ever lost what it had made.
    pub(super) fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// Whether the write was ever recorded as superseded.
    pub(super) fn is_superseded(&self, writer: Writer, sequence: Sequence) -> bool {
        self.superseded.contains(&(writer, sequence))
    }

    /// Lets an attempt take effect, or not. `over` is when its value's time to live ends.
    pub(super) fn commit(
        &mut self,
        attempt: &Attempt,
        over: Option<Monotonic>,
        mono: Monotonic,
    ) -> Check<Outcome> {
        let held = self.held(mono);
        let standing = self.standing();
        let write = (attempt.writer, attempt.sequence);
        let stamp = attempt.stamp.get();
        let is_superseded = self.truth.superseded.contains(&write);
        let is_met = attempt.expects == Expects::Anything
            || attempt.expects == Expects::of(held.as_ref().map(|held| &held.bytes));
        let of_writer = || {
            self.truth
                .applied
                .iter()
                .filter(|(writer, _)| *writer == attempt.writer)
        };
        let outcome = self.store.commit(attempt, mono);
        match &outcome {
            Outcome::Applied { existed, .. } => {
                hold!(
                    !of_writer().any(|applied| write_of(applied.1) == write_of(write.1)),
                    "rules 4 and 6: {write:?} was applied twice"
                );
                hold!(
                    is_met,
                    "rule 5: {write:?} was applied to something else than it was made for"
                );
                hold!(
                    of_writer().all(|applied| *applied < write),
                    "rule 3: {write:?} was applied after a later write"
                );
                hold!(
                    !is_superseded,
                    "rule 4: {write:?} was superseded, and yet applied"
                );
                hold!(
                    stamp > standing,
                    "rules 4 and 7: {stamp} was applied over {standing}"
                );
                hold!(
                    !self.withdrawn.contains(&(write.0, write_of(write.1))),
                    "rule 2: {write:?} was withdrawn, and yet applied"
                );
                hold!(
                    *existed == held.is_some(),
                    "it was {} there before",
                    if *existed { "not" } else { "" }
                );
                self.made.push(write);
                self.truth.applied.push(write);
                self.effects
                    .push((mono, Effect::Recorded(attempt.clone(), true)));
                self.truth.held = match &attempt.change {
                    KeyChange::Delete => {
                        self.truth.tombstone = self.truth.tombstone.max(counted(stamp));
                        None
                    }
                    KeyChange::Put { envelope, ttl } => {
                        let kept = held.map(|held| (held.over, held.gone));
                        let (over, gone) = match ttl {
                            TimeToLive::Keep => kept.unwrap_or((over, None)),
                            TimeToLive::Never => (over, None),
                            TimeToLive::For(ttl) => (over, Some(mono + *ttl)),
                        };
                        // With changes on top of an assignment the envelope is newer than what
                        // competes.
                        let stamp = counted(envelope::stamp_of(envelope).get());
                        Some(Held {
                            bytes: envelope.clone(),
                            stamp,
                            over,
                            gone,
                        })
                    }
                };
            }
            Outcome::RecordExpired(_) => return Err(format!("rule 6: {write:?} was forgotten")),
            Outcome::AlreadyApplied(found) | Outcome::Refused(found) => {
                let before = of_writer()
                    .chain(&self.truth.superseded)
                    .any(|decided| decided.0 == attempt.writer && *decided > write)
                    || of_writer().any(|applied| *applied == write);
                if matches!(outcome, Outcome::AlreadyApplied(_)) {
                    hold!(before, "rule 6: {write:?} was never applied before");
                } else {
                    hold!(
                        !is_met || stamp <= standing || is_superseded,
                        "rule 4: {stamp} was refused for the sake of {standing}"
                    );
                    if attempt.retry.is_some() {
                        self.superseded.push(write);
                        self.truth.superseded.push(write);
                        self.effects
                            .push((mono, Effect::Recorded(attempt.clone(), false)));
                    }
                }
                hold!(
                    found.stored == held.as_ref().map(|held| held.bytes.clone()),
                    "it found something else: {found:?}"
                );
                hold!(
                    found.stamp().get() == standing,
                    "it found another stamp than {standing}: {found:?}"
                );
            }
        }
        self.agrees(mono)?;
        Ok(outcome)
    }

    /// Stores bytes as they are, or removes the key without a trace, as the Python package does.
    pub(super) fn raw(&mut self, stored: Option<(Bytes, u64)>, mono: Monotonic) -> Check {
        let bytes = stored.as_ref().map(|(bytes, _)| bytes.clone());
        self.store_raw(bytes.clone(), mono);
        self.truth.held = stored.map(|(bytes, stamp)| Held {
            bytes,
            stamp: counted(stamp),
            over: None,
            gone: None,
        });
        self.effects.push((mono, Effect::Raw(bytes)));
        self.agrees(mono)
    }

    /// Drops the records of a writer: it is as if somebody else had made its writes.
    pub(super) fn forget(&mut self, writer: Writer, mono: Monotonic) -> Check {
        for (_, effect) in &mut self.effects {
            if let Effect::Recorded(attempt, _) = effect
                && attempt.writer == writer
            {
                attempt.writer = !writer;
            }
        }
        self.replay();
        self.agrees(mono)
    }

    /// FLUSHALL.
    pub(super) fn flush(&mut self, mono: Monotonic) {
        self.has_forgotten = true;
        self.store = Store::new(SIDECAR_TTL);
        self.truth = Truth::default();
        self.effects.push((mono, Effect::Flushed));
    }

    /// The replica catches up.
    pub(super) fn replicate(&mut self) {
        self.replica = (self.effects.len(), self.truth.clone());
    }

    /// The replica takes over, without what it has not seen.
    pub(super) fn fail_over(&mut self, mono: Monotonic) -> Check {
        self.has_forgotten = true;
        self.effects.truncate(self.replica.0);
        self.truth = self.replica.1.clone();
        self.replay();
        self.agrees(mono)
    }

    fn replay(&mut self) {
        self.store = Store::new(SIDECAR_TTL);
        for (mono, effect) in self.effects.clone() {
            match effect {
                Effect::Recorded(attempt, _) => _ = self.store.commit(&attempt, mono),
                Effect::Raw(stored) => self.store_raw(stored, mono),
                Effect::Flushed => self.store = Store::new(SIDECAR_TTL),
            }
        }
    }

    pub(super) fn withdraw(&mut self, writer: Writer, sequence: Sequence) -> Check {
        hold!(
            !self.made(writer, sequence),
            "rule 2: {writer}/{sequence} ended in an error, and yet it was applied"
        );
        self.withdrawn.push((writer, sequence));
        Ok(())
    }

    /// By means of attempts that beat everything: the first leaves nothing and no tombstone.
    fn store_raw(&mut self, stored: Option<Bytes>, mono: Monotonic) {
        let mut put = |envelope: Bytes, ttl| {
            self.raws += 1;
            let change = KeyChange::Put { envelope, ttl };
            let attempt = Attempt {
                key: KEY.into(),
                writer: self.raws,
                sequence: 1,
                stamp: Stamp::MAX,
                change,
                expects: Expects::Anything,
                retry: None,
                recorded: None,
            };
            self.store.commit(&attempt, mono);
        };
        put(Bytes::new(), TimeToLive::For(Duration::ZERO));
        if let Some(stored) = stored {
            put(stored, TimeToLive::Never);
        }
    }

    fn agrees(&mut self, mono: Monotonic) -> Check {
        let held = self.held(mono).map(|held| held.bytes);
        let stored = self.store.read(KEY, mono);
        hold!(
            stored == held,
            "the server holds {stored:?} instead of {held:?}"
        );
        Ok(())
    }
}
