//! Confirmed writes: withdrawn, or in doubt until the backend has said what has become of them; and
//! elements that were taken, until they are handed out.

use std::sync::Arc;

use super::{Link, State};
use crate::backend::commit::Sequence;
use crate::base::error::{Error, ErrorKind};
use crate::pending::journal::{Ends, EntryName, JournalRecord};
use crate::pending::outbox::{Answer, Entry, Take, Withdrawal, Write, WriteKind};

impl State {
    /// Withdraws a confirmed write, whose caller gets `error`. Returns what its caller is told
    /// where nobody told it yet.
    pub(crate) fn withdraw(&mut self, key: &Arc<str>, id: Sequence, error: Error) -> Option<Error> {
        match self.outbox.withdraw(key, id) {
            Withdrawal::Withdrawn(mut entry) => {
                if entry.journalled {
                    self.note(&JournalRecord::Done(entry.name()));
                }
                if entry.was_in_doubt {
                    // An attempt that was barred may yet arrive, and must find the record.
                    self.recorded.entry(Arc::clone(key)).or_default().must_stay = true;
                }
                if !self.outbox.has(key) {
                    self.release(key);
                }
                entry.tell(&Err(error.clone()));
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
        let was_refused = |entry: &Entry| entry.id == id && entry.base_is_current;
        if self.link == Link::Up && self.outbox.of(key).any(was_refused) {
            let what = "not made: others changed it before each attempt, until the time was over";
            return Error::of_key(ErrorKind::Conflict, key, what);
        }
        self.unavailable_error(key)
    }

    /// Takes in that the confirmed write at the head of `key` was made.
    pub(super) fn confirm(&mut self, key: &Arc<str>, answer: Answer) {
        let Some(mut entry) = self.take_out_unnoted(key) else {
            return;
        };
        let name = entry.name();
        if entry.take.is_none() {
            entry.tell(&Ok(answer));
            return;
        }
        if entry.tell(&Ok(Answer {
            taken: Some(name),
            ..answer
        })) {
            self.handing.insert(name, (Arc::clone(key), entry));
        } else {
            self.bring_back(
                key,
                &entry,
                "it was taken, and whoever was to get it was gone",
            );
        }
    }

    /// Nobody will know what has become of the confirmed write at the head of `key`.
    pub(super) fn stays_in_doubt(&mut self, key: &Arc<str>, why: &Error) {
        let Some(mut entry) = self.take_out_unnoted(key) else {
            return;
        };
        let error = Error::of_key(
            ErrorKind::InDoubt,
            key,
            format_args!("nobody knows whether it was made: {why}"),
        );
        entry.tell(&Err(error.clone()));
        if entry.take.is_some() {
            self.taken_to_dead_letter(key, &entry, error, true);
        }
        if entry.journalled {
            self.note(&JournalRecord::Done(entry.name()));
        }
    }

    /// What was taken under this name is its caller's from now on.
    pub(crate) fn handed(&mut self, name: EntryName) {
        if let Some((_, entry)) = self.handing.remove(&name)
            && entry.journalled
        {
            self.note(&JournalRecord::Done(name));
        }
    }

    /// What was taken under this name was handed to nobody: it goes back.
    pub(crate) fn not_handed(&mut self, name: EntryName) {
        if let Some((key, entry)) = self.handing.remove(&name) {
            self.bring_back(
                &key,
                &entry,
                "it was taken, and whoever was to get it was gone",
            );
        }
    }

    /// What is being handed out, for the journal.
    pub(super) fn being_handed(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.handing
            .values()
            .map(|(key, entry)| (key, entry))
            .filter(|(_, entry)| entry.journalled)
    }

    /// Puts what was taken where it came from, as a write that waits; where it has no place there,
    /// it becomes a dead letter.
    fn bring_back(&mut self, key: &Arc<str>, entry: &Entry, why: &str) {
        let (name, journalled) = (entry.name(), entry.journalled);
        let Some(take) = &entry.take else { return };
        let stamp = entry.latest;
        let returning = take.back.clone().map(|back| Write {
            what: WriteKind::Mutate(back),
            stamp,
            exact: None,
            is_confirmed: false,
            take: Some(Take {
                item: take.item.clone(),
                back: None,
            }),
            is_retry: false,
            expires: None,
            written: entry.written,
            fresh: false,
            existed: true,
            waiter: None,
        });
        let ends = journalled.then_some(Ends::Take(name));
        let error = match returning {
            Some(write) => match self.enqueue(key, write, true, ends) {
                Ok(_) => {
                    // Whoever waits for the take to be delivered waits for this.
                    self.outbox
                        .of_mut(key)
                        .last()
                        .into_iter()
                        .for_each(|last| last.id = entry.id);
                    return tracing::info!(key = &**key, "{why}: it goes back");
                }
                Err(error) => error,
            },
            None => Error::of_key(
                ErrorKind::Conflict,
                key,
                format_args!("{why}, and it has no place to go back to"),
            ),
        };
        self.taken_to_dead_letter(key, entry, error, false);
        if journalled {
            self.note(&JournalRecord::Done(name));
        }
    }
}
