//! What backends without Lua do with an attempt, as data: `commit.rs` decides, and this says what
//! then is to be stored, recorded and dropped. `backend/redis/commit.lua` is the same for servers.

use std::time::Duration;

use crate::backend::commit::{
    self, Attempt, Expects, KeyState, Outcome, TimeToLive, Verdict, Writer, WriterRecord,
};
use crate::base::clock::Monotonic;

/// What there is at a key when an attempt arrives.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepInput {
    pub(crate) found: KeyState,
    /// What is on record for the attempt's writer.
    pub(crate) record: Option<WriterRecord>,
    /// Records of until then may have been dropped.
    pub(crate) horizon: Option<Monotonic>,
    pub(crate) waiting: Option<StarvedWriter>,
}

/// The writer that was refused first and waits for its turn, and when it last tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StarvedWriter {
    pub(crate) writer: Writer,
    pub(crate) when: Monotonic,
}

/// Whoever has not tried for so long may be gone, and waits no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be done about an attempt, all of it or nothing.
#[derive(Debug)]
pub(crate) struct Step {
    /// Make the change.
    pub(crate) applies: bool,
    /// Put this on record for the attempt's writer.
    pub(crate) record: Option<WriterRecord>,
    /// Who waits for a turn from then on.
    pub(crate) waiting: Option<StarvedWriter>,
    /// What the attempt is answered once that is done.
    pub(crate) outcome: Outcome,
}

/// What is to be done about `attempt` at the time `now`, where this is what there is.
pub(crate) fn step(attempt: &Attempt, seen: StepInput, now: Monotonic) -> Step {
    let StepInput {
        found,
        record,
        horizon,
        waiting,
    } = seen;
    let first = waiting.filter(|waiting| now.saturating_sub(waiting.when) <= PATIENCE);
    let other = first.filter(|first| first.writer != attempt.writer);
    let first_tried = now.saturating_sub(attempt.retry.unwrap_or_default());
    let forgets = horizon.is_some_and(|horizon| first_tried <= horizon);
    let verdict = commit::decide(attempt, &found, record, forgets);
    let refused = verdict == Verdict::Refuse;
    let record = verdict.is_recorded(attempt).then_some(WriterRecord {
        sequence: attempt.sequence,
        refused,
    });
    let outcome = match verdict {
        Verdict::Apply => Outcome::Applied {
            existed: found.stored.is_some(),
            contended: other.map(|other| other.writer),
        },
        Verdict::AlreadyApplied => Outcome::AlreadyApplied(found),
        Verdict::Refuse => Outcome::Refused(found),
        Verdict::RecordExpired => Outcome::RecordExpired(found),
    };
    let is_change = matches!(attempt.expects, Expects::Stamped { .. });
    let own = StarvedWriter {
        writer: attempt.writer,
        when: now,
    };
    let waiting = match verdict {
        // It has had its turn, where it was the one that waited.
        Verdict::Apply => other,
        Verdict::Refuse if is_change => other.or(Some(own)),
        _ => first,
    };
    Step {
        applies: verdict == Verdict::Apply,
        record,
        waiting,
        outcome,
    }
}

/// When a key ends that is stored now; `kept`: when what is there ends.
pub(crate) fn end_of(
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

/// Where a key has more than [`RECORDS`](crate::backend::commit::RECORDS) records, of these times: the
/// horizon. Those of until then go, but for the one that was just made.
pub(crate) fn horizon(mut times: Vec<Monotonic>) -> Monotonic {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
