//! Additions: pushes and adds that are made to whatever is stored, so that none is refused because
//! others write, and none carries more than itself.
//!
//! Who does not know what its items were added to keeps them on top of what it shows, until an
//! answer has them.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use crate::backend::commit::{Attempt, KeyChange, ValueId, Writer};
use crate::backend::error::BackendError;
use crate::backend::shards::Shard;
use crate::backend::{KnownValue, ReadKind};
use crate::base::clock::{Monotonic, Stamp};
use crate::base::error::Error;
use crate::base::events::event;
use crate::base::hash::KeyMap;
use crate::cache::{Base, Ticket};
use crate::pending::outbox::{Answer, Entry, Selector, Write, Written};
use crate::value::addition::Addition;
use crate::value::document::Document;
use crate::value::envelope::Unsealed;
use crate::value::mutation::Json;

/// For how long after a refusal what is added to a short value is sent as an addition.
const CONTENDED: Duration = Duration::from_secs(1);

/// How many keys are remembered as contended before those are dropped that are so no longer.
const REMEMBERED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Additions {
    on_top: KeyMap<OnTop>,
    /// When others last wrote first.
    refused_at: KeyMap<Monotonic>,
}

/// What was added to something that this process does not know.
#[derive(Debug, Default)]
struct OnTop {
    /// Each with the request that made it.
    writes: Vec<(Ticket, Write)>,
    bytes: usize,
}

impl OnTop {
    /// How many writes are kept at most, and how many bytes of them if what they are on top of is
    /// not long.
    const WRITES: usize = 512;
    const BYTES: usize = 64 << 10;

    /// Whether it is time to look at what others have added: it may be long before anybody reads.
    fn is_full(&self, below: Option<&Document>) -> bool {
        let most = below.map_or(0, |below| below.len() / 4).max(Self::BYTES);
        self.writes.len() >= Self::WRITES || self.bytes > most
    }
}

impl State {
    /// How far the stamp of an addition to `key` is at least above what is there; `None` if it is
    /// better sent as a whole value.
    pub(super) fn additions_to(&mut self, key: &str, mono: Monotonic) -> Option<u64> {
        if self.refuses_parts(self.map.shard_of(key)) {
            return None;
        }
        let stored = self.cache.base(key).at(mono);
        let is_long = |stored: &Document| stored.len() >= self.long_from;
        let on_top = self.additions.on_top.get(key);
        if on_top.is_some_and(|on_top| on_top.is_full(stored)) {
            return None;
        }
        let refused_at = self.additions.refused_at.get(key);
        let is_contended = refused_at.is_some_and(|at| mono.saturating_sub(*at) < CONTENDED);
        let is_better = is_contended || stored.is_some_and(is_long);
        is_better.then(|| Stamp::ZERO.just_above(&mut self.random).get())
    }

    /// Whether the head of `key` changes a long value, and is sent without the rest of it.
    pub(super) fn is_sent_as_part(&self, key: &str, head: &Entry) -> bool {
        let stored = self.cache.base(key).stored.as_ref();
        let is_much_longer = |stored: &Document| {
            stored.len() >= self.long_from && head.write.size() < stored.len() / 4
        };
        stored.is_some_and(is_much_longer)
            && head.write.assignment.is_none()
            && !head.attempt.was_refused_as_part
            && !self.refuses_parts(self.map.shard_of(key))
    }

    /// What is known of a long value, if its shard can say what has changed since.
    pub(crate) fn known(&self, key: &str, kind: ReadKind, mono: Monotonic) -> Option<KnownValue> {
        let document = self.cache.known(key, mono)?;
        let is_long = document.len() >= self.long_from && document.stamp() != Stamp::ZERO;
        if !is_long || self.refuses_parts(self.map.shard_of(key)) {
            return None;
        }
        // A notification that nothing explains may be of an edit by hand.
        let trusts_stamp = kind == ReadKind::Through || self.cache.is_change_own(key);
        Some(KnownValue {
            document: document.clone(),
            trusts_stamp,
        })
    }

    /// Others have changed `key` first.
    pub(super) fn note_contended(&mut self, key: &Arc<str>, mono: Monotonic) {
        let refused_at = &mut self.additions.refused_at;
        if refused_at.len() >= REMEMBERED {
            refused_at.retain(|_, at| mono.saturating_sub(*at) < CONTENDED);
        }
        refused_at.insert(Arc::clone(key), mono);
    }

    /// Whether something was added to `key` that is not in what the backend last answered.
    pub(super) fn is_behind(&self, key: &str) -> bool {
        self.added_on_top(key).next().is_some()
    }

    /// What was added to `key` and is not in what the backend last answered.
    pub(super) fn added_on_top(&self, key: &str) -> impl Iterator<Item = &Write> {
        let answered = self.cache.base(key).ticket;
        let on_top = self.additions.on_top.get(key);
        let added = on_top.into_iter().flat_map(|on_top| &on_top.writes);
        added
            .filter(move |(ticket, _)| *ticket > answered)
            .map(|(_, write)| write)
    }

    /// Drops what an answer for `key` has brought.
    pub(super) fn drop_answered(&mut self, key: &str) {
        if self.additions.on_top.contains_key(key) && !self.is_behind(key) {
            self.additions.on_top.remove(key);
        }
    }

    /// The answer to the read `ticket` of `key` was stored, which took effect at some time after
    /// that: what was added meanwhile is in it if it has no higher stamp.
    pub(crate) fn read_apart(&mut self, key: &str, ticket: Ticket) {
        let base = self.cache.base(key);
        let Some(stored) = base.stored.as_ref().filter(|_| base.ticket == ticket) else {
            return;
        };
        let stamp = stored.stamp();
        if let Some(on_top) = self.additions.on_top.get_mut(key) {
            on_top.writes.retain(|(_, write)| write.stamp > stamp);
            on_top.bytes = on_top.writes.iter().map(|(_, write)| write.size()).sum();
            self.cache.touch(key);
        }
        self.drop_answered(key);
    }

    /// Nobody follows the key any more.
    pub(super) fn drop_added(&mut self, key: &str) {
        self.additions.on_top.remove(key);
    }

    /// The head of `key` was added to what there was `before`.
    pub(super) fn added(
        &mut self,
        attempt: &Attempt,
        ticket: Ticket,
        (before, stamp, sum): (ValueId, Stamp, Option<i64>),
        contended: Option<Writer>,
    ) {
        let key = &attempt.key;
        let (Some(head), KeyChange::Blind { addition, .. }) =
            (self.outbox.head(key), &attempt.change)
        else {
            return;
        };
        let expires = head.write.expires;
        let is_confirmed = head.write.is_confirmed;
        let on_top = Write {
            mutation: head.write.mutation.clone(),
            fresh: true,
            ..Write::new(stamp, head.write.written)
        };
        self.head_made_of(key, before.stamp, stamp);
        let base = self.cache.base(key);
        let is_base = |stored: &Document| base.ticket < ticket && ValueId::of(stored) == before;
        let grown = match (addition, sum, base.stored.as_ref()) {
            (Addition::Integer { .. }, Some(sum), _) => {
                let sum = Unsealed::of_text(&sum.to_string()).seal(stamp);
                Some(Document::of_sealed(sum))
            }
            (Addition::Items(items), _, Some(stored)) if is_base(stored) => {
                stored.appended(&items.iter().map(Json::as_str).collect::<Vec<_>>(), stamp)
            }
            _ => None,
        };
        match grown {
            Some(grown) => {
                self.cache
                    .answered(key, Base::of(Some(grown), ticket, expires));
                self.drop_answered(key);
            }
            None if base.is_known() && base.ticket < ticket => {
                let on_tops = self.additions.on_top.entry(Arc::clone(key)).or_default();
                on_tops.bytes += on_top.size();
                on_tops.writes.push((ticket, on_top));
                self.cache.touch(key);
            }
            None => {}
        }

        let answer = Answer {
            contended,
            ..Answer::new(Written::Stored, true)
        };
        if is_confirmed {
            self.confirm(key, answer);
        } else {
            self.settle(key, answer);
        }
    }

    /// The server has refused the head of `key`, which carries a part of the value, for good: it is
    /// sent with the whole. If the server refuses the command, so are all others to this shard.
    pub(super) fn part_refused(&mut self, shard: Shard, key: &Arc<str>, error: &BackendError) {
        self.send_as_whole(key);
        self.command_refused(shard, key, error);
    }

    /// The head of `key` is sent with the whole value from now on.
    pub(super) fn send_as_whole(&mut self, key: &Arc<str>) {
        self.outbox.edit(key, Selector::Head, |head| {
            head.attempt.was_refused_as_part = true;
        });
    }

    /// The server has refused for good to change, or to read, less than the whole value of `key`.
    /// If what it refuses is a command, it does that for all keys: no more of them are tried.
    pub(crate) fn command_refused(&mut self, shard: Shard, key: &str, error: &BackendError) {
        if error.is_of_command()
            && !std::mem::replace(&mut self.shard_mut(shard).refuses_parts, true)
        {
            let (key, error) = (
                key.to_owned(),
                Error::of_key(error.error_kind(), key, error),
            );
            self.events.push(event!(
                WARN,
                key,
                error = %error,
                "the server refuses a command that a change of a part needs (STRLEN, GETRANGE, \
                 SETRANGE, HINCRBY, HGET): whole values are sent and read instead"
            ));
        }
    }
}
