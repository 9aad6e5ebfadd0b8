//! What no longer applies is set aside, never dropped (DESIGN, rule 13).

use super::State;
use crate::clock::Stamp;
use crate::commit::Change;
use crate::envelope;
use crate::error::{Error, ErrorKind};
use crate::journal::Record;
use crate::mutation::{Call, Misfit, Mutation};
use crate::set_aside::SetAside;
use std::sync::Arc;

impl State {
    /// Withdraws the calls that do not apply. Nothing where that was all.
    pub(super) fn put_calls_aside(&mut self, key: &Arc<str>, misfits: &[(usize, Misfit)]) -> Option<()> {
        let (index, misfit) = misfits.first()?;
        let entry = self.outbox.head(key)?;
        let call = entry.mutation.as_ref().and_then(|mutation| mutation.calls().get(*index));
        let place = format!("{key}{}", call.map(Call::place).unwrap_or_default());
        let what = format!("a change does not apply to what is there: {misfit}");
        let reason = Error::of_key(ErrorKind::Conflict, &place, what);
        if entry.is_awaited() {
            self.put_aside(key, reason);
            return None;
        }
        let stamp = entry.latest;
        let indexes: Vec<usize> = misfits.iter().map(|(index, _)| *index).collect();
        let taken = self.outbox.change(key, |entry| {
            let taken = entry.mutation.as_mut().map(|mutation| mutation.take(&indexes));
            entry.mutation.take_if(|mutation| mutation.calls().is_empty());
            taken
        })?;
        self.lay_aside(key, None, taken.as_ref(), stamp, reason);
        self.journal_again(key);
        self.cache.touch(key);
        Some(())
    }

    /// Withdraws the head of `key`: whoever waits for it gets the reason; with nobody waiting it was
    /// promised, and is set aside.
    pub(super) fn put_aside(&mut self, key: &Arc<str>, reason: Error) {
        let Some(entry) = self.outbox.head(key) else { return };
        if entry.is_awaited() {
            if let Some(mut entry) = self.take_out(key) {
                entry.tell(&Err(reason));
            }
            return;
        }
        let (assignment, mutation, stamp) = (entry.assignment.clone(), entry.mutation.clone(), entry.latest);
        // Before it goes: a crash in between finds it in the journal twice, and not nowhere.
        self.lay_aside(key, assignment.as_ref(), mutation.as_ref(), stamp, reason);
        self.take_out(key);
    }

    fn lay_aside(
        &mut self,
        key: &Arc<str>,
        assignment: Option<&Change>,
        mutation: Option<&Mutation>,
        stamp: Stamp,
        reason: Error,
    ) {
        let value = match assignment {
            Some(Change::Put { envelope, .. }) => envelope::decode(envelope).ok(),
            Some(Change::Delete) | None => None,
        };
        let calls = mutation.map(Mutation::calls).unwrap_or_default();
        // By way of text, in which a number may be of any length.
        let told = |call: &Call| serde_json::from_str(&serde_json::to_string(&call.operations).ok()?).ok();
        let changes = calls.iter().filter_map(told).collect();
        tracing::warn!(key = &**key, %reason, "a queued write was set aside");
        self.set_aside.push(SetAside { key: key.to_string(), value, changes, last_modified: stamp.get(), reason });
        self.journal_aside();
    }

    /// Hands out what was set aside.
    pub(crate) fn hand_out(&mut self) -> Vec<SetAside> {
        if !self.set_aside.is_empty() {
            self.note(&Record::HandedOut);
        }
        std::mem::take(&mut self.set_aside)
    }
}
