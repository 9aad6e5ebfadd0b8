//! Where credentials that expire come from: the callback of the user's, which is called on a thread
//! of its own, one call at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::backend::error::BackendError;
use crate::base::clock::Deadline;
use crate::base::credentials::{Credentials, CredentialsCallback};
use crate::base::lock::lock;

/// How long one call of the callback may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How many calls may be over their limit without having returned. Beyond it there are no others.
const MOST_HANGING: usize = 8;

/// The pauses after calls that failed one after the other.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Credentials are never asked for more often than that, however short they live.
const SHORTEST_USE: Duration = Duration::from_millis(100);

/// Issues credentials for all lines to a server.
pub(super) struct Issuer {
    callback: CredentialsCallback,
    /// Whoever holds it waits for the callback.
    calls: tokio::sync::Mutex<CallbackCalls>,
    pause: Mutex<FailurePause>,
    hanging: Arc<AtomicUsize>,
}

/// What the callback has issued once.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) credentials: Credentials,
    /// When others are to be asked for; `None` if these do not expire.
    renewal: Option<Deadline>,
    /// A server has answered to them. If they do not expire, the next connect asks for others.
    is_used: AtomicBool,
}

#[derive(Default)]
struct CallbackCalls {
    under_way: Option<Call>,
    newest: Option<Arc<Issued>>,
}

struct Call {
    outcome: oneshot::Receiver<Result<Credentials, String>>,
    end: Deadline,
}

/// The callback is not asked before the end of the pause.
#[derive(Default)]
struct FailurePause {
    failures: u32,
    end: Option<Deadline>,
    last: Option<BackendError>,
}

/// Counts a call as long as it has not returned.
struct Hanging(Arc<AtomicUsize>);

impl Hanging {
    fn new(hanging: &Arc<AtomicUsize>) -> Self {
        hanging.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hanging))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Issued {
    fn new(credentials: Credentials) -> Self {
        let renewal = credentials.life().map(|life| {
            let use_for = life / 5 * 4;
            Deadline::after(use_for.max(SHORTEST_USE))
        });
        Self {
            credentials,
            renewal,
            is_used: AtomicBool::new(false),
        }
    }

    /// How long they are to be used from now on; `None` if they do not expire.
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.renewal.map(Deadline::remaining)
    }

    /// Notes that a server has answered to them.
    pub(super) fn note_used(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    fn is_fresh(&self) -> bool {
        match self.remaining() {
            Some(remaining) => !remaining.is_zero(),
            None => !self.is_used.load(Ordering::Relaxed),
        }
    }
}

impl Issuer {
    pub(super) fn new(callback: CredentialsCallback) -> Self {
        Self {
            callback,
            calls: tokio::sync::Mutex::default(),
            pause: Mutex::default(),
            hanging: Arc::default(),
        }
    }

    /// Credentials to log in with, other than `refused`. If this is dropped while the callback
    /// runs, the next one waits for the same call.
    ///
    /// # Errors
    ///
    /// `Unavailable` if there are none: it says why the callback failed, and it is not called again
    /// before a pause.
    pub(super) async fn issue(
        &self,
        refused: Option<&Arc<Issued>>,
    ) -> Result<Arc<Issued>, BackendError> {
        let mut calls = self.calls.lock().await;
        let newest = calls.newest.as_ref().filter(|newest| {
            let is_refused = refused.is_some_and(|refused| Arc::ptr_eq(refused, newest));
            newest.is_fresh() && !is_refused
        });
        if let Some(newest) = newest {
            return Ok(Arc::clone(newest));
        }

        let call = match &mut calls.under_way {
            Some(call) => call,
            under_way => under_way.insert(self.begin()?),
        };
        let outcome = timeout(call.end.remaining(), &mut call.outcome).await;
        calls.under_way = None;
        let issued = match outcome {
            Ok(Ok(Ok(credentials))) => Ok(Arc::new(Issued::new(credentials))),
            Ok(Ok(Err(text))) => Err(format!("the credentials callback failed: {text}")),
            Ok(Err(_)) => Err("the thread of the credentials callback is gone".to_owned()),
            Err(_) => Err(format!(
                "the credentials callback has not returned within {CALL_LIMIT:?}"
            )),
        };
        match issued {
            Ok(issued) => {
                calls.newest = Some(Arc::clone(&issued));
                Ok(issued)
            }
            Err(what) => Err(self.failed(what)),
        }
    }

    /// Calls the callback on a thread of its own, which ends with it: the process may be unable to
    /// start one, which is an error like any other.
    fn begin(&self) -> Result<Call, BackendError> {
        if let Some(failure) = self.pausing() {
            return Err(failure);
        }
        if self.hanging.load(Ordering::Relaxed) >= MOST_HANGING {
            return Err(self.failed(format!(
                "{MOST_HANGING} calls of the credentials callback have not returned"
            )));
        }
        let (sender, outcome) = oneshot::channel();
        let (callback, hanging) = (self.callback.clone(), Hanging::new(&self.hanging));
        let call = move || {
            let outcome = callback.call();
            drop(hanging);
            let _ = sender.send(outcome);
        };
        let spawned = thread::Builder::new()
            .name("synced-memory-login".to_owned())
            .spawn(call);
        match spawned {
            Ok(_) => Ok(Call {
                outcome,
                end: Deadline::after(CALL_LIMIT),
            }),
            Err(error) => Err(self.failed(format!(
                "no thread can be started for the credentials callback: {error}"
            ))),
        }
    }

    /// The error for credentials that the server has refused with this error.
    pub(super) fn refused(&self, error: &BackendError) -> BackendError {
        self.failed(format_args!("the server refuses the credentials: {error}"))
    }

    /// The error for credentials that cannot be had, or used; others are asked for after a pause.
    fn failed(&self, what: impl std::fmt::Display) -> BackendError {
        let failure = BackendError::unavailable(what);
        let mut pause = lock(&self.pause);
        let factor = 1_u32.checked_shl(pause.failures).unwrap_or(u32::MAX);
        let length = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
        pause.failures = pause.failures.saturating_add(1);
        pause.end = Some(Deadline::after(length));
        pause.last = Some(failure.clone());
        failure
    }

    /// Notes that the server has accepted what was issued last.
    pub(super) fn succeeded(&self) {
        *lock(&self.pause) = FailurePause::default();
    }

    /// How long the callback is not to be called.
    pub(super) fn pause(&self) -> Duration {
        let end = lock(&self.pause).end;
        end.map_or(Duration::ZERO, Deadline::remaining)
    }

    /// The last failure, if the pause after it is not over.
    fn pausing(&self) -> Option<BackendError> {
        let is_over = self.pause().is_zero();
        lock(&self.pause).last.clone().filter(|_| !is_over)
    }
}
