//! The ledger of one process: its writes, one line each.
//!
//! It is notified of everything that the state is asked and answered, and knows what the state must
//! make of it: of writes here, and of attempts and answers in `answers.rs`. `audit.rs` compares.

use bytes::Bytes;
use tokio::sync::oneshot::Receiver;

use super::super::check::{RuleResult, ensure};
use super::super::server::{HeldValue, KEY, counted};
use crate::backend::commit::{Sequence, TimeToLive};
use crate::base::clock::{Moment, Monotonic};
use crate::base::error::{Error, ErrorKind, Result as CrateResult};
use crate::cache::Ticket;
use crate::client::state::{Accepted, Link, State};
use crate::pending::outbox::{Answer, NUMBERS, Written};

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    Stored,
    /// The same was stored before: two deletes may draw the same stamp.
    AlreadyThere,
    Superseded,
    Expired,
    DeadLettered,
    Withdrawn,
}

/// A write, or several that were merged before they were sent.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct LedgerLine {
    pub(super) sequence: Sequence,
    /// The value of the newest write in it; `None` is a delete.
    pub(super) value: Option<u64>,
    pub(super) stamp: u64,
    pub(super) expires_at: Option<Monotonic>,
    /// It replaced a delete, or a value that had expired: nothing of the earlier value is kept.
    pub(super) replaces_nothing: bool,
    /// It expired, and removes the key instead.
    pub(super) removes_expired: bool,
    pub(super) written: Monotonic,
    /// The connection has been up ever since it was written.
    pub(super) is_online: bool,
    pub(super) was_sent: bool,
    /// An attempt was under way when the connection was lost.
    pub(super) in_doubt: bool,
    pub(super) is_merged: bool,
    pub(super) receivers: Vec<Receiver<CrateResult<Answer>>>,
    pub(super) outcome: Option<WriteOutcome>,
}

impl LedgerLine {
    pub(super) fn stored(&self) -> Option<Bytes> {
        let stamp = self.stamp;
        self.value
            .map(|value| format!(r#"{{"value": {value},"last_modified": {stamp}}}"#).into())
    }

    pub(super) fn is_expired(&self, mono: Monotonic) -> bool {
        self.expires_at.is_some_and(|at| at <= mono)
    }

    /// Its time to live ended before it was sent: it is dropped, or removes the key.
    pub(super) fn expire(&mut self) -> RuleResult {
        if self.replaces_nothing {
            (self.value, self.expires_at, self.removes_expired) = (None, None, true);
            return Ok(());
        }
        self.outcome = Some(WriteOutcome::Expired);
        self.expect_answer(Ok(Written::Superseded), None)
    }

    /// A later write replaces it before it is sent.
    fn merge(&mut self, later: Self) -> RuleResult {
        ensure!(
            later.sequence == self.sequence,
            "rule 10: {} was not merged into {}",
            later.sequence,
            self.sequence
        );
        let mono = later.written;
        let is_expired = self.is_expired(mono);
        self.replaces_nothing |= self.value.is_none() || is_expired;
        if later.value.is_none() || later.expires_at.is_some() || is_expired {
            self.expires_at = later.expires_at;
        }
        self.receivers.extend(later.receivers);
        (self.value, self.stamp, self.written) = (later.value, later.stamp, mono);
        (self.is_online, self.is_merged) = (later.is_online, true);
        Ok(())
    }

    pub(super) fn time_to_live(&self, mono: Monotonic) -> TimeToLive {
        match self.expires_at {
            Some(at) => TimeToLive::For(at.saturating_sub(mono)),
            None if self.replaces_nothing => TimeToLive::Never,
            None => TimeToLive::Keep,
        }
    }

    /// All callers that wait must just have received this answer.
    pub(super) fn expect_answer(
        &mut self,
        expected: Result<Written, ErrorKind>,
        existed: Option<bool>,
    ) -> RuleResult {
        for mut receiver in self.receivers.drain(..) {
            let answer = receiver.try_recv();
            let received = answer.as_ref().map(|received| {
                received
                    .as_ref()
                    .map(|answer| answer.written)
                    .map_err(Error::kind)
            });
            ensure!(
                received == Ok(expected),
                "{} was answered {answer:?} instead of {expected:?}",
                self.sequence
            );
            if let (Some(existed), Ok(Ok(answer))) = (existed.filter(|_| !self.is_merged), answer) {
                ensure!(
                    answer.existed == existed,
                    "{} was answered that the key existed: {}",
                    self.sequence,
                    answer.existed
                );
            }
        }
        Ok(())
    }
}

/// The last answer of the server.
#[derive(Debug, Default)]
pub(super) struct LedgerAnswer {
    pub(super) ticket: Ticket,
    pub(super) held: Option<HeldValue>,
    /// When the value expires, if this process has written it.
    pub(super) expires_at: Option<Monotonic>,
}

#[derive(Debug)]
pub(in crate::model) struct Ledger {
    pub(super) lines: Vec<LedgerLine>,
    pub(super) link: Link,
    pub(super) last_answer: LedgerAnswer,
    /// The highest stamp that was issued or received.
    pub(super) known_stamp: u64,
    /// The last stamp that was sent.
    pub(super) last_sent: u64,
    pub(super) under_way: Option<(Sequence, Ticket)>,
    /// What a read returned last, its version, and when it expires.
    pub(super) last_view: (Option<Bytes>, u64, Option<Monotonic>),
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            lines: Vec::new(),
            link: Link::Down,
            last_answer: LedgerAnswer::default(),
            known_stamp: 0,
            last_sent: 0,
            under_way: None,
            last_view: (None, 0, None),
        }
    }

    /// The writes that have not ended.
    pub(super) fn pending(&self) -> impl DoubleEndedIterator<Item = &LedgerLine> {
        self.lines.iter().filter(|line| line.outcome.is_none())
    }

    pub(super) fn pending_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut LedgerLine> {
        self.lines.iter_mut().filter(|line| line.outcome.is_none())
    }

    /// The writes that a caller waits for.
    pub(super) fn awaited_writes(&self) -> impl Iterator<Item = Sequence> {
        self.pending()
            .filter(|line| !line.receivers.is_empty())
            .map(|line| line.sequence)
    }

    /// The stamp of the last write that has not ended.
    pub(super) fn last_stamp(&self) -> Option<u64> {
        self.pending().next_back().map(|line| line.stamp)
    }

    pub(super) fn outcomes(&self) -> impl Iterator<Item = (Sequence, Option<WriteOutcome>)> {
        self.lines.iter().map(|line| (line.sequence, line.outcome))
    }

    /// When the time to live of a write is over.
    pub(super) fn expires_at(&self, sequence: Sequence) -> Option<Monotonic> {
        self.lines
            .iter()
            .find(|line| line.sequence == sequence)?
            .expires_at
    }

    /// The state accepted a write. `existed`: whether a read returned a value before.
    pub(super) fn accepted(
        &mut self,
        state: &State,
        (value, ttl): (Option<u64>, Option<Monotonic>),
        at: Moment,
        existed: bool,
        accepted: Accepted,
    ) -> RuleResult {
        let Accepted {
            id: sequence,
            mut answer,
        } = accepted;
        let stamp = state
            .outbox
            .last(KEY)
            .map_or(0, |entry| entry.write.stamp.get());
        self.check_issued(stamp, at.now)?;
        self.known_stamp = stamp;
        let is_online = self.link == Link::Up;
        let mut receivers = Vec::new();
        if is_online {
            receivers.push(answer);
        } else {
            let received = answer.try_recv().ok().and_then(Result::ok);
            let existed = existed && value.is_none();
            ensure!(
                received == Some(Answer::new(Written::Queued, existed)),
                "rule 9: it is queued, but was answered {received:?}"
            );
        }
        let line = LedgerLine {
            sequence,
            value,
            stamp,
            expires_at: ttl.map(|ttl| at.mono + ttl),
            replaces_nothing: false,
            removes_expired: false,
            written: at.mono,
            is_online,
            was_sent: false,
            in_doubt: false,
            is_merged: false,
            receivers,
            outcome: None,
        };

        let next_sequence = (self.lines.len() as u64 + 1) * NUMBERS;
        if let Some(last) = self.pending_mut().next_back()
            && !last.was_sent
            && last.receivers.is_empty() != is_online
        {
            return last.merge(line);
        }
        ensure!(
            sequence == next_sequence,
            "rule 3: {sequence} was merged into a write that was sent"
        );
        self.lines.push(line);
        Ok(())
    }

    /// Rule 8: microseconds of `now` with three random digits, or just above what is known.
    fn check_issued(&self, stamp: u64, now: u64) -> RuleResult {
        let fresh = now / 1_000 * 1_000;
        let known = counted(self.known_stamp);
        ensure!(stamp > known, "rule 8: {stamp} is not above {known}");
        let is_fresh = (fresh..fresh + 1_000).contains(&stamp);
        let is_above = known >= fresh && stamp < known + 1_000;
        ensure!(
            is_fresh || is_above,
            "rule 8: {stamp} was issued at {fresh}, and {known} was known"
        );
        Ok(())
    }
}
