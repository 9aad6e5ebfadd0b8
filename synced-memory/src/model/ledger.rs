//! What the rules say of one process: its writes, one line each, and what becomes of them.
//!
//! It is told what is asked of the state and what is answered, and says what must have come of it.

use bytes::Bytes;
use tokio::sync::oneshot::Receiver;

use super::server::{Held, KEY, TOMBSTONE_TTL, counted};
use super::{Check, hold};
use crate::backend::commit::{Attempt, KeyChange, Outcome, Sequence, TimeToLive};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::base::clock::{Moment, Monotonic};
use crate::base::error::{Error, ErrorKind, Result as Told};
use crate::cache::Ticket;
use crate::client::state::{Accepted, Link, State};
use crate::pending::outbox::{Answer, NUMBERS, Written};

/// Where a write ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Stored,
    /// What it writes was there before: two deletes may draw the same stamp.
    Found,
    Superseded,
    Expired,
    SetAside,
    Withdrawn,
}

/// A write, or several that were merged before they were sent.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // facts that have nothing to do with each other
struct Line {
    sequence: Sequence,
    /// The value of the newest write in it; `None` is a delete.
    value: Option<u64>,
    stamp: u64,
    expires: Option<Monotonic>,
    /// It took the place of a delete, or of a value that was over: nothing of before is to stay.
    replaces_nothing: bool,
    /// It was over, and removes the key instead.
    ended: bool,
    written: Monotonic,
    /// The server was there when it was written, and has not been away since.
    online: bool,
    sent: bool,
    /// An attempt was under way when the connection was lost.
    in_doubt: bool,
    merged: bool,
    waiting: Vec<Receiver<Told<Answer>>>,
    fate: Option<Fate>,
}

impl Line {
    fn stored(&self) -> Option<Bytes> {
        let stamp = self.stamp;
        self.value
            .map(|value| format!(r#"{{"value": {value},"last_modified": {stamp}}}"#).into())
    }

    fn is_over(&self, mono: Monotonic) -> bool {
        self.expires.is_some_and(|expires| expires <= mono)
    }

    /// Its time to live is over before it was sent: it is dropped, or removes the key.
    fn end(&mut self) -> Check {
        if self.replaces_nothing {
            (self.value, self.expires, self.ended) = (None, None, true);
            return Ok(());
        }
        self.fate = Some(Fate::Expired);
        self.tells(Ok(Written::Superseded), None)
    }

    fn time_to_live(&self, mono: Monotonic) -> TimeToLive {
        match self.expires {
            Some(expires) => TimeToLive::For(expires.saturating_sub(mono)),
            None if self.replaces_nothing => TimeToLive::Never,
            None => TimeToLive::Keep,
        }
    }

    /// Everybody who waits must just have been told this.
    fn tells(&mut self, expected: Result<Written, ErrorKind>, existed: Option<bool>) -> Check {
        for mut waiting in self.waiting.drain(..) {
            let answer = waiting.try_recv();
            let told = answer.as_ref().map(|told| {
                told.as_ref()
                    .map(|answer| answer.written)
                    .map_err(Error::kind)
            });
            hold!(
                told == Ok(expected),
                "{} was told {answer:?} instead of {expected:?}",
                self.sequence
            );
            if let (Some(existed), Ok(Ok(answer))) = (existed.filter(|_| !self.merged), answer) {
                hold!(
                    answer.existed == existed,
                    "{} was told existed: {}",
                    self.sequence,
                    answer.existed
                );
            }
        }
        Ok(())
    }
}

/// What the server answered last.
#[derive(Debug, Default)]
struct Slot {
    ticket: Ticket,
    held: Option<Held>,
    /// Where it is this process's own write: when it is over.
    over: Option<Monotonic>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    lines: Vec<Line>,
    link: Link,
    slot: Slot,
    /// The last stamp that was issued or seen.
    seen: u64,
    /// The last stamp that was sent.
    sent: u64,
    under_way: Option<(Sequence, Ticket)>,
    /// What was shown last, its version, and when it is over.
    shown: (Option<Bytes>, u64, Option<Monotonic>),
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            lines: Vec::new(),
            link: Link::Down,
            slot: Slot::default(),
            seen: 0,
            sent: 0,
            under_way: None,
            shown: (None, 0, None),
        }
    }

    fn pending(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.lines.iter().filter(|line| line.fate.is_none())
    }

    fn pending_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Line> {
        self.lines.iter_mut().filter(|line| line.fate.is_none())
    }

    /// The writes that somebody waits for.
    pub(super) fn awaited(&self) -> impl Iterator<Item = Sequence> {
        self.pending()
            .filter(|line| !line.waiting.is_empty())
            .map(|line| line.sequence)
    }

    pub(super) fn last_stamp(&self) -> Option<u64> {
        self.pending().next_back().map(|line| line.stamp)
    }

    pub(super) fn fates(&self) -> impl Iterator<Item = (Sequence, Option<Fate>)> {
        self.lines.iter().map(|line| (line.sequence, line.fate))
    }

    /// When the time to live of a write is over.
    pub(super) fn over(&self, sequence: Sequence) -> Option<Monotonic> {
        self.lines
            .iter()
            .find(|line| line.sequence == sequence)?
            .expires
    }

    /// A write was accepted. `existed`: what the view showed before.
    pub(super) fn accepted(
        &mut self,
        state: &State,
        (value, ttl): (Option<u64>, Option<Monotonic>),
        at: Moment,
        existed: bool,
        accepted: Accepted,
    ) -> Check {
        let Accepted {
            sequence,
            mut answer,
        } = accepted;
        let stamp = state
            .outbox
            .last(KEY)
            .map_or(0, |entry| entry.write.stamp.get());
        self.check_issued(stamp, at.now)?;
        self.seen = stamp;
        let online = self.link == Link::Up;
        let mut waiting = Vec::new();
        if online {
            waiting.push(answer);
        } else {
            let told = answer.try_recv().ok().and_then(Result::ok);
            let existed = existed && value.is_none();
            hold!(
                told == Some(Answer::new(Written::Queued, existed)),
                "rule 9: queued, but told {told:?}"
            );
        }
        let count = self.lines.len() as u64;
        let mut expires = ttl.map(|ttl| at.mono + ttl);
        if let Some(last) = self.pending_mut().next_back()
            && !last.sent
            && last.waiting.is_empty() != online
        {
            hold!(
                sequence == last.sequence,
                "rule 10: {sequence} was not merged into {}",
                last.sequence
            );
            if value.is_some() && expires.is_none() {
                expires = last.expires.filter(|_| !last.is_over(at.mono));
            }
            last.replaces_nothing |= last.value.is_none() || last.is_over(at.mono);
            last.waiting.extend(waiting);
            (last.value, last.stamp, last.expires, last.written) = (value, stamp, expires, at.mono);
            (last.online, last.merged) = (online, true);
            return Ok(());
        }
        hold!(
            sequence == (count + 1) * NUMBERS,
            "rule 3: {sequence} was merged into what is frozen"
        );
        self.lines.push(Line {
            sequence,
            value,
            stamp,
            expires,
            replaces_nothing: false,
            ended: false,
            written: at.mono,
            online,
            sent: false,
            in_doubt: false,
            merged: false,
            waiting,
            fate: None,
        });
        Ok(())
    }

    /// Rule 8: microseconds of `now` with three random digits, or just above what is known.
    fn check_issued(&self, stamp: u64, now: u64) -> Check {
        let fresh = now / 1_000 * 1_000;
        let seen = counted(self.seen);
        hold!(stamp > seen, "rule 8: {stamp} does not rise above {seen}");
        let is_fresh = (fresh..fresh + 1_000).contains(&stamp);
        let is_above = seen >= fresh && stamp < seen + 1_000;
        hold!(
            is_fresh || is_above,
            "rule 8: {stamp} was issued at {fresh}, with {seen} seen"
        );
        Ok(())
    }

    /// A batch was drawn: it must hold the first write that still applies, and nothing else.
    /// Returns what was withdrawn with an error.
    pub(super) fn drawn(&mut self, batch: &[Attempt], mono: Monotonic) -> Check<Vec<Sequence>> {
        let mut withdrawn = Vec::new();
        for line in self.lines.iter_mut().filter(|line| line.fate.is_none()) {
            let over = line.is_over(mono);
            if over && !line.replaces_nothing {
                line.end()?;
            } else if line.written + TOMBSTONE_TTL <= mono {
                withdrawn.extend(give_up(line, ErrorKind::Conflict)?);
            } else {
                if over {
                    line.end()?;
                }
                break;
            }
        }
        let sent = self.sent;
        let Some(line) = self.pending_mut().next() else {
            hold!(
                batch.is_empty(),
                "nothing is pending, but it sends {batch:?}"
            );
            return Ok(withdrawn);
        };
        let [attempt] = batch else {
            return Err(format!(
                "rule 2: {} is not sent, but {batch:?}",
                line.sequence
            ));
        };
        let change = match line.stored() {
            Some(envelope) => KeyChange::Put {
                envelope,
                ttl: line.time_to_live(mono),
            },
            None => KeyChange::Delete,
        };
        let same = attempt.sequence == line.sequence
            && attempt.stamp.get() == line.stamp
            && attempt.change == change;
        hold!(same, "rule 3: it sends {attempt:?} instead of {line:?}");
        hold!(
            attempt.retry.is_some() == line.in_doubt,
            "rule 4: whether {attempt:?} is a retry"
        );
        hold!(
            line.sent || line.stamp > counted(sent),
            "rule 8: {} is sent after {sent}",
            line.stamp
        );
        line.sent = true;
        self.sent = counted(sent).max(attempt.stamp.get());
        Ok(withdrawn)
    }

    /// A caller asked for the first write, to send it itself: it gets the one that somebody waits
    /// for. Returns what was withdrawn with an error.
    pub(super) fn drawn_by_its_caller(
        &mut self,
        batch: &[Attempt],
        mono: Monotonic,
    ) -> Check<Option<Sequence>> {
        let is_under_way = self.under_way.is_some();
        let line = self
            .pending_mut()
            .next()
            .filter(|line| !is_under_way && !line.waiting.is_empty());
        match line {
            Some(line) if line.is_over(mono) && !line.replaces_nothing => line.end().map(|()| None),
            Some(line) if line.written + TOMBSTONE_TTL <= mono => {
                give_up(line, ErrorKind::Conflict)
            }
            Some(_) => self.drawn(batch, mono).map(|_| None),
            None => {
                hold!(batch.is_empty(), "rule 3: it sends {batch:?} out of turn");
                Ok(None)
            }
        }
    }

    pub(super) fn sent(&mut self, sequence: Sequence, ticket: Ticket) {
        self.under_way = Some((sequence, ticket));
    }

    /// An attempt was answered. `held` is what was there then. Returns what was withdrawn with an
    /// error.
    pub(super) fn answered(
        &mut self,
        state: &State,
        (attempt, ticket): (&Attempt, Ticket),
        answer: &Result<Outcome, BackendError>,
        held: Option<Held>,
    ) -> Check<Option<Sequence>> {
        if self.under_way != Some((attempt.sequence, ticket)) {
            return Ok(None);
        }
        self.under_way = None;
        let mut pending: Vec<&mut Line> = self
            .lines
            .iter_mut()
            .filter(|line| line.fate.is_none())
            .collect();
        let line = &mut *pending[0];
        let mut slot = Slot {
            ticket,
            held,
            over: None,
        };
        let fate = match answer {
            Ok(Outcome::Applied { existed, .. }) => {
                line.tells(Ok(Written::Stored), Some(*existed))?;
                slot.over = line.expires;
                Fate::Stored
            }
            Ok(Outcome::AlreadyApplied(found)) if found.stamp().get() <= line.stamp => Fate::Stored,
            Ok(Outcome::Refused(found))
                if found.stamp().get() == line.stamp && found.stored == line.stored() =>
            {
                line.tells(Ok(Written::Stored), None)?;
                Fate::Found
            }
            Ok(Outcome::Refused(found)) if line.online => {
                let found = found.stamp().get();
                let mut above = found;
                for (line, (_, entry)) in pending.into_iter().zip(state.outbox.entries()) {
                    let stamp = entry.write.stamp.get();
                    hold!(
                        stamp > above,
                        "rules 4 and 8: {} is stamped {stamp} over {above}",
                        line.sequence
                    );
                    hold!(
                        stamp == line.stamp || stamp < above + 1_000,
                        "rule 4: {stamp} is far above {above}"
                    );
                    (line.stamp, above) = (stamp, stamp);
                }
                self.seen = self.seen.max(found).max(above);
                self.answered_with(slot);
                return Ok(None);
            }
            Ok(Outcome::AlreadyApplied(_) | Outcome::Refused(_)) => Fate::Superseded,
            Ok(Outcome::RecordExpired(_)) => {
                return Err(format!("rule 6: {} was forgotten", line.sequence));
            }
            Err(error) if error.kind == BackendErrorKind::Rejected => {
                return give_up(line, ErrorKind::Rejected);
            }
            Err(_) => return Ok(None),
        };
        hold!(
            line.waiting.is_empty(),
            "rule 4: {} met something newer online, and was not stamped anew",
            line.sequence
        );
        line.fate = Some(fate);
        if let Ok(Outcome::AlreadyApplied(found) | Outcome::Refused(found)) = answer {
            self.seen = self.seen.max(found.stamp().get());
        }
        self.answered_with(slot);
        Ok(None)
    }

    /// A read was answered.
    pub(super) fn read(&mut self, ticket: Ticket, held: Option<Held>) {
        self.seen = self.seen.max(held.as_ref().map_or(0, |held| held.stamp));
        self.answered_with(Slot {
            ticket,
            held,
            over: None,
        });
    }

    /// The slot follows the server, in the order of the requests.
    fn answered_with(&mut self, slot: Slot) {
        if slot.ticket >= self.slot.ticket {
            self.slot = slot;
        }
    }

    pub(super) fn connected(&mut self, shift: Option<i64>) {
        self.link = Link::Up;
        let by = shift.unwrap_or(0);
        self.seen = self.seen.saturating_add_signed(by);
        for line in self.pending_mut() {
            line.stamp = line.stamp.saturating_add_signed(by);
        }
        self.shown.0 = None; // the stamps within are others now, but the values are the same
    }

    /// The server is away, or takes no writes: everybody is told that the write is queued.
    pub(super) fn interrupted(&mut self, link: Link) -> Check {
        self.link = link;
        let under_way = self.under_way.take().map(|(sequence, _)| sequence);
        for line in self.pending_mut() {
            line.online = false;
            line.in_doubt |= under_way == Some(line.sequence);
            line.tells(Ok(Written::Queued), None)?;
        }
        Ok(())
    }

    /// The server takes writes again.
    pub(super) fn thawed(&mut self) {
        self.link = Link::Up;
    }

    /// Nobody waits for this write any more.
    pub(super) fn promised(&mut self, sequence: Sequence) -> Check {
        match self.pending_mut().find(|line| line.sequence == sequence) {
            Some(line) => line.tells(Ok(Written::Queued), None),
            None => Ok(()),
        }
    }

    /// The state must be what the ledger says.
    pub(super) fn audit(&mut self, state: &State, version: u64, mono: Monotonic) -> Check {
        hold!(
            state.link == self.link,
            "the link is {:?} instead of {:?}",
            state.link,
            self.link
        );
        let mut entries = state.outbox.entries();
        let mut above = None;
        for line in self.lines.iter_mut().filter(|line| line.fate.is_none()) {
            let Some((_, entry)) = entries.next() else {
                return Err(format!("rule 2: {} was lost", line.sequence));
            };
            let (sequence, stamp) = (entry.identity.sequence, entry.write.stamp.get());
            hold!(
                sequence == line.sequence,
                "rule 3: {sequence} stands in the place of {}",
                line.sequence
            );
            hold!(
                stamp == line.stamp,
                "rule 4: {sequence} was stamped {stamp} instead of {}",
                line.stamp
            );
            hold!(
                Some(stamp) > above,
                "rule 8: {sequence} is stamped {stamp}, the one before it {above:?}"
            );
            let stored = match &entry.write.assignment {
                Some(KeyChange::Put { envelope, .. }) => Some(envelope.clone()),
                Some(KeyChange::Delete) | None => None,
            };
            hold!(
                stored == line.stored(),
                "rule 3: {sequence} writes {stored:?} instead of {:?}",
                line.value
            );
            for waiting in &mut line.waiting {
                let told = waiting.try_recv();
                hold!(
                    told.is_err(),
                    "{sequence} is not answered, and was told {told:?}"
                );
                hold!(
                    entry.is_awaited(),
                    "{sequence} is awaited, but is told nothing any more"
                );
            }
            above = Some(counted(stamp));
        }
        hold!(
            entries.next().is_none(),
            "there is more in the outbox than is pending"
        );
        let ended = |fate| {
            self.lines
                .iter()
                .filter(|line| line.fate == Some(fate))
                .count()
        };
        let removed = self.lines.iter().filter(|line| line.ended).count();
        let expired = ended(Fate::Expired) + removed;
        let counts = (
            ended(Fate::Superseded) as u64,
            expired as u64,
            ended(Fate::SetAside),
        );
        let counted = (state.superseded, state.expired, state.letters.len());
        hold!(
            counts == counted,
            "superseded, expired, set aside: counted {counted:?} instead of {counts:?}"
        );
        self.audit_view(state, version, mono)
    }

    /// Rule 1: a read shows the last unanswered write, or else what the server answered last.
    fn audit_view(&mut self, state: &State, version: u64, mono: Monotonic) -> Check {
        let view = state.view(KEY, mono);
        let last = self
            .pending()
            .rev()
            .find(|line| !line.is_over(mono) || line.replaces_nothing);
        let expected = match (last, &self.slot.held) {
            (Some(line), _) => line.stored().filter(|_| !line.is_over(mono)),
            (None, Some(_)) if self.slot.over.is_some_and(|over| over <= mono) => None,
            // Another process cannot know the time to live before it reads again.
            (None, Some(held)) if held.is_over(mono) => {
                view.stored.clone().map(|_| held.bytes.clone())
            }
            (None, held) => held.as_ref().map(|held| held.bytes.clone()),
        };
        hold!(
            view.stored == expected,
            "rule 1: it shows {:?} instead of {expected:?}",
            view.stored
        );
        let (shown, shown_version, over) =
            std::mem::replace(&mut self.shown, (view.stored, version, view.expires));
        let told = version > shown_version || over.is_some_and(|over| over <= mono);
        hold!(
            shown.is_none() || shown == self.shown.0 || told,
            "what it shows changed, but not its version"
        );
        Ok(())
    }
}

/// The write is not sent any more: an error to whoever waits for it, else it is set aside.
fn give_up(line: &mut Line, reason: ErrorKind) -> Check<Option<Sequence>> {
    let awaited = !line.waiting.is_empty();
    line.fate = Some(if awaited {
        Fate::Withdrawn
    } else {
        Fate::SetAside
    });
    line.tells(Err(reason), None)?;
    Ok(awaited.then_some(line.sequence))
}
