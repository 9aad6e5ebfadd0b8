//! From the outbox to the backend: what is sent next, and as what.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{State, is_over};
use crate::backend::commit::{self, Attempt, Expects, KeyChange, Sequence, TimeToLive, Writer};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind};
use crate::cache::Ticket;
use crate::pending::journal::JournalRecord;
use crate::pending::outbox::{Again, Answer, Tried, Written};
use crate::pending::rebase::{self, Plan};

/// So long a key is held at first, and at most.
const HELD: Duration = Duration::from_millis(1);
const LONGEST_HELD: Duration = Duration::from_millis(64);

/// For so long after that, the next time counts as the next in a row.
const HELD_LATELY: Duration = Duration::from_millis(200);

impl State {
    /// Chooses what is sent next: at most `most` attempts of together about `most_bytes`.
    pub(crate) fn next_batch(
        &mut self,
        most: usize,
        most_bytes: usize,
        mono: Monotonic,
    ) -> Vec<Attempt> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut held = Vec::new();
        while batch.len() < most && bytes < most_bytes {
            let Some(key) = self.outbox.next_ready() else {
                break;
            };
            if self.held.get(&key).is_some_and(|(until, _)| *until > mono) {
                held.push(key);
                continue;
            }
            if let Some(attempt) = self.attempt(key, mono) {
                bytes += attempt.size();
                batch.push(attempt);
            }
        }
        self.held
            .retain(|_, (until, _)| *until + HELD_LATELY > mono);
        for key in held {
            self.outbox.put_behind(key);
        }
        batch
    }

    /// Sends nothing of this key for a while: another writer waits for its turn. Longer from time
    /// to time, while that one does not get on: its line may be slower.
    pub(crate) fn hold(&mut self, key: &Arc<str>, mono: Monotonic) {
        let length = self
            .held
            .get(key)
            .map_or(HELD, |(_, length)| (*length * 2).min(LONGEST_HELD));
        self.held.insert(Arc::clone(key), (mono + length, length));
    }

    /// When the first key that is held may be sent.
    pub(crate) fn held_until(&self, mono: Monotonic) -> Option<Monotonic> {
        let held = self
            .held
            .iter()
            .filter(|(key, (until, _))| *until > mono && self.outbox.has(key));
        held.map(|(_, (until, _))| *until).min()
    }

    /// Takes the head of `key` out to be sent at once, where somebody waits for it, nothing is
    /// before it and it is at most `most_bytes` long.
    pub(crate) fn take_small(
        &mut self,
        key: &Arc<str>,
        most_bytes: usize,
        mono: Monotonic,
    ) -> Option<Attempt> {
        let base = self.cache.base(key).stored.as_ref().map_or(0, Bytes::len);
        let head = self.outbox.head(key)?;
        let size = head.size() + if head.mutation.is_some() { base } else { 0 };
        if !head.is_awaited() || size > most_bytes || !self.outbox.take_first(key) {
            return None;
        }
        self.attempt(Arc::clone(key), mono)
    }

    /// The next attempt to write `key`; nothing where its head was settled, dropped or became a
    /// dead letter instead.
    fn attempt(&mut self, key: Arc<str>, mono: Monotonic) -> Option<Attempt> {
        let entry = self.outbox.head(&key)?;
        if entry.assignment.is_none() && entry.mutation.is_none() {
            // All of it shared the fate of what it was made on.
            self.settle(&key, Answer::new(Written::Stored, true));
            return None;
        }
        if entry.is_confirmed && !entry.is_awaited() && entry.tried != Tried::InDoubt {
            // Nobody waits for it any more, and it was not made.
            self.take_out(&key);
            return None;
        }
        let is_doubtful = entry.tried == Tried::InDoubt;
        // Nobody can say that it was not made.
        let stays = entry.is_confirmed && is_doubtful;
        let over = is_over(entry.expires, mono) && !stays;
        if over && !entry.replaces_nothing {
            self.drop_expired(&key);
            return None;
        }
        if entry.written + self.tombstone_ttl <= mono {
            let reason = "it waited longer than the tombstones of deletes are kept";
            let reason = Error::of_key(ErrorKind::Conflict, &key, reason);
            self.to_dead_letter(&key, reason, is_doubtful);
            return None;
        }
        if over {
            self.expired += 1;
            self.outbox.end(&key);
        }
        let (change, stamp, expects) = self.planned(&key, mono)?;
        let entry = self.outbox.head(&key)?;
        let name = entry.name();
        if entry.tried == Tried::Never {
            entry.tried = Tried::Sent;
            if entry.journalled {
                self.note(&JournalRecord::Sent(name));
            }
        }
        let entry = self.outbox.head(&key)?;
        let first_tried = *entry.first_tried.get_or_insert(mono);
        let retry = (entry.tried == Tried::InDoubt).then(|| mono.saturating_sub(first_tried));
        let change = match change {
            KeyChange::Put { envelope, .. } => {
                let ttl = match entry.expires {
                    Some(expires) => TimeToLive::For(expires.saturating_sub(mono)),
                    None if entry.replaces_nothing => TimeToLive::Never,
                    None => TimeToLive::Keep,
                };
                KeyChange::Put { envelope, ttl }
            }
            KeyChange::Delete => KeyChange::Delete,
        };
        entry.is_drawn = true;
        entry.was_sent |= expects != Expects::Nothing;
        let (writer, sequence) = (entry.writer, entry.number());
        let recorded = self.recorded_lately(&key, writer, mono);
        Some(Attempt {
            key,
            writer,
            sequence,
            stamp,
            change,
            expects,
            retry,
            recorded,
        })
    }

    /// The number that is on record for the writer at `key`, where that is known and was put down
    /// lately.
    fn recorded_lately(&self, key: &str, writer: Writer, mono: Monotonic) -> Option<Sequence> {
        let (number, at) = self
            .recorded
            .get(key)
            .filter(|_| writer == self.writer())?
            .number?;
        (mono.saturating_sub(at) < commit::recent(self.tombstone_ttl)).then_some(number)
    }

    /// What the head of `key` is sent as; nothing where it was settled instead.
    fn planned(&mut self, key: &Arc<str>, mono: Monotonic) -> Option<(KeyChange, Stamp, Expects)> {
        loop {
            let base = self.cache.base(key);
            let entry = self.outbox.head(key)?;
            match rebase::plan(entry, base, mono) {
                Plan::Send {
                    change,
                    stamp,
                    expects,
                    superseded,
                } => {
                    entry.superseded = superseded;
                    return Some((change, stamp, expects));
                }
                Plan::Ask => return Some((KeyChange::Delete, entry.latest, Expects::Nothing)),
                Plan::Again => {
                    let how = if entry.base_is_current {
                        Again::Answered
                    } else {
                        Again::Shown
                    };
                    self.settle(key, Answer::again(how));
                    return None;
                }
                Plan::Done { superseded } => {
                    entry.superseded = superseded;
                    let written = if entry.superseded.is_empty() {
                        Written::Stored
                    } else {
                        Written::Superseded
                    };
                    self.settle(key, Answer::new(written, true));
                    return None;
                }
                Plan::Failed(failed) => self.calls_to_dead_letter(key, &failed)?,
            }
        }
    }

    /// Takes back a batch that was not sent.
    pub(crate) fn requeue_batch(&mut self, batch: &[Attempt]) {
        for attempt in batch {
            self.outbox.requeue(Arc::clone(&attempt.key));
        }
    }

    /// Takes in that a batch was sent as the request `ticket`.
    pub(crate) fn sent(&mut self, batch: &[Attempt], ticket: Ticket, mono: Monotonic) {
        for attempt in batch {
            self.cache.asked(&attempt.key, ticket, mono);
            if let Some(entry) = self.outbox.head(&attempt.key) {
                entry.in_flight = Some(ticket);
            }
        }
    }
}
