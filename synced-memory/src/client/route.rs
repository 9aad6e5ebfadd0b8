//! One shard: its connection, and what wakes those who work for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::backend::Session;
use crate::backend::error::BackendError;
use crate::backend::layout::Node;
use crate::backend::shards::Shard;
use crate::base::callback::call_out;
use crate::client::large_reads::LargeReads;
use crate::client::state::LARGE;

/// The way to one shard.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) shard: Shard,
    pub(crate) node: Node,
    /// Where it is, without a password.
    pub(crate) target: Arc<str>,
    connection: ArcSwapOption<Connection>,
    /// There is something to send.
    pub(crate) wake: Notify,
    /// The server has left the cluster.
    pub(crate) leaves: Notify,
    /// There is something to do for the refresher.
    pub(crate) refresher_wake: Notify,
    /// How it chooses what to evict, as it said when last connected.
    pub(crate) eviction_policy: ArcSwapOption<String>,
    pub(crate) large_reads: LargeReads,
}

impl Route {
    pub(crate) fn new(shard: Shard, node: Node, target: Arc<str>) -> Self {
        Self {
            shard,
            node,
            target,
            connection: ArcSwapOption::empty(),
            wake: Notify::new(),
            leaves: Notify::new(),
            refresher_wake: Notify::new(),
            eviction_policy: ArcSwapOption::empty(),
            large_reads: LargeReads::default(),
        }
    }

    /// The connection, if there is one.
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.load_full()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.load().is_some()
    }

    pub(super) fn set_connection(&self, connection: Option<Arc<Connection>>) {
        self.connection.store(connection);
    }
}

/// A connection that is in use.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: Box<dyn Session>,
    pub(crate) shard: Shard,
    /// Why it must not be used any more.
    end_reason: OnceLock<BackendError>,
    has_ended: Notify,
    /// How many bytes are on their way in large writes.
    uploading: AtomicUsize,
    /// How many reads are not answered, and nobody waits for them any more.
    overdue_reads: AtomicUsize,
    no_overdue_read: Notify,
    /// A request took too long, and the connection was not silent all the time.
    pub(crate) suspected: Notify,
}

impl Connection {
    pub(crate) fn new(session: Box<dyn Session>, shard: Shard) -> Self {
        Self {
            session,
            shard,
            end_reason: OnceLock::new(),
            has_ended: Notify::new(),
            uploading: AtomicUsize::new(0),
            overdue_reads: AtomicUsize::new(0),
            no_overdue_read: Notify::new(),
            suspected: Notify::new(),
        }
    }

    /// Gives the connection up: the flusher drops it and connects anew. The first reason counts.
    pub(crate) fn end(&self, error: BackendError) {
        if self.end_reason.set(error).is_ok() {
            call_out(|| self.has_ended.notify_waiters());
        }
    }

    /// Whether it was given up.
    pub(crate) fn is_ended(&self) -> bool {
        self.end_reason.get().is_some()
    }

    /// Why it was given up, if it was.
    pub(crate) fn end_reason(&self) -> Option<&BackendError> {
        self.end_reason.get()
    }

    /// Ready when the connection was given up.
    pub(crate) async fn ended(&self) -> BackendError {
        loop {
            // Before the look: it is woken by what comes after it was made.
            let ended = self.has_ended.notified();
            if let Some(reason) = self.end_reason.get() {
                return reason.clone();
            }
            ended.await;
        }
    }

    /// Counts a write of so many bytes as under way, until what this returns is dropped.
    pub(crate) fn uploads(&self, bytes: usize) -> Uploading<'_> {
        let bytes = if bytes > LARGE { bytes } else { 0 };
        self.uploading.fetch_add(bytes, Ordering::Relaxed);
        Uploading {
            uploading: &self.uploading,
            bytes,
        }
    }

    /// Whether it is busy with a large write, behind which everything else waits: silence means
    /// nothing.
    pub(crate) fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Relaxed) > 0
    }

    /// How long what is on its way in large writes takes on a slow line (1 MB/s).
    pub(crate) fn upload_time(&self) -> Duration {
        let bytes = u64::try_from(self.uploading.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        Duration::from_micros(bytes)
    }

    /// The connection is given up if it is silent from now on.
    pub(crate) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Ready when no read is overdue.
    pub(crate) async fn no_overdue_read(&self) {
        loop {
            // Before the look: it is woken by what comes after it was made.
            let none_is_left = self.no_overdue_read.notified();
            if self.overdue_reads.load(Ordering::Acquire) == 0 || self.is_ended() {
                return;
            }
            none_is_left.await;
        }
    }
}

/// A large write on its way.
#[derive(Debug)]
pub(crate) struct Uploading<'a> {
    uploading: &'a AtomicUsize,
    bytes: usize,
}

impl Drop for Uploading<'_> {
    fn drop(&mut self) {
        self.uploading.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A read that is not answered, and that nobody waits for.
pub(super) struct OverdueRead(Arc<Connection>);

impl OverdueRead {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        connection.overdue_reads.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }
}

impl Drop for OverdueRead {
    fn drop(&mut self) {
        if self.0.overdue_reads.fetch_sub(1, Ordering::AcqRel) == 1 {
            call_out(|| self.0.no_overdue_read.notify_waiters());
        }
    }
}
