//! When a later write is made part of the last entry of its key.

use super::entry::{Assignment, Entry, Tried, Write};
use crate::base::clock::Monotonic;
use crate::cache::Base;
use crate::value::envelope::Text;
use crate::value::mutation::{Mutation, Since, coalesce};

impl Entry {
    /// Whether a later write may be merged into it: it was not sent yet, and whether somebody waits
    /// is the same for both.
    pub(super) fn may_merge(&self, later: &Write, is_awaited: bool) -> bool {
        self.attempt.tried == Tried::Never
            && self.is_awaited() == is_awaited
            && self.write.stays_alone() == later.stays_alone()
            && !later.stays_alone()
    }

    /// Merges a later write into it if that is possible; the later write is then used up.
    ///
    /// `base`: what the backend answered last. `is_only`: there is no other entry of the key.
    pub(super) fn merge(&mut self, later: &mut Write, base: &Base, is_only: bool) -> bool {
        let has_expired = self.write.has_expired(later.written);
        let is_delete = matches!(self.write.assignment, Some(Assignment::Delete))
            && self.write.mutation.is_none();
        let inherited = self.write.expiry_for(later);

        if later.assignment.is_some() {
            self.write.assignment = later.assignment.take();
            self.write.mutation = later.mutation.take();
            self.write.stamp = later.stamp;
        } else if let Some(mutation) = later.mutation.take() {
            // After the end of its time to live there is nothing that could be changed.
            let merged = if has_expired {
                Err(mutation)
            } else {
                self.merge_mutation(mutation, base, is_only)
            };
            if let Err(mutation) = merged {
                later.mutation = Some(mutation);
                return false;
            }
            if self.write.assignment.is_none() {
                self.write.stamp = later.stamp;
            }
        }

        self.write.replaces_nothing |= has_expired || is_delete;
        self.write.expires = later.expires.or(inherited);
        self.write.latest = later.stamp;
        self.write.written = later.written;
        self.write.fresh = later.fresh;
        true
    }

    /// Merges a later mutation, or returns it if it needs an entry of its own.
    fn merge_mutation(
        &mut self,
        later: Mutation,
        base: &Base,
        is_only: bool,
    ) -> Result<(), Mutation> {
        let is_awaited = self.is_awaited();
        let Some(mutation) = &mut self.write.mutation else {
            // Whoever waits for the assignment does not share the outcome of the mutation.
            if is_awaited {
                return Err(later);
            }
            self.write.mutation = Some(later);
            return Ok(());
        };

        if is_awaited {
            // Callers that wait share one outcome: only what becomes one call is merged.
            let mut together = mutation.clone();
            coalesce(&mut together, later.clone(), Since::Moved)?;
            if self.write.assignment.is_some() || together.calls().len() > 1 {
                return Err(later);
            }
            *mutation = together;
            return Ok(());
        }

        let own = self.write.assignment.as_ref().map(Assignment::own_value);
        let recorded_on = match own {
            Some(own) => Some(own),
            None if is_only && self.recorded_at == base.ticket && !later.merges_anywhere() => {
                Some(base.value_at(self.write.written))
            }
            None => None,
        };
        let since = match &recorded_on {
            Some(value) => Since::Unchanged(value.as_ref().map(Text::as_str)),
            None => Since::Moved,
        };
        coalesce(mutation, later, since)
    }
}

impl Write {
    /// Whether it always has an entry of its own.
    fn stays_alone(&self) -> bool {
        self.precondition.is_some() || self.is_confirmed || self.take.is_some() || self.is_retry
    }

    /// When a write that replaces it expires: one without a time to live of its own keeps the
    /// current one.
    fn expiry_for(&self, later: &Write) -> Option<Monotonic> {
        let is_kept = !matches!(later.assignment, Some(Assignment::Delete));
        self.expires
            .filter(|_| is_kept && !self.has_expired(later.written))
    }
}
