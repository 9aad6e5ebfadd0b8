//! What the backend answered: settled, superseded, or tried again on what is stored.

use std::sync::Arc;

use super::State;
use crate::backend::commit::{Attempt, Expects, KeyChange, KeyState, Outcome, Writer};
use crate::backend::error::{BackendError, Recovery};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::{Error, ErrorKind};
use crate::base::events::event;
use crate::cache::{Base, Ticket};
use crate::pending::journal::JournalRecord;
use crate::pending::outbox::{Answer, Entry, Selector, Tried, Write, Written};
use crate::pending::rebase;
use crate::value::document::Document;
use crate::value::mutation::NotMade;

impl State {
    /// Handles the backend's answer to an attempt that was sent as the request `ticket`. Returns
    /// whether the attempt was still under way: an answer over a connection that was given up says
    /// nothing any more.
    pub(crate) fn answered(
        &mut self,
        attempt: &Attempt,
        ticket: Ticket,
        answer: Result<Outcome, BackendError>,
        mono: Monotonic,
    ) -> bool {
        let key = &attempt.key;
        let is_it = |head: &&Entry| {
            head.identity.number() == attempt.sequence && head.attempt.in_flight == Some(ticket)
        };
        let head = self.outbox.head(key).filter(is_it);
        let Some(sent_to) = head.and_then(|head| head.attempt.drawn_to) else {
            return false;
        };
        self.outbox.edit(key, Selector::Head, Entry::acknowledged);
        self.connection_held(sent_to, key);

        let is_applied = answer.as_ref().is_ok_and(Outcome::is_made_now);
        self.note_record(attempt, is_applied);
        match answer {
            Ok(Outcome::Applied { existed, contended }) => {
                if let Expects::Stamped { stamp: found, .. } = attempt.expects {
                    self.head_made_of(key, found, attempt.stamp);
                }
                let stored = stored_by(&attempt.change);
                self.applied(key, ticket, stored, (existed, contended));
            }
            Ok(Outcome::AddedBehind {
                before,
                made,
                contended,
            }) => {
                self.head_made_of(key, before, made.stamp());
                self.applied(key, ticket, Some(made), (true, contended));
            }
            Ok(Outcome::Added {
                before,
                stamp,
                sum,
                contended,
            }) => self.added(attempt, ticket, (before, stamp, sum), contended),
            Ok(Outcome::AlreadyApplied(found)) => self.applied_before(attempt, ticket, &found),
            Ok(Outcome::RecordExpired(found)) => {
                self.note_found(key, ticket, &found);
                let reason = "its answer was lost, and it was tried so long ago that nobody knows \
                    whether it was made";
                let reason = Error::of_key(ErrorKind::Conflict, key, reason);
                self.move_to_dead_letters(key, reason, true);
            }
            Ok(Outcome::Refused(found)) => self.refused(attempt, ticket, &found, mono),
            Err(error) => match error.recovery() {
                Recovery::GiveUp if attempt.change.is_of_part() => {
                    self.part_refused(sent_to, key, &error);
                    self.outbox.requeue(Arc::clone(key));
                }
                Recovery::GiveUp => {
                    let reason = Error::of_key(error.error_kind(), key, &error);
                    let of_key = Arc::clone(key);
                    self.events.push(event!(
                        WARN,
                        key = &*of_key,
                        error = %error,
                        "the server refused a write for good"
                    ));
                    self.failed(sent_to, reason.clone());
                    // One that is asked for was sent before.
                    self.move_to_dead_letters(key, reason, attempt.retry.is_some());
                }
                Recovery::ReadWhole => {
                    // It is refused again, and then brings all that is there.
                    self.send_as_whole(key);
                    self.outbox.requeue(Arc::clone(key));
                }
                Recovery::Redirect => {
                    self.send_elsewhere(key, &error, mono);
                    self.outbox.requeue(Arc::clone(key));
                }
                Recovery::ParkKey => {
                    let waits = Error::of_key(error.error_kind(), key, &error);
                    self.failed(sent_to, waits);
                    self.wait_for_slot(key, mono);
                    self.outbox.requeue(Arc::clone(key));
                }
                Recovery::Confirm => {
                    self.outbox
                        .edit(key, Selector::Head, Entry::is_to_be_confirmed);
                    // Also if the pause of its shard says nothing of this key.
                    self.journal_rest_of(key);
                    self.outbox.interrupt(key);
                    self.outbox.requeue(Arc::clone(key));
                }
                Recovery::RetryNow
                | Recovery::ReadApart
                | Recovery::ReadUntracked
                | Recovery::Pause
                | Recovery::PauseThenReconnect
                | Recovery::Reconnect
                | Recovery::ReconnectNow => {
                    self.outbox.requeue(Arc::clone(key));
                }
            },
        }
        self.outbox.note_strayed(key, sent_to);
        true
    }

    /// The head of the key was made, and this is stored. `existed`: whether the key was there.
    fn applied(
        &mut self,
        key: &Arc<str>,
        ticket: Ticket,
        stored: Option<Document>,
        (existed, contended): (bool, Option<Writer>),
    ) {
        let Some(head) = self.outbox.head(key) else {
            return;
        };
        let (expires, is_confirmed) = (head.write.expires, head.write.is_confirmed);
        self.cache.answered(key, Base::of(stored, ticket, expires));
        self.drop_answered(key);

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

    /// The head of the key was made by an earlier attempt, which was in doubt.
    fn applied_before(&mut self, attempt: &Attempt, ticket: Ticket, found: &KeyState) {
        let key = &attempt.key;
        let head = self.outbox.head(key);
        let is_plain = head.is_some_and(|head| head.write.mutation.is_none());
        self.note_found(key, ticket, found);
        if !is_plain {
            // Nobody knows any more of what it was made, but how far its stamp may be above that.
            let made = found.stamp();
            self.head_made_of(key, made.below(Stamp::STEP), made);
        }
        self.settle_as(key, is_plain && found.stamp() > attempt.stamp);
    }

    /// The head of `key` was made of what had the stamp `found`, and its stamp is a random step
    /// above that: later writes of this process are newer all the same.
    pub(super) fn head_made_of(&mut self, key: &Arc<str>, found: Stamp, made: Stamp) {
        self.cache.seen(key, made);
        let last = self
            .outbox
            .restamp_passed(key, (found, made), &mut self.random);
        if let Some(last) = last {
            self.cache.seen(key, last);
            self.journal_again(key);
        }
    }

    /// The head of the key met something as new or newer, or something else than it expected.
    fn refused(&mut self, attempt: &Attempt, ticket: Ticket, found: &KeyState, mono: Monotonic) {
        let key = &attempt.key;
        self.note_found(key, ticket, found);
        let is_blind = attempt.change.is_blind();
        self.outbox.edit(key, Selector::Head, |head| {
            head.attempt.base_is_current = true;
            head.attempt.refusals += 1;
            head.attempt.is_to_be_based = is_blind;
            if attempt.retry.is_some() {
                head.retry_refused();
            }
        });
        let Some(head) = self.outbox.head(key) else {
            return;
        };
        if head.write.is_confirmed && !head.is_awaited() {
            // It was not made, and never will be.
            self.remove_head(key);
            return;
        }
        if head.identity.is_used_up() {
            let reason = "its answer was lost again and again, until no number was left to try it \
                under";
            let reason = Error::of_key(ErrorKind::Conflict, key, reason);
            return self.move_to_dead_letters(key, reason, false);
        }

        let is_beaten = found.stamp() >= attempt.stamp;
        let fresh = head.write.fresh;
        if attempt.expects == Expects::Anything && !is_blind {
            let is_own = is_own(attempt, found);
            if is_own || !(fresh || head.write.mutation.is_some()) {
                return self.settle_assignment(key, is_own);
            }
            if !fresh {
                self.supersede_assignment(key);
            }
        } else if is_beaten && !fresh && is_of_deleted(&head.write, found) {
            let reason = "the key was deleted after the change was made";
            let reason = Error::of_key(ErrorKind::Conflict, key, reason);
            return self.move_to_dead_letters(key, reason, false);
        }

        if is_beaten && fresh && self.is_decided_by_stamp(key, found) {
            let last = self
                .outbox
                .restamp_above(key, found.stamp(), &mut self.random);
            self.cache.seen(key, last);
        }
        if attempt.retry.is_none() && !is_blind && attempt.expects != Expects::Nothing {
            self.contention.refused(key);
            self.note_contended(key, mono);
        }
        self.outbox.requeue(Arc::clone(key));
        self.cache.touch(key);
        self.journal_again(key);
    }

    /// The head of the key, an assignment, is what is stored, or something newer is.
    fn settle_assignment(&mut self, key: &Arc<str>, is_own: bool) {
        let is_confirmed = |head: &Entry| head.write.is_confirmed;
        let is_superseded = !is_own && !self.outbox.head(key).is_some_and(is_confirmed);
        self.settle_as(key, is_superseded);
        if is_superseded {
            self.settle_dependent(key, 0, NotMade::new(true, None), None);
        }
    }

    /// The assignment is superseded; the changes that were made to it since continue without it.
    fn supersede_assignment(&mut self, key: &Arc<str>) {
        self.count_superseded(key);
        self.outbox.edit(key, Selector::Head, |head| {
            head.write.drop_assignment();
        });
        self.settle_dependent(key, 0, NotMade::new(true, None), None);
    }

    /// Whether the stamp of the head decides. That of a change to what is stored is chosen above it
    /// anyway.
    fn is_decided_by_stamp(&self, key: &str, found: &KeyState) -> bool {
        let is_assigned = |head: &Entry| head.write.assignment.is_some();
        found.stored.is_none() || self.outbox.head(key).is_some_and(is_assigned)
    }

    /// Notes which number the backend has on record: that of an attempt which it has applied, or
    /// one that nobody knows.
    fn note_record(&mut self, attempt: &Attempt, is_applied: bool) {
        if attempt.writer != self.writer() {
            return;
        }
        let key = &attempt.key;
        let head = self.outbox.head(key).filter(|_| is_applied);
        // Not later than when the record was stored.
        let first_tried: Option<Monotonic> = head.and_then(|head| head.attempt.first_tried);
        if let Some(first_tried) = first_tried {
            let recorded = self.recorded.entry(Arc::clone(key)).or_default();
            let before = recorded.number.filter(|_| attempt.recorded.is_some());
            recorded.number = Some((attempt.sequence, before.map_or(first_tried, |(_, at)| at)));
        } else if let Some(recorded) = self.recorded.get_mut(key) {
            recorded.number = None;
        }
    }

    fn note_found(&mut self, key: &str, ticket: Ticket, found: &KeyState) {
        self.cache.seen(key, found.stamp());
        self.cache
            .answered(key, Base::of(found.stored.clone(), ticket, None));
        self.drop_answered(key);
    }

    fn settle_as(&mut self, key: &Arc<str>, superseded: bool) {
        let Some(head) = self.outbox.head(key) else {
            return;
        };
        let existed = head.write.existed;
        if head.write.is_confirmed {
            // It was made, whatever was made on top of it since.
            return self.confirm(key, Answer::new(Written::Stored, existed));
        }
        let written = if superseded {
            self.count_superseded(key);
            Written::Superseded
        } else {
            Written::Stored
        };
        self.settle(key, Answer::new(written, existed));
    }

    fn count_superseded(&mut self, key: &str) {
        self.superseded += 1;
        let key = key.to_owned();
        self.events.push(event!(
            INFO,
            key,
            "a queued write was superseded by a newer one"
        ));
    }

    /// Removes the head of `key`, and answers those who wait for it.
    pub(super) fn settle(&mut self, key: &Arc<str>, answer: Answer) {
        let Some(mut entry) = self.remove_unnoted_head(key) else {
            return;
        };
        self.note_done(&entry);
        let superseded = &entry.attempt.superseded;
        if !superseded.is_empty() {
            self.superseded += superseded.len() as u64;
            let gone = NotMade::calls(entry.write.mutation.as_ref(), superseded);
            self.settle_dependent(key, 0, gone, None);
        }
        entry.notify_waiters(&Ok(answer));
    }

    /// Removes the head of `key` from the outbox and the journal: it was answered, or withdrawn.
    pub(super) fn remove_head(&mut self, key: &Arc<str>) -> Option<Entry> {
        let entry = self.remove_unnoted_head(key)?;
        self.note_done(&entry);
        Some(entry)
    }

    /// The same while it stays in the journal.
    pub(super) fn remove_unnoted_head(&mut self, key: &Arc<str>) -> Option<Entry> {
        let entry = self.outbox.remove(key)?;
        let was_in_doubt = entry.attempt.was_in_doubt;
        if was_in_doubt || entry.attempt.tried == Tried::Sent {
            self.recorded.entry(Arc::clone(key)).or_default();
            if was_in_doubt {
                self.keep_record(key);
            }
        }
        self.cache.touch(key);
        if !self.outbox.has(key) {
            self.release(key);
        }
        Some(entry)
    }

    /// Nothing of the entry is needed in the journal any more.
    pub(super) fn note_done(&mut self, entry: &Entry) {
        if entry.journalled {
            self.note(&JournalRecord::Done(entry.name()));
        }
    }

    /// The time to live of the head of `key` ended before it could be sent.
    pub(super) fn drop_expired(&mut self, key: &Arc<str>) {
        let is_confirmed = |head: &Entry| head.write.is_confirmed;
        if self.outbox.head(key).is_some_and(is_confirmed) {
            let what = "not made: its time to live was over before it could be";
            let reason = Error::of_key(ErrorKind::Unavailable, key, what);
            return self.move_to_dead_letters(key, reason, false);
        }
        self.expired += 1;
        let of_key = Arc::clone(key);
        self.events.push(event!(
            INFO,
            key = &*of_key,
            "a queued write was dropped, since its time to live was over"
        ));
        self.settle(key, Answer::new(Written::Superseded, false));
    }
}

/// What is stored once a change that needs a base was made.
fn stored_by(change: &KeyChange) -> Option<Document> {
    match change {
        KeyChange::Put { envelope, .. } => Some(Document::of_sealed(envelope.clone())),
        KeyChange::Edit { made, .. } => Some(made.clone()),
        KeyChange::Delete | KeyChange::Blind { .. } => None,
    }
}

/// Whether a change was made to a value that is not there any more.
fn is_of_deleted(write: &Write, found: &KeyState) -> bool {
    write.assignment.is_none() && found.stored.is_none() && !rebase::is_done_if_unset(write)
}

/// Whether what is stored is what this attempt stores: an earlier try has stored it.
fn is_own(attempt: &Attempt, found: &KeyState) -> bool {
    found.stamp() == attempt.stamp
        && match &attempt.change {
            KeyChange::Put { envelope, .. } => found.stored == Some(Document::of(envelope.clone())),
            KeyChange::Delete => found.stored.is_none(),
            KeyChange::Edit { .. } | KeyChange::Blind { .. } => false,
        }
}
