//! Elements that confirmed calls take: a caller picks them up, or they are returned.

use serde_json::Value;

use super::super::calls::kinds::CallKind;
use super::super::calls::recorded::RecordedOn;
use super::super::check::{RuleResult, ensure};
use super::super::reference::edits::CallEdits;
use super::super::server::KEY;
use super::super::world::World;
use super::history::{ElementOwner, History, HistoryLine, SkippedCalls, UserCall};
use crate::backend::commit::{Sequence, Writer};
use crate::base::error::ErrorKind;
use crate::client::state::{Link, State};
use crate::pending::outbox::{Entry, LetterRecord, Written};
use crate::value::mutation::Mutation;

impl History {
    /// No caller picks up what this call has taken: a queued call returns it, or it becomes a dead
    /// letter if the outbox is full.
    pub(super) fn check_returned(&mut self, state: &State, call: usize) -> RuleResult {
        let index = self.calls.len();
        let Some(take) = self.calls[call]
            .confirmed
            .as_mut()
            .and_then(|confirmed| confirmed.take.as_mut())
        else {
            return Ok(());
        };
        ensure!(
            matches!(take.owner, None | Some(ElementOwner::Answered(_))),
            "(5) {:?} is returned twice",
            take.item
        );
        let is_known = |id| self.lines.iter().any(|line| line.id == id);
        let is_returning = |entry: &&Entry| {
            let item = entry
                .write
                .take
                .as_ref()
                .filter(|take| take.back.is_none())
                .map(|take| &take.item);
            item == Some(&take.item)
                && !entry.write.is_confirmed
                && !entry.is_awaited()
                && !is_known(entry.identity.id)
        };
        let Some(entry) = state.outbox.last(KEY).filter(is_returning) else {
            let is_in_letter = |letter: &LetterRecord| {
                letter.taken.as_ref() == Some(&take.item)
                    && letter.reason.kind() == ErrorKind::OutboxFull
            };
            let letter = state.letters.get(self.dead_letters);
            ensure!(
                letter.is_some_and(is_in_letter),
                "(5) what was taken is lost: {:?}",
                take.item
            );
            take.owner = Some(ElementOwner::DeadLetter);
            self.dead_letters += 1;
            return Ok(());
        };

        take.owner = Some(ElementOwner::ReturningCall(index));
        let operations = take.returning.operations.clone();
        let calls: Vec<_> = entry
            .write
            .mutation
            .iter()
            .flat_map(Mutation::calls)
            .collect();
        let is_same = calls.len() == 1 && calls[0].operations == operations;
        ensure!(
            is_same,
            "(5) it is returned by {calls:?} instead of {operations:?}"
        );
        let edits = CallEdits {
            stamp: calls[0].stamp.get(),
            ..take.returning.clone()
        };

        let item: Value = serde_json::from_str(take.item.as_str()).expect("it is JSON");
        self.lines.push_back(HistoryLine {
            id: entry.identity.id,
            number: entry.identity.sequence,
            assignment: None,
            calls: vec![index],
            replaced: Vec::new(),
            skipped: SkippedCalls::default(),
            is_ambiguous: false,
            recorded_on: RecordedOn::Anything,
            observed: None,
            is_online: false,
            was_sent: false,
            may_be_applied: false,
            in_doubt: false,
            is_confirmed: false,
            returns: Some(take.item.clone()),
            latest_stamp: entry.write.latest.get(),
            written: take.written,
        });
        self.calls.push(UserCall {
            kind: CallKind::Extend(vec![item]),
            tries: 0,
            edits,
            receiver: None,
            reported: Some(Written::Queued),
            confirmed: None,
            outcome: None,
            joined: Vec::new(),
            entry_id: entry.identity.id,
        });
        self.is_changed = true;
        Ok(())
    }

    /// The elements that their callers have not picked up yet, by call.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = (usize, (Writer, Sequence))> {
        self.calls
            .iter()
            .enumerate()
            .filter_map(|(call, UserCall { confirmed, .. })| {
                match confirmed.as_ref()?.take.as_ref()?.owner? {
                    ElementOwner::Answered(name) => Some((call, name)),
                    _ => None,
                }
            })
    }
}

/// Nothing that was withdrawn may be applied any more; and callers pick up what was taken for them,
/// or have gone.
pub(super) fn hand_over(world: &mut World<History>, at: usize) -> RuleResult {
    let process = &mut world.processes[at];
    for number in std::mem::take(&mut process.ledger.withdrawn) {
        world.server.withdraw(process.state.writer(), number)?;
    }
    for (call, name) in process.ledger.unclaimed().collect::<Vec<_>>() {
        // More often when the server is away: then other calls are queued behind what is returned.
        let odds = if process.ledger.link == Link::Up {
            8
        } else {
            2
        };
        match world.random.u8(0..odds) {
            0 => {
                process.state.handed(name);
                let confirmed = process.ledger.calls[call].confirmed.as_mut();
                if let Some(take) = confirmed.and_then(|confirmed| confirmed.take.as_mut()) {
                    take.owner = Some(ElementOwner::Caller);
                }
            }
            1 => {
                process.state.not_handed(name);
                process.ledger.check_returned(&process.state, call)?;
            }
            _ => {}
        }
    }
    Ok(())
}
