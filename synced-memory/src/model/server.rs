//! The server: a `Store` of the library, and beside it what the rules say that it stores.

use std::time::Duration;

use bytes::Bytes;

use super::check::{RuleResult, ensure};
use crate::backend::commit::{
    Attempt, Expects, KeyChange, KeyState, Outcome, Sequence, TimeToLive, Writer,
};
use crate::backend::process::Store;
use crate::backend::shards::Shard;
use crate::base::clock::{Monotonic, Stamp};
use crate::pending::outbox::NUMBERS;
use crate::value::addition::{self, Addition};
use crate::value::document::Document;
use crate::value::document::GuardedEdit;
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

/// The value that the server stores.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeldValue {
    pub(super) bytes: Bytes,
    pub(super) stamp: u64,
    /// When its time to live is over, counted from the write.
    pub(super) expires_at: Option<Monotonic>,
    /// When the server removes it: later, by the time that the write took to arrive.
    removed_at: Option<Monotonic>,
}

impl HeldValue {
    pub(super) fn is_expired(&self, mono: Monotonic) -> bool {
        self.expires_at.is_some_and(|at| at <= mono)
    }
}

/// Which of the key and its sidecar exist.
#[derive(Debug, Clone, Copy)]
pub(super) struct Existing {
    pub(super) key: bool,
    pub(super) sidecar: bool,
}

/// What the rules say that the server stores and has recorded.
#[derive(Debug, Clone, Default)]
struct ExpectedStore {
    held: Option<HeldValue>,
    tombstone: u64,
    applied: Vec<(Writer, Sequence)>,
    /// Writes that were refused for good.
    superseded: Vec<(Writer, Sequence)>,
}

impl ExpectedStore {
    /// The stamp that a write has to beat: a key that exists ignores its tombstone.
    fn stamp_to_beat(&self) -> u64 {
        self.held.as_ref().map_or(self.tombstone, |held| held.stamp)
    }
}

/// Something that changed the server. A replica may not have received all of it.
#[derive(Debug, Clone)]
pub(super) enum ServerEffect {
    /// The decision on an attempt; whether it was applied.
    Decided(Attempt, bool),
    Foreign(Option<Bytes>),
    Flushed,
}

#[derive(Debug)]
pub(super) struct ModelServer {
    store: Store,
    expected: ExpectedStore,
    effects: Vec<(Monotonic, ServerEffect)>,
    /// By the number of the shard: how many effects its replica has received, and their result.
    replicas: Vec<(usize, ExpectedStore)>,
    /// Writes that ended in an error: they must not be applied any more.
    withdrawn: Vec<(Writer, Sequence)>,
    /// All writes that were ever applied, even if the server has lost them since.
    ever_applied: Vec<(Writer, Sequence)>,
    /// All writes that were ever recorded as superseded.
    superseded: Vec<(Writer, Sequence)>,
    foreign_writers: Writer,
    has_lost_data: bool,
}

impl ModelServer {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            store: Store::new(SIDECAR_TTL),
            expected: ExpectedStore::default(),
            effects: Vec::new(),
            replicas: vec![(0, ExpectedStore::default()); shards + 1],
            withdrawn: Vec::new(),
            ever_applied: Vec::new(),
            superseded: Vec::new(),
            foreign_writers: 0,
            has_lost_data: false,
        }
    }

    pub(super) fn held(&mut self, mono: Monotonic) -> Option<HeldValue> {
        if self
            .expected
            .held
            .as_ref()
            .and_then(|held| held.removed_at)
            .is_some_and(|removed_at| removed_at <= mono)
        {
            self.expected.held = None;
        }
        self.expected.held.clone()
    }

    pub(super) fn stamp_to_beat(&self) -> u64 {
        self.expected.stamp_to_beat()
    }

    /// The effects in order, without those that were lost by a failover.
    pub(super) fn effects(&self) -> impl Iterator<Item = &ServerEffect> {
        self.effects.iter().map(|(_, effect)| effect)
    }

    /// The writes that were ever applied for a writer.
    pub(super) fn applied_by(&self, writer: Writer) -> Vec<Sequence> {
        let applied = self.ever_applied.iter();
        let of_writer = applied.filter(|applied| applied.0 == writer);
        of_writer.map(|applied| write_of(applied.1)).collect()
    }

    /// Whether the write was ever applied.
    pub(super) fn was_applied(&self, writer: Writer, sequence: Sequence) -> bool {
        self.ever_applied
            .iter()
            .any(|applied| (applied.0, write_of(applied.1)) == (writer, sequence))
    }

    /// Whether it ever lost something that it had applied.
    pub(super) fn has_lost_data(&self) -> bool {
        self.has_lost_data
    }

    /// Whether an attempt was refused for good, and the server has lost that.
    fn has_lost_refusal_of(&self, attempt: &(Writer, Sequence)) -> bool {
        self.superseded.contains(attempt) && !self.expected.superseded.contains(attempt)
    }

    /// Whether this is so of any attempt: it may be applied when it arrives late, and its write was
    /// sent under another number since.
    pub(super) fn has_lost_refusals(&self) -> bool {
        let mut refused = self.superseded.iter();
        refused.any(|refused| self.has_lost_refusal_of(refused))
    }

    /// Whether the write was ever recorded as superseded.
    pub(super) fn is_superseded(&self, writer: Writer, sequence: Sequence) -> bool {
        self.superseded.contains(&(writer, sequence))
    }

    /// Decides on an attempt. `expires_at` is when the time to live of its value is over.
    pub(super) fn commit(
        &mut self,
        attempt: &Attempt,
        expires_at: Option<Monotonic>,
        mono: Monotonic,
    ) -> RuleResult<Outcome> {
        let held = self.held(mono);
        let outcome = self.store.commit(attempt, mono);
        let write = (attempt.writer, attempt.sequence);
        match &outcome {
            Outcome::Applied { existed, .. } => {
                self.check_applied(attempt, held.as_ref(), *existed)?;
                self.apply(attempt, held, expires_at, mono);
            }
            Outcome::Added { before, stamp, .. } => {
                self.check_applied(attempt, held.as_ref(), true)?;
                let (own, to_beat) = (attempt.stamp, self.stamp_to_beat());
                ensure!(
                    *stamp >= own && stamp.get() > to_beat,
                    "rule 7: {write:?}, stamped {own}, was added to {to_beat} as {stamp}"
                );
                let held_before = held.as_ref().map(|held| (held.stamp, held.bytes.len()));
                ensure!(
                    held_before == Some((before.stamp.get(), before.length)),
                    "rule 5: {write:?} was added to {held_before:?}, and says {before:?}"
                );
                self.add(attempt, held, *stamp, expires_at, mono)?;
            }
            Outcome::AddedBehind { .. } => {
                return Err(format!("{write:?} went behind others, and there is no log"));
            }
            Outcome::RecordExpired(_) => {
                return Err(format!("rule 6: the record of {write:?} has expired"));
            }
            Outcome::AlreadyApplied(found) => {
                ensure!(
                    self.is_decided(write),
                    "rule 6: {write:?} was never applied before"
                );
                self.check_found(found, held.as_ref())?;
            }
            Outcome::Refused(found) => {
                let to_beat = self.stamp_to_beat();
                let is_refused = attempt.change.is_blind()
                    || !is_met(attempt, held.as_ref())
                    || attempt.stamp.get() <= to_beat
                    || self.expected.superseded.contains(&write);
                ensure!(
                    is_refused,
                    "rule 4: {} was refused, and {to_beat} is stored",
                    attempt.stamp
                );
                self.check_found(found, held.as_ref())?;
                if attempt.retry.is_some() {
                    self.superseded.push(write);
                    self.expected.superseded.push(write);
                    let effect = ServerEffect::Decided(attempt.clone(), false);
                    self.effects.push((mono, effect));
                }
            }
        }
        self.agrees(mono)?;
        Ok(outcome)
    }

    /// What the server has applied for a writer.
    fn applied_for(&self, writer: Writer) -> impl Iterator<Item = &(Writer, Sequence)> {
        let applied = self.expected.applied.iter();
        applied.filter(move |applied| applied.0 == writer)
    }

    /// Whether this write was applied, or a later one of its writer was applied or superseded.
    fn is_decided(&self, write: (Writer, Sequence)) -> bool {
        let mut decided = self.applied_for(write.0).chain(&self.expected.superseded);
        decided.any(|decided| decided.0 == write.0 && *decided > write)
            || self.applied_for(write.0).any(|applied| *applied == write)
    }

    /// `held` is what was stored before.
    fn check_applied(
        &self,
        attempt: &Attempt,
        held: Option<&HeldValue>,
        existed: bool,
    ) -> RuleResult {
        let (writer, sequence) = (attempt.writer, attempt.sequence);
        let write = (writer, sequence);
        let mut applied = self.applied_for(writer);
        let is_same = |applied: &(Writer, Sequence)| {
            write_of(applied.1) == write_of(sequence) && !self.has_lost_refusal_of(applied)
        };
        ensure!(
            !applied.any(is_same),
            "rules 4 and 6: {write:?} was applied twice"
        );
        ensure!(
            is_met(attempt, held),
            "rule 5: {write:?} was applied to something else than it was made for"
        );
        check_edit(attempt, held)?;
        ensure!(
            self.applied_for(writer).all(|applied| *applied < write),
            "rule 3: {write:?} was applied after a later write"
        );
        ensure!(
            !self.expected.superseded.contains(&write),
            "rule 4: {write:?} was superseded, and yet applied"
        );
        let (stamp, to_beat) = (attempt.stamp.get(), self.stamp_to_beat());
        ensure!(
            stamp > to_beat || attempt.change.is_blind(),
            "rules 4 and 7: {stamp} was applied over {to_beat}"
        );
        ensure!(
            !self.withdrawn.contains(&(writer, write_of(sequence))),
            "rule 2: {write:?} was withdrawn, and yet applied"
        );
        ensure!(
            existed == held.is_some(),
            "{write:?}: whether the key existed is answered as {existed}"
        );
        Ok(())
    }

    fn check_found(&self, found: &KeyState, held: Option<&HeldValue>) -> RuleResult {
        let to_beat = self.stamp_to_beat();
        ensure!(
            found.stored == held.map(|held| Document::of(held.bytes.clone())),
            "it found something else: {found:?}"
        );
        ensure!(
            found.stamp().get() == to_beat,
            "it found another stamp than {to_beat}: {found:?}"
        );
        Ok(())
    }

    /// `held` is what was stored before.
    fn apply(
        &mut self,
        attempt: &Attempt,
        held: Option<HeldValue>,
        expires_at: Option<Monotonic>,
        mono: Monotonic,
    ) {
        let write = (attempt.writer, attempt.sequence);
        self.ever_applied.push(write);
        self.expected.applied.push(write);
        let effect = ServerEffect::Decided(attempt.clone(), true);
        self.effects.push((mono, effect));

        let stored = match &attempt.change {
            KeyChange::Put { envelope, ttl } => Some((envelope.clone(), *ttl)),
            KeyChange::Edit { made, ttl, .. } => Some((made.to_bytes(), *ttl)),
            KeyChange::Delete | KeyChange::Blind { .. } => None,
        };
        let Some((envelope, ttl)) = stored else {
            let tombstone = counted(attempt.stamp.get());
            self.expected.tombstone = self.expected.tombstone.max(tombstone);
            self.expected.held = None;
            return;
        };
        let kept = held.map(|held| (held.expires_at, held.removed_at));
        let (expires_at, removed_at) = match ttl {
            TimeToLive::Keep => kept.unwrap_or((expires_at, None)),
            TimeToLive::Never => (expires_at, None),
            TimeToLive::For(ttl) => (expires_at, Some(mono + ttl)),
        };
        // The attempt has the stamp of its assignment; the changes on top of that are newer, and
        // the envelope has their stamp.
        let stamp = counted(envelope::stamp_of(&envelope).get());
        self.expected.held = Some(HeldValue {
            bytes: envelope,
            stamp,
            expires_at,
            removed_at,
        });
    }

    /// What was added is on top of what was `held` before, byte for byte.
    fn add(
        &mut self,
        attempt: &Attempt,
        held: Option<HeldValue>,
        stamp: Stamp,
        expires_at: Option<Monotonic>,
        mono: Monotonic,
    ) -> RuleResult {
        let KeyChange::Blind { addition, ttl, .. } = &attempt.change else {
            return Err(format!("{attempt:?} is no addition"));
        };
        let before = held.as_ref().map(|held| held.bytes.clone());
        let before = before.ok_or("rule 5: it was added to nothing")?;
        let after = match addition {
            Addition::Items(items) => {
                let before = String::from_utf8_lossy(&before);
                let items = addition::joined(items);
                let (list, _) = before.rsplit_once("],").ok_or("it was no list")?;
                let comma = if list.ends_with('[') { "" } else { "," };
                format!("{list}{comma}{items}],\"last_modified\": {stamp}}}")
            }
            Addition::Integer { by, .. } => {
                let number: i64 = envelope::decode(&before).map_err(|_| "it was no integer")?;
                format!("{{\"value\": {},\"last_modified\": {stamp}}}", number + by)
            }
        };
        let change = KeyChange::Put {
            envelope: after.into(),
            ttl: *ttl,
        };
        let put = Attempt {
            change,
            ..attempt.clone()
        };
        self.apply(&put, held, expires_at, mono);
        // What is played again is what was sent.
        if let Some((_, ServerEffect::Decided(decided, _))) = self.effects.last_mut() {
            *decided = attempt.clone();
        }
        Ok(())
    }

    /// Stores bytes as they are, or removes the key without a tombstone, as the Python package
    /// does.
    pub(super) fn store_foreign(
        &mut self,
        stored: Option<(Bytes, u64)>,
        mono: Monotonic,
    ) -> RuleResult {
        let bytes = stored.as_ref().map(|(bytes, _)| bytes.clone());
        self.store_bytes(bytes.clone(), mono);
        self.expected.held = stored.map(|(bytes, stamp)| HeldValue {
            bytes,
            stamp: counted(stamp),
            expires_at: None,
            removed_at: None,
        });
        self.effects.push((mono, ServerEffect::Foreign(bytes)));
        self.agrees(mono)
    }

    /// Drops the records of a writer, as if another writer had made its writes.
    pub(super) fn drop_records(&mut self, writer: Writer, mono: Monotonic) -> RuleResult {
        for (_, effect) in &mut self.effects {
            if let ServerEffect::Decided(attempt, _) = effect
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
        self.has_lost_data = true;
        self.store = Store::new(SIDECAR_TTL);
        self.expected = ExpectedStore::default();
        self.effects.push((mono, ServerEffect::Flushed));
    }

    /// The replica of a shard catches up.
    pub(super) fn replicate(&mut self, shard: Shard) {
        self.replicas[shard.index()] = (self.effects.len(), self.expected.clone());
    }

    /// The replica of a shard takes over, without what it has not received.
    pub(super) fn fail_over(&mut self, shard: Shard, mono: Monotonic) -> RuleResult {
        self.has_lost_data = true;
        let (received, expected) = self.replicas[shard.index()].clone();
        // What the replicas of others have received of what is lost was lost there as well.
        for (others, of_others) in &mut self.replicas {
            if *others > received {
                (*others, *of_others) = (received, expected.clone());
            }
        }
        self.effects.truncate(received);
        self.expected = expected;
        self.replay();
        self.agrees(mono)
    }

    /// Which of the key and its sidecar exist.
    pub(super) fn existing(&mut self, mono: Monotonic) -> Existing {
        let key = self.held(mono).is_some();
        let expected = &self.expected;
        let is_recorded = !expected.applied.is_empty() || !expected.superseded.is_empty();
        Existing {
            key,
            sidecar: is_recorded || expected.tombstone > 0,
        }
    }

    /// Whether the write was applied, and a failover has lost that.
    pub(super) fn is_lost(&self, writer: Writer, sequence: Sequence) -> bool {
        let is_it = |(_, effect): &(Monotonic, ServerEffect)| {
            matches!(effect, ServerEffect::Decided(attempt, true)
                if (attempt.writer, write_of(attempt.sequence)) == (writer, sequence))
        };
        self.was_applied(writer, sequence) && !self.effects.iter().any(is_it)
    }

    fn replay(&mut self) {
        self.store = Store::new(SIDECAR_TTL);
        for (mono, effect) in self.effects.clone() {
            match effect {
                ServerEffect::Decided(attempt, _) => _ = self.store.commit(&attempt, mono),
                ServerEffect::Foreign(stored) => self.store_bytes(stored, mono),
                ServerEffect::Flushed => self.store = Store::new(SIDECAR_TTL),
            }
        }
    }

    pub(super) fn withdraw(&mut self, writer: Writer, sequence: Sequence) -> RuleResult {
        ensure!(
            !self.was_applied(writer, sequence),
            "rule 2: {writer}/{sequence} ended in an error, and yet it was applied"
        );
        self.withdrawn.push((writer, sequence));
        Ok(())
    }

    /// By attempts that beat everything: the first leaves neither a value nor a tombstone.
    fn store_bytes(&mut self, stored: Option<Bytes>, mono: Monotonic) {
        let mut put = |envelope: Bytes, ttl| {
            self.foreign_writers += 1;
            let change = KeyChange::Put { envelope, ttl };
            let attempt = Attempt {
                key: KEY.into(),
                writer: self.foreign_writers,
                sequence: 1,
                stamp: Stamp::MAX,
                change,
                expects: Expects::Anything,
                retry: None,
                recorded: None,
                asking: false,
            };
            self.store.commit(&attempt, mono);
        };
        put(Bytes::new(), TimeToLive::For(Duration::ZERO));
        if let Some(stored) = stored {
            put(stored, TimeToLive::Never);
        }
    }

    fn agrees(&mut self, mono: Monotonic) -> RuleResult {
        let held = self.held(mono).map(|held| held.bytes);
        let stored = self.store.read(KEY, mono).map(|stored| stored.to_bytes());
        ensure!(
            stored == held,
            "the server stores {stored:?} instead of {held:?}"
        );
        Ok(())
    }
}

/// The ranges of an edit make of what is stored what it says.
fn check_edit(attempt: &Attempt, held: Option<&HeldValue>) -> RuleResult {
    let (KeyChange::Edit { ranges, made, .. }, Some(held)) = (&attempt.change, held) else {
        return Ok(());
    };
    let (mut edited, mut end) = (Vec::new(), 0);
    for GuardedEdit { edit, guard } in ranges {
        let [before, behind] = guard.beside;
        let found = held
            .bytes
            .get(edit.start - before..edit.start + edit.old_len + behind);
        ensure!(
            found == Some(&guard.found[..]),
            "rule 5: {edit:?} replaces {found:?} instead of {guard:?}"
        );
        edited.extend_from_slice(&held.bytes[end..edit.start]);
        edited.extend_from_slice(&edit.new);
        end = edit.start + edit.old_len;
    }
    edited.extend_from_slice(&held.bytes[end..]);
    ensure!(
        edited == made.to_bytes(),
        "rule 5: {ranges:?} do not make {made:?} of {:?}",
        held.bytes
    );
    Ok(())
}

/// Whether the precondition of an attempt holds.
fn is_met(attempt: &Attempt, held: Option<&HeldValue>) -> bool {
    attempt.expects == Expects::Anything
        || attempt.expects == Expects::of(held.map(|held| &held.bytes))
}
