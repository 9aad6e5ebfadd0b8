//! One process's share of the state: the slots with the unanswered writes on top. No clock, and no I/O but the journal's.
//!
//! This is where rules 1 to 4, 7 and 15 of the design are kept on this side; `commit.rs` and
//! `commit.lua` keep them on the other. The model test drives exactly this.

use crate::cache::{Base, Cache, Ticket};
use crate::clock::{Moment, Mono, Stamp};
use crate::commit::{Attempt, Change, Expects, Found, Outcome, Sequence, TimeToLive, Writer};
use crate::envelope::{self, Text, Unsealed};
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{Fault, FaultKind};
use crate::journal::{self, Journal, Kept, Origin, Record};
use crate::mutation::{Call, Misfit, Mutation};
use crate::outbox::{Again, Answer, Entry, Exact, Outbox, Tried, Waiter, What, Write, Written};
use crate::rebase::{self, Plan};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Whether writes can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// The backend is there, but takes no writes now (out of memory, read-only, loading).
    Busy,
    Down,
}

/// A write that was set aside: it no longer applies, or the server refused it for good.
///
/// It was accepted while the backend could not be asked, so it is handed out and not dropped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SetAside {
    /// The key, with prefix and scope.
    pub key: String,
    /// The value that was assigned, as JSON; `None` for a delete, and where only a part was changed.
    pub value: Option<serde_json::Value>,
    /// The changes to a part of the value, one element for each call, as JSON: lists of operations, each with
    /// its `path` and what it was to `do` there.
    pub changes: Vec<serde_json::Value>,
    /// The stamp of the write, in ns since 1970.
    pub last_modified: u64,
    /// Why it was set aside.
    pub reason: Error,
}

/// What a user asks to be written.
#[derive(Debug)]
pub(crate) enum Request {
    Put {
        value: Unsealed,
        ttl: Option<Duration>,
    },
    Delete,
    /// `exact`: what it was recorded on, where its caller records it anew on anything else.
    Mutate {
        mutation: Mutation,
        ttl: Option<Duration>,
        exact: Option<Exact>,
    },
    /// A delete of exactly this.
    Withdraw(Option<Bytes>),
}

/// What a read shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) stored: Option<Bytes>,
    /// The value in it as JSON text, where that is known already.
    value: Option<Text>,
    /// When it ends by its time to live.
    pub(crate) expires: Option<Mono>,
}

impl View {
    /// The value as JSON text.
    pub(crate) fn value(&self) -> Option<Text> {
        self.value.clone().or_else(|| self.stored.as_ref().map(envelope::value_of))
    }
}

/// A write that was accepted: its answer comes, or is there.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) sequence: Sequence,
    pub(crate) answer: oneshot::Receiver<Result<Answer>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cache: Cache,
    pub(crate) outbox: Outbox,
    pub(crate) link: Link,
    /// When a connection was lost that is not back yet.
    pub(crate) lost_at: Option<Mono>,
    pub(crate) last_error: Option<Error>,
    pub(crate) set_aside: Vec<SetAside>,
    /// Queued writes that somebody's newer write has replaced.
    pub(crate) superseded: u64,
    /// Queued writes whose time to live ended before they could be sent.
    pub(crate) expired: u64,
    /// The keys at which the backend has a record of this writer, and whether it can be dropped: not where
    /// an attempt in doubt may yet arrive, which must find it.
    recorded: HashMap<Arc<str>, bool>,
    journal: Option<Journal>,
    tombstone_ttl: Duration,
    random: fastrand::Rng,
}

impl State {
    pub(crate) fn new(outbox_limit: usize, tombstone_ttl: Duration, mut random: fastrand::Rng) -> Self {
        Self {
            cache: Cache::default(),
            outbox: Outbox::new(outbox_limit, random.u64(..)),
            link: Link::Down,
            lost_at: None,
            last_error: None,
            set_aside: Vec::new(),
            superseded: 0,
            expired: 0,
            recorded: HashMap::new(),
            journal: None,
            tombstone_ttl,
            random,
        }
    }

    pub(crate) fn writer(&self) -> Writer {
        self.outbox.writer()
    }

    /// Keeps a journal from now on, and takes over what processes that are gone have left in its directory.
    ///
    /// # Errors
    ///
    /// `Journal`: it cannot be kept.
    pub(crate) fn keep_a_journal(&mut self, place: journal::Place, origin: Origin) -> Result<()> {
        let (mut journal, mut adopted) = Journal::open(place, self.writer(), origin)?;
        for Kept { key, mut entry } in std::mem::take(&mut adopted.kept) {
            entry.journalled = true;
            if !self.outbox.has(&key) {
                self.cache.hold(&key);
            }
            self.cache.seen(&key, entry.latest);
            self.outbox.adopt(&key, entry);
        }
        journal.rewrite(standing(&self.outbox, origin))?;
        self.last_error = adopted.damage.take();
        adopted.release();
        self.journal = Some(journal);
        Ok(())
    }

    /// Everything was delivered, and nothing comes any more: the journal goes.
    pub(crate) fn end_journal(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.remove();
        }
    }

    /// The keys at which the backend has a record of this writer that it can drop.
    pub(crate) fn take_recorded(&mut self) -> Vec<Arc<str>> {
        self.recorded.drain().filter_map(|(key, is_droppable)| is_droppable.then_some(key)).collect()
    }

    /// Applies a write locally and queues it. While the link is up, its answer is awaited.
    ///
    /// # Errors
    ///
    /// `OutboxFull`: nothing was changed.
    pub(crate) fn write(&mut self, key: &Arc<str>, request: Request, at: Moment) -> Result<Accepted> {
        let (tell, answer) = oneshot::channel();
        let (what, exact, ttl) = match request {
            Request::Put { value, ttl } => (Err(value), None, ttl),
            Request::Delete => (Ok(What::Assign(Change::Delete)), None, None),
            Request::Mutate { mutation, ttl, exact } => (Ok(What::Mutate(mutation)), exact, ttl),
            Request::Withdraw(seen) => (Ok(What::Assign(Change::Delete)), Some(Exact::Whole(seen)), None),
        };
        if let Some(Exact::Whole(seen)) = &exact
            && !rebase::is_same_value(seen.as_ref(), self.view(key, at.mono).stored.as_ref())
        {
            let _ = tell.send(Ok(Answer::again(Again::Shown)));
            return Ok(Accepted { sequence: self.outbox.last_sequence(), answer });
        }
        let is_delete = matches!(what, Ok(What::Assign(Change::Delete)));
        let existed = is_delete && self.view(key, at.mono).stored.is_some();
        let last = self.outbox.last(key).map_or(Stamp::ZERO, |entry| entry.latest).max(self.cache.last(key));
        let stamp = Stamp::issue(at.now, last, &mut self.random);
        let fresh = self.link == Link::Up;
        let (waiter, promised): (Option<Waiter>, _) = if fresh { (Some(tell), None) } else { (None, Some(tell)) };
        let what = match what {
            Err(value) => What::Assign(Change::Put { envelope: value.seal(stamp), ttl: TimeToLive::Keep }),
            Ok(What::Mutate(mut mutation)) => {
                mutation.stamp(stamp);
                What::Mutate(mutation)
            }
            Ok(delete) => delete,
        };
        let exact = exact.filter(|_| fresh);
        let expires = ttl.map(|ttl| at.mono + ttl);
        let write = Write { what, stamp, exact, expires, written: at.mono, fresh, existed, waiter };
        let is_first = !self.outbox.has(key);
        if !fresh {
            self.outbox.check(key, &write)?;
            self.journal_write(key, &write)?;
        }
        let sequence = self.outbox.push(key, write, self.cache.base(key))?;
        if !fresh && self.journal.is_some() {
            self.outbox.of_mut(key).for_each(|entry| entry.journalled = true);
        }
        if is_first {
            // What waits is applied to what is there: its slot stays for so long.
            self.cache.hold(key);
        }
        self.cache.seen(key, stamp);
        self.cache.touch(key);
        if let Some(tell) = promised {
            let _ = tell.send(Ok(Answer::new(Written::Queued, existed)));
        }
        Ok(Accepted { sequence, answer })
    }

    /// What a read of `key` shows: the unanswered writes of this process on top of what the backend
    /// last answered.
    pub(crate) fn view(&self, key: &str, mono: Mono) -> View {
        let shows = |entry: &&Entry| !is_over(entry.expires, mono) || entry.replaces_nothing;
        let is_whole = |entry: &Entry| entry.assignment.is_some() || is_over(entry.expires, mono);
        let mut on_top: Vec<&Entry> = Vec::new();
        for entry in self.outbox.of(key).rev().filter(shows) {
            on_top.push(entry);
            if is_whole(entry) {
                break;
            }
        }
        let base = self.cache.base(key);
        let mut view = View { stored: base.at(mono).cloned(), value: base.known_value(mono), expires: base.expires };
        for entry in on_top.into_iter().rev() {
            let is_over = is_over(entry.expires, mono);
            let expires = entry.expires.or(view.expires.filter(|_| !is_whole(entry)));
            view = if is_over {
                View { expires, ..View::default() }
            } else {
                let (stored, value) = rebase::shown(entry, || (view.stored.clone(), view.value()));
                View { stored, value, expires }
            };
        }
        view
    }

    /// Whether anything is known of `key`: the backend answered for it, or this process assigned it.
    pub(crate) fn is_known(&self, key: &str) -> bool {
        self.outbox.of(key).any(|entry| entry.assignment.is_some()) || self.cache.base(key).is_known()
    }

    /// Ready when the answer to a read that was sent as the request `ticket` says what is there with or
    /// without the mutations that are under way; `None` where it does already.
    pub(crate) fn when_settled(&mut self, key: &str, ticket: Ticket) -> Option<oneshot::Receiver<()>> {
        let head = self.outbox.head(key)?;
        let is_earlier = head.mutation.is_some() && head.in_flight.is_some_and(|sent| sent < ticket);
        is_earlier.then(|| head.when_answered())
    }

    /// Takes in the answer to a read.
    pub(crate) fn read(&mut self, key: &str, ticket: Ticket, stored: Option<Bytes>) {
        // With a mutation in doubt nobody knows whether it is in there; its retry will tell.
        if self.outbox.head(key).is_some_and(|head| head.mutation.is_some() && head.tried == Tried::InDoubt) {
            return;
        }
        if let Some(stored) = &stored {
            self.cache.seen(key, envelope::stamp_of(stored));
        }
        self.cache.answered(key, Base::new(stored, ticket, None));
    }

    /// Chooses what is sent next: at most `most` attempts of together about `most_bytes`.
    pub(crate) fn next_batch(&mut self, most: usize, most_bytes: usize, mono: Mono) -> Vec<Attempt> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < most && bytes < most_bytes {
            let Some(key) = self.outbox.next_ready() else { break };
            if let Some(attempt) = self.attempt(key, mono) {
                bytes += attempt.size();
                batch.push(attempt);
            }
        }
        batch
    }

    /// Takes the head of `key` out to be sent at once, where somebody waits for it, nothing is before it and
    /// it is at most `most_bytes` long.
    pub(crate) fn take_small(&mut self, key: &Arc<str>, most_bytes: usize, mono: Mono) -> Option<Attempt> {
        let base = self.cache.base(key).stored.as_ref().map_or(0, Bytes::len);
        let head = self.outbox.head(key)?;
        let size = head.size() + if head.mutation.is_some() { base } else { 0 };
        if !head.is_awaited() || size > most_bytes || !self.outbox.take_first(key) {
            return None;
        }
        self.attempt(Arc::clone(key), mono)
    }

    /// The next attempt to write `key`; nothing where its head was settled, dropped or set aside instead.
    fn attempt(&mut self, key: Arc<str>, mono: Mono) -> Option<Attempt> {
        let entry = self.outbox.head(&key)?;
        let over = is_over(entry.expires, mono);
        if over && !entry.replaces_nothing {
            self.drop_expired(&key);
            return None;
        }
        if entry.written + self.tombstone_ttl <= mono {
            let reason = "it waited longer than the tombstones of deletes are kept";
            self.put_aside(&key, Error::of_key(ErrorKind::Conflict, &key, reason));
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
                self.note(&Record::Sent(name));
            }
        }
        let entry = self.outbox.head(&key)?;
        let first_tried = *entry.first_tried.get_or_insert(mono);
        let retry = (entry.tried == Tried::InDoubt).then(|| mono.saturating_sub(first_tried));
        let change = match change {
            Change::Put { envelope, .. } => {
                let ttl = match entry.expires {
                    Some(expires) => TimeToLive::For(expires.saturating_sub(mono)),
                    None if entry.replaces_nothing => TimeToLive::Never,
                    None => TimeToLive::Keep,
                };
                Change::Put { envelope, ttl }
            }
            Change::Delete => Change::Delete,
        };
        Some(Attempt { key, writer: entry.writer, sequence: entry.number(), stamp, change, expects, retry })
    }

    /// What the head of `key` is sent as; nothing where it was settled instead.
    fn planned(&mut self, key: &Arc<str>, mono: Mono) -> Option<(Change, Stamp, Expects)> {
        loop {
            let base = self.cache.base(key);
            let entry = self.outbox.head(key)?;
            match rebase::plan(entry, base, mono) {
                Plan::Send { change, stamp, expects, superseded } => {
                    entry.superseded = superseded;
                    return Some((change, stamp, expects));
                }
                Plan::Ask => return Some((Change::Delete, entry.latest, Expects::Nothing)),
                Plan::Again => {
                    let how = if entry.is_confirmed { Again::Answered } else { Again::Shown };
                    self.settle(key, Answer::again(how));
                    return None;
                }
                Plan::Done { superseded } => {
                    entry.superseded = superseded;
                    let written = if superseded > 0 { Written::Superseded } else { Written::Stored };
                    self.settle(key, Answer::new(written, true));
                    return None;
                }
                Plan::Misfits(misfits) => self.put_calls_aside(key, &misfits)?,
            }
        }
    }

    /// Withdraws the calls that do not apply. Nothing where that was all.
    fn put_calls_aside(&mut self, key: &Arc<str>, misfits: &[(usize, Misfit)]) -> Option<()> {
        let (_, misfit) = misfits.first()?;
        let reason =
            Error::of_key(ErrorKind::Conflict, key, format_args!("a change does not apply any more: {misfit}"));
        let entry = self.outbox.head(key)?;
        if entry.is_awaited() {
            self.put_aside(key, reason);
            return None;
        }
        let stamp = entry.latest;
        let indexes: Vec<usize> = misfits.iter().map(|(index, _)| *index).collect();
        let taken = self.outbox.change(key, |entry| {
            let taken = entry.mutation.as_mut().map(|mutation| mutation.take(&indexes));
            entry.mutation.take_if(|mutation| mutation.calls().is_empty());
            taken
        })?;
        self.journal_again(key);
        self.cache.touch(key);
        self.hand_out(key, None, taken.as_ref(), stamp, reason);
        Some(())
    }

    /// Takes back a batch that was not sent.
    pub(crate) fn put_back(&mut self, batch: &[Attempt]) {
        for attempt in batch {
            self.outbox.put_back(Arc::clone(&attempt.key));
        }
    }

    /// Takes in that a batch was sent as the request `ticket`.
    pub(crate) fn sent(&mut self, batch: &[Attempt], ticket: Ticket) {
        for attempt in batch {
            if let Some(entry) = self.outbox.head(&attempt.key) {
                entry.in_flight = Some(ticket);
            }
        }
    }

    /// Takes in the backend's answer to an attempt that was sent as the request `ticket`. Returns whether
    /// that was still under way: an answer over a connection that was given up says nothing any more.
    pub(crate) fn answered(&mut self, attempt: &Attempt, ticket: Ticket, answer: Result<Outcome, Fault>) -> bool {
        let key = &attempt.key;
        let under_way = |entry: &&mut Entry| entry.number() == attempt.sequence && entry.in_flight == Some(ticket);
        let Some(entry) = self.outbox.head(key).filter(under_way) else { return false };
        entry.landed();
        match answer {
            Ok(Outcome::Applied { existed, contended }) => {
                let expires = entry.expires;
                self.cache.answered(
                    key,
                    match &attempt.change {
                        Change::Put { envelope, .. } => Base::own(envelope.clone(), ticket, expires),
                        Change::Delete => Base::new(None, ticket, expires),
                    },
                );
                self.settle(key, Answer { contended, ..Answer::new(Written::Stored, existed) });
            }
            Ok(Outcome::Already(found)) => {
                let newer = entry.mutation.is_none() && found.stamp() > attempt.stamp;
                self.take_in(key, ticket, &found);
                self.settle_as(key, newer);
            }
            Ok(Outcome::Forgotten(found)) => {
                self.take_in(key, ticket, &found);
                let reason = "its answer was lost, and it was tried so long ago that nobody knows whether it was made";
                self.put_aside(key, Error::of_key(ErrorKind::Conflict, key, reason));
            }
            Ok(Outcome::Refused(found)) => self.refused(attempt, ticket, &found),
            Err(fault) => match fault.kind {
                FaultKind::Refused => {
                    let reason = Error::of_key(ErrorKind::Rejected, key, &fault);
                    tracing::warn!(key = &**key, error = %fault, "the server refused a write for good");
                    self.last_error = Some(reason.clone());
                    self.put_aside(key, reason);
                }
                FaultKind::Busy | FaultKind::Elsewhere | FaultKind::Again | FaultKind::Lost => {
                    self.outbox.put_back(Arc::clone(key));
                }
            },
        }
        true
    }

    /// Takes in that the head of the key met something as new or newer, or something else than it expected.
    fn refused(&mut self, attempt: &Attempt, ticket: Ticket, found: &Found) {
        let key = &attempt.key;
        self.take_in(key, ticket, found);
        let Some(entry) = self.outbox.head(key) else { return };
        entry.is_confirmed = true;
        if attempt.retry.is_some() {
            entry.retry_refused();
        }
        let is_beaten = found.stamp() >= attempt.stamp;
        let fresh = entry.fresh;
        if attempt.expects == Expects::Anything {
            let is_own = is_own(attempt, found);
            if is_own || !(fresh || entry.mutation.is_some()) {
                return self.settle_as(key, !is_own);
            }
            if !fresh {
                // The assignment is superseded; what was changed since goes on without it.
                self.superseded += 1;
                tracing::info!(key = &**key, "a queued write was superseded by a newer one");
                self.outbox.change(key, Entry::drop_assignment);
            }
        } else if entry.assignment.is_none() && found.stored.is_none() && is_beaten && !fresh {
            let reason = "the key was deleted after the change was made";
            return self.put_aside(key, Error::of_key(ErrorKind::Conflict, key, reason));
        }
        let competes = entry_competes(self.outbox.head(key), found);
        if is_beaten && fresh && competes {
            let last = self.outbox.restamp_above(key, found.stamp(), &mut self.random);
            self.cache.seen(key, last);
        }
        self.outbox.put_back(Arc::clone(key));
        self.cache.touch(key);
        self.journal_again(key);
    }

    /// Takes in that the backend is there. With the first answer of its clock comes by how much it
    /// moved ours: stamps issued before are moved as well (DESIGN, rule 8).
    pub(crate) fn connected(&mut self, shift: Option<i64>) {
        if let Some(by) = shift {
            self.outbox.shift(by);
            self.cache.shift(by);
            self.rewrite_journal();
        }
        self.link = Link::Up;
    }

    /// Takes in that the connection is gone: what was under way has an unknown outcome.
    pub(crate) fn lost(&mut self, error: Error, mono: Mono) {
        if self.link != Link::Down {
            self.lost_at = Some(mono);
        }
        self.link = Link::Down;
        self.last_error = Some(error);
        self.journal_the_rest();
        self.outbox.lose();
    }

    /// Takes in that the backend is there but takes no writes now.
    pub(crate) fn busy(&mut self, error: Error) {
        self.link = Link::Busy;
        self.last_error = Some(error);
        self.journal_the_rest();
        self.outbox.hold_back();
    }

    /// Tells those who wait for the entry of `key` with this id that it stays queued.
    pub(crate) fn promise(&mut self, key: &str, id: Sequence) {
        self.journal_the_rest();
        self.outbox.promise(key, id);
    }

    /// Journals a write before it is queued.
    fn journal_write(&mut self, key: &Arc<str>, write: &Write) -> Result<()> {
        // What it may be made part of has to be there before it.
        self.journal_the_rest();
        let Some(journal) = &mut self.journal else { return Ok(()) };
        journal.append(&Record::wrote(&self.outbox, key, write, journal.origin))?;
        if journal.is_worth_rewriting(self.outbox.bytes()) {
            self.rewrite_journal();
        }
        Ok(())
    }

    /// Journals everything that waits and is not in the journal yet: it is about to be promised.
    fn journal_the_rest(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let mut failed = None;
        for (key, entry) in self.outbox.not_journalled() {
            match journal.append(&Record::stands(key, entry, journal.origin)) {
                Ok(()) => entry.journalled = true,
                // It was sent, or may have been: it cannot be withdrawn any more.
                Err(error) => failed = Some(error),
            }
        }
        self.tell_of(failed);
    }

    /// Journals how the writes to `key` stand now.
    fn journal_again(&mut self, key: &Arc<str>) {
        let Some(journal) = &mut self.journal else { return };
        let entries = self.outbox.of(key).filter(|entry| entry.journalled);
        let failed =
            entries.map(|entry| journal.append(&Record::stands(key, entry, journal.origin))).find_map(Result::err);
        self.tell_of(failed);
    }

    /// Journals what need not be there: without it more is tried again, and found to be done.
    fn note(&mut self, record: &Record<'_>) {
        let failed = self.journal.as_mut().and_then(|journal| journal.append(record).err());
        self.tell_of(failed);
    }

    fn rewrite_journal(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let failed = journal.rewrite(standing(&self.outbox, journal.origin)).err();
        self.tell_of(failed);
    }

    fn tell_of(&mut self, failed: Option<Error>) {
        if let Some(error) = failed {
            tracing::error!(%error, "the journal cannot be written");
            self.last_error = Some(error);
        }
    }

    fn take_in(&mut self, key: &str, ticket: Ticket, found: &Found) {
        self.cache.seen(key, found.stamp());
        self.cache.answered(key, Base::new(found.stored.clone(), ticket, None));
    }

    fn settle_as(&mut self, key: &Arc<str>, superseded: bool) {
        let written = if superseded { Written::Superseded } else { Written::Stored };
        let existed = self.outbox.head(key).is_some_and(|entry| entry.existed);
        if superseded {
            self.superseded += 1;
            tracing::info!(key = &**key, "a queued write was superseded by a newer one");
        }
        self.settle(key, Answer::new(written, existed));
    }

    fn settle(&mut self, key: &Arc<str>, answer: Answer) {
        if let Some(mut entry) = self.take_out(key) {
            self.superseded += entry.superseded;
            entry.tell(&Ok(answer));
        }
    }

    /// Takes the head of `key` out of the outbox: it was answered for, or withdrawn.
    fn take_out(&mut self, key: &Arc<str>) -> Option<Entry> {
        let entry = self.outbox.remove(key)?;
        if entry.journalled {
            self.note(&Record::Done(entry.name()));
        }
        if entry.was_in_doubt {
            self.recorded.insert(Arc::clone(key), false);
        } else if entry.tried == Tried::Sent {
            self.recorded.entry(Arc::clone(key)).or_insert(true);
        }
        self.cache.touch(key);
        if !self.outbox.has(key) {
            self.cache.release(key);
        }
        Some(entry)
    }

    fn drop_expired(&mut self, key: &Arc<str>) {
        self.expired += 1;
        tracing::info!(key = &**key, "a queued write was dropped, since its time to live was over");
        self.settle(key, Answer::new(Written::Superseded, false));
    }

    /// Withdraws the head of `key`: whoever waits for it gets the reason; with nobody waiting it was
    /// promised, and is set aside.
    fn put_aside(&mut self, key: &Arc<str>, reason: Error) {
        let Some(mut entry) = self.take_out(key) else {
            return;
        };
        if entry.is_awaited() {
            entry.tell(&Err(reason));
            return;
        }
        self.hand_out(key, entry.assignment.as_ref(), entry.mutation.as_ref(), entry.latest, reason);
    }

    fn hand_out(
        &mut self,
        key: &Arc<str>,
        assignment: Option<&Change>,
        mutation: Option<&Mutation>,
        stamp: Stamp,
        reason: Error,
    ) {
        let value = match assignment {
            Some(Change::Put { envelope, .. }) => envelope::decode(envelope).ok(),
            Some(Change::Delete) | None => None,
        };
        let calls = mutation.map(Mutation::calls).unwrap_or_default();
        // By way of text, in which a number may be of any length.
        let told = |call: &Call| serde_json::from_str(&serde_json::to_string(&call.operations).ok()?).ok();
        let changes = calls.iter().filter_map(told).collect();
        tracing::warn!(key = &**key, %reason, "a queued write was set aside");
        self.set_aside.push(SetAside { key: key.to_string(), value, changes, last_modified: stamp.get(), reason });
    }
}

/// What a journal has to hold.
fn standing(outbox: &Outbox, origin: Origin) -> impl Iterator<Item = Record<'_>> {
    let entries = outbox.entries().filter(|(_, entry)| entry.journalled);
    entries.map(move |(key, entry)| Record::stands(key, entry, origin))
}

/// Whether the stamp decides: of a change to what is there it is chosen above that anyway.
fn entry_competes(entry: Option<&mut Entry>, found: &Found) -> bool {
    found.stored.is_none() || entry.is_some_and(|entry| entry.assignment.is_some())
}

/// Whether what was found is what this attempt wants to be there: it was stored by an earlier try.
fn is_own(attempt: &Attempt, found: &Found) -> bool {
    found.stamp() == attempt.stamp
        && match &attempt.change {
            Change::Put { envelope, .. } => found.stored.as_ref() == Some(envelope),
            Change::Delete => found.stored.is_none(),
        }
}

fn is_over(expires: Option<Mono>, mono: Mono) -> bool {
    expires.is_some_and(|expires| expires <= mono)
}
