//! `memory:`: a backend within this process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::step::{StarvedWriter, StepInput, end_of, horizon, step};
use super::{Backend, Invalidation, Page, Reply, Session};
use crate::backend::commit::{
    Attempt, KeyChange, KeyState, Outcome, RECORDS, Writer, WriterRecord,
};
use crate::backend::error::BackendError;
use crate::base::clock::{self, Clock, Monotonic, Stamp};

/// So long a wait for changes goes on at most, before it looks again for what has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What every session on the same `memory:` shares.
#[derive(Debug)]
struct ProcessSpace {
    store: Mutex<Store>,
    clock: Clock,
    trackers: Mutex<Vec<Tracker>>,
}

/// A session that is told of changes.
#[derive(Debug)]
struct Tracker {
    session: u64,
    prefixes: Vec<String>,
    tell: mpsc::UnboundedSender<Arc<str>>,
}

impl ProcessSpace {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trackers(&self) -> MutexGuard<'_, Vec<Tracker>> {
        self.trackers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, key: &Arc<str>) {
        self.trackers().retain(|tracker| {
            let is_meant = tracker
                .prefixes
                .iter()
                .any(|prefix| key.starts_with(&**prefix));
            if is_meant {
                tracker.tell.send(Arc::clone(key)).is_ok()
            } else {
                !tracker.tell.is_closed()
            }
        });
    }
}

/// The backend of `memory:` and `memory:name`.
#[derive(Debug, Clone)]
pub(crate) struct ProcessBackend {
    target: String,
    place: Arc<ProcessSpace>,
}

impl ProcessBackend {
    /// A fresh place, or the one that other memories of this process hold under `name`.
    pub(crate) fn open(name: &str, sidecar_ttl: Duration) -> Self {
        static NAMED: Mutex<BTreeMap<String, Weak<ProcessSpace>>> = Mutex::new(BTreeMap::new());
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
                place: fresh(),
            };
        }
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, place| place.strong_count() > 0);
        let place = named
            .get(name)
            .and_then(Weak::upgrade)
            .unwrap_or_else(fresh);
        named.insert(name.to_owned(), Arc::downgrade(&place));
        Self { target, place }
    }
}

/// A connection to a place in this process.
#[derive(Debug)]
struct ProcessSession {
    place: Arc<ProcessSpace>,
    id: u64,
    changes: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Arc<str>>>>,
    tell: mpsc::UnboundedSender<Arc<str>>,
}

impl ProcessSession {
    fn reply<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&mut Store, Monotonic) -> T + Send + 'static,
    ) -> Reply<T> {
        let place = Arc::clone(&self.place);
        Box::pin(async move {
            let mono = place.clock.mono();
            Ok(answer(&mut place.store(), mono))
        })
    }
}

impl Backend for ProcessBackend {
    fn connect(&self) -> Reply<Box<dyn Session>> {
        let (tell, changes) = mpsc::unbounded_channel();
        let changes = Arc::new(tokio::sync::Mutex::new(changes));
        let place = Arc::clone(&self.place);
        let session: Box<dyn Session> = Box::new(ProcessSession {
            place,
            id: fastrand::u64(..),
            changes,
            tell,
        });
        Box::pin(std::future::ready(Ok(session)))
    }

    fn target(&self) -> &str {
        &self.target
    }
}

impl Drop for ProcessSession {
    fn drop(&mut self) {
        self.place
            .trackers()
            .retain(|tracker| tracker.session != self.id);
    }
}

impl Session for ProcessSession {
    fn read(&self, keys: &[Arc<str>]) -> Reply<Vec<Result<Option<Bytes>, BackendError>>> {
        let keys = keys.to_vec();
        self.reply(move |store, mono| keys.iter().map(|key| Ok(store.read(key, mono))).collect())
    }

    fn commit(&self, batch: &[Attempt], _now: u64) -> Reply<Vec<Result<Outcome, BackendError>>> {
        let batch = batch.to_vec();
        let place = Arc::clone(&self.place);
        self.reply(move |store, mono| {
            let commit = |attempt: &Attempt| {
                let outcome = store.commit(attempt, mono);
                if matches!(outcome, Outcome::Applied { .. }) {
                    place.notify(&attempt.key);
                }
                Ok(outcome)
            };
            batch.iter().map(commit).collect()
        })
    }

    fn names(&self, prefix: &str, _cursor: Option<String>) -> Reply<Page> {
        let prefix = prefix.to_owned();
        self.reply(move |store, mono| (store.names(&prefix, mono), None))
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

    fn track(&self, prefixes: &[String]) -> Reply<()> {
        let (place, session) = (Arc::clone(&self.place), self.id);
        let tracker = Tracker {
            session,
            prefixes: prefixes.to_vec(),
            tell: self.tell.clone(),
        };
        Box::pin(async move {
            let mut trackers = place.trackers();
            trackers.retain(|tracker| tracker.session != session);
            trackers.push(tracker);
            Ok(())
        })
    }

    fn invalidations(&self) -> Reply<Invalidation> {
        let (place, changes) = (Arc::clone(&self.place), Arc::clone(&self.changes));
        Box::pin(async move {
            let mut changes = changes.lock().await;
            loop {
                let mut told = Vec::new();
                let now = place.clock.mono();
                let (over, next) = place.store().ended(now);
                for key in &over {
                    place.notify(key);
                }
                let wait = next
                    .map_or(LOOK_AGAIN, |next| next.saturating_sub(now))
                    .min(LOOK_AGAIN);
                tokio::select! {
                    _ = changes.recv_many(&mut told, usize::MAX) => return Ok(Invalidation::Keys(told)),
                    () = tokio::time::sleep(wait) => {}
                }
            }
        })
    }

    fn ended(&self) -> Reply<()> {
        Box::pin(std::future::pending())
    }
}

/// Keys and sidecars, by the rule of `commit.rs`.
#[derive(Debug)]
pub(crate) struct Store {
    keys: BTreeMap<Arc<str>, StoredValue>,
    sidecars: HashMap<Arc<str>, Sidecar>,
    sidecar_ttl: Duration,
    /// When which key ends, unless it was written since.
    ends: BTreeSet<(Monotonic, Arc<str>)>,
}

#[derive(Debug)]
struct StoredValue {
    bytes: Bytes,
    expires: Option<Monotonic>,
}

#[derive(Debug, Default)]
struct Sidecar {
    tombstone: Stamp,
    /// What is on record about each writer, and since when.
    records: HashMap<Writer, (WriterRecord, Monotonic)>,
    /// Records of until then may have been dropped.
    horizon: Option<Monotonic>,
    waiting: Option<StarvedWriter>,
    expires: Monotonic,
}

impl Sidecar {
    /// Records that a writer's attempt was decided on. Where there are too many, the older half
    /// goes.
    fn record(&mut self, writer: Writer, record: WriterRecord, mono: Monotonic) {
        self.records.insert(writer, (record, mono));
        if self.records.len() > RECORDS {
            let horizon = horizon(self.records.values().map(|(_, when)| *when).collect());
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
            sidecars: HashMap::new(),
            sidecar_ttl,
            ends: BTreeSet::new(),
        }
    }

    pub(crate) fn read(&mut self, key: &str, mono: Monotonic) -> Option<Bytes> {
        if self
            .keys
            .get(key)?
            .expires
            .is_some_and(|expires| expires <= mono)
        {
            self.keys.remove(key);
        }
        Some(self.keys.get(key)?.bytes.clone())
    }

    pub(crate) fn commit(&mut self, attempt: &Attempt, mono: Monotonic) -> Outcome {
        self.clean(mono);
        let stored = self.read(&attempt.key, mono);
        let sidecar = self.sidecars.entry(Arc::clone(&attempt.key)).or_default();
        let found = KeyState {
            stored,
            tombstone: sidecar.tombstone,
        };
        let record = sidecar
            .records
            .get(&attempt.writer)
            .map(|(record, _)| *record);
        let step = step(
            attempt,
            StepInput {
                found,
                record,
                horizon: sidecar.horizon,
                waiting: sidecar.waiting,
            },
            mono,
        );
        if let Some(record) = step.record {
            sidecar.record(attempt.writer, record, mono);
            sidecar.expires = mono + self.sidecar_ttl;
        }
        sidecar.waiting = step.waiting;
        match &attempt.change {
            _ if !step.applies => {}
            KeyChange::Put { envelope, ttl } => {
                let kept = self
                    .keys
                    .get(&attempt.key)
                    .and_then(|stored| stored.expires);
                let expires = end_of(*ttl, kept, mono);
                if kept != expires {
                    kept.map(|end| self.ends.remove(&(end, Arc::clone(&attempt.key))));
                    expires.map(|end| self.ends.insert((end, Arc::clone(&attempt.key))));
                }
                self.keys.insert(
                    Arc::clone(&attempt.key),
                    StoredValue {
                        bytes: envelope.clone(),
                        expires,
                    },
                );
            }
            KeyChange::Delete => {
                sidecar.tombstone = sidecar.tombstone.max(Stamp::new(attempt.stamp.get()));
                self.keys.remove(&attempt.key);
            }
        }
        step.outcome
    }

    /// The keys that may have ended, and when the next one does.
    fn ended(&mut self, mono: Monotonic) -> (Vec<Arc<str>>, Option<Monotonic>) {
        let later = self
            .ends
            .split_off(&(mono + Duration::from_nanos(1), Arc::from("")));
        let over = std::mem::replace(&mut self.ends, later);
        (
            over.into_iter().map(|(_, key)| key).collect(),
            self.ends.first().map(|(end, _)| *end),
        )
    }

    fn names(&self, prefix: &str, mono: Monotonic) -> Vec<String> {
        let is_live = |stored: &StoredValue| stored.expires.is_none_or(|expires| expires > mono);
        self.keys
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, stored)| is_live(stored))
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

    /// Drops what is over, whenever there is more beside the keys than keys.
    fn clean(&mut self, mono: Monotonic) {
        if self.sidecars.len() > 2 * self.keys.len() + 1_000 {
            self.sidecars.retain(|_, sidecar| {
                sidecar.expires > mono
                    && (sidecar.tombstone > Stamp::ZERO || !sidecar.records.is_empty())
            });
        }
    }
}
