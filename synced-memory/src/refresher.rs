//! Backend → cache: reads that ask the backend, and slots that are kept current.

use crate::backend::Changed;
use crate::cache::Ticket;
use crate::error::{Error, ErrorKind, Result};
use crate::fault::Fault;
use crate::shared::{Live, Shared};
use bytes::Bytes;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Asks the backend for keys in one round trip, and keeps the answers in their slots. One answer per key:
/// `Err` where the server refuses this key for good.
pub(crate) async fn load(shared: &Shared, live: &Live, keys: &[Arc<str>]) -> Result<Vec<Result<()>>, Fault> {
    let mut ticket = 0;
    let mut generations = Vec::new();
    let request = shared.issue(live, live.session.read(keys), |place| {
        ticket = place;
        let state = shared.state();
        generations = keys.iter().map(|key| state.cache.generation(key)).collect();
    });
    let answers = request.await?;
    settled(shared, keys, ticket).await;
    let mut state = shared.state();
    let mut take_in = |key: &Arc<str>, answer: Result<Option<Bytes>, Fault>, generation| match answer {
        Ok(stored) => {
            state.read(key, ticket, generation, stored);
            Ok(())
        }
        Err(fault) if fault.is_refused() => Err(Error::of_key(ErrorKind::Rejected, key, fault)),
        Err(fault) => {
            state.last_error = Some(Error::of_key(ErrorKind::Unavailable, key, fault));
            Ok(())
        }
    };
    let answers = keys.iter().zip(answers).zip(generations);
    Ok(answers.map(|((key, answer), generation)| take_in(key, answer, generation)).collect())
}

/// Ready when no mutation of these keys is under way that was sent before this request: its answer says
/// whether it is in there.
async fn settled(shared: &Shared, keys: &[Arc<str>], ticket: Ticket) {
    let waits: Vec<_> = {
        let mut state = shared.state();
        keys.iter().filter_map(|key| state.when_settled(key, ticket)).collect()
    };
    for wait in waits {
        // One that ends without an answer is over as well.
        let _ = wait.await;
    }
}

/// So many slots are read again at a time.
const BATCH: usize = 256;

/// After a reconnect each slot puts the first batch off by so long at most, so that many processes with many slots do
/// not ask at the same time.
const SPREAD: Duration = Duration::from_micros(20);
const LONGEST_SPREAD: Duration = Duration::from_millis(200);

/// Has the backend tell of changes, where slots are read locally.
///
/// # Errors
///
/// The connection is no good. Where the backend refuses, reads go on asking it.
pub(crate) async fn track(shared: &Shared, live: &Live) -> Result<(), Fault> {
    let prefixes = shared.near_prefixes();
    if prefixes.is_empty() {
        return Ok(());
    }
    let is_told = match live.session.track(&prefixes).await {
        Ok(()) => true,
        Err(fault) if fault.is_lost() => return Err(fault),
        Err(fault) => {
            tracing::warn!(target = shared.target, error = %fault, "the backend tells of no changes: near reads ask it");
            false
        }
    };
    shared.state().cache.told(is_told, shared.clock.mono());
    Ok(())
}

/// Keeps the slots current that are read locally, until the connection is no good any more.
pub(crate) async fn run(shared: &Shared, live: &Live) -> Fault {
    match keep_current(shared, live).await {
        Err(fault) => fault,
        Ok(never) => match never {},
    }
}

async fn keep_current(shared: &Shared, live: &Live) -> Result<Infallible, Fault> {
    // Nothing is told before there is something to track, and then all of that is read.
    let mut tracked = shared.near_prefixes();
    let waiting = u32::try_from(shared.state().cache.stale()).unwrap_or(u32::MAX);
    sleep((SPREAD * waiting).min(LONGEST_SPREAD).mul_f64(fastrand::f64())).await;
    loop {
        let prefixes = shared.near_prefixes();
        if prefixes != tracked {
            track(shared, live).await?;
            tracked = prefixes;
        }
        let stale = shared.state().cache.take_stale(BATCH);
        if !stale.is_empty() {
            let reading = load(shared, live, &stale);
            tokio::pin!(reading);
            loop {
                tokio::select! {
                    // What is told goes first: it may say that the answer is old.
                    biased;
                    changed = live.session.changed() => take_in(shared, changed?),
                    read = &mut reading => {
                        read?;
                        break;
                    }
                }
            }
            continue;
        }
        tokio::select! {
            changed = live.session.changed() => take_in(shared, changed?),
            () = shared.near_wanted() => {}
        }
    }
}

fn take_in(shared: &Shared, changed: Changed) {
    let mono = shared.clock.mono();
    let mut state = shared.state();
    match changed {
        Changed::All => state.cache.all_changed(mono),
        Changed::Keys(keys) => keys.iter().for_each(|key| state.cache.changed(key, mono)),
    }
}
