//! What an attempt does in a backend without Lua, as data: `commit.rs` decides, and this says what
//! is to be stored, recorded and dropped. `backend/redis/commit.lua` does the same on servers.

use std::time::Duration;

use crate::backend::commit::{
    self, Attempt, Decision, Expects, KeyAfter, KeyChange, KeyState, Outcome, TimeToLive, ValueId,
    Verdict, Writer, WriterRecord,
};
use crate::base::clock::Monotonic;
use crate::value::addition::Addition;
use crate::value::envelope;

/// A starved writer that has not tried again for this long may be gone: it is starved no longer.
pub(crate) const STARVATION_TIMEOUT: Duration = Duration::from_secs(2);

/// What a backend has of a key when an attempt arrives.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyContext {
    pub(crate) current: KeyState,
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
    let KeyContext {
        current,
        record,
        horizon,
        starved,
    } = context;
    let starved = starved.filter(|starved| now.saturating_sub(starved.tried) <= STARVATION_TIMEOUT);
    let other = starved.filter(|starved| starved.writer != attempt.writer);

    let first_tried = now.saturating_sub(attempt.retry.unwrap_or_default());
    let may_lack_record = horizon.is_some_and(|horizon| first_tried <= horizon);
    let Decision { verdict, made } = commit::decide(attempt, &current, record, may_lack_record);

    let record = verdict.is_recorded(attempt).then_some(WriterRecord {
        sequence: attempt.sequence,
        refused: verdict == Verdict::Refuse,
    });
    let contended = other.map(|other| other.writer);
    let outcome = match verdict {
        Verdict::Apply => match (&attempt.change, &current.stored, &made) {
            (KeyChange::Blind { addition, .. }, Some(before), Some(KeyAfter::Stored(after))) => {
                let is_sum = matches!(addition, Addition::Integer { .. });
                Outcome::Added {
                    before: ValueId::of(before),
                    stamp: envelope::stamp_of(after),
                    sum: is_sum.then(|| envelope::integer_of(after)).flatten(),
                    contended,
                }
            }
            _ => Outcome::Applied {
                existed: current.stored.is_some(),
                contended,
            },
        },
        Verdict::AlreadyApplied => Outcome::AlreadyApplied(current),
        Verdict::Refuse => Outcome::Refused(current),
        Verdict::RecordExpired => Outcome::RecordExpired(current),
    };

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

    Effects {
        made,
        record,
        starved,
        outcome,
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
