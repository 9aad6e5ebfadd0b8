//! What the backend answered: settled, superseded, tried again on what was found.

use std::sync::Arc;

use super::State;
use crate::backend::commit::{Attempt, Expects, KeyChange, KeyState, Outcome};
use crate::backend::error::{BackendError, Recovery};
use crate::base::clock::Monotonic;
use crate::base::error::{Error, ErrorKind};
use crate::cache::{Base, Ticket};
use crate::pending::journal::JournalRecord;
use crate::pending::outbox::{Answer, Entry, Tried, Written};
use crate::pending::rebase;
use crate::value::mutation::NotMade;

impl State {
    /// Takes in the backend's answer to an attempt that was sent as the request `ticket`. Returns
    /// whether that was still under way: an answer over a connection that was given up says nothing
    /// any more.
    pub(crate) fn answered(
        &mut self,
        attempt: &Attempt,
        ticket: Ticket,
        answer: Result<Outcome, BackendError>,
    ) -> bool {
        let key = &attempt.key;
        let under_way = |entry: &&mut Entry| {
            entry.number() == attempt.sequence && entry.in_flight == Some(ticket)
        };
        let Some(entry) = self.outbox.head(key).filter(under_way) else {
            return false;
        };
        entry.acknowledged();
        let (expires, first_tried, is_plain) =
            (entry.expires, entry.first_tried, entry.mutation.is_none());
        let is_confirmed = entry.is_confirmed;
        self.note_record(
            attempt,
            first_tried.filter(|_| matches!(answer, Ok(Outcome::Applied { .. }))),
        );
        match answer {
            Ok(Outcome::Applied { existed, contended }) => {
                self.cache.answered(
                    key,
                    match &attempt.change {
                        KeyChange::Put { envelope, .. } => {
                            Base::own(envelope.clone(), ticket, expires)
                        }
                        KeyChange::Delete => Base::new(None, ticket, expires),
                    },
                );
                let answer = Answer {
                    contended,
                    ..Answer::new(Written::Stored, existed)
                };
                if is_confirmed {
                    self.confirm(key, answer);
                } else {
                    self.settle(key, answer);
                }
            }
            Ok(Outcome::AlreadyApplied(found)) => {
                let newer = is_plain && found.stamp() > attempt.stamp;
                self.note_found(key, ticket, &found);
                self.settle_as(key, newer);
            }
            Ok(Outcome::RecordExpired(found)) => {
                self.note_found(key, ticket, &found);
                let reason = "its answer was lost, and it was tried so long ago that nobody knows whether it was made";
                let reason = Error::of_key(ErrorKind::Conflict, key, reason);
                self.to_dead_letter(key, reason, true);
            }
            Ok(Outcome::Refused(found)) => self.refused(attempt, ticket, &found),
            Err(error) => match error.recovery() {
                Recovery::GiveUp => {
                    let reason = Error::of_key(error.error_kind(), key, &error);
                    tracing::warn!(key = &**key, error = %error, "the server refused a write for good");
                    self.last_error = Some(reason.clone());
                    // One that is asked for was sent before.
                    self.to_dead_letter(key, reason, attempt.retry.is_some());
                }
                Recovery::RetryNow
                | Recovery::Pause
                | Recovery::PauseThenReconnect
                | Recovery::Reconnect => {
                    self.outbox.requeue(Arc::clone(key));
                }
            },
        }
        true
    }

    /// Takes in that the head of the key met something as new or newer, or something else than it
    /// expected.
    fn refused(&mut self, attempt: &Attempt, ticket: Ticket, found: &KeyState) {
        let key = &attempt.key;
        self.note_found(key, ticket, found);
        let Some(entry) = self.outbox.head(key) else {
            return;
        };
        entry.base_is_current = true;
        if attempt.retry.is_some() {
            entry.retry_refused();
        }
        if entry.is_confirmed && !entry.is_awaited() {
            // It was not made, and never will be.
            self.take_out(key);
            return;
        }
        let is_beaten = found.stamp() >= attempt.stamp;
        let fresh = entry.fresh;
        if attempt.expects == Expects::Anything {
            let is_own = is_own(attempt, found);
            if is_own || !(fresh || entry.mutation.is_some()) {
                let is_superseded = !is_own && !entry.is_confirmed;
                self.settle_as(key, is_superseded);
                if is_superseded {
                    self.share_fate(key, 0, NotMade::new(true, None), None);
                }
                return;
            }
            if !fresh {
                // The assignment is superseded; what was changed since goes on without it.
                self.superseded += 1;
                tracing::info!(key = &**key, "a queued write was superseded by a newer one");
                self.outbox.change(key, Entry::drop_assignment);
                self.share_fate(key, 0, NotMade::new(true, None), None);
            }
        } else if entry.assignment.is_none()
            && found.stored.is_none()
            && is_beaten
            && !fresh
            && !rebase::is_done_where_nothing_is(entry)
        {
            let reason = "the key was deleted after the change was made";
            return self.to_dead_letter(
                key,
                Error::of_key(ErrorKind::Conflict, key, reason),
                false,
            );
        }
        let competes = entry_competes(self.outbox.head(key), found);
        if is_beaten && fresh && competes {
            let last = self
                .outbox
                .restamp_above(key, found.stamp(), &mut self.random);
            self.cache.seen(key, last);
        }
        self.outbox.requeue(Arc::clone(key));
        self.cache.touch(key);
        self.journal_again(key);
    }

    /// Takes in that the backend has the attempt on record since `applied` at the least, or that
    /// nobody knows what it has.
    fn note_record(&mut self, attempt: &Attempt, applied: Option<Monotonic>) {
        let is_own = attempt.writer == self.writer();
        if let Some(first_tried) = applied.filter(|_| is_own) {
            let recorded = self.recorded.entry(Arc::clone(&attempt.key)).or_default();
            let before = recorded.number.filter(|_| attempt.recorded.is_some());
            recorded.number = Some((attempt.sequence, before.map_or(first_tried, |(_, at)| at)));
        } else if let Some(recorded) = self.recorded.get_mut(&attempt.key).filter(|_| is_own) {
            recorded.number = None;
        }
    }

    fn note_found(&mut self, key: &str, ticket: Ticket, found: &KeyState) {
        self.cache.seen(key, found.stamp());
        self.cache
            .answered(key, Base::new(found.stored.clone(), ticket, None));
    }

    fn settle_as(&mut self, key: &Arc<str>, superseded: bool) {
        let Some(entry) = self.outbox.head(key) else {
            return;
        };
        let (is_confirmed, existed) = (entry.is_confirmed, entry.existed);
        if is_confirmed {
            // It was made, whatever was made on top of it since.
            return self.confirm(key, Answer::new(Written::Stored, existed));
        }
        let written = if superseded {
            Written::Superseded
        } else {
            Written::Stored
        };
        if superseded {
            self.superseded += 1;
            tracing::info!(key = &**key, "a queued write was superseded by a newer one");
        }
        self.settle(key, Answer::new(written, existed));
    }

    pub(super) fn settle(&mut self, key: &Arc<str>, answer: Answer) {
        if let Some(mut entry) = self.take_out(key) {
            if !entry.superseded.is_empty() {
                self.superseded += entry.superseded.len() as u64;
                self.share_fate(
                    key,
                    0,
                    NotMade::calls(entry.mutation.as_ref(), &entry.superseded),
                    None,
                );
            }
            entry.tell(&Ok(answer));
        }
    }

    /// Takes the head of `key` out of the outbox: it was answered for, or withdrawn.
    pub(super) fn take_out(&mut self, key: &Arc<str>) -> Option<Entry> {
        let entry = self.take_out_unnoted(key)?;
        if entry.journalled {
            self.note(&JournalRecord::Done(entry.name()));
        }
        Some(entry)
    }

    /// The same while it stays in the journal.
    pub(super) fn take_out_unnoted(&mut self, key: &Arc<str>) -> Option<Entry> {
        let entry = self.outbox.remove(key)?;
        if entry.was_in_doubt || entry.tried == Tried::Sent {
            self.recorded.entry(Arc::clone(key)).or_default().must_stay |= entry.was_in_doubt;
        }
        self.cache.touch(key);
        if !self.outbox.has(key) {
            self.release(key);
        }
        Some(entry)
    }

    pub(super) fn drop_expired(&mut self, key: &Arc<str>) {
        if self
            .outbox
            .head(key)
            .is_some_and(|entry| entry.is_confirmed)
        {
            let what = "not made: its time to live was over before it could be";
            return self.to_dead_letter(
                key,
                Error::of_key(ErrorKind::Unavailable, key, what),
                false,
            );
        }
        self.expired += 1;
        tracing::info!(
            key = &**key,
            "a queued write was dropped, since its time to live was over"
        );
        self.settle(key, Answer::new(Written::Superseded, false));
    }
}

/// Whether the stamp decides: of a change to what is there it is chosen above that anyway.
fn entry_competes(entry: Option<&mut Entry>, found: &KeyState) -> bool {
    found.stored.is_none() || entry.is_some_and(|entry| entry.assignment.is_some())
}

/// Whether what was found is what this attempt wants to be there: it was stored by an earlier try.
fn is_own(attempt: &Attempt, found: &KeyState) -> bool {
    found.stamp() == attempt.stamp
        && match &attempt.change {
            KeyChange::Put { envelope, .. } => found.stored.as_ref() == Some(envelope),
            KeyChange::Delete => found.stored.is_none(),
        }
}
