use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Index, IndexMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Direction::{self, ToClient, ToServer};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) faults: Mutex<Faults>,
    /// Signalled by the tasks when they have applied a change.
    pub(super) settled: Condvar,
    /// Signalled to the tasks when there is a change.
    pub(super) changed: watch::Sender<()>,
}

impl Shared {
    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // independent switches, each with a method of its own
pub(super) struct Faults {
    pub(super) closed: bool,
    pub(super) refuse: bool,
    pub(super) stall: bool,
    pub(super) swallow: bool,
    pub(super) delay: Both<Duration>,
    /// Bytes in a second.
    pub(super) pace: Both<Option<u32>>,
    pub(super) cut_after: Both<Option<u64>>,
    pub(super) trigger: Option<Trigger>,
    pub(super) links: BTreeMap<u64, LinkFaults>,

    pub(super) listening: bool,
    pub(super) passed: Both<u64>,
    pub(super) swallowed: u64,
    pub(super) accepted: u64,
    pub(super) cuts: u64,
}

#[derive(Debug, Default)]
pub(super) struct LinkFaults {
    /// To be cut; the link's task resets it when it has done so.
    pub(super) cut: bool,
    pub(super) hold: bool,
    /// Answers that arrive from now on are lost; with `Some(true)` the first one cuts the link.
    pub(super) lose: Option<bool>,
    /// Bytes of requests that have arrived and not passed.
    pub(super) queued: u64,
    /// Bytes of requests since the trigger was armed.
    pub(super) seen: Vec<u8>,
}

pub(super) type Predicate = Box<dyn FnMut(&[u8]) -> bool + Send>;

pub(super) struct Trigger {
    pub(super) predicate: Predicate,
    pub(super) cut: bool,
}

impl fmt::Debug for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trigger")
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

/// One for each direction.
#[derive(Debug, Default)]
pub(super) struct Both<T> {
    pub(super) to_server: T,
    pub(super) to_client: T,
}

impl<T> Index<Direction> for Both<T> {
    type Output = T;

    fn index(&self, direction: Direction) -> &T {
        match direction {
            ToServer => &self.to_server,
            ToClient => &self.to_client,
        }
    }
}

impl<T> IndexMut<Direction> for Both<T> {
    fn index_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            ToServer => &mut self.to_server,
            ToClient => &mut self.to_client,
        }
    }
}
