//! Backend → cache: reads that ask the backend, and slots that are kept current.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, Sleep, interval, sleep};

use crate::backend::error::BackendError;
use crate::backend::{Expiry, Invalidation, WithExpiry, all_tracked};
use crate::base::error::{Error, ErrorKind, Result};
use crate::cache::Ticket;
use crate::client::shared::{Connection, Shared};

/// Asks the backend for keys in one round trip, and keeps the answers in their slots. One answer
/// per key: `Err` where the server refuses this key for good.
pub(crate) async fn load(
    shared: &Shared,
    live: &Connection,
    keys: &[Arc<str>],
) -> Result<Vec<Result<()>>, BackendError> {
    let is_any_near = {
        let state = shared.state();
        keys.iter().any(|key| state.cache.is_near(key))
    };
    let read = if is_any_near {
        live.session.read_with_expiry(keys)
    } else {
        all_tracked(live.session.read(keys))
    };
    let mut ticket = 0;
    let mut generations = Vec::new();
    let request = shared.issue(live, read, |place| {
        ticket = place;
        let (mut state, mono) = (shared.state(), shared.clock.mono());
        for key in keys {
            state.cache.asked(key, place, mono);
        }
        generations = keys.iter().map(|key| state.cache.generation(key)).collect();
    });
    let answers = request.await?;
    let mono = shared.clock.mono();
    settled(shared, keys, ticket).await;
    let mut state = shared.state();
    let mut take_in =
        |key: &Arc<str>, answer: Result<WithExpiry, BackendError>, generation| match answer {
            Ok((stored, left)) => {
                state.read(key, ticket, generation, stored);
                match left {
                    Expiry::Tracked => {}
                    Expiry::Forever => state.cache.ends(key, ticket, None),
                    Expiry::For(left) => state.cache.ends(key, ticket, Some(mono + left)),
                }
                Ok(())
            }
            Err(error) if error.is_rejected() => {
                let error = Error::of_key(ErrorKind::Rejected, key, error);
                state.cache.was_refused(key, ticket, error.clone());
                Err(error)
            }
            Err(error) => {
                state.cache.was_not_read(key);
                state.last_error = Some(Error::of_key(ErrorKind::Unavailable, key, error));
                Ok(())
            }
        };
    let answers = keys.iter().zip(answers).zip(generations);
    let answers = answers
        .map(|((key, answer), generation)| take_in(key, answer, generation))
        .collect();
    if state.cache.is_any_for_later() {
        shared.wake_refresher();
    }
    Ok(answers)
}

/// Ready when no mutation of these keys is under way that was sent before this request: its answer
/// says whether it is in there.
async fn settled(shared: &Shared, keys: &[Arc<str>], ticket: Ticket) {
    let waits: Vec<_> = {
        let mut state = shared.state();
        keys.iter()
            .filter_map(|key| state.when_settled(key, ticket))
            .collect()
    };
    for wait in waits {
        // One that ends without an answer is over as well.
        let _ = shared.told.wakes(wait).await;
    }
}

/// So many slots are read again at a time.
const BATCH: usize = 256;

/// After a reconnect each slot puts the first batch off by so long at most, so that many processes
/// with many slots do not ask at the same time.
const SPREAD: Duration = Duration::from_micros(20);
const LONGEST_SPREAD: Duration = Duration::from_millis(200);

/// Between two looks at what is watched, where the backend tells of no changes.
const LOOK: Duration = Duration::from_secs(1);

/// So much later a slot is read again that could not be read (the server is loading, or a change of
/// its value in doubt).
const AGAIN: Duration = Duration::from_millis(20);

/// What the keys begin with whose changes the backend was asked to tell.
pub(crate) type Tracked = Vec<String>;

/// Has the backend tell of changes, where slots are read locally.
///
/// # Errors
///
/// The connection is no good. Where the backend refuses, reads go on asking it.
pub(crate) async fn track(shared: &Shared, live: &Connection) -> Result<Tracked, BackendError> {
    let prefixes = shared.near_prefixes();
    if prefixes.is_empty() {
        return Ok(prefixes);
    }
    let is_tracked = match live.session.track(&prefixes).await {
        Ok(()) => true,
        Err(error) if error.is_rejected() => {
            tracing::warn!(target = shared.target, error = %error, "the backend tells of no changes: near reads ask it");
            false
        }
        Err(error) => return Err(error),
    };
    shared
        .state()
        .cache
        .tracked(is_tracked, shared.clock.mono());
    Ok(prefixes)
}

/// Keeps the slots current that are read locally, until the connection is no good any more.
pub(crate) async fn run(shared: &Shared, live: &Connection, tracked: Tracked) -> BackendError {
    match keep_current(shared, live, tracked).await {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// One read is under way at a time, and with it one read of each key: what changes meanwhile is
/// read again after it.
async fn keep_current(
    shared: &Shared,
    live: &Connection,
    mut tracked: Tracked,
) -> Result<Infallible, BackendError> {
    // Nothing is told before there is something to track, and then all of that is read.
    let waiting = u32::try_from(shared.state().cache.queued_reads()).unwrap_or(u32::MAX);
    let spread = (SPREAD * waiting)
        .min(LONGEST_SPREAD)
        .mul_f64(fastrand::f64());
    let mut spread = (waiting > 0).then(|| Box::pin(sleep(spread)));
    let mut again: Option<Pin<Box<Sleep>>> = None;
    let (mut changed, mut reading) = (None, None);
    let mut look_again = interval(LOOK);
    look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if shared.near_prefixes() != tracked {
            tracked = track(shared, live).await?;
        }
        // Nobody has to look for what is not tracked.
        if changed.is_none() && !tracked.is_empty() {
            changed = Some(live.session.invalidations());
        }
        if reading.is_none() && spread.is_none() {
            let stale = shared.state().cache.take_stale(BATCH);
            reading = (!stale.is_empty()).then(|| Box::pin(read_again(shared, live, stale)));
        }
        if again.is_none() && shared.state().cache.is_any_for_later() {
            again = Some(Box::pin(sleep(AGAIN)));
        }
        tokio::select! {
            // What is told goes first: it may say that an answer is old.
            biased;
            told = done(&mut changed) => handle_invalidation(shared, told?),
            read = done(&mut reading) => read?,
            () = done(&mut spread) => {}
            () = done(&mut again) => shared.state().cache.now_is_later(),
            () = shared.near_wanted() => {}
            _ = look_again.tick() => shared.state().cache.look_again(),
        }
    }
}

/// Ready with what comes of it, which is then gone; never where there is nothing.
async fn done<F: Future + ?Sized>(waits: &mut Option<Pin<Box<F>>>) -> F::Output {
    let Some(future) = waits else {
        return pending().await;
    };
    let output = future.as_mut().await;
    *waits = None;
    output
}

async fn read_again(
    shared: &Shared,
    live: &Connection,
    keys: Vec<Arc<str>>,
) -> Result<(), BackendError> {
    match load(shared, live, &keys).await {
        Err(error) if error.is_connection_lost() => Err(error),
        Err(_) => {
            let mut state = shared.state();
            for key in &keys {
                state.cache.was_not_read(key);
            }
            Ok(())
        }
        // Where one is refused, whoever reads it is told.
        Ok(_) => Ok(()),
    }
}

fn handle_invalidation(shared: &Shared, changed: Invalidation) {
    let mono = shared.clock.mono();
    let mut state = shared.state();
    match changed {
        Invalidation::All => state.cache.all_changed(mono),
        Invalidation::Keys(keys) => keys
            .iter()
            .for_each(|key| state.cache.invalidated(key, mono)),
    }
}
