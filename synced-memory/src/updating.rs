//! Which keys the closures of this thread are changing: one that writes to its own key would never end.

use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static UPDATING: RefCell<Vec<Update>> = const { RefCell::new(Vec::new()) };
}

struct Update {
    shared: *const Shared,
    key: Arc<str>,
    wrote: bool,
}

/// A closure of this thread that changes a key, for as long as it runs.
pub(crate) struct Updating(());

impl Updating {
    pub(crate) fn begin(shared: &Arc<Shared>, key: &Arc<str>) -> Self {
        let update = Update { shared: Arc::as_ptr(shared), key: Arc::clone(key), wrote: false };
        UPDATING.with_borrow_mut(|updating| updating.push(update));
        Self(())
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// `Conflict` where the closure wrote to the key.
    pub(crate) fn end(self) -> Result<()> {
        let ended =
            UPDATING.with_borrow(|updating| updating.last().filter(|last| last.wrote).map(|last| refusal(&last.key)));
        drop(self);
        ended.map_or(Ok(()), Err)
    }
}

impl Drop for Updating {
    fn drop(&mut self) {
        UPDATING.with_borrow_mut(Vec::pop);
    }
}

/// Refuses a write to a key that a closure of this thread is changing, and with it what the closure does.
pub(crate) fn check(shared: &Arc<Shared>, key: &str) -> Result<()> {
    let is_changed = UPDATING.try_with(|updating| {
        let mut updating = updating.borrow_mut();
        let own = updating.iter_mut().filter(|update| update.shared == Arc::as_ptr(shared) && *update.key == *key);
        own.map(|update| update.wrote = true).count() > 0
    });
    if is_changed == Ok(true) { Err(refusal(key)) } else { Ok(()) }
}

fn refusal(key: &str) -> Error {
    Error::of_key(ErrorKind::Conflict, key, "a closure that updates the key cannot write to it by another way")
}
