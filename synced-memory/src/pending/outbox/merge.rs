//! A write on its way into the outbox, and when it is made part of the one before it.

use super::answer::Waiter;
use super::entry::{Entry, Precondition, Take, Tried};
use crate::backend::commit::KeyChange;
use crate::base::clock::{Monotonic, Stamp};
use crate::cache::Base;
use crate::value::envelope::Text;
use crate::value::mutation::{Mutation, Since, coalesce};

/// What a write does.
#[derive(Debug)]
pub(crate) enum WriteKind {
    Assign(KeyChange),
    Mutate(Mutation),
}

/// A write on its way into the outbox.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Write {
    pub(crate) what: WriteKind,
    pub(crate) stamp: Stamp,
    pub(crate) exact: Option<Precondition>,
    pub(crate) is_confirmed: bool,
    pub(crate) take: Option<Take>,
    /// It is the retry of a dead letter, and stays apart from other writes: whether it can be made
    /// part of one depends on who waits, which a journal does not know.
    pub(crate) is_retry: bool,
    pub(crate) expires: Option<Monotonic>,
    pub(crate) written: Monotonic,
    pub(crate) fresh: bool,
    pub(crate) existed: bool,
    pub(crate) waiter: Option<Waiter>,
}

impl Write {
    pub(super) fn size(&self) -> usize {
        let take = self.take.as_ref().map_or(0, Take::size);
        take + match &self.what {
            WriteKind::Assign(change) => change.size(),
            WriteKind::Mutate(mutation) => mutation.size(),
        }
    }
}

impl Entry {
    /// Whether a later write can be made part of it: it was not sent yet, and has the same promise
    /// to keep.
    pub(super) fn takes(&self, write: &Write) -> bool {
        self.tried == Tried::Never
            && self.is_awaited() == write.waiter.is_some()
            && self.exact.is_none()
            && write.exact.is_none()
            && !(self.is_confirmed || write.is_confirmed)
            && self.take.is_none()
            && write.take.is_none()
            && !(self.is_retry || write.is_retry)
    }

    /// Takes a later mutation in; hands it back where it has to stay apart.
    fn take_mutation(
        &mut self,
        later: Mutation,
        base: &Base,
        is_only: bool,
    ) -> Result<(), Mutation> {
        let Some(mutation) = &mut self.mutation else {
            // Whoever waits for the assignment does not share the fate of the mutation.
            if self.is_awaited() {
                return Err(later);
            }
            self.mutation = Some(later);
            return Ok(());
        };
        if !self.waiters.is_empty() {
            // Callers that wait share one fate: only what is one call is merged.
            let mut together = mutation.clone();
            coalesce(&mut together, later.clone(), Since::Moved)?;
            if self.assignment.is_some() || together.calls().len() > 1 {
                return Err(later);
            }
            *mutation = together;
            return Ok(());
        }
        let own = self.assignment.as_ref().map(KeyChange::own_value);
        let since = match &own {
            Some(own) => Since::Unchanged(own.as_ref().map(Text::as_str)),
            None if is_only && self.recorded_at == base.ticket && !later.merges_anywhere() => {
                Since::Unchanged(base.value_at(self.written))
            }
            None => Since::Moved,
        };
        coalesce(mutation, later, since)
    }
}

/// Makes a later write part of `last`; hands it back where it has to stay apart.
pub(super) fn merge(
    last: &mut Entry,
    mut write: Box<Write>,
    base: &Base,
    is_only: bool,
) -> Result<(), Box<Write>> {
    let over = last.expires.is_some_and(|expires| expires <= write.written);
    let is_delete = matches!(last.assignment, Some(KeyChange::Delete)) && last.mutation.is_none();
    let inherited = inherited_expiry(last, &write);
    match write.what {
        WriteKind::Assign(change) => {
            last.assignment = Some(change);
            last.mutation = None;
            last.stamp = write.stamp;
        }
        WriteKind::Mutate(mutation) => {
            // Where its time is over there is nothing any more that it could change.
            let taken = if over {
                Err(mutation)
            } else {
                last.take_mutation(mutation, base, is_only)
            };
            if let Err(mutation) = taken {
                write.what = WriteKind::Mutate(mutation);
                return Err(write);
            }
            if last.assignment.is_none() {
                last.stamp = write.stamp;
            }
        }
    }
    last.replaces_nothing |= over || is_delete;
    last.expires = write.expires.or(inherited);
    last.latest = write.stamp;
    last.written = write.written;
    last.fresh = write.fresh;
    last.waiters.extend(write.waiter);
    Ok(())
}

/// A write without a time to live keeps the one of the write that it replaces.
fn inherited_expiry(replaced: &Entry, write: &Write) -> Option<Monotonic> {
    let keeps = !matches!(write.what, WriteKind::Assign(KeyChange::Delete));
    replaced
        .expires
        .filter(|expires| keeps && *expires > write.written)
}
