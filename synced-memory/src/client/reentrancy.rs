//! Which keys the closures of this thread are changing: one that writes to its own key would never
//! end. And the queue of closures for each key, which run one at a time.

use std::cell::RefCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::base::clock::Deadline;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::hash::KeyMap;
use crate::base::lock::{LockGuard, lock};
use crate::base::waiting::until;
use crate::client::shared::Shared;

thread_local! {
    // Never dropped, so that it is there in the destructors of other locals. It holds no memory
    // while no closure runs.
    static RUNNING: ManuallyDrop<RefCell<Vec<RunningClosure>>> =
        const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

struct RunningClosure {
    shared: *const Shared,
    key: Arc<str>,
    has_written: bool,
}

/// A closure of this thread that changes a key, for as long as it runs.
pub(crate) struct ReentrancyGuard(());

impl ReentrancyGuard {
    pub(crate) fn begin(shared: &Arc<Shared>, key: &Arc<str>) -> Self {
        let closure = RunningClosure {
            shared: Arc::as_ptr(shared),
            key: Arc::clone(key),
            has_written: false,
        };
        RUNNING.with(|running| running.borrow_mut().push(closure));
        Self(())
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// `Conflict` if the closure wrote to the key.
    pub(crate) fn end(self) -> Result<()> {
        let conflict = RUNNING.with(|running| {
            let running = running.borrow();
            let last = running.last().filter(|closure| closure.has_written);
            last.map(|closure| conflict(&closure.key))
        });
        drop(self);
        conflict.map_or(Ok(()), Err)
    }
}

impl Drop for ReentrancyGuard {
    fn drop(&mut self) {
        RUNNING.with(|running| {
            let mut running = running.borrow_mut();
            running.pop();
            if running.is_empty() {
                *running = Vec::new();
            }
        });
    }
}

/// Refuses a write to a key that a closure of this thread is changing. The closure then changes
/// nothing, either.
pub(crate) fn check_not_updating(shared: &Arc<Shared>, key: &str) -> Result<()> {
    let is_changed = RUNNING.with(|running| {
        let mut running = running.borrow_mut();
        let of_key = running
            .iter_mut()
            .filter(|closure| closure.shared == Arc::as_ptr(shared) && *closure.key == *key);
        of_key.map(|closure| closure.has_written = true).count() > 0
    });
    if is_changed {
        Err(conflict(key))
    } else {
        Ok(())
    }
}

fn conflict(key: &str) -> Error {
    Error::of_key(
        ErrorKind::Conflict,
        key,
        "a closure that updates the key cannot write to it by another call",
    )
}

/// The closures of a memory, one at a time for each key, in the order of the calls.
#[derive(Debug, Default)]
pub(crate) struct Closures {
    keys: Mutex<ClosureLocks>,
}

type ClosureLocks = KeyMap<Arc<ClosureLock>>;

#[derive(Debug, Default)]
struct ClosureLock {
    mutex: Arc<AsyncMutex<()>>,
    /// Code of the user's is running in the closure whose turn it is.
    is_running: AtomicBool,
}

/// A closure that is the only one for its key until this is dropped.
pub(crate) struct ClosureTurn<'a> {
    closures: &'a Closures,
    key: Arc<str>,
    lock: Arc<ClosureLock>,
    guard: Option<OwnedMutexGuard<()>>,
}

/// Code of the user's is running in a closure until this is dropped.
pub(crate) struct Running<'a>(Option<&'a ClosureLock>);

impl Closures {
    /// Waits until no other closure changes the key, for at most `limit`. A closure inside another
    /// one does not wait: two that wait for each other's key would never end.
    ///
    /// # Errors
    ///
    /// `Conflict` if the code of another closure runs for so long. To go on beside it would make it
    /// run again and again; and it may itself wait for this one, on another thread.
    pub(crate) async fn enter(
        &self,
        key: &Arc<str>,
        limit: Duration,
    ) -> Result<Option<ClosureTurn<'_>>> {
        if RUNNING.with(|running| !running.borrow().is_empty()) {
            return Ok(None);
        }
        let lock = Arc::clone(self.keys().entry(Arc::clone(key)).or_default());
        // Before it waits: a future that is dropped while it waits must remove the entry, too.
        let mut turn = ClosureTurn {
            closures: self,
            key: Arc::clone(key),
            lock,
            guard: None,
        };
        let mutex = &turn.lock.mutex;
        turn.guard = match Arc::clone(mutex).try_lock_owned() {
            Ok(guard) => Some(guard),
            Err(_) => until(Arc::clone(mutex).lock_owned(), Deadline::after(limit)).await,
        };
        if turn.guard.is_none() && turn.lock.is_running.load(Ordering::Acquire) {
            let what =
                format!("another closure of this process has been changing it for {limit:?}");
            return Err(Error::of_key(ErrorKind::Conflict, key, what));
        }
        Ok(Some(turn))
    }

    fn keys(&self) -> LockGuard<'_, ClosureLocks> {
        lock(&self.keys)
    }
}

impl ClosureTurn<'_> {
    /// Code of the user's runs until this is dropped. Without a turn nobody waits for that.
    pub(crate) fn running(&self) -> Running<'_> {
        let lock = self.guard.as_ref().map(|_| &*self.lock);
        lock.inspect(|lock| lock.is_running.store(true, Ordering::Release));
        Running(lock)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(lock) = self.0 {
            lock.is_running.store(false, Ordering::Release);
        }
    }
}

impl Drop for ClosureTurn<'_> {
    fn drop(&mut self) {
        // Under no lock: it wakes the next closure, which runs code of its executor.
        drop(self.guard.take());
        let mut keys = self.closures.keys();
        // This one and the map have it, and nobody waits.
        let is_last = |lock: &Arc<ClosureLock>| Arc::strong_count(lock) == 2;
        if keys.get(&self.key).is_some_and(is_last) {
            keys.remove(&self.key);
        }
    }
}

impl fmt::Debug for ClosureTurn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClosureTurn").field(&self.key).finish()
    }
}
