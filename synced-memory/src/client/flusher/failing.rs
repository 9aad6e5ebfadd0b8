//! Tests only: a backend that fails when it is told to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::Node;
use crate::backend::process::ProcessBackend;
use crate::backend::shards::ShardMap;
use crate::backend::{Backend, Invalidation, KeyRead, Page, Reply, Session, WithExpiry};
use crate::base::clock::Clock;
use crate::base::lock::lock;
use crate::base::settings::Settings;
use crate::client::shared::Shared;

/// The backend of `memory:`, and what goes wrong with it.
#[derive(Debug)]
pub(crate) struct FailingBackend {
    inner: ProcessBackend,
    pub(crate) faults: Arc<Faults>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) connects: AtomicUsize,
    pub(crate) commits: AtomicUsize,
    /// Heartbeats are not answered.
    pub(crate) is_silent: AtomicBool,
    /// The connection never counts as silent, whatever is not answered.
    pub(crate) is_chatty: AtomicBool,
    /// Commits are neither made nor answered as long as this holds.
    pub(crate) holds_commits: watch::Sender<bool>,
    /// Reads take effect when this holds no longer.
    pub(crate) holds_reads: watch::Sender<bool>,
    /// Every value is to be read apart.
    pub(crate) are_large: AtomicBool,
    pub(crate) connecting: Mutex<Option<BackendErrorKind>>,
    /// Of each attempt.
    pub(crate) committing: Mutex<Option<BackendErrorKind>>,
}

#[derive(Debug)]
struct FailingSession {
    inner: Box<dyn Session>,
    faults: Arc<Faults>,
}

impl FailingBackend {
    pub(crate) fn new() -> Self {
        Self {
            inner: ProcessBackend::open("", Duration::from_secs(1)),
            faults: Arc::default(),
        }
    }

    /// What a memory shares whose time passes when the test says so.
    pub(crate) fn shared(&self) -> Shared {
        let settings = Settings::default();
        Shared::with_clock(settings, self.target(), ShardMap::One, None, Clock::mock()).unwrap()
    }
}

impl Backend for FailingBackend {
    fn connect(&self, node: &Node) -> Reply<Box<dyn Session>> {
        self.faults.connects.fetch_add(1, Ordering::Relaxed);
        let (fault, faults) = (*lock(&self.faults.connecting), Arc::clone(&self.faults));
        let session = self.inner.connect(node);
        Box::pin(async move {
            match fault {
                Some(kind) => Err(BackendError::new(kind, "on purpose")),
                None => Ok(Box::new(FailingSession {
                    inner: session.await?,
                    faults,
                }) as Box<dyn Session>),
            }
        })
    }

    fn target(&self) -> &str {
        self.inner.target()
    }
}

impl FailingSession {
    fn held<T: 'static>(&self, read: Reply<T>) -> Reply<T> {
        let mut holds = self.faults.holds_reads.subscribe();
        Box::pin(async move {
            let _ = holds.wait_for(|holds| !holds).await;
            read.await
        })
    }
}

impl Session for FailingSession {
    fn read(&self, reads: &[KeyRead]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        if self.faults.are_large.load(Ordering::Relaxed) {
            let error = BackendError::new(BackendErrorKind::TooLarge, "on purpose");
            let answers = vec![Err(error); reads.len()];
            return Box::pin(std::future::ready(Ok(answers)));
        }
        self.held(self.inner.read(reads))
    }

    fn read_apart(&self, key: &Arc<str>, asking: bool) -> Reply<WithExpiry> {
        self.held(self.inner.read_apart(key, asking))
    }

    fn commit(&self, batch: &[Attempt], now: u64) -> Reply<Vec<Result<Outcome, BackendError>>> {
        self.faults.commits.fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = *lock(&self.faults.committing) {
            let error = BackendError::new(kind, "on purpose");
            let answers = vec![Err(error); batch.len()];
            return Box::pin(std::future::ready(Ok(answers)));
        }
        let commit = self.inner.commit(batch, now);
        let mut holds = self.faults.holds_commits.subscribe();
        Box::pin(async move {
            let _ = holds.wait_for(|holds| !holds).await;
            commit.await
        })
    }

    fn names(&self, prefix: &str, cursor: Option<String>) -> Reply<Page> {
        self.inner.names(prefix, cursor)
    }

    fn forget(&self, writer: Writer, keys: &[Arc<str>]) -> Reply<()> {
        self.inner.forget(writer, keys)
    }

    fn now(&self) -> Reply<u64> {
        if self.faults.is_silent.load(Ordering::Relaxed) {
            Box::pin(std::future::pending())
        } else {
            self.inner.now()
        }
    }

    fn eviction_policy(&self) -> Reply<Option<String>> {
        self.inner.eviction_policy()
    }

    fn track(&self) -> Reply<()> {
        self.inner.track()
    }

    fn invalidations(&self) -> Reply<Invalidation> {
        self.inner.invalidations()
    }

    fn idle(&self) -> Duration {
        if self.faults.is_chatty.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            Duration::MAX
        }
    }

    fn ended(&self) -> Reply<()> {
        self.inner.ended()
    }
}
