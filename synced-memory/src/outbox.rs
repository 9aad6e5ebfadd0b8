//! The writes that the backend has not answered for yet: coalescing, order per key, the bound. No I/O.
//!
//! Each key has a queue. Its head is the entry that is sent next, or is being sent. From its first
//! attempt an entry is frozen: later writes form a new entry behind it (DESIGN, rule 3).

use crate::cache::{Base, Ticket};
use crate::clock::{Mono, Stamp};
use crate::commit::{Change, Sequence, Writer};
use crate::envelope::{self, Text};
use crate::error::{Error, ErrorKind, Result};
use crate::mutation::{Mutation, Since, coalesce};
use bytes::Bytes;
use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What became of a write.
///
/// It is not `#[must_use]`: each of the three is a success, and the write is never lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Written {
    /// Somebody else's write is newer, and was kept instead; a read shows it.
    Superseded,
    /// It waits for the backend, and will be sent.
    Queued,
    /// The backend has it, as safely as its own persistence makes it.
    Stored,
}

/// What a writer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) written: Written,
    /// Whether the key was there before, as far as known.
    pub(crate) existed: bool,
    /// It was withdrawn, since it was recorded on something else than is there: it is to be recorded anew.
    pub(crate) again: Option<Again>,
    /// Others try to change the same key.
    pub(crate) contended: Option<Writer>,
}

/// How it turned out that a write was recorded on something else than is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// By what this process shows by now.
    Shown,
    /// By what the backend answered to it.
    Answered,
}

impl Answer {
    pub(crate) fn new(written: Written, existed: bool) -> Self {
        Self { written, existed, again: None, contended: None }
    }

    pub(crate) fn again(how: Again) -> Self {
        Self { written: Written::Superseded, existed: false, again: Some(how), contended: None }
    }
}

/// Somebody who waits for the answer to a write.
pub(crate) type Waiter = oneshot::Sender<Result<Answer>>;

/// Whether an entry was sent. From its first attempt on it is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    Never,
    /// Every attempt that is not under way was answered for.
    Sent,
    /// An attempt with an unknown outcome was sent over a connection that is gone.
    InDoubt,
}

/// What a write was recorded on, whose caller waits to record it anew where something else is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exact {
    /// The whole of what is stored.
    Whole(Option<Bytes>),
    /// What its operations have seen at their places.
    Places,
}

/// So many sequence numbers each entry has: from a retry that was refused on, it goes on under the next one.
pub(crate) const NUMBERS: Sequence = 1 << 10;

/// A write that the backend has not answered for.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Entry {
    /// Its place among all that were ever queued here.
    pub(crate) id: Sequence,
    /// Who made it: this memory, or one that is gone and has left it in its journal.
    pub(crate) writer: Writer,
    /// The first of its sequence numbers.
    pub(crate) sequence: Sequence,
    /// It is in the journal.
    pub(crate) journalled: bool,
    /// So many of its retries were refused.
    refused_retries: u64,
    /// What replaces the value.
    pub(crate) assignment: Option<Change>,
    /// What changes the value that was assigned; where none was, the one that is there.
    pub(crate) mutation: Option<Mutation>,
    /// The stamp that it competes with.
    pub(crate) stamp: Stamp,
    /// The stamp of the newest write in it.
    pub(crate) latest: Stamp,
    /// What its caller recorded it on, and waits to record it anew where something else is there.
    pub(crate) exact: Option<Exact>,
    /// What is there was told by a refusal, over the connection that is in use.
    pub(crate) is_confirmed: bool,
    /// What the backend had answered last when its mutation was recorded.
    recorded_at: Ticket,
    /// When its time to live is over.
    pub(crate) expires: Option<Mono>,
    /// It took the place of a delete that was not sent, or of a value whose time was over: the key keeps no
    /// time to live of before, and when its own is over the key is gone.
    pub(crate) replaces_nothing: bool,
    /// When the newest write in it was made.
    pub(crate) written: Mono,
    /// When the oldest write in it was made.
    pub(crate) since: Mono,
    /// No outage since it was written: where it meets a newer stamp it is stamped anew (rule 4).
    pub(crate) fresh: bool,
    pub(crate) tried: Tried,
    /// When it was first sent.
    pub(crate) first_tried: Option<Mono>,
    /// An attempt with an unknown outcome was sent, and may yet arrive.
    pub(crate) was_in_doubt: bool,
    /// The attempt that is under way.
    pub(crate) in_flight: Option<Ticket>,
    /// So many of the calls in the attempt that is under way are superseded.
    pub(crate) superseded: u64,
    /// Whether the key was there before, as far as this process knew.
    pub(crate) existed: bool,
    /// Those who wait for the answer; they share its fate. With nobody waiting it was promised.
    waiters: Vec<Waiter>,
    /// Those who have a later answer of the key in hand, and wait for this one.
    followers: Vec<oneshot::Sender<()>>,
}

impl Entry {
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// What stays the same when another process takes it over.
    pub(crate) fn name(&self) -> (Writer, Sequence) {
        (self.writer, self.sequence)
    }

    pub(crate) fn refused_retries(&self) -> u64 {
        self.refused_retries
    }

    /// The number that its next attempt goes under.
    pub(crate) fn number(&self) -> Sequence {
        self.sequence + self.refused_retries.min(NUMBERS - 1)
    }

    /// Takes in that a retry was refused for certain: no attempt is in doubt any more, and the backend will
    /// refuse this number for ever.
    pub(crate) fn retry_refused(&mut self) {
        self.refused_retries += 1;
        self.tried = Tried::Sent;
        self.was_in_doubt = true;
    }

    fn cost(&self, key: &str) -> usize {
        BOOKKEEPING + key.len() + self.size()
    }

    /// How many bytes it holds.
    pub(crate) fn size(&self) -> usize {
        self.assignment.as_ref().map_or(0, Change::size) + self.mutation.as_ref().map_or(0, Mutation::size)
    }

    /// Tells everybody who waits; from then on nobody does.
    pub(crate) fn tell(&mut self, answer: &Result<Answer>) {
        for waiter in self.waiters.drain(..) {
            // Whoever no longer listens has been told otherwise.
            let _ = waiter.send(answer.clone());
        }
    }

    /// Ready when the attempt that is under way was answered for, or is lost.
    pub(crate) fn when_answered(&mut self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        self.followers.push(tell);
        told
    }

    /// Takes in that the attempt that was under way is not any more.
    pub(crate) fn landed(&mut self) -> Option<Ticket> {
        self.followers.clear();
        self.in_flight.take()
    }

    /// Goes on with the changes alone.
    pub(crate) fn drop_assignment(&mut self) {
        self.assignment = None;
        self.stamp = self.latest;
        self.replaces_nothing = false;
    }

    /// Gives the entry a newer stamp, after a definite refusal of the one that it had.
    pub(crate) fn restamp(&mut self, stamp: Stamp) {
        self.stamp = stamp;
        self.latest = self.latest.max(stamp);
        if let Some(Change::Put { envelope, .. }) = &mut self.assignment {
            *envelope = envelope::restamped(envelope, stamp);
        }
    }

    fn shift(&mut self, by: i64) {
        self.latest = self.latest.shifted(by);
        self.restamp(self.stamp.shifted(by));
        if let Some(mutation) = &mut self.mutation {
            mutation.shift(by);
        }
    }

    /// Whether a later write can be made part of it: it was not sent yet, and has the same promise to keep.
    fn takes(&self, write: &Write) -> bool {
        self.tried == Tried::Never
            && self.is_awaited() == write.waiter.is_some()
            && self.exact.is_none()
            && write.exact.is_none()
    }

    /// Takes a later mutation in; hands it back where it has to stay apart.
    fn take_mutation(&mut self, later: Mutation, base: &Base, is_only: bool) -> Result<(), Mutation> {
        let Some(mutation) = &mut self.mutation else {
            // Whoever waits for the assignment does not share the fate of the mutation.
            if self.is_awaited() {
                return Err(later);
            }
            self.mutation = Some(later);
            return Ok(());
        };
        if !self.waiters.is_empty() {
            // Callers that wait share one fate: only what is one call is merged.
            let mut together = mutation.clone();
            coalesce(&mut together, later.clone(), Since::Moved)?;
            if self.assignment.is_some() || together.calls().len() > 1 {
                return Err(later);
            }
            *mutation = together;
            return Ok(());
        }
        let own = self.assignment.as_ref().map(Change::own_value);
        let since = match &own {
            Some(own) => Since::Unchanged(own.as_ref().map(Text::as_str)),
            None if is_only && self.recorded_at == base.ticket && !later.merges_anywhere() => {
                Since::Unchanged(base.value_at(self.written))
            }
            None => Since::Moved,
        };
        coalesce(mutation, later, since)
    }

    /// Tells everybody who waits that the write stays queued.
    fn promise(&mut self) {
        self.exact = None;
        self.tell(&Ok(Answer::new(Written::Queued, self.existed)));
    }
}

/// What an entry takes of `outbox_limit` beside its key and value, in bytes.
const BOOKKEEPING: usize = 256;

/// What a write does.
#[derive(Debug)]
pub(crate) enum What {
    Assign(Change),
    Mutate(Mutation),
}

/// A write on its way into the outbox.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) what: What,
    pub(crate) stamp: Stamp,
    pub(crate) exact: Option<Exact>,
    pub(crate) expires: Option<Mono>,
    pub(crate) written: Mono,
    pub(crate) fresh: bool,
    pub(crate) existed: bool,
    pub(crate) waiter: Option<Waiter>,
}

/// A write that was promised, as a journal holds it.
#[derive(Debug)]
pub(crate) struct Promised {
    pub(crate) name: (Writer, Sequence),
    pub(crate) refused_retries: u64,
    pub(crate) assignment: Option<Change>,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) stamp: Stamp,
    pub(crate) latest: Stamp,
    pub(crate) expires: Option<Mono>,
    pub(crate) replaces_nothing: bool,
    pub(crate) written: Mono,
    pub(crate) since: Mono,
    pub(crate) first_tried: Option<Mono>,
}

impl From<Promised> for Entry {
    fn from(promised: Promised) -> Self {
        let (writer, sequence) = promised.name;
        Self {
            id: sequence,
            writer,
            sequence,
            journalled: true,
            refused_retries: promised.refused_retries,
            assignment: promised.assignment,
            mutation: promised.mutation,
            stamp: promised.stamp,
            latest: promised.latest,
            exact: None,
            is_confirmed: false,
            recorded_at: 0,
            expires: promised.expires,
            replaces_nothing: promised.replaces_nothing,
            written: promised.written,
            since: promised.since,
            fresh: false,
            tried: if promised.first_tried.is_some() { Tried::Sent } else { Tried::Never },
            first_tried: promised.first_tried,
            was_in_doubt: false,
            in_flight: None,
            superseded: 0,
            existed: false,
            waiters: Vec::new(),
            followers: Vec::new(),
        }
    }
}

impl Write {
    fn size(&self) -> usize {
        match &self.what {
            What::Assign(change) => change.size(),
            What::Mutate(mutation) => mutation.size(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outbox {
    queues: HashMap<Arc<str>, VecDeque<Entry>>,
    /// The keys whose head waits to be sent, each once.
    ready: VecDeque<Arc<str>>,
    last_sequence: Sequence,
    writer: Writer,
    bytes: usize,
    limit: usize,
}

impl Outbox {
    /// An outbox of this writer that holds at most `limit` bytes.
    pub(crate) fn new(limit: usize, writer: Writer) -> Self {
        Self { queues: HashMap::new(), ready: VecDeque::new(), last_sequence: 0, writer, bytes: 0, limit }
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for a write.
    ///
    /// # Errors
    ///
    /// `OutboxFull`.
    pub(crate) fn check(&self, key: &Arc<str>, write: &Write) -> Result<()> {
        let replaced = matches!(write.what, What::Assign(_))
            .then(|| self.last(key).filter(|last| last.takes(write)))
            .flatten()
            .map_or(0, Entry::size);
        let bytes = self.bytes - replaced + write.size();
        let with_entry = bytes + if replaced == 0 { BOOKKEEPING + key.len() } else { 0 };
        if with_entry > self.limit && with_entry > self.bytes {
            let what = format!("refused, since the outbox holds {} of {} bytes", self.bytes, self.limit);
            return Err(Error::of_key(ErrorKind::OutboxFull, key, what));
        }
        Ok(())
    }

    /// Queues a write behind the earlier ones to its key, or merges it into the last of them where
    /// that was not sent yet and has the same promise to keep. `base` is what the backend last answered.
    /// Returns the entry's sequence number.
    pub(crate) fn push(&mut self, key: &Arc<str>, mut write: Write, base: &Base) -> Result<Sequence> {
        self.check(key, &write)?;
        if let Some(queue) = self.queues.get_mut(key) {
            let is_only = queue.len() == 1;
            if let Some(last) = queue.back_mut().filter(|last| last.takes(&write)) {
                let before = last.cost(key);
                match merge(last, Box::new(write), base, is_only) {
                    Ok(()) => {
                        self.bytes = self.bytes - before + last.cost(key);
                        return Ok(last.id);
                    }
                    Err(apart) => write = *apart,
                }
            }
        }
        self.last_sequence += NUMBERS;
        let (assignment, mutation) = match write.what {
            What::Assign(change) => (Some(change), None),
            What::Mutate(mutation) => (None, Some(mutation)),
        };
        let entry = Entry {
            id: self.last_sequence,
            writer: self.writer,
            sequence: self.last_sequence,
            journalled: false,
            refused_retries: 0,
            assignment,
            mutation,
            stamp: write.stamp,
            latest: write.stamp,
            exact: write.exact,
            is_confirmed: false,
            recorded_at: base.ticket,
            expires: write.expires,
            replaces_nothing: false,
            written: write.written,
            since: write.written,
            fresh: write.fresh,
            tried: Tried::Never,
            first_tried: None,
            was_in_doubt: false,
            in_flight: None,
            superseded: 0,
            existed: write.existed,
            waiters: write.waiter.into_iter().collect(),
            followers: Vec::new(),
        };
        self.bytes += entry.cost(key);
        match self.queues.entry(Arc::clone(key)) {
            Place::Occupied(mut queue) => queue.get_mut().push_back(entry),
            Place::Vacant(place) => {
                if entry.is_awaited() {
                    self.ready.push_front(Arc::clone(key));
                } else {
                    self.ready.push_back(Arc::clone(key));
                }
                place.insert(VecDeque::from([entry]));
            }
        }
        Ok(self.last_sequence)
    }

    /// The next key whose head waits to be sent. It is the caller's to send, drop or put back.
    pub(crate) fn next_ready(&mut self) -> Option<Arc<str>> {
        self.ready.pop_front()
    }

    /// Takes `key` where it is the next one whose head waits to be sent.
    pub(crate) fn take_first(&mut self, key: &str) -> bool {
        let first = self.ready.front().is_some_and(|first| **first == *key);
        if first {
            self.ready.pop_front();
        }
        first
    }

    /// Whether anything waits to be sent.
    pub(crate) fn is_anything_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Puts a key back: its head is to be sent before those of other keys.
    pub(crate) fn put_back(&mut self, key: Arc<str>) {
        self.ready.push_front(key);
    }

    /// The entry of `key` that is sent next, or is being sent.
    pub(crate) fn head(&mut self, key: &str) -> Option<&mut Entry> {
        self.queues.get_mut(key)?.front_mut()
    }

    /// The last write to `key`: what a read shows.
    pub(crate) fn last(&self, key: &str) -> Option<&Entry> {
        self.queues.get(key)?.back()
    }

    /// The writes to `key` that wait, in their order.
    pub(crate) fn of(&self, key: &str) -> impl DoubleEndedIterator<Item = &Entry> {
        self.queues.get(key).into_iter().flatten()
    }

    /// Takes in that the time to live of the head of `key` is over: it removes the key.
    pub(crate) fn end(&mut self, key: &str) {
        if let Some(entry) = self.queues.get_mut(key).and_then(VecDeque::front_mut) {
            self.bytes -= entry.cost(key);
            entry.assignment = Some(Change::Delete);
            entry.mutation = None;
            entry.expires = None;
            self.bytes += entry.cost(key);
        }
    }

    /// Changes the head of `key`.
    pub(crate) fn change<R>(&mut self, key: &str, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.queues.get_mut(key)?.front_mut()?;
        let before = entry.cost(key);
        let changed = change(entry);
        self.bytes = self.bytes - before + entry.cost(key);
        Some(changed)
    }

    /// Whether anything waits to be sent for `key`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.queues.contains_key(key)
    }

    /// Takes the head of `key` out; the one behind it is to be sent.
    pub(crate) fn remove(&mut self, key: &Arc<str>) -> Option<Entry> {
        let queue = self.queues.get_mut(key)?;
        let entry = queue.pop_front()?;
        self.bytes -= entry.cost(key);
        match queue.front() {
            None => _ = self.queues.remove(key),
            Some(next) if next.is_awaited() => self.ready.push_front(Arc::clone(key)),
            Some(_) => self.ready.push_back(Arc::clone(key)),
        }
        Some(entry)
    }

    /// Takes in that the connection is gone: whatever is under way has an unknown outcome, and goes first
    /// over the next one.
    pub(crate) fn lose(&mut self) {
        for (key, queue) in &mut self.queues {
            if let Some(head) = queue.front_mut()
                && head.landed().is_some()
            {
                head.tried = Tried::InDoubt;
                head.was_in_doubt = true;
                head.is_confirmed = false;
                self.ready.push_front(Arc::clone(key));
            }
        }
        self.hold_back();
    }

    /// Takes in that the writes wait. Everybody who waits is told that the write is queued.
    pub(crate) fn hold_back(&mut self) {
        for queue in self.queues.values_mut() {
            for entry in queue.iter_mut() {
                entry.fresh = false;
                entry.promise();
            }
        }
    }

    /// Tells those who wait for the entry of `key` with this sequence number that it stays queued.
    pub(crate) fn promise(&mut self, key: &str, sequence: Sequence) {
        let queue = self.queues.get_mut(key);
        if let Some(entry) = queue.and_then(|queue| queue.iter_mut().find(|entry| entry.id == sequence)) {
            entry.promise();
        }
    }

    /// Moves the stamps of what was never sent, since the clock that issued them was `by` ns behind.
    pub(crate) fn shift(&mut self, by: i64) {
        for (key, queue) in &mut self.queues {
            for entry in queue.iter_mut().filter(|entry| entry.tried == Tried::Never) {
                self.bytes -= entry.cost(key);
                entry.shift(by);
                self.bytes += entry.cost(key);
            }
        }
    }

    /// Stamps the head of `key` anew, just above `found`, and those behind it above that: a later write
    /// is never older than an earlier one. Returns the last stamp.
    pub(crate) fn restamp_above(&mut self, key: &str, found: Stamp, random: &mut fastrand::Rng) -> Stamp {
        let mut last = found;
        for entry in self.queues.get_mut(key).into_iter().flatten() {
            if entry.stamp <= last {
                self.bytes -= entry.cost(key);
                entry.restamp(last.just_above(random));
                self.bytes += entry.cost(key);
            }
            last = entry.latest;
        }
        last
    }

    /// Queues what another process has left behind, which may have been sent: before everything that is
    /// written here.
    pub(crate) fn adopt(&mut self, key: &Arc<str>, mut entry: Entry) {
        self.last_sequence += NUMBERS;
        entry.id = self.last_sequence;
        entry.tried = Tried::InDoubt;
        entry.was_in_doubt = true;
        entry.fresh = false;
        self.bytes += entry.cost(key);
        let queue = self.queues.entry(Arc::clone(key)).or_default();
        if queue.is_empty() {
            self.ready.push_back(Arc::clone(key));
        }
        queue.push_back(entry);
    }

    /// Puts an entry in the place of the one with its name, or behind the others.
    pub(crate) fn put_in_place(&mut self, key: &Arc<str>, mut entry: Entry) {
        let queue = self.queues.entry(Arc::clone(key)).or_default();
        self.bytes += entry.cost(key);
        if let Some(place) = queue.iter_mut().find(|other| other.name() == entry.name()) {
            self.bytes -= place.cost(key);
            entry.id = place.id;
            *place = entry;
            return;
        }
        self.last_sequence = self.last_sequence.max(entry.sequence);
        entry.id = self.last_sequence;
        queue.push_back(entry);
    }

    /// The entry with this name.
    pub(crate) fn named(&mut self, name: (Writer, Sequence)) -> Option<&mut Entry> {
        self.queues.values_mut().flatten().find(|entry| entry.name() == name)
    }

    pub(crate) fn drop_named(&mut self, name: (Writer, Sequence)) {
        for (key, queue) in &mut self.queues {
            if let Some(entry) = queue.iter().position(|entry| entry.name() == name).and_then(|at| queue.remove(at)) {
                self.bytes -= entry.cost(key);
            }
        }
    }

    /// Goes on as the outbox of this writer, after this sequence number.
    pub(crate) fn go_on_after(&mut self, writer: Writer, last: Sequence) {
        self.writer = writer;
        self.last_sequence = last;
    }

    /// Everything in it, for each key in order.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (Arc<str>, Entry)> {
        let of_key =
            |(key, queue): (Arc<str>, VecDeque<Entry>)| queue.into_iter().map(move |entry| (Arc::clone(&key), entry));
        self.queues.into_iter().flat_map(of_key)
    }

    /// What is not in the journal yet.
    pub(crate) fn not_journalled(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut Entry)> {
        let of_key = |(key, queue)| {
            let queue: &mut VecDeque<Entry> = queue;
            queue.iter_mut().map(move |entry| (key, entry))
        };
        self.queues.iter_mut().flat_map(of_key).filter(|(_, entry)| !entry.journalled)
    }

    /// The writes to `key`, to be changed in what does not count for the bound.
    pub(crate) fn of_mut(&mut self, key: &str) -> impl Iterator<Item = &mut Entry> {
        self.queues.get_mut(key).into_iter().flatten()
    }

    /// How many keys have writes that wait.
    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    /// The sequence number that was given last.
    pub(crate) fn last_sequence(&self) -> Sequence {
        self.last_sequence
    }

    /// The writes that wait, with their keys, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.queues.iter().flat_map(|(key, queue)| queue.iter().map(move |entry| (key, entry)))
    }
}

/// Makes a later write part of `last`; hands it back where it has to stay apart.
fn merge(last: &mut Entry, mut write: Box<Write>, base: &Base, is_only: bool) -> Result<(), Box<Write>> {
    let over = last.expires.is_some_and(|expires| expires <= write.written);
    let is_delete = matches!(last.assignment, Some(Change::Delete)) && last.mutation.is_none();
    let inherited = inherited_expiry(last, &write);
    match write.what {
        What::Assign(change) => {
            last.assignment = Some(change);
            last.mutation = None;
            last.stamp = write.stamp;
        }
        What::Mutate(mutation) => {
            // Where its time is over there is nothing any more that it could change.
            let taken = if over { Err(mutation) } else { last.take_mutation(mutation, base, is_only) };
            if let Err(mutation) = taken {
                write.what = What::Mutate(mutation);
                return Err(write);
            }
            if last.assignment.is_none() {
                last.stamp = write.stamp;
            }
        }
    }
    last.replaces_nothing |= over || is_delete;
    last.expires = write.expires.or(inherited);
    last.latest = write.stamp;
    last.written = write.written;
    last.fresh = write.fresh;
    last.waiters.extend(write.waiter);
    Ok(())
}

/// A write without a time to live keeps the one of the write that it replaces.
fn inherited_expiry(replaced: &Entry, write: &Write) -> Option<Mono> {
    let keeps = !matches!(write.what, What::Assign(Change::Delete));
    replaced.expires.filter(|expires| keeps && *expires > write.written)
}
