//! What an attempt does in a backend without Lua, as data: `commit.rs` decides, and this says what
//! is to be stored, recorded and dropped. `backend/redis/commit.lua` does the same on servers.

use std::time::Duration;

use crate::backend::commit::{
    self, Attempt, Decision, Expects, KeyAfter, KeyChange, KeyState, Outcome, TimeToLive, ValueId,
    Verdict, Writer, WriterRecord,
};
use crate::base::clock::Monotonic;

/// A starved writer that has not tried again for this long may be gone: it is starved no longer.
pub(crate) const STARVATION_TIMEOUT: Duration = Duration::from_secs(2);

/// What a backend has of a key when an attempt arrives.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyContext {
    pub(crate) current: KeyState,
    pub(crate) records: RecordContext,
}

/// What a backend has beside the value.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecordContext {
    /// What is on record for the attempt's writer.
    pub(crate) record: Option<WriterRecord>,
    /// Records up to this time may have been dropped.
    pub(crate) horizon: Option<Monotonic>,
    pub(crate) starved: Option<StarvedWriter>,
}

/// The writer whose change was refused first and has not been made since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StarvedWriter {
    pub(crate) writer: Writer,
    /// When it last tried.
    pub(crate) tried: Monotonic,
}

/// What an attempt does: all of it, or nothing.
#[derive(Debug)]
pub(crate) struct Effects {
    /// What the change makes of what is stored, if it is made.
    pub(crate) made: Option<KeyAfter>,
    /// This goes on record for the attempt's writer.
    pub(crate) record: Option<WriterRecord>,
    /// Who is starved afterwards.
    pub(crate) starved: Option<StarvedWriter>,
    /// The answer, once the rest is done.
    pub(crate) outcome: Outcome,
}

/// What `attempt` does at the time `now`, given what the backend has of its key.
pub(crate) fn effects_of(attempt: &Attempt, context: KeyContext, now: Monotonic) -> Effects {
    let KeyContext { current, records } = context;
    let ruling = rule_on(attempt, records, now, || attempt.made_of(&current));
    let contended = ruling.contended;
    let outcome = match (ruling.verdict, &ruling.made) {
        (Verdict::Apply, made) => match (&attempt.change, &current.stored, made) {
            (KeyChange::Blind { addition, .. }, Some(before), Some(KeyAfter::Stored(after))) => {
                Outcome::Added {
                    before: ValueId::of(before),
                    stamp: after.stamp(),
                    sum: addition.sum_in(after),
                    contended,
                }
            }
            _ => Outcome::Applied {
                existed: current.stored.is_some(),
                contended,
            },
        },
        (verdict, _) => verdict.finding(current),
    };
    Effects {
        made: ruling.made,
        record: ruling.record,
        starved: ruling.starved,
        outcome,
    }
}

/// What an attempt does, but for the answer. `M`: what is made of the value.
#[derive(Debug)]
pub(crate) struct Ruling<M> {
    pub(crate) verdict: Verdict,
    pub(crate) made: Option<M>,
    /// As in [`Effects`].
    pub(crate) record: Option<WriterRecord>,
    pub(crate) starved: Option<StarvedWriter>,
    /// Another writer that was starved, and is still.
    pub(crate) contended: Option<Writer>,
}

/// The same as [`effects_of`], for a backend that does not look at the whole value. `make`: as for
/// [`decide`](commit::decide).
pub(crate) fn rule_on<M>(
    attempt: &Attempt,
    context: RecordContext,
    now: Monotonic,
    make: impl FnOnce() -> Option<M>,
) -> Ruling<M> {
    let RecordContext {
        record,
        horizon,
        starved,
    } = context;
    let starved = starved.filter(|starved| now.saturating_sub(starved.tried) <= STARVATION_TIMEOUT);
    let other = starved.filter(|starved| starved.writer != attempt.writer);

    let first_tried = now.saturating_sub(attempt.retry.unwrap_or_default());
    let may_lack_record = horizon.is_some_and(|horizon| first_tried <= horizon);
    let Decision { verdict, made } = commit::decide(attempt, record, may_lack_record, make);

    let record = verdict.is_recorded(attempt).then_some(WriterRecord {
        sequence: attempt.sequence,
        refused: verdict == Verdict::Refuse,
    });
    let is_change = matches!(attempt.expects, Expects::Stamped { .. });
    let own = StarvedWriter {
        writer: attempt.writer,
        tried: now,
    };
    let starved = match verdict {
        // If this writer was starved, it is not any more.
        Verdict::Apply => other,
        Verdict::Refuse if is_change => other.or(Some(own)),
        _ => starved,
    };
    Ruling {
        verdict,
        made,
        record,
        starved,
        contended: other.map(|other| other.writer),
    }
}

/// When a key expires that is stored at `now`; `kept`: when what is there expires.
pub(crate) fn expiry_of(
    ttl: TimeToLive,
    kept: Option<Monotonic>,
    now: Monotonic,
) -> Option<Monotonic> {
    match ttl {
        TimeToLive::Keep => kept,
        TimeToLive::Never => None,
        TimeToLive::For(ttl) => Some(now.saturating_add(ttl)),
    }
}

/// The horizon of a key that has more than [`RECORDS`](crate::backend::commit::RECORDS) records,
/// given their times. Records up to the horizon are dropped, except the one that was just made.
pub(crate) fn horizon_of(mut times: Vec<Monotonic>) -> Monotonic {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
