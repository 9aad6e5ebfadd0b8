//! Backend → cache: reads that ask the backend.

use crate::cache::Ticket;
use crate::error::{Error, ErrorKind, Result};
use crate::fault::Fault;
use crate::shared::{Live, Shared};
use bytes::Bytes;
use std::sync::Arc;

/// Asks the backend for keys in one round trip, and keeps the answers in their slots. One answer per key:
/// `Err` where the server refuses this key for good.
pub(crate) async fn load(shared: &Shared, live: &Live, keys: &[Arc<str>]) -> Result<Vec<Result<()>>, Fault> {
    let mut ticket = 0;
    let answers = shared.issue(live, live.session.read(keys), |place| ticket = place).await?;
    settled(shared, keys, ticket).await;
    let mut state = shared.state();
    let take_in = |(key, answer): (&Arc<str>, Result<Option<Bytes>, Fault>)| match answer {
        Ok(stored) => {
            state.read(key, ticket, stored);
            Ok(())
        }
        Err(fault) if fault.is_refused() => Err(Error::of_key(ErrorKind::Rejected, key, fault)),
        Err(fault) => {
            state.last_error = Some(Error::of_key(ErrorKind::Unavailable, key, fault));
            Ok(())
        }
    };
    Ok(keys.iter().zip(answers).map(take_in).collect())
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
