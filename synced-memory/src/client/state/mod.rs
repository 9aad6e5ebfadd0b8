//! One process's share of the state: the slots with the pending writes on top. No clock, and no I/O
//! but the journal's.
//!
//! Rules 1 to 4, 7 and 15 are kept here on this side; `commit.rs` and `commit.lua` keep them on the
//! other. The model test drives exactly this.
//!
//! - `request.rs`: what is to be written; `view.rs`: what reads show
//! - `sending.rs`: from the outbox to the backend
//! - `answers.rs`: what the backend answered
//! - `additions.rs`: pushes and adds to whatever is stored
//! - `dead_letters.rs`: what does not apply any more
//! - `shards.rs`: the connection to each shard, and keys that go from one to another
//! - `confirmed.rs`: what is withdrawn, or stays in doubt, and what was taken
//! - `breaks.rs`: what may be the cause of broken connections
//! - `contention.rs`: at which keys others write first
//! - `journalled.rs`: what of it is on disk

mod additions;
mod answers;
mod breaks;
mod confirmed;
mod contention;
mod dead_letters;
mod journalled;
mod request;
mod sending;
mod shards;
#[cfg(test)]
mod tests;
mod view;

pub use contention::ContendedKey;
pub(crate) use request::Request;
pub(crate) use shards::Link;
pub(crate) use view::KeyView;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::backend::commit::{self, Sequence, Writer};
use crate::backend::layout::{Node, SlotNumber};
use crate::backend::shards::{ByShard, Shard, ShardMap};
use crate::base::callback::is_io_thread;
use crate::base::clock::{Moment, Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::events::{LogEvent, event};
use crate::base::hash::{KeyMap, shrink_sparse};
use crate::base::policy::WritePolicy;
use crate::cache::{Base, Cache, Generation, Ticket, Tracking};
use crate::pending::journal::{Ends, Journal};
use crate::pending::outbox::{
    Answer, Entry, EntryName, LetterRecord, Outbox, Outdated, Selector, Tried, Write, Written,
};
use crate::value::document::Document;
use additions::Additions;
use contention::RefusalCounts;
use shards::ShardState;

/// A write that was accepted, with its answer or the way that it comes.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: Sequence,
    pub(crate) answer: oneshot::Receiver<Result<Answer>>,
}

/// A record of this writer that the backend has.
#[derive(Debug, Default)]
struct OwnRecord {
    /// It cannot be dropped: an attempt in doubt may still arrive, and must find it.
    must_stay: bool,
    /// The number that it has, and when it was stored with its time, if the backend has answered
    /// that over the current connection.
    number: Option<(Sequence, Monotonic)>,
}

/// A write of more bytes is large: sending it may take longer than its caller waits.
pub(crate) const LARGE: usize = 64 << 10;

/// Dead letters may use the outbox's limit divided by this.
const LETTERS: usize = 4;

/// How many unused records are dropped together.
const UNUSED: usize = 64;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cache: Cache,
    pub(crate) outbox: Outbox,
    pub(crate) map: ShardMap,
    shards: ByShard<ShardState>,
    /// Slots may have moved: the layout is to be asked for.
    is_layout_wanted: bool,
    /// The slots for which a server has sent us to another one, since the last layout.
    reassigned: HashSet<SlotNumber>,
    /// The servers that others have sent us to although they do not have the slots yet.
    importing: Vec<Node>,
    /// The server's clock is not known yet: stamps are by the clock of this host.
    is_on_host_clock: bool,
    pub(crate) last_error: Option<Error>,
    /// What was wrong with the journals that were adopted.
    pub(crate) journal_damage: Vec<Error>,
    pub(crate) letters: Vec<LetterRecord>,
    /// Those that are being retried, by the id of the write, with their positions in `letters`.
    retried: HashMap<Sequence, (usize, LetterRecord)>,
    /// How many bytes they may take, not counting taken elements.
    pub(crate) letters_limit: usize,
    /// How many there ever were.
    pub(crate) all_letters: u64,
    /// How many of them were dropped, since there were too many.
    pub(crate) dropped_letters: u64,
    /// How many queued writes were replaced by somebody's newer write.
    pub(crate) superseded: u64,
    /// How many queued writes expired before they could be sent.
    pub(crate) expired: u64,
    /// The keys at which the backend has a record of this writer.
    recorded: KeyMap<OwnRecord>,
    /// The keys of records that can be dropped, since nobody here uses the keys any more.
    unused: ByShard<Vec<Arc<str>>>,
    /// The keys that are not sent for a while, since another writer is starved there, or others win
    /// again and again: until when, and for how long.
    held: KeyMap<(Monotonic, Duration)>,
    contention: RefusalCounts,
    additions: Additions,
    journal: Option<Journal>,
    /// What was taken, and is being handed to its caller.
    handing: HashMap<EntryName, (Arc<str>, Entry)>,
    tombstone_ttl: Duration,
    /// It was said that the backend does not notify of changes.
    is_refusal_reported: bool,
    /// From how many bytes on a value is long: a change to a part of it is sent without the rest.
    long_from: usize,
    random: fastrand::Rng,
    /// What has happened. It is emitted when the lock around the state is free.
    pub(crate) events: Vec<LogEvent>,
}

impl State {
    pub(crate) fn new(
        outbox_limit: usize,
        tombstone_ttl: Duration,
        mut random: fastrand::Rng,
    ) -> Self {
        Self {
            cache: Cache::default(),
            outbox: Outbox::new(outbox_limit, random.u64(..)),
            map: ShardMap::default(),
            shards: ByShard::default(),
            is_layout_wanted: false,
            reassigned: HashSet::new(),
            importing: Vec::new(),
            is_on_host_clock: true,
            last_error: None,
            journal_damage: Vec::new(),
            letters: Vec::new(),
            retried: HashMap::new(),
            letters_limit: outbox_limit / LETTERS,
            all_letters: 0,
            dropped_letters: 0,
            superseded: 0,
            expired: 0,
            recorded: KeyMap::default(),
            unused: ByShard::default(),
            held: KeyMap::default(),
            contention: RefusalCounts::default(),
            additions: Additions::default(),
            journal: None,
            handing: HashMap::new(),
            tombstone_ttl,
            is_refusal_reported: false,
            long_from: commit::LONG,
            random,
            events: Vec::new(),
        }
    }

    /// The same with another length from which on values are long.
    #[cfg(test)]
    pub(crate) fn with_long_values_from(mut self, bytes: usize) -> Self {
        self.long_from = bytes;
        self
    }

    pub(crate) fn writer(&self) -> Writer {
        self.outbox.writer()
    }

    /// The keys at which the backend has a record of this writer that it can drop.
    pub(crate) fn take_recorded(&mut self) -> Vec<Arc<str>> {
        let recorded = self
            .recorded
            .drain()
            .filter(|(_, recorded)| !recorded.must_stay)
            .map(|(key, _)| key);
        let unused = std::mem::take(&mut self.unused).into_all();
        recorded.chain(unused.flat_map(|(_, keys)| keys)).collect()
    }

    /// Releases the slot of `key` and, with its last holder, what else is kept about the key.
    pub(crate) fn release(&mut self, key: &str) {
        if !self.cache.release(key) {
            return;
        }
        self.drop_added(key);
        // The record of an attempt in doubt stays.
        if self
            .recorded
            .get(key)
            .is_some_and(|recorded| !recorded.must_stay)
        {
            let unused = self.recorded.remove_entry(key).map(|(key, _)| key);
            self.unused[self.map.shard_of(key)].extend(unused);
            shrink_sparse(&mut self.recorded);
        }
    }

    /// Keeps the record of this writer at `key` for good: an attempt in doubt must find it.
    fn keep_record(&mut self, key: &Arc<str>) {
        let recorded = self.recorded.entry(Arc::clone(key)).or_default();
        if !std::mem::replace(&mut recorded.must_stay, true) {
            self.outbox.reserve(key.len() + size_of::<OwnRecord>());
        }
    }

    /// Whether a shard has enough unused records to be worth a request.
    pub(crate) fn is_any_unused(&self, shard: Shard) -> bool {
        self.unused[shard].len() >= UNUSED
    }

    /// Some of the unused records of a shard, without those of keys that are used again. The
    /// request to drop them has to be sent before anything else is.
    pub(crate) fn take_unused(&mut self, shard: Shard) -> Vec<Arc<str>> {
        let all = &mut self.unused[shard];
        let mut unused = all.split_off(all.len().saturating_sub(2 * UNUSED));
        if all.capacity() > 4 * (all.len() + UNUSED) {
            all.shrink_to(2 * all.len());
        }
        unused.retain(|key| !self.outbox.has(key) && !self.recorded.contains_key(key));
        unused
    }

    /// Applies a write locally and queues it. While the link is up its answer is awaited, unless
    /// the policy is `Behind`.
    ///
    /// # Errors
    ///
    /// `OutboxFull`, `Journal`, and of a confirmed write `Unavailable`: nothing was changed.
    pub(crate) fn write(
        &mut self,
        key: &Arc<str>,
        request: Request,
        policy: WritePolicy,
        at: Moment,
    ) -> Result<Accepted> {
        if policy == WritePolicy::Confirmed && self.link_of(key) != Link::Up {
            return Err(self.unavailable_error(key));
        }
        if request.is_outdated(|| self.view(key, at.mono)) {
            return Ok(Accepted {
                id: self.outbox.last_sequence(),
                answer: ready_answer(Answer::outdated(Outdated::InView)),
            });
        }

        let write = Write {
            is_confirmed: policy == WritePolicy::Confirmed,
            ..self.stamp(key, request, at)
        };
        let is_take = write.take.is_some();
        let accepted = self.enqueue(key, write, policy, None)?;
        if is_take && let Err(error) = self.journal_entry(key, accepted.id) {
            self.outbox.withdraw(key, accepted.id);
            return Err(error);
        }
        Ok(accepted)
    }

    /// The write of a request, which is newer than whatever this process knows of the key.
    fn stamp(&mut self, key: &str, request: Request, at: Moment) -> Write {
        let existed = request.is_delete() && self.view(key, at.mono).stored.is_some();
        let last = self
            .outbox
            .last(key)
            .map_or(Stamp::ZERO, |entry| entry.write.latest)
            .max(self.cache.last(key));
        let stamp = Stamp::issue(at.now, last, &mut self.random);
        Write {
            fresh: self.link_of(key) == Link::Up,
            existed,
            is_by_host_clock: self.is_on_host_clock,
            ..request.stamp(stamp, at.mono)
        }
    }

    /// Queues a write. `ends`: what ends with it, which is in the journal from the beginning.
    ///
    /// # Errors
    ///
    /// `OutboxFull`, `Journal`: nothing was changed.
    fn enqueue(
        &mut self,
        key: &Arc<str>,
        mut write: Write,
        policy: WritePolicy,
        ends: Option<Ends>,
    ) -> Result<Accepted> {
        let is_awaited = write.fresh && policy != WritePolicy::Behind;
        let is_journalled = !is_awaited || ends.is_some();
        let is_first = !self.outbox.has(key);
        let (stamp, existed) = (write.stamp, write.existed);
        if !is_awaited {
            write.precondition = None;
        }
        if is_journalled {
            self.outbox.check(key, &write, is_awaited)?;
            self.journal_write(key, &write, ends)?;
        }

        let (waiter, answer) = if is_awaited {
            let (waiter, answer) = oneshot::channel();
            (Some(waiter), answer)
        } else {
            (None, ready_answer(Answer::new(Written::Queued, existed)))
        };
        let base = self.cache.base(key);
        let id = self.outbox.push(key, write, waiter, base)?;
        if is_journalled && self.journal.is_some() {
            self.outbox.journal_rest_of(key, |_, _| true);
        }

        if is_first {
            // A pending write is applied to what is stored: the slot stays until it is settled.
            self.cache.hold(key);
        }
        self.cache.seen(key, stamp);
        self.cache.touch(key);
        Ok(Accepted { id, answer })
    }

    /// Why a call of `key` that only the backend can answer is not answered.
    pub(crate) fn unavailable_error(&self, key: &str) -> Error {
        let why = if is_io_thread() {
            "a waker on an I/O thread cannot wait for the backend".to_owned()
        } else {
            format!("the backend is not available: {}", self.last_cause_of(key))
        };
        Error::of_key(
            ErrorKind::Unavailable,
            key,
            format_args!("not made, since {why}"),
        )
    }

    /// Ready when the answer to a read that was sent as the request `ticket` is known to be with or
    /// without the mutations that are under way; `None` if it is known already.
    pub(crate) fn when_settled(
        &mut self,
        key: &str,
        ticket: Ticket,
    ) -> Option<oneshot::Receiver<()>> {
        let head = self.outbox.head(key)?;
        let in_flight = head.attempt.in_flight;
        let is_earlier =
            head.write.mutation.is_some() && in_flight.is_some_and(|sent| sent < ticket);
        if !is_earlier {
            return None;
        }
        self.outbox
            .edit(key, Selector::Head, Entry::when_acknowledged)
    }

    /// Stores the answer to a read.
    ///
    /// `generation`: that of the key before the read was sent.
    pub(crate) fn read(
        &mut self,
        key: &Arc<str>,
        ticket: Ticket,
        generation: Generation,
        stored: Option<Document>,
        mono: Monotonic,
    ) {
        // With a mutation in doubt nobody knows whether it is in the answer; its retry shows it.
        if self.outbox.head(key).is_some_and(|head| {
            head.write.mutation.is_some() && head.attempt.tried == Tried::InDoubt
        }) {
            self.cache.was_not_read(key);
            return;
        }
        if let Some(stored) = &stored {
            self.cache.seen(key, stored.stamp());
        }
        let answer = Base::of(stored, ticket, None);
        let has_changed = self.cache.answered(key, answer);
        self.drop_answered(key);
        self.cache.was_read(key, generation, has_changed, mono);
        if self.cache.take_overflow_alarm(key) {
            let key = key.to_string();
            self.events.push(event!(
                WARN,
                key,
                "the server reports keys again and again that have not changed: its table of \
                 tracked keys is too small (tracking-table-max-keys), and near reads and watches \
                 may be late"
            ));
        }
    }

    /// A shard does not notify of changes, from now on until there is a new connection. Returns
    /// whether that is still to be said.
    pub(crate) fn tracking_was_refused(&mut self, shard: Shard, mono: Monotonic) -> bool {
        if self.cache.tracking_of(shard, mono) != Tracking::Refused {
            self.cache.tracked(shard, Tracking::Refused, mono);
        }
        !std::mem::replace(&mut self.is_refusal_reported, true)
    }

    /// Notifies those who wait for the entry of `key` with this id that it stays queued.
    pub(crate) fn report_queued(&mut self, key: &str, id: Sequence) {
        self.journal_rest_of(key);
        self.outbox.report_queued(key, id);
    }
}

/// For a caller that gets its answer at once.
fn ready_answer(answer: Answer) -> oneshot::Receiver<Result<Answer>> {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(Ok(answer));
    receiver
}
