//! One process's share of the state: the slots with the unanswered writes on top. No clock, and no
//! I/O but the journal's.
//!
//! This is where rules 1 to 4, 7 and 15 of the design are kept on this side; `commit.rs` and
//! `commit.lua` keep them on the other. The model test drives exactly this.
//!
//! - `sending.rs`: from the outbox to the backend
//! - `answers.rs`: what the backend answered
//! - `letters.rs`: what no longer applies
//! - `confirmed.rs`: what is withdrawn, or stays in doubt, and what was taken
//! - `journalled.rs`: what of it is on disk

mod answers;
mod confirmed;
mod dead_letters;
mod journalled;
mod sending;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::backend::commit::{KeyChange, Sequence, TimeToLive, Writer};
use crate::backend::error::BackendError;
use crate::base::clock::{Moment, Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::cache::{Base, Cache, Generation, Ticket, give_back};
use crate::pending::journal::{Ends, EntryName, Journal};
use crate::pending::outbox::{
    Again, Answer, Entry, LetterRecord, Outbox, Precondition, Take, Tried, Waiter, Write,
    WriteKind, Written,
};
use crate::pending::rebase;
use crate::value::envelope::{self, Text, Unsealed};
use crate::value::mutation::Mutation;

/// Whether writes can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// The backend is there, but takes no writes now (out of memory, read-only, loading).
    Busy,
    Down,
}

/// What a user asks to be written.
#[derive(Debug)]
pub(crate) enum Request {
    Put {
        value: Unsealed,
        ttl: Option<Duration>,
    },
    Delete,
    /// Of this, which is stored; its caller asks anew where anything else is.
    DeleteOf(Option<Bytes>),
    /// `exact`: what it was recorded on, where its caller records it anew on anything else.
    Mutate {
        mutation: Mutation,
        ttl: Option<Duration>,
        exact: Option<Precondition>,
        /// What it hands to its caller.
        take: Option<Take>,
    },
}

/// What a read shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyView {
    pub(crate) stored: Option<Bytes>,
    /// The value in it as JSON text, where that is known already.
    value: Option<Text>,
    /// When it ends by its time to live.
    pub(crate) expires: Option<Monotonic>,
}

impl KeyView {
    /// Of what is stored, with nothing on top.
    pub(crate) fn of(stored: Option<Bytes>) -> Self {
        Self {
            stored,
            value: None,
            expires: None,
        }
    }

    /// The value as JSON text.
    pub(crate) fn value(&self) -> Option<Text> {
        self.value
            .clone()
            .or_else(|| self.stored.as_ref().map(envelope::value_of))
    }
}

/// A write that was accepted: its answer comes, or is there.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) sequence: Sequence,
    pub(crate) answer: oneshot::Receiver<Result<Answer>>,
}

/// A record of this writer that the backend has.
#[derive(Debug, Default)]
struct OwnRecord {
    /// It cannot be dropped: an attempt in doubt may yet arrive, and must find it.
    must_stay: bool,
    /// The number that it has, where that was told over the connection that is in use, and when it
    /// was put down with its time.
    number: Option<(Sequence, Monotonic)>,
}

/// Dead letters take at most this part of the outbox's limit.
const LETTERS: usize = 4;

/// So many records that are of no use any more are dropped together.
const UNUSED: usize = 64;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cache: Cache,
    pub(crate) outbox: Outbox,
    pub(crate) link: Link,
    /// When a connection was lost that is not back yet.
    pub(crate) lost_at: Option<Monotonic>,
    pub(crate) last_error: Option<Error>,
    /// Why the backend takes no writes now, until somebody has waited for it.
    pub(crate) refusal: Option<BackendError>,
    pub(crate) letters: Vec<LetterRecord>,
    /// Those that are being retried, by the id of the write, with their places among the others.
    retried: HashMap<Sequence, (usize, LetterRecord)>,
    /// So many bytes they take at most, but for what was taken.
    pub(crate) letters_limit: usize,
    /// How many of them were dropped, since there were too many.
    pub(crate) dropped_letters: u64,
    /// Queued writes that somebody's newer write has replaced.
    pub(crate) superseded: u64,
    /// Queued writes whose time to live ended before they could be sent.
    pub(crate) expired: u64,
    /// The keys at which the backend has a record of this writer.
    recorded: HashMap<Arc<str>, OwnRecord>,
    /// Those that can be dropped, and whose keys nobody here uses any more.
    unused: Vec<Arc<str>>,
    /// The keys that are not sent for a while, since another writer waits for its turn there: until
    /// when, and for how long.
    held: HashMap<Arc<str>, (Monotonic, Duration)>,
    journal: Option<Journal>,
    /// What was taken, and is being handed to its caller.
    handing: HashMap<EntryName, (Arc<str>, Entry)>,
    tombstone_ttl: Duration,
    random: fastrand::Rng,
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
            link: Link::Down,
            lost_at: None,
            last_error: None,
            refusal: None,
            letters: Vec::new(),
            retried: HashMap::new(),
            letters_limit: outbox_limit / LETTERS,
            dropped_letters: 0,
            superseded: 0,
            expired: 0,
            recorded: HashMap::new(),
            unused: Vec::new(),
            held: HashMap::new(),
            journal: None,
            handing: HashMap::new(),
            tombstone_ttl,
            random,
        }
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
        recorded.chain(std::mem::take(&mut self.unused)).collect()
    }

    /// Lets go of the slot of `key`, and with the last hold of what else is kept about the key.
    pub(crate) fn release(&mut self, key: &str) {
        // The record of an attempt in doubt stays.
        if self.cache.release(key)
            && self
                .recorded
                .get(key)
                .is_some_and(|recorded| !recorded.must_stay)
        {
            self.unused
                .extend(self.recorded.remove_entry(key).map(|(key, _)| key));
            give_back(&mut self.recorded);
        }
    }

    /// Whether so many records are of no use any more that they are worth a request.
    pub(crate) fn is_any_unused(&self) -> bool {
        self.unused.len() >= UNUSED
    }

    /// Some records that are of no use any more, but for those of keys that are used again. A
    /// request to drop them has to be sent before anything else is.
    pub(crate) fn take_unused(&mut self) -> Vec<Arc<str>> {
        let mut unused = self
            .unused
            .split_off(self.unused.len().saturating_sub(2 * UNUSED));
        if self.unused.capacity() > 4 * (self.unused.len() + UNUSED) {
            self.unused.shrink_to(2 * self.unused.len());
        }
        unused.retain(|key| !self.outbox.has(key) && !self.recorded.contains_key(key));
        unused
    }

    /// Applies a write locally and queues it. While the link is up, its answer is awaited, unless
    /// the policy is not to.
    ///
    /// # Errors
    ///
    /// `OutboxFull`: nothing was changed.
    pub(crate) fn write(
        &mut self,
        key: &Arc<str>,
        request: Request,
        policy: WritePolicy,
        at: Moment,
    ) -> Result<Accepted> {
        self.write_as(key, request, policy, at, None)
    }

    /// The same of a write with which something `ends`, which is in the journal from the beginning.
    fn write_as(
        &mut self,
        key: &Arc<str>,
        request: Request,
        policy: WritePolicy,
        at: Moment,
        ends: Option<Ends>,
    ) -> Result<Accepted> {
        let (tell, answer) = oneshot::channel();
        let is_confirmed = policy == WritePolicy::Confirmed;
        if is_confirmed && self.link != Link::Up {
            return Err(self.unavailable_error(key));
        }
        let (what, exact, ttl, mut take) = match request {
            Request::Put { value, ttl } => (Err(value), None, ttl, None),
            Request::Delete => (Ok(WriteKind::Assign(KeyChange::Delete)), None, None, None),
            Request::DeleteOf(seen) => (
                Ok(WriteKind::Assign(KeyChange::Delete)),
                Some(Precondition::Whole(seen)),
                None,
                None,
            ),
            Request::Mutate {
                mutation,
                ttl,
                exact,
                take,
            } => (Ok(WriteKind::Mutate(mutation)), exact, ttl, take),
        };
        if let Some(Precondition::Whole(seen)) = &exact
            && !rebase::is_same_value(seen.as_ref(), self.view(key, at.mono).stored.as_ref())
        {
            let _ = tell.send(Ok(Answer::again(Again::Shown)));
            return Ok(Accepted {
                sequence: self.outbox.last_sequence(),
                answer,
            });
        }
        let is_delete = matches!(what, Ok(WriteKind::Assign(KeyChange::Delete)));
        let existed = is_delete && self.view(key, at.mono).stored.is_some();
        let last = self
            .outbox
            .last(key)
            .map_or(Stamp::ZERO, |entry| entry.latest)
            .max(self.cache.last(key));
        let stamp = Stamp::issue(at.now, last, &mut self.random);
        let fresh = self.link == Link::Up;
        let awaited = fresh && policy != WritePolicy::Behind;
        let (waiter, promised): (Option<Waiter>, _) = if awaited {
            (Some(tell), None)
        } else {
            (None, Some(tell))
        };
        let what = match what {
            Err(value) => WriteKind::Assign(KeyChange::Put {
                envelope: value.seal(stamp),
                ttl: TimeToLive::Keep,
            }),
            Ok(WriteKind::Mutate(mut mutation)) => {
                mutation.stamp(stamp);
                WriteKind::Mutate(mutation)
            }
            Ok(delete) => delete,
        };
        let exact = exact.filter(|_| awaited);
        let expires = ttl.map(|ttl| at.mono + ttl);
        if let Some(back) = take.as_mut().and_then(|take| take.back.as_mut()) {
            back.stamp(stamp);
        }
        let is_take = take.is_some();
        let (written, is_retry) = (at.mono, matches!(ends, Some(Ends::Letter(_))));
        let write = Write {
            what,
            stamp,
            exact,
            is_confirmed,
            take,
            is_retry,
            expires,
            written,
            fresh,
            existed,
            waiter,
        };
        let sequence = self.enqueue(key, write, !awaited || ends.is_some(), ends)?;
        if is_take && let Err(error) = self.journal_standing(key, sequence) {
            self.outbox.withdraw(key, sequence);
            return Err(error);
        }
        if let Some(tell) = promised {
            let _ = tell.send(Ok(Answer::new(Written::Queued, existed)));
        }
        Ok(Accepted { sequence, answer })
    }

    /// Queues a write. `promised`: whoever made it is told that it will be sent. `ends`: what is
    /// over with that.
    fn enqueue(
        &mut self,
        key: &Arc<str>,
        write: Write,
        promised: bool,
        ends: Option<Ends>,
    ) -> Result<Sequence> {
        let (is_first, stamp) = (!self.outbox.has(key), write.stamp);
        if promised {
            self.outbox.check(key, &write)?;
            self.journal_write(key, &write, ends)?;
        }
        let sequence = self.outbox.push(key, write, self.cache.base(key))?;
        if promised && self.journal.is_some() {
            self.outbox
                .of_mut(key)
                .for_each(|entry| entry.journalled = entry.is_to_survive());
        }
        if is_first {
            // What waits is applied to what is there: its slot stays for so long.
            self.cache.hold(key);
        }
        self.cache.seen(key, stamp);
        self.cache.touch(key);
        Ok(sequence)
    }

    /// Why a call of `key` that only the backend can answer is not answered.
    pub(crate) fn unavailable_error(&self, key: &str) -> Error {
        let cause = self
            .last_error
            .as_ref()
            .map_or_else(|| "it has not answered yet".to_owned(), Error::to_string);
        Error::of_key(
            ErrorKind::Unavailable,
            key,
            format_args!("not made, since the backend is not available: {cause}"),
        )
    }

    /// What a read of `key` shows: the unanswered writes of this process on top of what the backend
    /// last answered.
    pub(crate) fn view(&self, key: &str, mono: Monotonic) -> KeyView {
        let shows = |entry: &&Entry| {
            !entry.is_confirmed && (!is_over(entry.expires, mono) || entry.replaces_nothing)
        };
        let is_whole = |entry: &Entry| entry.assignment.is_some() || is_over(entry.expires, mono);
        let mut on_top: Vec<&Entry> = Vec::new();
        for entry in self.outbox.of(key).rev().filter(shows) {
            on_top.push(entry);
            if is_whole(entry) {
                break;
            }
        }
        let base = self.cache.base(key);
        let mut view = KeyView {
            stored: base.at(mono).cloned(),
            value: base.known_value(mono),
            expires: base.expires,
        };
        for entry in on_top.into_iter().rev() {
            let is_over = is_over(entry.expires, mono);
            let expires = entry.expires.or(view.expires.filter(|_| !is_whole(entry)));
            view = if is_over {
                KeyView {
                    expires,
                    ..KeyView::default()
                }
            } else {
                let (stored, value) =
                    rebase::visible(entry, || (view.stored.clone(), view.value()));
                KeyView {
                    stored,
                    value,
                    expires,
                }
            };
        }
        view
    }

    /// Whether a read of these keys needs not ask the backend. What this process assigned and has
    /// no answer for is what it reads, whatever the backend says.
    pub(crate) fn is_local<'a>(&self, mut keys: impl Iterator<Item = &'a str>) -> bool {
        keys.all(|key| {
            self.cache.is_local(key, self.link != Link::Down)
                || self.cache.is_near(key) && self.is_assigned(key)
        })
    }

    /// Whether a write that waits says what `key` is.
    fn is_assigned(&self, key: &str) -> bool {
        self.outbox
            .of(key)
            .any(|entry| entry.assignment.is_some() && !entry.is_confirmed)
    }

    /// Whether what is shown of `key`, whose slot is kept current, is what somebody who has just
    /// begun to look may be told.
    pub(crate) fn is_visible(&self, key: &str) -> bool {
        self.is_assigned(key) || self.cache.is_cell_visible(key, self.link != Link::Down)
    }

    /// Whether anything is known of `key`: the backend answered for it, or this process assigned
    /// it.
    pub(crate) fn is_known(&self, key: &str) -> bool {
        self.is_assigned(key) || self.cache.base(key).is_known()
    }

    /// Ready when the answer to a read that was sent as the request `ticket` says what is there
    /// with or without the mutations that are under way; `None` where it does already.
    pub(crate) fn when_settled(
        &mut self,
        key: &str,
        ticket: Ticket,
    ) -> Option<oneshot::Receiver<()>> {
        let head = self.outbox.head(key)?;
        let is_earlier =
            head.mutation.is_some() && head.in_flight.is_some_and(|sent| sent < ticket);
        is_earlier.then(|| head.when_answered())
    }

    /// Takes in the answer to a read.
    ///
    /// `generation`: what was told of the key before the read was sent.
    pub(crate) fn read(
        &mut self,
        key: &Arc<str>,
        ticket: Ticket,
        generation: Generation,
        stored: Option<Bytes>,
    ) {
        // With a mutation in doubt nobody knows whether it is in there; its retry will tell.
        if self
            .outbox
            .head(key)
            .is_some_and(|head| head.mutation.is_some() && head.tried == Tried::InDoubt)
        {
            self.cache.was_not_read(key);
            return;
        }
        if let Some(stored) = &stored {
            self.cache.seen(key, envelope::stamp_of(stored));
        }
        self.cache.answered(key, Base::new(stored, ticket, None));
        self.cache.was_read(key, generation);
    }

    /// Takes in that the backend is there. With the first answer of its clock comes by how much it
    /// moved ours: stamps issued before are moved as well (rule 8).
    pub(crate) fn connected(&mut self, shift: Option<i64>) {
        if let Some(by) = shift {
            self.outbox.shift(by);
            self.cache.shift(by);
            self.rewrite_journal();
        }
        self.link = Link::Up;
    }

    /// Takes in that the connection is gone: what was under way has an unknown outcome.
    pub(crate) fn lost(&mut self, error: Error, mono: Monotonic) {
        if self.link != Link::Down {
            self.lost_at = Some(mono);
        }
        self.link = Link::Down;
        self.last_error = Some(error);
        for recorded in self.recorded.values_mut() {
            recorded.number = None;
        }
        self.cache.tracked(false, mono);
        self.journal_the_rest();
        self.outbox.disconnected();
    }

    /// Takes in that the backend is there but takes no writes now.
    pub(crate) fn busy(&mut self, error: Error) {
        self.link = Link::Busy;
        self.last_error = Some(error);
        self.journal_the_rest();
        self.outbox.pause();
        for (key, id) in self.outbox.withdrawable() {
            let error = self.unavailable_error(&key);
            self.withdraw(&key, id, error);
        }
    }

    /// Tells those who wait for the entry of `key` with this id that it stays queued.
    pub(crate) fn report_queued(&mut self, key: &str, id: Sequence) {
        self.journal_the_rest_of(key);
        self.outbox.report_queued(key, id);
    }
}

fn is_over(expires: Option<Monotonic>, mono: Monotonic) -> bool {
    crate::base::clock::has_expired(expires, mono)
}
