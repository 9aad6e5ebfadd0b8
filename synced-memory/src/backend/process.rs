//! `memory:`: a backend within this process.

use super::step::{Seen, end_of, horizon, step};
use super::{Backend, Page, Reply, Session};
use crate::clock::{self, Clock, Mono, Stamp};
use crate::commit::{Attempt, Change, Found, Outcome, RECORDS, Record, Writer};
use crate::fault::Fault;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// What every session on the same `memory:` shares.
#[derive(Debug)]
struct Place {
    store: Mutex<Store>,
    clock: Clock,
}

impl Place {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The backend of `memory:` and `memory:name`.
#[derive(Debug, Clone)]
pub(crate) struct ProcessBackend {
    target: String,
    place: Arc<Place>,
}

impl ProcessBackend {
    /// A fresh place, or the one that other memories of this process hold under `name`.
    pub(crate) fn open(name: &str, sidecar_ttl: Duration) -> Self {
        static NAMED: Mutex<BTreeMap<String, Weak<Place>>> = Mutex::new(BTreeMap::new());
        let fresh = || Arc::new(Place { store: Mutex::new(Store::new(sidecar_ttl)), clock: Clock::start() });
        let target = format!("memory:{name}");
        if name.is_empty() {
            return Self { target, place: fresh() };
        }
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, place| place.strong_count() > 0);
        let place = named.get(name).and_then(Weak::upgrade).unwrap_or_else(fresh);
        named.insert(name.to_owned(), Arc::downgrade(&place));
        Self { target, place }
    }

    fn reply<T: Send + 'static>(&self, answer: impl FnOnce(&mut Store, Mono) -> T + Send + 'static) -> Reply<T> {
        let place = Arc::clone(&self.place);
        Box::pin(async move {
            let mono = place.clock.mono();
            Ok(answer(&mut place.store(), mono))
        })
    }
}

impl Backend for ProcessBackend {
    fn connect(&self) -> Reply<Box<dyn Session>> {
        let session: Box<dyn Session> = Box::new(self.clone());
        Box::pin(std::future::ready(Ok(session)))
    }

    fn target(&self) -> &str {
        &self.target
    }
}

impl Session for ProcessBackend {
    fn read(&self, keys: &[Arc<str>]) -> Reply<Vec<Result<Option<Bytes>, Fault>>> {
        let keys = keys.to_vec();
        self.reply(move |store, mono| keys.iter().map(|key| Ok(store.read(key, mono))).collect())
    }

    fn commit(&self, batch: &[Attempt], _now: u64) -> Reply<Vec<Result<Outcome, Fault>>> {
        let batch = batch.to_vec();
        self.reply(move |store, mono| batch.iter().map(|attempt| Ok(store.commit(attempt, mono))).collect())
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

    fn ended(&self) -> Reply<()> {
        Box::pin(std::future::pending())
    }
}

/// Keys and sidecars, by the rule of `commit.rs`.
#[derive(Debug)]
pub(crate) struct Store {
    keys: BTreeMap<Arc<str>, Stored>,
    sidecars: HashMap<Arc<str>, Sidecar>,
    sidecar_ttl: Duration,
}

#[derive(Debug)]
struct Stored {
    bytes: Bytes,
    expires: Option<Mono>,
}

#[derive(Debug, Default)]
struct Sidecar {
    tombstone: Stamp,
    /// What is on record about each writer, and since when.
    records: HashMap<Writer, (Record, Mono)>,
    /// Records of until then may have been dropped.
    horizon: Option<Mono>,
    expires: Mono,
}

impl Sidecar {
    /// Records that a writer's attempt was decided on. Where there are too many, the older half goes.
    fn record(&mut self, writer: Writer, record: Record, mono: Mono) {
        self.records.insert(writer, (record, mono));
        if self.records.len() > RECORDS {
            let horizon = horizon(self.records.values().map(|(_, when)| *when).collect());
            self.records.retain(|own, (_, when)| *own == writer || *when > horizon);
            self.horizon = Some(horizon);
        }
    }
}

impl Store {
    pub(crate) fn new(sidecar_ttl: Duration) -> Self {
        Self { keys: BTreeMap::new(), sidecars: HashMap::new(), sidecar_ttl }
    }

    pub(crate) fn read(&mut self, key: &str, mono: Mono) -> Option<Bytes> {
        if self.keys.get(key)?.expires.is_some_and(|expires| expires <= mono) {
            self.keys.remove(key);
        }
        Some(self.keys.get(key)?.bytes.clone())
    }

    pub(crate) fn commit(&mut self, attempt: &Attempt, mono: Mono) -> Outcome {
        self.clean(mono);
        let stored = self.read(&attempt.key, mono);
        let sidecar = self.sidecars.entry(Arc::clone(&attempt.key)).or_default();
        let found = Found { stored, tombstone: sidecar.tombstone };
        let record = sidecar.records.get(&attempt.writer).map(|(record, _)| *record);
        let step = step(attempt, Seen { found, record, horizon: sidecar.horizon }, mono);
        if let Some(record) = step.record {
            sidecar.record(attempt.writer, record, mono);
            sidecar.expires = mono + self.sidecar_ttl;
        }
        match &attempt.change {
            _ if !step.applies => {}
            Change::Put { envelope, ttl } => {
                let kept = self.keys.get(&attempt.key).and_then(|stored| stored.expires);
                let stored = Stored { bytes: envelope.clone(), expires: end_of(*ttl, kept, mono) };
                self.keys.insert(Arc::clone(&attempt.key), stored);
            }
            Change::Delete => {
                sidecar.tombstone = sidecar.tombstone.max(Stamp::new(attempt.stamp.get()));
                self.keys.remove(&attempt.key);
            }
        }
        step.outcome
    }

    fn names(&self, prefix: &str, mono: Mono) -> Vec<String> {
        let lives = |stored: &Stored| stored.expires.is_none_or(|expires| expires > mono);
        self.keys
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, stored)| lives(stored))
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
    fn clean(&mut self, mono: Mono) {
        if self.sidecars.len() > 2 * self.keys.len() + 1_000 {
            self.sidecars.retain(|_, sidecar| {
                sidecar.expires > mono && (sidecar.tombstone > Stamp::ZERO || !sidecar.records.is_empty())
            });
        }
    }
}
