//! What no longer applies becomes a dead letter, and is never dropped.

use std::sync::Arc;
use std::time::Duration;

use super::{Accepted, Request, State};
use crate::backend::commit::{KeyChange, Sequence};
use crate::base::clock::{Moment, Stamp};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::pending::journal::{Ends, JournalRecord};
use crate::pending::outbox::{Entry, LetterRecord};
use crate::value::envelope::Unsealed;
use crate::value::mutation::{ApplyError, Mutation, NotMade, RecordedCall};

impl State {
    /// Withdraws the calls that do not apply. Nothing where that was all.
    pub(super) fn calls_to_dead_letter(
        &mut self,
        key: &Arc<str>,
        failed: &[(usize, ApplyError)],
    ) -> Option<()> {
        let (index, error) = failed.first()?;
        let entry = self.outbox.head(key)?;
        let call = entry
            .mutation
            .as_ref()
            .and_then(|mutation| mutation.calls().get(*index));
        let place = format!("{key}{}", call.map(RecordedCall::place).unwrap_or_default());
        let what = format!("a change does not apply to what is there: {error}");
        let reason = Error::of_key(ErrorKind::Conflict, &place, what);
        if entry.is_awaited() || entry.take.is_some() {
            self.to_dead_letter(key, reason, false);
            return None;
        }
        let (stamp, ttl) = (entry.latest, entry.ttl());
        let indexes: Vec<usize> = failed.iter().map(|(index, _)| *index).collect();
        let taken = self.outbox.change(key, |entry| {
            let taken = entry
                .mutation
                .as_mut()
                .map(|mutation| mutation.take(&indexes));
            entry
                .mutation
                .take_if(|mutation| mutation.calls().is_empty());
            taken
        })?;
        if let Some(calls) = &taken {
            self.add_dead_letter(key, calls, stamp, ttl, reason.clone());
        }
        self.share_fate(key, 1, NotMade::new(false, taken.as_ref()), Some(&reason));
        self.journal_again(key);
        self.cache.touch(key);
        Some(())
    }

    /// What was made on what is not made is not made either: it becomes a dead letter for this
    /// reason, or is superseded as well. `first`: from which entry on.
    pub(super) fn share_fate(
        &mut self,
        key: &Arc<str>,
        first: usize,
        mut gone: NotMade,
        reason: Option<&Error>,
    ) {
        let taken = self.outbox.take_resting_on(key, first, &mut gone);
        if taken.is_empty() {
            return;
        }
        for (calls, stamp, ttl) in &taken {
            match reason {
                Some(reason) => self.add_dead_letter(key, calls, *stamp, *ttl, reason.clone()),
                None => self.superseded += calls.calls().len() as u64,
            }
        }
        self.journal_again(key);
        self.cache.touch(key);
    }

    /// Withdraws the head of `key`: whoever waits for it gets the reason; with nobody waiting it
    /// was promised, and becomes a dead letter; what is confirmed never was. `is_doubtful`: it may
    /// have been made.
    pub(super) fn to_dead_letter(&mut self, key: &Arc<str>, reason: Error, is_doubtful: bool) {
        let Some(entry) = self.outbox.head(key) else {
            return;
        };
        if entry.is_confirmed && is_doubtful {
            return self.stays_in_doubt(key, &reason);
        }
        if entry.is_awaited() || entry.is_confirmed {
            let id = entry.id;
            // Before it goes, as below.
            self.restore_letter(id);
            if let Some(mut entry) = self.take_out(key) {
                entry.tell(&Err(reason));
            }
            return;
        }
        let (assignment, mutation, stamp) = (
            entry.assignment.clone(),
            entry.mutation.clone(),
            entry.latest,
        );
        let (take, ttl) = (entry.take.clone(), entry.ttl());
        let letter = LetterRecord {
            assignment: assignment.clone(),
            mutation: mutation.clone(),
            taken: take.map(|take| take.item),
            ttl,
            may_have_been_made: is_doubtful,
            ..self.letter(key, stamp, reason.clone())
        };
        // Before it goes: a crash in between finds it in the journal twice, and not nowhere.
        self.lay_down(letter);
        self.take_out(key);
        self.share_fate(
            key,
            0,
            NotMade::new(assignment.is_some(), mutation.as_ref()),
            Some(&reason),
        );
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
            ..self.letter(key, stamp, reason)
        };
        self.lay_down(letter);
    }

    /// Keeps what was taken and could not go back.
    pub(super) fn taken_to_dead_letter(
        &mut self,
        key: &Arc<str>,
        entry: &Entry,
        reason: Error,
        may_have_been_made: bool,
    ) {
        let Some(take) = &entry.take else { return };
        let letter = LetterRecord {
            mutation: if entry.is_confirmed {
                take.back.clone()
            } else {
                entry.mutation.clone()
            },
            taken: Some(take.item.clone()),
            may_have_been_made,
            ..self.letter(key, entry.latest, reason)
        };
        self.lay_down(letter);
    }

    /// A dead letter in which there is nothing yet.
    fn letter(&mut self, key: &Arc<str>, stamp: Stamp, reason: Error) -> LetterRecord {
        LetterRecord {
            id: self.random.u64(..),
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

    /// Keeps a dead letter. They have a budget of their own, so that they never keep a write from
    /// being queued.
    fn lay_down(&mut self, letter: LetterRecord) {
        tracing::warn!(key = &*letter.key, reason = %letter.reason, "a queued write became a dead letter");
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
            size -= letter.size();
            self.dropped_letters += 1;
            let (key, bytes) = (&*letter.key, letter.size());
            tracing::error!(key, bytes, reason = %letter.reason, "a dead letter was dropped, since there are too many");
        }
    }

    /// Ends a dead letter. Returns also where it was among the others.
    ///
    /// # Errors
    ///
    /// `Conflict` where it was ended before.
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
        self.note(&JournalRecord::Ended(id));
        Ok(())
    }

    /// Makes a new write of a dead letter, which is over with that, unless it is refused while its
    /// caller waits.
    ///
    /// # Errors
    ///
    /// It stays: `Conflict` where it was ended before or has no place to go back to, `OutboxFull`,
    /// `Journal`.
    pub(crate) fn retry_letter(&mut self, id: u64, at: Moment) -> Result<(Arc<str>, Accepted)> {
        let (place, letter) = self.end_letter(id)?;
        match self.write_letter(&letter, at) {
            Ok(accepted) => {
                let key = Arc::clone(&letter.key);
                self.retried.insert(accepted.sequence, (place, letter));
                Ok((key, accepted))
            }
            Err(error) => {
                self.letters.insert(place, letter);
                Err(error)
            }
        }
    }

    fn write_letter(&mut self, letter: &LetterRecord, at: Moment) -> Result<Accepted> {
        let key = &letter.key;
        if letter.has_no_place() {
            return Err(Error::of_key(
                ErrorKind::Conflict,
                key,
                "what was taken has no place to go back to",
            ));
        }
        let request = match (&letter.assignment, &letter.mutation) {
            (Some(KeyChange::Delete), None) => Request::Delete,
            (Some(_), _) => match letter.value() {
                Some(value) => Request::Put {
                    value: Unsealed::of_text(&value),
                    ttl: letter.ttl,
                },
                None => Request::Delete,
            },
            (None, Some(mutation)) => {
                // An entry of a map goes back where its key is absent.
                let is_taken = letter.taken.is_some();
                let mutation = if is_taken {
                    mutation.clone()
                } else {
                    mutation.without_comparison()
                };
                Request::Mutate {
                    mutation,
                    ttl: letter.ttl,
                    exact: None,
                    take: None,
                }
            }
            (None, None) => {
                return Err(Error::of_key(
                    ErrorKind::Conflict,
                    key,
                    "there is nothing to retry",
                ));
            }
        };
        self.write_as(
            key,
            request,
            WritePolicy::Through,
            at,
            Some(Ends::Letter(letter.id)),
        )
    }

    /// Nobody waits any more for the retry of a dead letter that was queued under this id.
    pub(crate) fn letter_is_over(&mut self, id: Sequence) {
        self.retried.remove(&id);
    }

    /// What was queued under this id is refused: the dead letter that it was the retry of is there
    /// as it was.
    fn restore_letter(&mut self, id: Sequence) {
        if let Some((place, letter)) = self.retried.remove(&id) {
            let place = place.min(self.letters.len());
            self.letters.insert(place, letter);
            self.journal_letter(place);
        }
    }
}
