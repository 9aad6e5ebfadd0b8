//! `memory:`: a backend inside this process.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use super::effects::{KeyContext, RecordContext, StarvedWriter, effects_of, expiry_of, horizon_of};
use super::{Backend, Expiry, Invalidation, KeyRead, Page, ReadKind, Reply, Session, WithExpiry};
use crate::backend::commit::{Attempt, KeyAfter, KeyState, Outcome, RECORDS, Writer, WriterRecord};
use crate::backend::error::BackendError;
use crate::backend::layout::Node;
use crate::base::clock::{self, Clock, Monotonic, Stamp, has_expired};
use crate::base::fork::PerProcess;
use crate::base::hash::{KeyMap, shrink_sparse_set};
use crate::base::lock::{LockGuard, lock};
use crate::base::random;
use crate::value::document::Document;

/// How long a wait for changes lasts at most before it looks again for keys that have expired.
const EXPIRY_CHECK: Duration = Duration::from_millis(100);

/// What every session on the same `memory:` shares.
#[derive(Debug)]
struct ProcessSpace {
    store: Mutex<Store>,
    clock: Clock,
    trackers: Mutex<Vec<Tracker>>,
}

/// How many keys a session tracks at most, as many as a server by default. Its slots may be gone.
const MOST_TRACKED: usize = 1_000_000;

/// A session that tracks keys.
#[derive(Debug)]
struct Tracker {
    session: u64,
    /// Those that were read since they were last notified.
    keys: HashSet<Arc<str>>,
    changes: mpsc::UnboundedSender<Arc<str>>,
}

impl ProcessSpace {
    fn store(&self) -> LockGuard<'_, Store> {
        lock(&self.store)
    }

    fn trackers(&self) -> LockGuard<'_, Vec<Tracker>> {
        lock(&self.trackers)
    }

    /// Notifies the sessions that track `key`. Each tracks it anew when it next reads it.
    fn notify(&self, key: &Arc<str>) {
        self.trackers().retain_mut(|tracker| {
            if tracker.keys.remove(key) {
                tracker.changes.send(Arc::clone(key)).is_ok()
            } else {
                !tracker.changes.is_closed()
            }
        });
    }

    /// Notifies `session`, if it tracks keys, of the next change of those that these reads track.
    fn track(&self, session: u64, reads: &[KeyRead]) {
        let tracked = reads.iter().filter(|read| read.kind == ReadKind::Tracked);
        let mut trackers = self.trackers();
        if let Some(tracker) = trackers
            .iter_mut()
            .find(|tracker| tracker.session == session)
        {
            tracker.track(tracked.map(|read| Arc::clone(&read.key)));
        }
    }
}

impl Tracker {
    /// If there are too many, one half is not tracked any more, and counts as changed.
    fn track(&mut self, keys: impl Iterator<Item = Arc<str>>) {
        self.keys.extend(keys);
        if self.keys.len() > MOST_TRACKED {
            let (changes, mut stays) = (&self.changes, false);
            self.keys.retain(|key| {
                stays = !stays;
                // It fails if nobody listens any more.
                stays || changes.send(Arc::clone(key)).is_err()
            });
        }
    }
}

/// The backend of `memory:` and `memory:name`.
#[derive(Debug, Clone)]
pub(crate) struct ProcessBackend {
    target: String,
    space: Arc<ProcessSpace>,
}

impl ProcessBackend {
    /// A new space, or the one that other memories of this process share under `name`.
    pub(crate) fn open(name: &str, sidecar_ttl: Duration) -> Self {
        static NAMED: PerProcess<Mutex<BTreeMap<String, Weak<ProcessSpace>>>> = PerProcess::new();
        let fresh = || {
            Arc::new(ProcessSpace {
                store: Mutex::new(Store::new(sidecar_ttl)),
                clock: Clock::start(),
                trackers: Mutex::default(),
            })
        };
        let target = format!("memory:{name}");
        if name.is_empty() {
            return Self {
                target,
                space: fresh(),
            };
        }
        let named = NAMED.get(Mutex::default);
        let mut named = lock(&named.1);
        named.retain(|_, space| space.strong_count() > 0);
        let space = named
            .get(name)
            .and_then(Weak::upgrade)
            .unwrap_or_else(fresh);
        // What one of those who share it needs is kept for all of them.
        let mut store = space.store();
        store.sidecar_ttl = store.sidecar_ttl.max(sidecar_ttl);
        drop(store);
        named.insert(name.to_owned(), Arc::downgrade(&space));
        Self { target, space }
    }
}

/// A connection to a space in this process.
#[derive(Debug)]
struct ProcessSession {
    space: Arc<ProcessSpace>,
    id: u64,
    changes: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Arc<str>>>>,
    sender: mpsc::UnboundedSender<Arc<str>>,
}

impl ProcessSession {
    fn reply<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&mut Store, Monotonic) -> T + Send + 'static,
    ) -> Reply<T> {
        let space = Arc::clone(&self.space);
        Box::pin(async move {
            let mut store = space.store();
            // Under the lock: what a read finds that has not expired has not been reported as
            // expired, either.
            let mono = space.clock.mono();
            Ok(answer(&mut store, mono))
        })
    }
}

impl Backend for ProcessBackend {
    fn connect(&self, _node: &Node) -> Reply<Box<dyn Session>> {
        let (sender, changes) = mpsc::unbounded_channel();
        let session: Box<dyn Session> = Box::new(ProcessSession {
            space: Arc::clone(&self.space),
            id: random::rng().u64(..),
            changes: Arc::new(tokio::sync::Mutex::new(changes)),
            sender,
        });
        Box::pin(std::future::ready(Ok(session)))
    }

    fn target(&self) -> &str {
        &self.target
    }
}

impl Drop for ProcessSession {
    fn drop(&mut self) {
        self.space
            .trackers()
            .retain(|tracker| tracker.session != self.id);
    }
}

impl Session for ProcessSession {
    fn read(&self, reads: &[KeyRead]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        let (space, session, reads) = (Arc::clone(&self.space), self.id, reads.to_vec());
        self.reply(move |store, mono| {
            // Under the lock of the store: a change is in the answer, or finds the keys tracked.
            space.track(session, &reads);
            let read = |read: &KeyRead| Ok((store.read(&read.key, mono), Expiry::Tracked));
            reads.iter().map(read).collect()
        })
    }

    fn commit(&self, batch: &[Attempt], _now: u64) -> Reply<Vec<Result<Outcome, BackendError>>> {
        let batch = batch.to_vec();
        let space = Arc::clone(&self.space);
        self.reply(move |store, mono| {
            let mut outcomes = Vec::with_capacity(batch.len());
            for attempt in &batch {
                let outcome = store.commit(attempt, mono);
                if outcome.is_made_now() {
                    space.notify(&attempt.key);
                }
                outcomes.push(Ok(outcome));
            }
            outcomes
        })
    }

    fn names(&self, prefix: &str, _cursor: Option<String>) -> Reply<Page> {
        let prefix = prefix.to_owned();
        self.reply(move |store, mono| Page {
            names: store.names(&prefix, mono),
            ..Page::default()
        })
    }

    fn forget(&self, writer: Writer, keys: &[Arc<str>]) -> Reply<()> {
        let keys = keys.to_vec();
        self.reply(move |store, _| store.forget(writer, &keys))
    }

    fn now(&self) -> Reply<u64> {
        self.reply(|_, _| clock::wall())
    }

    fn eviction_policy(&self) -> Reply<Option<String>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn track(&self) -> Reply<()> {
        let (space, session) = (Arc::clone(&self.space), self.id);
        let tracker = Tracker {
            session,
            keys: HashSet::new(),
            changes: self.sender.clone(),
        };
        Box::pin(async move {
            let mut trackers = space.trackers();
            trackers.retain(|tracker| tracker.session != session);
            trackers.push(tracker);
            Ok(())
        })
    }

    fn untrack(&self, key: &str) {
        let mut trackers = self.space.trackers();
        if let Some(tracker) = trackers
            .iter_mut()
            .find(|tracker| tracker.session == self.id)
        {
            tracker.keys.remove(key);
            shrink_sparse_set(&mut tracker.keys);
        }
    }

    fn invalidations(&self) -> Reply<Invalidation> {
        let (space, changes) = (Arc::clone(&self.space), Arc::clone(&self.changes));
        Box::pin(async move {
            let mut changes = changes.lock().await;
            loop {
                let mut keys = Vec::new();
                let now = space.clock.mono();
                let (expired, next) = space.store().take_expired(now);
                for key in &expired {
                    space.notify(key);
                }

                let wait = next
                    .map_or(EXPIRY_CHECK, |next| next.saturating_sub(now))
                    .min(EXPIRY_CHECK);
                tokio::select! {
                    _ = changes.recv_many(&mut keys, usize::MAX) => {
                        return Ok(Invalidation::Keys(keys));
                    }
                    () = tokio::time::sleep(wait) => {}
                }
            }
        })
    }

    /// Nothing can close it.
    fn ended(&self) -> Reply<()> {
        Box::pin(std::future::pending())
    }
}

/// Keys and sidecars, by the rule of `commit.rs`.
#[derive(Debug)]
pub(crate) struct Store {
    keys: BTreeMap<Arc<str>, StoredValue>,
    sidecars: KeyMap<Sidecar>,
    sidecar_ttl: Duration,
    /// When which key expires, unless it was written since.
    expiries: BTreeSet<(Monotonic, Arc<str>)>,
}

#[derive(Debug)]
struct StoredValue {
    document: Document,
    expires: Option<Monotonic>,
}

#[derive(Debug, Default)]
struct Sidecar {
    tombstone: Stamp,
    /// What is on record for each writer, and since when.
    records: HashMap<Writer, (WriterRecord, Monotonic)>,
    /// Records up to this time may have been dropped.
    horizon: Option<Monotonic>,
    starved: Option<StarvedWriter>,
    expires: Monotonic,
}

impl Sidecar {
    /// Records that a writer's attempt was decided on. If there are too many records, the older
    /// half is dropped.
    fn record(&mut self, writer: Writer, record: WriterRecord, mono: Monotonic) {
        self.records.insert(writer, (record, mono));
        if self.records.len() > RECORDS {
            let horizon = horizon_of(self.records.values().map(|(_, when)| *when).collect());
            self.records
                .retain(|own, (_, when)| *own == writer || *when > horizon);
            self.horizon = Some(horizon);
        }
    }
}

impl Store {
    pub(crate) fn new(sidecar_ttl: Duration) -> Self {
        Self {
            keys: BTreeMap::new(),
            sidecars: KeyMap::default(),
            sidecar_ttl,
            expiries: BTreeSet::new(),
        }
    }

    pub(crate) fn read(&mut self, key: &str, mono: Monotonic) -> Option<Document> {
        if has_expired(self.keys.get(key)?.expires, mono) {
            self.keys.remove(key);
        }
        Some(self.keys.get(key)?.document.clone())
    }

    pub(crate) fn commit(&mut self, attempt: &Attempt, mono: Monotonic) -> Outcome {
        self.clean(mono);
        let stored = self.read(&attempt.key, mono);
        let sidecar = self.sidecars.entry(Arc::clone(&attempt.key)).or_default();
        let current = KeyState {
            stored,
            tombstone: sidecar.tombstone,
        };
        let record = sidecar
            .records
            .get(&attempt.writer)
            .map(|(record, _)| *record);
        let effects = effects_of(
            attempt,
            KeyContext {
                current,
                records: RecordContext {
                    record,
                    horizon: sidecar.horizon,
                    starved: sidecar.starved,
                },
            },
            mono,
        );

        if let Some(record) = effects.record {
            sidecar.record(attempt.writer, record, mono);
            sidecar.expires = mono.saturating_add(self.sidecar_ttl);
        }
        sidecar.starved = effects.starved;

        match effects.made {
            None => {}
            Some(KeyAfter::Stored(document)) => {
                let kept = self
                    .keys
                    .get(&attempt.key)
                    .and_then(|stored| stored.expires);
                let expires = expiry_of(attempt.change.ttl(), kept, mono);
                if kept != expires {
                    kept.map(|at| self.expiries.remove(&(at, Arc::clone(&attempt.key))));
                    expires.map(|at| self.expiries.insert((at, Arc::clone(&attempt.key))));
                }
                self.keys
                    .insert(Arc::clone(&attempt.key), StoredValue { document, expires });
            }
            Some(KeyAfter::Removed) => {
                sidecar.tombstone = sidecar.tombstone.max(Stamp::new(attempt.stamp.get()));
                self.keys.remove(&attempt.key);
            }
        }
        effects.outcome
    }

    /// Removes and returns the keys that may have expired, and says when the next one does.
    fn take_expired(&mut self, mono: Monotonic) -> (Vec<Arc<str>>, Option<Monotonic>) {
        let later = self
            .expiries
            .split_off(&(mono + Duration::from_nanos(1), Arc::from("")));
        let expired = std::mem::replace(&mut self.expiries, later);
        (
            expired.into_iter().map(|(_, key)| key).collect(),
            self.expiries.first().map(|(at, _)| *at),
        )
    }

    fn names(&self, prefix: &str, mono: Monotonic) -> Vec<String> {
        self.keys
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, stored)| !has_expired(stored.expires, mono))
            .map(|(key, _)| key.to_string())
            .collect()
    }

    fn forget(&mut self, writer: Writer, keys: &[Arc<str>]) {
        for key in keys {
            if let Some(sidecar) = self.sidecars.get_mut(key) {
                sidecar.records.remove(&writer);
            }
        }
    }

    /// Drops the sidecars that have expired, once there are many more sidecars than keys.
    fn clean(&mut self, mono: Monotonic) {
        if self.sidecars.len() > 2 * self.keys.len() + 1_000 {
            self.sidecars.retain(|_, sidecar| {
                sidecar.expires > mono
                    && (sidecar.tombstone > Stamp::ZERO || !sidecar.records.is_empty())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_tracks_so_many_keys_at_most_and_is_notified_of_the_others() {
        let (changes, mut notified) = mpsc::unbounded_channel();
        let mut tracker = Tracker {
            session: 1,
            keys: HashSet::new(),
            changes,
        };
        let key = |number: usize| Arc::from(number.to_string());
        tracker.track((0..MOST_TRACKED).map(key));
        assert!(notified.try_recv().is_err() && tracker.keys.len() == MOST_TRACKED);
        tracker.track([key(MOST_TRACKED)].into_iter());
        let mut count = 0;
        while let Ok(key) = notified.try_recv() {
            assert!(!tracker.keys.contains(&key), "{key} is not tracked");
            count += 1;
        }
        assert_eq!(count + tracker.keys.len(), MOST_TRACKED + 1);
        assert!(tracker.keys.len() <= MOST_TRACKED);
    }
}
