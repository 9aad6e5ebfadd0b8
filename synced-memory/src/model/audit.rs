//! What is the same in the rules of all processes.

use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::check::{RuleResult, ensure};
use super::server::KEY;
use crate::backend::commit::Sequence;
use crate::base::error::{Error, ErrorKind, Result};
use crate::client::state::{Link, State};
use crate::pending::outbox::{Answer, Tried};

/// Whether writes can be sent must be known.
pub(super) fn check_link(state: &State, link: Link) -> RuleResult {
    let known = state.link_of(KEY);
    ensure!(known == link, "the link is {known:?} instead of {link:?}");
    Ok(())
}

/// These must be queued, each in doubt or not.
pub(super) fn check_queued(state: &State, expected: &[(Sequence, bool)]) -> RuleResult {
    let queued = state.outbox.of(KEY);
    let queued = queued.map(|entry| {
        let in_doubt = entry.attempt.tried == Tried::InDoubt;
        (entry.identity.id, in_doubt)
    });
    let queued: Vec<_> = queued.collect();
    ensure!(
        queued == expected,
        "rule 2: {queued:?} is queued instead of {expected:?}"
    );
    Ok(())
}

/// A caller must still wait.
pub(super) fn check_waits(receiver: &mut Receiver<Result<Answer>>) -> RuleResult {
    let received = receiver.try_recv();
    ensure!(
        matches!(received, Err(TryRecvError::Empty)),
        "a caller was answered {received:?} before its write ended"
    );
    Ok(())
}

/// The caller of a confirmed write stops waiting: it is withdrawn, unless it may have been made.
/// Returns what its caller is told.
pub(super) fn check_withdrawn(
    state: &mut State,
    id: Sequence,
    may_be_made: bool,
) -> RuleResult<ErrorKind> {
    let expected = if may_be_made {
        ErrorKind::InDoubt
    } else {
        ErrorKind::Unavailable
    };
    let error = state.withdraw(&KEY.into(), id, state.unavailable_error(KEY));
    ensure!(
        error.as_ref().map(Error::kind) == Some(expected),
        "the caller of {id} stops waiting, and receives {error:?} instead of {expected:?}"
    );
    Ok(expected)
}
