//! Which keys the closures of this thread are changing: one that writes to its own key would never
//! end. And one closure at a time for each key.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::base::clock::Deadline;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::waiting::until;
use crate::client::shared::Shared;

thread_local! {
    static UPDATING: RefCell<Vec<RunningClosure>> = const { RefCell::new(Vec::new()) };
}

struct RunningClosure {
    shared: *const Shared,
    key: Arc<str>,
    wrote: bool,
}

/// A closure of this thread that changes a key, for as long as it runs.
pub(crate) struct ReentrancyGuard(());

impl ReentrancyGuard {
    pub(crate) fn begin(shared: &Arc<Shared>, key: &Arc<str>) -> Self {
        let update = RunningClosure {
            shared: Arc::as_ptr(shared),
            key: Arc::clone(key),
            wrote: false,
        };
        UPDATING.with_borrow_mut(|updating| updating.push(update));
        Self(())
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// `Conflict` where the closure wrote to the key.
    pub(crate) fn end(self) -> Result<()> {
        let ended = UPDATING.with_borrow(|updating| {
            updating
                .last()
                .filter(|last| last.wrote)
                .map(|last| refusal(&last.key))
        });
        drop(self);
        ended.map_or(Ok(()), Err)
    }
}

impl Drop for ReentrancyGuard {
    fn drop(&mut self) {
        UPDATING.with_borrow_mut(Vec::pop);
    }
}

/// Refuses a write to a key that a closure of this thread is changing, and with it what the closure
/// does.
pub(crate) fn check(shared: &Arc<Shared>, key: &str) -> Result<()> {
    let is_changed = UPDATING.try_with(|updating| {
        let mut updating = updating.borrow_mut();
        let own = updating
            .iter_mut()
            .filter(|update| update.shared == Arc::as_ptr(shared) && *update.key == *key);
        own.map(|update| update.wrote = true).count() > 0
    });
    if is_changed == Ok(true) {
        Err(refusal(key))
    } else {
        Ok(())
    }
}

fn refusal(key: &str) -> Error {
    Error::of_key(
        ErrorKind::Conflict,
        key,
        "a closure that updates the key cannot write to it by another way",
    )
}

/// The closures of a memory, one at a time for each key, in the order of the calls.
#[derive(Debug, Default)]
pub(crate) struct Closures {
    keys: Mutex<HashMap<Arc<str>, Arc<Turn<()>>>>,
}

/// A closure that is the only one for its key until this is dropped.
pub(crate) struct ClosureTurn<'a> {
    closures: &'a Closures,
    key: Arc<str>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Closures {
    /// Waits until no other closure changes the key, for at most `limit`. A closure inside another
    /// one does not wait: two that wait for each other's key would never end.
    pub(crate) async fn enter(&self, key: &Arc<str>, limit: Duration) -> Option<ClosureTurn<'_>> {
        if UPDATING.try_with(|updating| updating.borrow().is_empty()) != Ok(true) {
            return None;
        }
        let turn = Arc::clone(self.keys().entry(Arc::clone(key)).or_default());
        let mut entered = ClosureTurn {
            closures: self,
            key: Arc::clone(key),
            turn: None,
        };
        entered.turn = match Arc::clone(&turn).try_lock_owned() {
            Ok(turn) => Some(turn),
            Err(_) => until(turn.lock_owned(), Deadline::after(limit)).await,
        };
        Some(entered)
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Turn<()>>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClosureTurn<'_> {
    fn drop(&mut self) {
        // It wakes the next one, which runs code of its executor: under no lock.
        drop(self.turn.take());
        let mut keys = self.closures.keys();
        if keys
            .get(&self.key)
            .is_some_and(|turn| Arc::strong_count(turn) == 1)
        {
            keys.remove(&self.key);
        }
    }
}

impl fmt::Debug for ClosureTurn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entered").field(&self.key).finish()
    }
}
