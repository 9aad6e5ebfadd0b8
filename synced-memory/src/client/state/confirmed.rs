//! Confirmed writes: withdrawn, or in doubt until the backend has answered what became of them; and
//! taken elements, until they are handed out.

use std::sync::Arc;

use super::{Link, State};
use crate::backend::commit::Sequence;
use crate::base::error::{Error, ErrorKind};
use crate::base::events::event;
use crate::base::policy::WritePolicy;
use crate::pending::journal::Ends;
use crate::pending::outbox::{Answer, Entry, EntryName, Selector, Take, Withdrawal, Write};

/// Why a taken element is returned.
const NOT_RECEIVED: &str = "it was taken, and whoever was to get it was gone";

impl State {
    /// Withdraws a confirmed write, whose caller gets `error`. Returns what its caller gets, unless
    /// it has an answer already.
    pub(crate) fn withdraw(&mut self, key: &Arc<str>, id: Sequence, error: Error) -> Option<Error> {
        let is_head = |head: &Entry| head.identity.id == id;
        let is_head = self.outbox.head(key).is_some_and(is_head);
        match self.outbox.withdraw(key, id) {
            Withdrawal::Withdrawn(mut entry) => {
                self.note_done(&entry);
                if is_head {
                    // Nothing of it is tried any more, apart or not.
                    self.connection_held(self.map.shard_of(key), key);
                }
                if entry.attempt.was_in_doubt {
                    // An attempt that was barred may still arrive, and must find the record.
                    self.keep_record(key);
                }
                if !self.outbox.has(key) {
                    self.release(key);
                }
                entry.notify_waiters(&Err(error.clone()));
                Some(error)
            }
            Withdrawal::InDoubt => {
                let what = "it was sent, and no answer came in time: it was made, or never will be";
                Some(Error::of_key(ErrorKind::InDoubt, key, what))
            }
            Withdrawal::Settled => None,
        }
    }

    /// Why a confirmed write is withdrawn when its time is over.
    pub(crate) fn not_made(&self, key: &str, id: Sequence) -> Error {
        let was_refused = |entry: &Entry| entry.identity.id == id && entry.attempt.base_is_current;
        if self.link_of(key) == Link::Up && self.outbox.of(key).any(was_refused) {
            let what = "not made: others changed it before each attempt, until the time was over";
            return Error::of_key(ErrorKind::Conflict, key, what);
        }
        self.unavailable_error(key)
    }

    /// The confirmed write at the head of `key` was made.
    pub(super) fn confirm(&mut self, key: &Arc<str>, answer: Answer) {
        let Some(mut entry) = self.remove_unnoted_head(key) else {
            return;
        };
        if entry.write.take.is_none() {
            entry.notify_waiters(&Ok(answer));
            return;
        }

        let name = entry.name();
        let taken = Answer {
            taken: Some(name),
            ..answer
        };
        if entry.notify_waiters(&Ok(taken)) {
            self.handing.insert(name, (Arc::clone(key), entry));
        } else {
            self.return_taken(key, &entry, NOT_RECEIVED);
        }
    }

    /// Nobody will know what has become of the confirmed write at the head of `key`.
    pub(super) fn stays_in_doubt(&mut self, key: &Arc<str>, why: &Error) {
        let Some(mut entry) = self.remove_unnoted_head(key) else {
            return;
        };
        let what = format!("nobody knows whether it was made: {why}");
        let error = Error::of_key(ErrorKind::InDoubt, key, what);
        entry.notify_waiters(&Err(error.clone()));
        if entry.write.take.is_some() {
            self.move_taken_to_dead_letters(key, &entry, error, true);
        }
        self.note_done(&entry);
    }

    /// What was taken under this name is its caller's from now on.
    pub(crate) fn handed(&mut self, name: EntryName) {
        if let Some((_, entry)) = self.handing.remove(&name) {
            self.note_done(&entry);
        }
    }

    /// What was taken under this name was handed to nobody: it is returned.
    pub(crate) fn not_handed(&mut self, name: EntryName) {
        if let Some((key, entry)) = self.handing.remove(&name) {
            self.return_taken(&key, &entry, NOT_RECEIVED);
        }
    }

    /// What is being handed out, for the journal.
    pub(super) fn being_handed(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.handing
            .values()
            .filter(|(_, entry)| entry.journalled)
            .map(|(key, entry)| (key, entry))
    }

    /// Puts what was taken back where it came from, as a queued write; if that cannot be done, it
    /// becomes a dead letter.
    fn return_taken(&mut self, key: &Arc<str>, entry: &Entry, why: &str) {
        let Some(take) = &entry.write.take else {
            return;
        };
        let Some(back) = take.back.clone() else {
            let what = format!("{why}, and it has no place to go back to");
            let error = Error::of_key(ErrorKind::Conflict, key, what);
            return self.not_returned(key, entry, error);
        };

        let write = Write {
            mutation: Some(back),
            take: Some(Take {
                item: take.item.clone(),
                back: None,
            }),
            existed: true,
            ..Write::new(entry.write.latest, entry.write.written)
        };
        let ends = entry.journalled.then(|| Ends::Take(entry.name()));
        match self.enqueue(key, write, WritePolicy::Behind, ends) {
            Ok(_) => {
                // Whoever waits until the take is delivered waits for this.
                let id = entry.identity.id;
                self.outbox
                    .edit(key, Selector::Last, |last| last.identity.id = id);
                let (key, why) = (Arc::clone(key), why.to_owned());
                self.events
                    .push(event!(INFO, key = &*key, "{why}: it goes back"));
            }
            Err(error) => self.not_returned(key, entry, error),
        }
    }

    fn not_returned(&mut self, key: &Arc<str>, entry: &Entry, error: Error) {
        self.move_taken_to_dead_letters(key, entry, error, false);
        self.note_done(entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::commit::{Attempt, KeyState, Outcome};
    use crate::backend::shards::Shard;
    use crate::base::clock::{Moment, Monotonic};
    use crate::client::state::Request;
    use crate::value::envelope::Unsealed;

    const START: Monotonic = Duration::from_secs(1_000);

    fn send(state: &mut State) -> Vec<Attempt> {
        state.connected(Shard::FIRST, None);
        let batch = state.next_batch(Shard::FIRST, 512, 1 << 20, START);
        state.sent(&batch, 7, START);
        batch
    }

    /// A confirmed write whose answer is lost, and which the backend bars when it is asked.
    ///
    /// # Errors
    ///
    /// It was refused before it was sent.
    fn bar(state: &mut State, key: &str) -> Result<(), Error> {
        let (key, at) = (
            Arc::from(key),
            Moment {
                mono: START,
                now: 1_700_000_000_000_000_000,
            },
        );
        let request = Request::Put {
            value: Unsealed::of_text("1"),
            ttl: None,
        };
        state.connected(Shard::FIRST, None);
        let accepted = state.write(&key, request, WritePolicy::Confirmed, at)?;
        assert_eq!(send(state).len(), 1);
        let lost = Error::new(ErrorKind::Unavailable, "on purpose");
        state.disconnected(Shard::FIRST, &lost, START);
        let error = state.withdraw(&key, accepted.id, lost).unwrap();
        assert_eq!(error.kind(), ErrorKind::InDoubt);
        for attempt in send(state) {
            state.answered(
                &attempt,
                7,
                Ok(Outcome::Refused(KeyState::default())),
                START,
            );
        }
        assert_eq!(state.outbox.bytes(), 0, "it is over");
        Ok(())
    }

    #[test]
    fn what_must_stay_known_of_attempts_in_doubt_is_bounded_by_the_outbox_limit() {
        let limit = 1 << 16;
        let random = fastrand::Rng::with_seed(1);
        let mut state = State::new(limit, Duration::MAX / 4, random);
        // Of one key it is known once.
        for _ in 0..limit {
            bar(&mut state, "k").unwrap();
        }
        let refused = (0..limit).find_map(|number| bar(&mut state, &format!("k{number}")).err());
        let refused = refused.expect("there is no end to it");
        assert_eq!(refused.kind(), ErrorKind::OutboxFull, "{refused}");
    }
}
