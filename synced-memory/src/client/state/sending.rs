//! From the outbox to the backend: what is sent next, and as what.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use crate::backend::commit::{self, Attempt, Expects, KeyChange, Sequence, TimeToLive, Writer};
use crate::backend::shards::Shard;
use crate::base::backoff::{Jitter, doubled, waits_of_tried};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind};
use crate::cache::Ticket;
use crate::pending::journal::JournalRecord;
use crate::pending::outbox::{Answer, Outdated, Selector, Tried, Write, Written};
use crate::pending::rebase::{self, Basis, Plan};

/// How long a key is held at first, and at most.
const HELD: Duration = Duration::from_millis(1);
const LONGEST_HELD: Duration = Duration::from_millis(64);

/// How long a key waits at first, and at most, that is half at one server and half at another.
const SLOT_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_SLOT_PAUSE: Duration = Duration::from_millis(500);

/// Writers that were refused by the same write try again at different times.
const RETREAT_JITTER: Jitter = Jitter::FULL;

/// How long after that the next hold counts as the next in a row.
const HELD_LATELY: Duration = Duration::from_millis(200);

/// What an attempt stores, with its stamp and its condition.
type PlannedChange = (KeyChange, Stamp, Expects);

impl State {
    /// Chooses what is sent to a shard next: at most `most` attempts of together about
    /// `most_bytes`.
    pub(crate) fn next_batch(
        &mut self,
        shard: Shard,
        most: usize,
        most_bytes: usize,
        mono: Monotonic,
    ) -> Vec<Attempt> {
        self.forget_breaks(shard);
        self.outbox.unpark(shard, mono);
        if self.is_trial(shard) {
            let attempt = self.suspects_attempt(shard, mono);
            if attempt.is_some() || self.is_trial(shard) {
                return attempt.into_iter().collect();
            }
        }

        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut suspects = Vec::new();
        while batch.len() < most && bytes < most_bytes {
            let Some(key) = self.outbox.next_ready(shard) else {
                break;
            };
            let held = self.held.get(&key).map(|(until, _)| *until);
            let held = held.max(self.paused_until(shard, &key));
            if let Some(until) = held.filter(|until| *until > mono) {
                self.outbox.park(key, until);
                continue;
            }
            if self.paused_until(shard, &key).is_some() {
                // Those before it in this batch are answered for first.
                self.suspect(shard, &key);
                suspects.push(key);
                break;
            }
            if let Some(attempt) = self.attempt(key, shard, mono) {
                bytes += attempt.size();
                batch.push(attempt);
            }
        }
        self.held
            .retain(|_, (until, _)| *until + HELD_LATELY > mono);
        for key in suspects {
            self.outbox.requeue_last(key);
        }
        if batch.is_empty() {
            // One whose pause has just ended.
            batch.extend(self.suspects_attempt(shard, mono));
        }
        batch
    }

    /// Sends nothing of this key for a while, since another writer is starved there. Each hold in a
    /// row is longer than the one before: the connection of the other writer may be slower.
    pub(crate) fn hold(&mut self, key: &Arc<str>, mono: Monotonic) {
        self.hold_for(key, HELD, LONGEST_HELD, mono);
    }

    /// Sends nothing of this key for a while: `first`, and for each hold in a row longer, up to
    /// `longest`.
    pub(super) fn hold_for(
        &mut self,
        key: &Arc<str>,
        first: Duration,
        longest: Duration,
        mono: Monotonic,
    ) {
        let before = self.held.get(key);
        let length = before.map_or(first, |(_, length)| (*length * 2).clamp(first, longest));
        self.held.insert(Arc::clone(key), (mono + length, length));
    }

    /// Sends nothing of this key for a while, since its slot is being moved, and it is half here
    /// and half there.
    pub(super) fn wait_for_slot(&mut self, key: &Arc<str>, mono: Monotonic) {
        self.hold_for(key, SLOT_PAUSE, LONGEST_SLOT_PAUSE, mono);
    }

    /// Sends nothing of this key for a while, if its head was refused again and again: others win,
    /// and are done the sooner the fewer try.
    pub(crate) fn retreat(&mut self, key: &Arc<str>, mono: Monotonic) {
        let head = self.outbox.head(key);
        if let Some(waits) = head.and_then(|head| waits_of_tried(head.attempt.refusals)) {
            let length = doubled(HELD, waits, LONGEST_HELD);
            let until = mono + RETREAT_JITTER.draw(length, &mut self.random);
            self.held.insert(Arc::clone(key), (until, length));
        }
    }

    /// When the first of the keys of a shard that are held may be sent. That may be over already:
    /// a hold that has ended since the last batch was chosen must not be slept through.
    pub(crate) fn held_until(&mut self, shard: Shard) -> Option<Monotonic> {
        if self.is_trial(shard) && self.outbox.is_any_drawn(shard) {
            // Nothing is sent before that is answered.
            return None;
        }
        let until = |key: &Arc<str>| {
            let held = self.held.get(key).map(|(until, _)| *until);
            held.max(self.paused_until(shard, key))
        };
        let ready = self.outbox.ready(shard).filter_map(until).min();
        let parked = self.outbox.next_due(shard);
        ready.into_iter().chain(parked).min()
    }

    /// The attempt to send the head of `key` to `shard` at once, if that has the key, somebody
    /// waits for it, no other key is before it and it is at most `most_bytes` long.
    pub(crate) fn take_small(
        &mut self,
        key: &Arc<str>,
        shard: Shard,
        most_bytes: usize,
        mono: Monotonic,
    ) -> Option<Attempt> {
        let is_large = self.size_to_send(key) > most_bytes;
        let is_kept_back = self.is_trial(shard) || self.paused_until(shard, key).is_some();
        let is_awaited = self.outbox.head(key)?.is_awaited();
        // The slot may have moved since the connection was chosen.
        let is_elsewhere =
            self.map.shard_of(key) != shard || self.outbox.shard_of_head(key) != shard;
        // A caller does not ask again and again for a slot that is on its way.
        let held = self.held.get(key).filter(|_| self.map.is_cluster());
        let is_held = held.is_some_and(|(until, _)| *until > mono);
        let is_left = is_large || is_kept_back || is_elsewhere || is_held;
        if !is_awaited || is_left || !self.outbox.take_first(key) {
            return None;
        }
        self.attempt(Arc::clone(key), shard, mono)
    }

    /// The next attempt to write `key`, which is sent to `shard`; nothing if its head was settled,
    /// dropped or became a dead letter instead.
    pub(super) fn attempt(
        &mut self,
        key: Arc<str>,
        shard: Shard,
        mono: Monotonic,
    ) -> Option<Attempt> {
        let is_ended = self.end_unsent(&key, mono);
        let planned = (!is_ended).then(|| self.planned(&key, mono)).flatten();
        let Some((change, stamp, expects)) = planned else {
            self.outbox.note_strayed(&key, shard);
            return None;
        };
        self.note_sent(&key);

        let (retry, writer, sequence, change, asking, is_contended) =
            self.outbox.edit(&key, Selector::Head, |head| {
                let attempt = &mut head.attempt;
                attempt.drawn_to = Some(shard);
                attempt.last_drawn_to = shard;
                let asking = attempt.asks.take().is_some();
                attempt.was_sent |= expects != Expects::Nothing;
                let first_tried = *attempt.first_tried.get_or_insert(mono);
                let is_in_doubt = attempt.tried == Tried::InDoubt;
                let retry = is_in_doubt.then(|| mono.saturating_sub(first_tried));
                let change = with_ttl(change, &head.write, mono);
                let identity = &head.identity;
                let (writer, number) = (identity.writer, identity.number());
                let is_contended = attempt.refusals > 0;
                (retry, writer, number, change, asking, is_contended)
            })?;
        // The backend's fast path does not note what additions have to know.
        let recorded = (!is_contended).then(|| self.recorded_lately(&key, writer, mono));
        let recorded = recorded.flatten();
        Some(Attempt {
            key,
            writer,
            sequence,
            stamp,
            change,
            expects,
            retry,
            recorded,
            asking,
        })
    }

    /// Ends the head of `key` if it is not to be sent any more. Returns whether there is nothing to
    /// send.
    fn end_unsent(&mut self, key: &Arc<str>, mono: Monotonic) -> bool {
        let Some(head) = self.outbox.head(key) else {
            return true;
        };
        let write = &head.write;
        if write.is_empty() {
            // All of it was withdrawn with what it was made on.
            self.settle(key, Answer::new(Written::Stored, true));
            return true;
        }
        let is_in_doubt = head.attempt.tried == Tried::InDoubt;
        if write.is_confirmed && !head.is_awaited() && !is_in_doubt {
            // Nobody waits for it any more, and it was not made.
            self.remove_head(key);
            return true;
        }

        // Nobody can say of a confirmed write in doubt that it was not made: it does not expire.
        let has_expired = write.has_expired(mono) && !(write.is_confirmed && is_in_doubt);
        if has_expired && !write.replaces_nothing {
            self.drop_expired(key);
            return true;
        }
        if write.written.saturating_add(self.tombstone_ttl) <= mono {
            let reason = "it waited longer than the tombstones of deletes are kept";
            let reason = Error::of_key(ErrorKind::Conflict, key, reason);
            self.move_to_dead_letters(key, reason, is_in_doubt);
            return true;
        }
        if has_expired {
            self.expired += 1;
            self.outbox
                .edit(key, Selector::Head, |head| head.write.expire());
        }
        false
    }

    /// Notes that the head of `key` is sent, before it is sent for the first time.
    fn note_sent(&mut self, key: &Arc<str>) {
        let first = self.outbox.edit(key, Selector::Head, |head| {
            let is_first = head.attempt.tried == Tried::Never;
            if is_first {
                head.attempt.tried = Tried::Sent;
            }
            (is_first && head.journalled).then(|| head.name())
        });
        if let Some(name) = first.flatten() {
            self.note(&JournalRecord::Sent(name));
        }
    }

    /// The number that is on record for the writer at `key`, if that is known and was stored
    /// lately.
    fn recorded_lately(&self, key: &str, writer: Writer, mono: Monotonic) -> Option<Sequence> {
        let (number, at) = self
            .recorded
            .get(key)
            .filter(|_| writer == self.writer())?
            .number?;
        (mono.saturating_sub(at) < commit::recent(self.tombstone_ttl)).then_some(number)
    }

    /// What the head of `key` is sent as; nothing if it was settled instead.
    fn planned(&mut self, key: &Arc<str>, mono: Monotonic) -> Option<PlannedChange> {
        let step = self.additions_to(key, mono);
        let takes_edits = !self.refuses_parts(self.map.shard_of(key));
        loop {
            let head = self.outbox.head(key)?;
            let basis = Basis {
                base: self.cache.base(key),
                mono,
                is_behind: self.is_behind(key),
                step,
                takes_edits,
                long_from: self.long_from,
            };
            match rebase::plan(head, &basis) {
                Plan::Send {
                    change,
                    stamp,
                    expects,
                    superseded,
                } => {
                    self.note_superseded(key, superseded);
                    return Some((change, stamp, expects));
                }
                Plan::Ask => {
                    return Some((KeyChange::Delete, head.write.latest, Expects::Nothing));
                }
                Plan::Outdated => {
                    let outdated = if head.attempt.base_is_current {
                        Outdated::ByAnswer
                    } else {
                        Outdated::InView
                    };
                    self.settle(key, Answer::outdated(outdated));
                    return None;
                }
                Plan::Done { superseded } => {
                    let written = if superseded.is_empty() {
                        Written::Stored
                    } else {
                        Written::Superseded
                    };
                    self.note_superseded(key, superseded);
                    self.settle(key, Answer::new(written, true));
                    return None;
                }
                Plan::Failed(failed) => self.move_calls_to_dead_letters(key, &failed)?,
            }
        }
    }

    fn note_superseded(&mut self, key: &str, superseded: Vec<usize>) {
        self.outbox.edit(key, Selector::Head, |head| {
            head.attempt.superseded = superseded;
        });
    }

    /// The batch was not sent.
    pub(crate) fn requeue_batch(&mut self, batch: &[Attempt]) {
        for attempt in batch {
            self.outbox.requeue(Arc::clone(&attempt.key));
        }
    }

    /// The batch was sent as the request `ticket`.
    pub(crate) fn sent(&mut self, batch: &[Attempt], ticket: Ticket, mono: Monotonic) {
        for attempt in batch {
            self.cache.asked(&attempt.key, ticket, mono);
            self.outbox.edit(&attempt.key, Selector::Head, |head| {
                head.attempt.in_flight = Some(ticket);
            });
        }
    }
}

/// The change with the time to live that is left of the write's.
fn with_ttl(change: KeyChange, write: &Write, mono: Monotonic) -> KeyChange {
    let ttl = match write.expires {
        Some(expires) => TimeToLive::For(expires.saturating_sub(mono)),
        None if write.replaces_nothing => TimeToLive::Never,
        None => TimeToLive::Keep,
    };
    change.with_ttl(ttl)
}
