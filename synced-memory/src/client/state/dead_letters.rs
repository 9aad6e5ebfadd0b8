//! A queued write that does not apply any more becomes a dead letter, and is never lost.

use std::sync::Arc;
use std::time::Duration;

use super::{Accepted, Request, State};
use crate::backend::commit::Sequence;
use crate::base::clock::{Moment, Stamp};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::events::event;
use crate::base::policy::WritePolicy;
use crate::pending::journal::{Ends, JournalRecord};
use crate::pending::outbox::{Assignment, Entry, LetterRecord, Selector, Write};
use crate::value::envelope::Unsealed;
use crate::value::mutation::{ApplyError, Mutation, NotMade, RecordedCall};

impl State {
    /// Withdraws the calls of the head of `key` that do not apply. `None` if nothing is left of it.
    pub(super) fn move_calls_to_dead_letters(
        &mut self,
        key: &Arc<str>,
        failed: &[(usize, ApplyError)],
    ) -> Option<()> {
        let (index, error) = failed.first()?;
        let head = self.outbox.head(key)?;
        let mutation = head.write.mutation.as_ref();
        let call = mutation.and_then(|mutation| mutation.calls().get(*index));
        let path = call.map(RecordedCall::path).unwrap_or_default();
        let what = format!("a change does not apply to what is there: {error}");
        let reason = Error::of_key(ErrorKind::Conflict, &format!("{key}{path}"), what);
        if head.is_awaited() || head.write.take.is_some() {
            self.move_to_dead_letters(key, reason, false);
            return None;
        }

        let (stamp, ttl) = (head.write.latest, head.write.ttl());
        let indexes: Vec<usize> = failed.iter().map(|(index, _)| *index).collect();
        let withdrawn = self.outbox.edit(key, Selector::Head, |head| {
            let mutation = head.write.mutation.as_mut();
            let withdrawn = mutation.map(|mutation| mutation.withdraw(&indexes));
            head.write.drop_empty_mutation();
            withdrawn
        })?;
        if let Some(calls) = &withdrawn {
            self.add_dead_letter(key, calls, stamp, ttl, reason.clone());
        }
        let gone = NotMade::new(false, withdrawn.as_ref());
        self.settle_dependent(key, 1, gone, Some(&reason));
        self.journal_again(key);
        self.cache.touch(key);
        Some(())
    }

    /// What was made on what is `gone` is not made either: it becomes a dead letter for this reason
    /// or, without one, is superseded as well. `first`: from which entry on.
    pub(super) fn settle_dependent(
        &mut self,
        key: &Arc<str>,
        first: usize,
        mut gone: NotMade,
        reason: Option<&Error>,
    ) {
        let withdrawn = self.outbox.withdraw_dependent(key, first, &mut gone);
        if withdrawn.is_empty() {
            return;
        }
        for (calls, stamp, ttl) in &withdrawn {
            match reason {
                Some(reason) => self.add_dead_letter(key, calls, *stamp, *ttl, reason.clone()),
                None => self.superseded += calls.calls().len() as u64,
            }
        }
        self.journal_again(key);
        self.cache.touch(key);
    }

    /// Withdraws the head of `key`: whoever waits for it gets the reason; if it was reported as
    /// queued, it becomes a dead letter. `is_doubtful`: it may have been made.
    pub(super) fn move_to_dead_letters(
        &mut self,
        key: &Arc<str>,
        reason: Error,
        is_doubtful: bool,
    ) {
        let Some(head) = self.outbox.head(key) else {
            return;
        };
        let Write {
            assignment,
            mutation,
            take,
            ..
        } = &head.write;
        if head.write.is_confirmed && is_doubtful {
            return self.stays_in_doubt(key, &reason);
        }
        if head.is_awaited() || head.write.is_confirmed {
            let id = head.identity.id;
            // Before it goes, as below.
            self.restore_letter(id);
            if let Some(mut entry) = self.remove_head(key) {
                entry.notify_waiters(&Err(reason));
            }
            return;
        }

        let gone = NotMade::new(assignment.is_some(), mutation.as_ref());
        let letter = LetterRecord {
            assignment: assignment.clone(),
            mutation: mutation.clone(),
            taken: take.as_ref().map(|take| take.item.clone()),
            ttl: head.write.ttl(),
            may_have_been_made: is_doubtful,
            ..empty_letter(self.random.u64(..), key, head.write.latest, reason.clone())
        };
        // Before it goes: a crash in between finds it in the journal twice, and not nowhere.
        self.keep_letter(letter);
        self.remove_head(key);
        self.settle_dependent(key, 0, gone, Some(&reason));
    }

    fn add_dead_letter(
        &mut self,
        key: &Arc<str>,
        calls: &Mutation,
        stamp: Stamp,
        ttl: Option<Duration>,
        reason: Error,
    ) {
        let letter = LetterRecord {
            mutation: Some(calls.clone()),
            ttl,
            ..empty_letter(self.random.u64(..), key, stamp, reason)
        };
        self.keep_letter(letter);
    }

    /// Keeps what was taken and could not be returned.
    pub(super) fn move_taken_to_dead_letters(
        &mut self,
        key: &Arc<str>,
        entry: &Entry,
        reason: Error,
        may_have_been_made: bool,
    ) {
        let write = &entry.write;
        let Some(take) = &write.take else { return };
        let letter = LetterRecord {
            mutation: if write.is_confirmed {
                take.back.clone()
            } else {
                write.mutation.clone()
            },
            taken: Some(take.item.clone()),
            may_have_been_made,
            ..empty_letter(self.random.u64(..), key, write.latest, reason)
        };
        self.keep_letter(letter);
    }

    /// Keeps a dead letter. They have a limit of their own, so that they never prevent a write from
    /// being queued.
    fn keep_letter(&mut self, letter: LetterRecord) {
        self.all_letters += 1;
        let (key, reason) = (Arc::clone(&letter.key), letter.reason.clone());
        self.events.push(event!(
            WARN,
            key = &*key,
            %reason,
            "a queued write became a dead letter"
        ));
        self.letters.push(letter);
        self.journal_letter(self.letters.len() - 1);
        let mut size: usize = self.letters.iter().map(LetterRecord::size).sum();
        while size > self.letters_limit {
            // What was taken is nowhere else.
            let last = self.letters.len() - 1;
            let Some(at) = self.letters[..last]
                .iter()
                .position(|letter| letter.taken.is_none())
            else {
                break;
            };
            let letter = self.letters.remove(at);
            let bytes = letter.size();
            size -= bytes;
            self.dropped_letters += 1;
            let LetterRecord { key, reason, .. } = letter;
            self.events.push(event!(
                ERROR,
                key = &*key,
                bytes,
                %reason,
                "a dead letter was dropped, since there are too many"
            ));
        }
    }

    /// Removes a dead letter. Returns also its position among the others.
    ///
    /// # Errors
    ///
    /// `Conflict` if it was ended before.
    fn end_letter(&mut self, id: u64) -> Result<(usize, LetterRecord)> {
        let at = self.letters.iter().position(|letter| letter.id == id);
        let at = at.ok_or_else(|| {
            Error::new(
                ErrorKind::Conflict,
                "the dead letter was retried or forgotten before",
            )
        })?;
        Ok((at, self.letters.remove(at)))
    }

    pub(crate) fn forget_letter(&mut self, id: u64) -> Result<()> {
        self.end_letter(id)?;
        self.note(&JournalRecord::LetterEnded(id));
        Ok(())
    }

    /// Makes a new write of a dead letter. That ends it, unless the write is refused while its
    /// caller waits.
    ///
    /// # Errors
    ///
    /// It stays: `Conflict` if it was ended before or cannot be returned, `Serialize` if nobody
    /// could read it, `OutboxFull`, `Journal`.
    pub(crate) fn retry_letter(
        &mut self,
        id: u64,
        policy: WritePolicy,
        at: Moment,
    ) -> Result<(Arc<str>, Accepted)> {
        let (position, letter) = self.end_letter(id)?;
        match self.write_letter(&letter, policy, at) {
            Ok(accepted) => {
                let key = Arc::clone(&letter.key);
                self.retried.insert(accepted.id, (position, letter));
                Ok((key, accepted))
            }
            Err(error) => {
                self.letters.insert(position, letter);
                Err(error)
            }
        }
    }

    fn write_letter(
        &mut self,
        letter: &LetterRecord,
        policy: WritePolicy,
        at: Moment,
    ) -> Result<Accepted> {
        let key = &letter.key;
        let request = retry_request(letter)?;
        // A journal of an earlier version may hold one.
        request.check_levels(key)?;
        let write = Write {
            is_retry: true,
            ..self.stamp(key, request, at)
        };
        let ends = Some(Ends::Letter(letter.id));
        self.enqueue(key, write, policy, ends)
    }

    /// Nobody waits any more for the retry that was queued under this id.
    pub(crate) fn letter_is_over(&mut self, id: Sequence) {
        self.retried.remove(&id);
    }

    /// The retry that was queued under this id, if it is one, was refused: the dead letter is there
    /// again as it was.
    fn restore_letter(&mut self, id: Sequence) {
        if let Some((position, letter)) = self.retried.remove(&id) {
            let position = position.min(self.letters.len());
            self.letters.insert(position, letter);
            self.journal_letter(position);
        }
    }
}

/// What the retry of a dead letter asks for.
///
/// # Errors
///
/// `Conflict`: there is nothing that could be made.
fn retry_request(letter: &LetterRecord) -> Result<Request> {
    let refused = |what| Err(Error::of_key(ErrorKind::Conflict, &letter.key, what));
    if letter.is_unreturnable() {
        return refused("what was taken has no place to go back to");
    }
    match (&letter.assignment, &letter.mutation) {
        (Some(Assignment::Delete), None) => Ok(Request::Delete),
        (Some(_), _) => Ok(match letter.value() {
            Some(value) => Request::Put {
                value: Unsealed::of_text(&value),
                ttl: letter.ttl,
            },
            None => Request::Delete,
        }),
        (None, Some(mutation)) => Ok(Request::Mutate {
            // An entry of a map is returned only if its key is absent.
            mutation: if letter.taken.is_some() {
                mutation.clone()
            } else {
                mutation.without_comparison()
            },
            ttl: letter.ttl,
            exact: None,
            take: None,
        }),
        (None, None) => refused("there is nothing to retry"),
    }
}

/// A dead letter in which there is nothing yet.
fn empty_letter(id: u64, key: &Arc<str>, stamp: Stamp, reason: Error) -> LetterRecord {
    LetterRecord {
        id,
        key: Arc::clone(key),
        assignment: None,
        mutation: None,
        taken: None,
        stamp,
        ttl: None,
        reason,
        may_have_been_made: false,
    }
}
