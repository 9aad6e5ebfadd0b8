//! One process's share of the state: the slots with the unanswered writes on top. No I/O, no clock.
//!
//! This is where rules 1 to 4, 7 and 15 of the design are kept on this side; `commit.rs` and
//! `commit.lua` keep them on the other. The model test drives exactly this.

use crate::cache::{Base, Cache, Ticket};
use crate::clock::{Moment, Mono, Stamp};
use crate::commit::{Attempt, Change, Found, Outcome, Sequence, TimeToLive, Writer};
use crate::envelope::{self, Unsealed};
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{Fault, FaultKind};
use crate::outbox::{Answer, Entry, Outbox, Tried, Waiter, Write, Written};
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
    /// The value as JSON; `None` was a delete.
    pub value: Option<serde_json::Value>,
    /// The stamp of the write, in ns since 1970.
    pub last_modified: u64,
    /// Why it was set aside.
    pub reason: Error,
}

/// What a user asks to be written.
#[derive(Debug)]
pub(crate) enum Request {
    Put { value: Unsealed, ttl: Option<Duration> },
    Delete,
}

/// What a read shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) stored: Option<Bytes>,
    /// When it ends by its time to live.
    pub(crate) expires: Option<Mono>,
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
    writer: Writer,
    tombstone_ttl: Duration,
    random: fastrand::Rng,
}

impl State {
    pub(crate) fn new(outbox_limit: usize, tombstone_ttl: Duration, mut random: fastrand::Rng) -> Self {
        Self {
            cache: Cache::default(),
            outbox: Outbox::new(outbox_limit),
            link: Link::Down,
            lost_at: None,
            last_error: None,
            set_aside: Vec::new(),
            superseded: 0,
            expired: 0,
            recorded: HashMap::new(),
            writer: random.u64(..),
            tombstone_ttl,
            random,
        }
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer
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
        let existed = self.view(key, at.mono).stored.is_some();
        let last = self.outbox.last(key).map_or(Stamp::ZERO, |entry| entry.stamp).max(self.cache.last(key));
        let stamp = Stamp::issue(at.now, last, &mut self.random);
        let fresh = self.link == Link::Up;
        let (tell, answer) = oneshot::channel();
        let (waiter, promised): (Option<Waiter>, _) = if fresh { (Some(tell), None) } else { (None, Some(tell)) };
        let (change, expires) = match request {
            Request::Put { value, ttl } => {
                (Change::Put { envelope: value.seal(stamp), ttl: TimeToLive::Keep }, ttl.map(|ttl| at.mono + ttl))
            }
            Request::Delete => (Change::Delete, None),
        };
        let write = Write { change, stamp, expires, written: at.mono, fresh, existed, waiter };
        let sequence = self.outbox.push(key, write)?;
        self.cache.seen(key, stamp);
        self.cache.touch(key);
        if let Some(tell) = promised {
            let _ = tell.send(Ok(Answer { written: Written::Queued, existed }));
        }
        Ok(Accepted { sequence, answer })
    }

    /// What a read of `key` shows: the unanswered writes of this process on top of what the backend
    /// last answered.
    pub(crate) fn view(&self, key: &str, mono: Mono) -> View {
        let shows = |entry: &&Entry| !is_over(entry.expires, mono) || entry.replaces_nothing;
        if let Some(entry) = self.outbox.of(key).rev().find(shows) {
            let stored = match &entry.change {
                Change::Put { envelope, .. } if !is_over(entry.expires, mono) => Some(envelope.clone()),
                _ => None,
            };
            return View { stored, expires: entry.expires };
        }
        let Some(base) = self.cache.base(key) else {
            return View::default();
        };
        View { stored: base.at(mono).cloned(), expires: base.expires }
    }

    /// Whether anything is known of `key`: the backend answered for it, or this process wrote it.
    pub(crate) fn is_known(&self, key: &str) -> bool {
        self.outbox.last(key).is_some() || self.cache.base(key).is_some_and(|base| base.ticket > 0)
    }

    /// Takes in the answer to a read.
    pub(crate) fn read(&mut self, key: &str, ticket: Ticket, stored: Option<Bytes>) {
        if let Some(stored) = &stored {
            self.cache.seen(key, envelope::stamp_of(stored));
        }
        self.cache.answered(key, Base { stored, ticket, expires: None });
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
        let head = self.outbox.head(key)?;
        if !head.is_awaited() || head.size() > most_bytes || !self.outbox.take_first(key) {
            return None;
        }
        self.attempt(Arc::clone(key), mono)
    }

    /// The next attempt to write `key`; nothing where its head was dropped or set aside instead.
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
        let entry = self.outbox.head(&key)?;
        if entry.tried == Tried::Never {
            entry.tried = Tried::Sent;
        }
        let change = match &entry.change {
            Change::Put { envelope, .. } => {
                let ttl = match entry.expires {
                    Some(expires) => TimeToLive::For(expires.saturating_sub(mono)),
                    None if entry.replaces_nothing => TimeToLive::Never,
                    None => TimeToLive::Keep,
                };
                Change::Put { envelope: envelope.clone(), ttl }
            }
            Change::Delete => Change::Delete,
        };
        let (sequence, stamp, retry) = (entry.sequence, entry.stamp, entry.tried == Tried::InDoubt);
        Some(Attempt { key, writer: self.writer, sequence, stamp, change, retry })
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
        let under_way = |entry: &&mut Entry| entry.sequence == attempt.sequence && entry.in_flight == Some(ticket);
        let Some(entry) = self.outbox.head(key).filter(under_way) else { return false };
        match answer {
            Ok(Outcome::Applied { existed }) => {
                let stored = match &attempt.change {
                    Change::Put { envelope, .. } => Some(envelope.clone()),
                    Change::Delete => None,
                };
                let expires = entry.expires;
                self.cache.answered(key, Base { stored, ticket, expires });
                self.settle(key, Answer { written: Written::Stored, existed });
            }
            Ok(Outcome::Already(found)) => {
                let newer = found.stamp() > attempt.stamp;
                self.take_in(key, ticket, &found);
                self.settle_as(key, newer);
            }
            Ok(Outcome::Refused(found)) => {
                let own = is_own(attempt, &found);
                if !own && entry.fresh && found.stamp() >= entry.stamp {
                    entry.in_flight = None;
                    let last = self.outbox.restamp_above(key, found.stamp(), &mut self.random);
                    self.outbox.put_back(Arc::clone(key));
                    self.take_in(key, ticket, &found);
                    self.cache.seen(key, last);
                    self.cache.touch(key);
                } else {
                    self.take_in(key, ticket, &found);
                    self.settle_as(key, !own);
                }
            }
            Err(fault) => match fault.kind {
                FaultKind::Refused => {
                    let reason = Error::of_key(ErrorKind::Rejected, key, &fault);
                    tracing::warn!(key = &**key, error = %fault, "the server refused a write for good");
                    self.last_error = Some(reason.clone());
                    self.put_aside(key, reason);
                }
                FaultKind::Busy | FaultKind::Elsewhere | FaultKind::Again | FaultKind::Lost => {
                    entry.in_flight = None;
                    self.outbox.put_back(Arc::clone(key));
                }
            },
        }
        true
    }

    /// Takes in that the backend is there. With the first answer of its clock comes by how much it
    /// moved ours: stamps issued before are moved as well (DESIGN, rule 8).
    pub(crate) fn connected(&mut self, shift: Option<i64>) {
        if let Some(by) = shift {
            self.outbox.shift(by);
            self.cache.shift(by);
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
        self.outbox.lose();
    }

    /// Takes in that the backend is there but takes no writes now.
    pub(crate) fn busy(&mut self, error: Error) {
        self.link = Link::Busy;
        self.last_error = Some(error);
        self.outbox.hold_back();
    }

    fn take_in(&mut self, key: &str, ticket: Ticket, found: &Found) {
        self.cache.seen(key, found.stamp());
        self.cache.answered(key, Base { stored: found.stored.clone(), ticket, expires: None });
    }

    fn settle_as(&mut self, key: &Arc<str>, superseded: bool) {
        let written = if superseded { Written::Superseded } else { Written::Stored };
        let existed = self.outbox.head(key).is_some_and(|entry| entry.existed);
        if superseded {
            self.superseded += 1;
            tracing::info!(key = &**key, "a queued write was superseded by a newer one");
        }
        self.settle(key, Answer { written, existed });
    }

    fn settle(&mut self, key: &Arc<str>, answer: Answer) {
        if let Some(mut entry) = self.outbox.remove(key) {
            match entry.tried {
                Tried::Never => {}
                Tried::Sent => _ = self.recorded.entry(Arc::clone(key)).or_insert(true),
                Tried::InDoubt => _ = self.recorded.insert(Arc::clone(key), false),
            }
            entry.tell(&Ok(answer));
            self.cache.touch(key);
        }
    }

    fn drop_expired(&mut self, key: &Arc<str>) {
        self.expired += 1;
        tracing::info!(key = &**key, "a queued write was dropped, since its time to live was over");
        self.settle(key, Answer { written: Written::Superseded, existed: false });
    }

    /// Withdraws the head of `key`: whoever waits for it gets the reason; with nobody waiting it was
    /// promised, and is set aside.
    fn put_aside(&mut self, key: &Arc<str>, reason: Error) {
        let Some(mut entry) = self.outbox.remove(key) else {
            return;
        };
        self.cache.touch(key);
        if entry.tried == Tried::InDoubt {
            self.recorded.insert(Arc::clone(key), false);
        }
        if entry.is_awaited() {
            entry.tell(&Err(reason));
            return;
        }
        let value = match &entry.change {
            Change::Put { envelope, .. } => envelope::decode(envelope).ok(),
            Change::Delete => None,
        };
        tracing::warn!(key = &**key, %reason, "a queued write was set aside");
        self.set_aside.push(SetAside { key: key.to_string(), value, last_modified: entry.stamp.get(), reason });
    }
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
