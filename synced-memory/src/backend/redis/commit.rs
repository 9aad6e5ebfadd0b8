//! Attempts as calls of `commit.lua`, and its answers.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

use super::calls::{CallPlan, OpenSlots, ScriptCall};
use super::{SessionOptions, known, reply, script};
use crate::backend::commit::{
    self, Attempt, Expects, KeyChange, KeyState, Outcome, RECORDS, TimeToLive, ValueId, Writer,
};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::sidecar;
use crate::base::clock::Stamp;
use crate::value::addition::{self, Addition};
use crate::value::document::{Document, Guard, GuardedEdit};
use crate::value::envelope;

// What the script answers for an attempt.
pub(super) const SERVER_ERROR: i64 = 0;
pub(super) const APPLIED: i64 = 1;
pub(super) const ALREADY_APPLIED: i64 = 2;
pub(super) const REFUSED: i64 = 3;
pub(super) const RECORD_EXPIRED: i64 = 4;
pub(super) const ADDED: i64 = 5;
pub(super) const ADDED_BEHIND: i64 = 6;

// The words of an instruction to it.
pub(super) const KEEP: &str = "keep";
pub(super) const NEVER: &str = "never";
pub(super) const DELETE: &str = "delete";
pub(super) const ABSENT: &str = "absent";
pub(super) const NOTHING: &str = "nothing";
pub(super) const ADD: &str = "add";
pub(super) const APPEND: &str = "append";
pub(super) const CHANGE: &str = "change";

/// What follows a writer's number in the name of the field with the time of its record.
pub(super) const TIME: &str = "@";

/// The fields of a sidecar that hold the record of a writer.
pub(super) fn record_fields(writer: Writer) -> [String; 2] {
    [writer.to_string(), format!("{writer}{TIME}")]
}

/// How many bytes are compared as they are.
pub(super) const SHORT_GUARD: usize = 40;

/// How many keys go into one call at most. A call for many keys costs the server half as much as
/// many calls, but while it runs, nobody else is served.
const KEYS_IN_ONE_CALL: usize = 32;

/// How this session calls the script, which it learns from the server's refusals.
#[derive(Debug)]
pub(super) struct Committer {
    sidecar_ttl: Duration,
    replication: Option<Replication>,
    /// The server may lack the script: the next call carries its text.
    sends_text: AtomicBool,
    /// One key per call, since the server refused a call with many keys because of one of them.
    one_by_one: AtomicBool,
    /// At a node of a cluster, which refuses a call whose keys are in several slots.
    open_slots: Option<OpenSlots>,
}

/// How many replicas what was made has to be on, and how long they are waited for.
#[derive(Debug, Clone, Copy)]
struct Replication {
    replicas: u16,
    limit: Duration,
}

/// A pipeline of calls.
pub(super) struct Calls {
    pub(super) commands: Pipeline,
    pub(super) planned: PlannedCalls,
}

/// What the answers to calls belong to.
pub(super) struct PlannedCalls {
    plan: CallPlan,
    /// What each attempt is to be made of, if it is an edit, one call after the other.
    bases: Vec<Option<Document>>,
}

impl Committer {
    /// `is_in_cluster`: the server is a node of a cluster.
    pub(super) fn new(options: SessionOptions, is_in_cluster: bool) -> Self {
        let replicas = Some(options.replicas).filter(|replicas| *replicas > 0);
        Self {
            sidecar_ttl: options.sidecar_ttl,
            // Requests behind it wait, too: a longer wait would look like a lost connection.
            replication: replicas.map(|replicas| Replication {
                replicas,
                limit: options.timeout / 2,
            }),
            sends_text: AtomicBool::new(true),
            one_by_one: AtomicBool::new(false),
            open_slots: is_in_cluster.then(OpenSlots::default),
        }
    }

    /// The command that makes the server know the script.
    pub(super) fn load() -> Cmd {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(&script::COMMIT.text);
        load
    }

    /// Notes the answer to that.
    pub(super) fn note_loaded(&self, answer: &Value) {
        let is_loaded = !matches!(answer, Value::ServerError(_));
        self.sends_text.store(!is_loaded, Ordering::Relaxed);
    }

    pub(super) fn calls(&self, batch: &[Attempt], now: u64) -> Calls {
        let most = if self.one_by_one.load(Ordering::Relaxed) {
            1
        } else {
            KEYS_IN_ONE_CALL
        };
        let plan = match &self.open_slots {
            None => CallPlan::in_order(batch.len(), most),
            Some(open_slots) => CallPlan::by_slot(batch, most, &open_slots.current()),
        };
        let attempts = plan.attempts(batch);
        let bases = attempts.iter().map(|attempt| match &attempt.change {
            KeyChange::Edit { base, .. } => Some(base.clone()),
            _ => None,
        });
        let bases = bases.collect();
        let mut attempts = &attempts[..];

        let mut commands = Pipeline::with_capacity(plan.calls.len());
        // If the server may have forgotten the script, the first call carries its text. Later calls
        // of the same pipeline find it there.
        let mut sends_text = self.sends_text.swap(false, Ordering::Relaxed);
        for call in &plan.calls {
            if call.asking {
                commands.cmd("ASKING");
            }
            let (of_call, others) = attempts.split_at(call.size);
            attempts = others;
            commands.add_command(self.call(of_call, now, std::mem::take(&mut sends_text)));
        }
        if let Some(replication) = self.replication {
            replication.add_wait(&mut commands, batch);
        }
        Calls {
            commands,
            planned: PlannedCalls { plan, bases },
        }
    }

    fn call(&self, attempts: &[&Attempt], now: u64, sends_text: bool) -> Cmd {
        let bytes = attempts
            .iter()
            .map(|attempt| 160 + 2 * attempt.key.len() + attempt.size())
            .sum();
        let mut call = Cmd::with_capacity(4 + 8 * attempts.len(), bytes);
        script::COMMIT.name_in(&mut call, sends_text);

        call.arg(2 * attempts.len());
        for attempt in attempts {
            call.arg(&*attempt.key).arg(sidecar::sidecar(&attempt.key));
        }

        let recent = commit::recent(self.sidecar_ttl);
        let (kept, lag, now) = (
            millis(self.sidecar_ttl + recent),
            // Of any writer: what is dropped may be the record of one with another `sidecar_ttl`.
            commit::LONGEST_RECENT.as_secs() + 1,
            now / 1_000_000_000,
        );
        call.arg(format!("{kept} {lag} {now} {RECORDS}"));
        for attempt in attempts {
            call.arg(attempt.writer).arg(attempt.sequence);
            match sequence_gap(attempt) {
                Some(gap) => call.arg(gap),
                None => call.arg(""),
            };
            call.arg(attempt.stamp.get());
            match &attempt.change {
                KeyChange::Put { envelope, .. } => call.arg(&envelope[..]),
                KeyChange::Delete => call.arg(""),
                KeyChange::Blind { addition, .. } => match addition {
                    Addition::Items(items) => call.arg(addition::joined(items)),
                    Addition::Integer { by, .. } => call.arg(by),
                },
                KeyChange::Edit { ranges, .. } => call.arg(payload(ranges)),
            };
            call.arg(instruction(attempt));
        }
        call
    }

    /// An answer for each attempt of the batch, from the answers to the pipeline.
    pub(super) fn answers(
        &self,
        calls: PlannedCalls,
        answers: Vec<Value>,
    ) -> Vec<Result<Outcome, BackendError>> {
        let PlannedCalls { plan, bases } = calls;
        let mut outcomes = Vec::with_capacity(plan.calls.iter().map(|call| call.size).sum());
        let mut answers = answers.into_iter();
        for call in &plan.calls {
            let size = call.size;
            let asking = call.asking.then(|| answers.next()).flatten();
            match (answers.next().unwrap_or_default(), asking) {
                (Value::Int(APPLIED), _) => {
                    outcomes.extend(std::iter::repeat_n(Ok(REPLACED), size));
                }
                (Value::Array(of_each), _) if of_each.len() == size => {
                    let answered = of_each.into_iter().zip(&bases[outcomes.len()..]);
                    outcomes.extend(answered.map(|(answer, base)| outcome(answer, base.as_ref())));
                }
                (Value::ServerError(_), Some(Value::ServerError(refusal))) => {
                    let error = reply::asking_refused(&refusal);
                    outcomes.extend(std::iter::repeat_n(Err(error), size));
                }
                (Value::ServerError(refusal), _) => {
                    let error = self.call_error(call, &refusal);
                    outcomes.extend(std::iter::repeat_n(Err(error), size));
                }
                (other, _) => {
                    let error = reply::unexpected(&other);
                    outcomes.extend(std::iter::repeat_n(Err(error), size));
                }
            }
        }
        if let Some(replication) = self.replication {
            replication.confirm(&mut outcomes, answers.last().unwrap_or_default());
        }
        plan.in_order_of_batch(outcomes)
    }

    /// The server did not run the script at all.
    fn call_error(&self, call: &ScriptCall, refusal: &redis::ServerError) -> BackendError {
        let error = reply::server_error(refusal);
        if refusal.code() == "NOSCRIPT" {
            self.sends_text.store(true, Ordering::Relaxed);
            return BackendError::retry(error);
        }
        if error.is_rejected() && call.size > 1 {
            self.one_by_one.store(true, Ordering::Relaxed);
            return BackendError::retry(error);
        }
        let is_moving = matches!(
            error.kind,
            BackendErrorKind::TryAgain | BackendErrorKind::Ask
        );
        if let (true, Some(open_slots), Some(slot)) = (is_moving, &self.open_slots, call.slot) {
            open_slots.note(slot);
        }
        error
    }
}

impl Replication {
    /// Renews what is left of a sidecar's time to live.
    const RENEW: &str = "\
        local left = redis.call('PTTL', KEYS[1]) \
        if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end";

    /// Waits until the replicas have what this connection has written. An attempt that was in doubt
    /// may have been made by way of another one: it is followed by a write that changes nothing,
    /// and what was made before that is on a replica which has that.
    fn add_wait(self, commands: &mut Pipeline, batch: &[Attempt]) {
        for attempt in batch.iter().filter(|attempt| attempt.retry.is_some()) {
            if attempt.asking {
                commands.cmd("ASKING");
            }
            let renew = commands.cmd("EVAL").arg(Self::RENEW).arg(1);
            renew.arg(sidecar::sidecar(&attempt.key));
        }
        // Zero would be for ever.
        let limit = millis(self.limit).max(1);
        commands.cmd("WAIT").arg(self.replicas).arg(limit);
    }

    /// Answers what was made with an error if it is not on enough replicas. `answer`: to WAIT.
    fn confirm(self, outcomes: &mut [Result<Outcome, BackendError>], answer: Value) {
        let what = match reply::checked(answer) {
            Ok(Value::Int(count)) if count >= i64::from(self.replicas) => return,
            Ok(Value::Int(count)) => format!(
                "{count} of {} replicas have it within {:?}",
                self.replicas, self.limit
            ),
            Ok(other) => reply::unexpected(&other).to_string(),
            Err(refusal) => refusal.to_string(),
        };
        for outcome in outcomes {
            let is_made = |outcome: &Outcome| {
                outcome.is_made_now() || matches!(outcome, Outcome::AlreadyApplied(_))
            };
            if outcome.as_ref().is_ok_and(is_made) {
                let error = BackendError::new(BackendErrorKind::UnderReplicated, &what);
                *outcome = Err(error);
            }
        }
    }
}

/// How far the attempt's number is above the one on record, if the script's fast path applies.
fn sequence_gap(attempt: &Attempt) -> Option<u64> {
    /// Lua's numbers are exact below this.
    const WHOLE: u64 = 1 << 53;
    let keeps = matches!(
        attempt.change,
        KeyChange::Put {
            ttl: TimeToLive::Keep,
            ..
        }
    );
    let is_common = matches!(attempt.expects, Expects::Anything | Expects::Stamped { .. });
    // The fast path does not note what it wrote, which appends to a list need.
    let is_large = attempt.size() >= commit::LONG;
    let recorded = attempt
        .recorded
        .filter(|_| keeps && is_common && !is_large && attempt.retry.is_none())?;
    attempt
        .sequence
        .checked_sub(recorded)
        .filter(|gap| *gap > 0 && attempt.sequence < WHOLE)
}

/// What the script is to do, and on what.
fn instruction(attempt: &Attempt) -> Cow<'static, [u8]> {
    let how: Cow<'static, str> = match attempt.change.ttl() {
        TimeToLive::Keep => KEEP.into(),
        TimeToLive::Never => NEVER.into(),
        TimeToLive::For(ttl) => millis(ttl).max(1).to_string().into(),
    };
    let change = match &attempt.change {
        KeyChange::Delete => Cow::Borrowed(DELETE),
        KeyChange::Put { .. } | KeyChange::Blind { .. } | KeyChange::Edit { .. } => how,
    };
    let is_put = matches!(attempt.change, KeyChange::Put { .. });
    if is_put && (&*change, &attempt.expects, attempt.retry) == (KEEP, &Expects::Anything, None) {
        return KEEP.as_bytes().into();
    }

    // Rounded up: the record of that attempt may have the time of the second before.
    let retry = attempt
        .retry
        .map(|ago| (ago.as_secs() + 1).to_string())
        .unwrap_or_default();
    if let KeyChange::Blind { addition, step, .. } = &attempt.change {
        let instruction = match addition {
            Addition::Items(_) => format!("{APPEND} {retry} {change} {step}"),
            Addition::Integer { min, max, .. } => {
                format!("{ADD} {retry} {change} {step} {min} {max}")
            }
        };
        return instruction.into_bytes().into();
    }
    if let (KeyChange::Edit { made, step, .. }, Expects::Stamped { stamp, length }) =
        (&attempt.change, &attempt.expects)
    {
        let kind: Cow<'_, str> = match step {
            Some(step) => step.to_string().into(),
            None if made.is_own_list() => "list".into(),
            None => "other".into(),
        };
        let instruction = format!("{CHANGE} {retry} {change} {length} {stamp} {kind}");
        return instruction.into_bytes().into();
    }
    let mut instruction = format!("{change} {retry} ").into_bytes();
    match &attempt.expects {
        Expects::Anything => {}
        Expects::Absent => instruction.extend(ABSENT.as_bytes()),
        Expects::Nothing => instruction.extend(NOTHING.as_bytes()),
        Expects::Stamped { stamp, length } => {
            let start = length.saturating_sub(envelope::TAIL);
            instruction.extend(format!("{start} {} {stamp}", length - start).into_bytes());
        }
        Expects::Unstamped(bytes) => {
            instruction.push(b'=');
            instruction.extend(&bytes[..]);
        }
    }
    instruction.into()
}

/// The ranges of an edit, as `edit.lua` wants them.
fn payload(ranges: &[GuardedEdit]) -> Vec<u8> {
    let head = ranges.iter().map(|GuardedEdit { edit, guard }| {
        let found = compared(guard);
        let [before, after] = guard.beside;
        format!(
            "{} {} {} {before} {after} {}",
            edit.start,
            edit.old_len,
            edit.new.len(),
            found.len()
        )
    });
    let head: Vec<_> = head.collect();
    let mut payload = head.join(" ").into_bytes();
    payload.push(b'\n');
    for GuardedEdit { edit, guard } in ranges {
        payload.extend_from_slice(&edit.new);
        payload.extend_from_slice(&compared(guard));
    }
    payload
}

/// What the script compares: the bytes, or their SHA-1 in hexadecimal digits if they are many.
fn compared(guard: &Guard) -> Cow<'_, [u8]> {
    if guard.found.len() <= SHORT_GUARD {
        return Cow::Borrowed(&guard.found);
    }
    let hash = sha1_smol::Sha1::from(&guard.found).digest();
    Cow::Owned(hash.to_string().into_bytes())
}

/// What the script answers for an attempt that took its fast path.
const REPLACED: Outcome = Outcome::Applied {
    existed: true,
    contended: None,
};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `base`: what the attempt was to be made of.
fn outcome(answer: Value, base: Option<&Document>) -> Result<Outcome, BackendError> {
    let parts = match answer {
        Value::Array(parts) => parts,
        Value::Int(APPLIED) => return Ok(REPLACED),
        other => return Err(reply::unexpected(&other)),
    };
    match parts[..] {
        [Value::Int(ADDED), ..] => return added(parts),
        [Value::Int(ADDED_BEHIND), ..] => return added_behind(parts, base),
        _ => {}
    }
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Value::Int(APPLIED)), Some(Value::Int(existed)), Some(contended)) => {
            Ok(Outcome::Applied {
                existed: existed == 1,
                contended: reply::text(contended)?.parse().ok(),
            })
        }
        (Some(Value::Int(ALREADY_APPLIED)), Some(stored), Some(tombstone)) => {
            Ok(Outcome::AlreadyApplied(key_state(None, stored, tombstone)?))
        }
        (Some(Value::Int(REFUSED)), Some(stored), Some(tombstone)) => {
            Ok(Outcome::Refused(key_state(base, stored, tombstone)?))
        }
        (Some(Value::Int(RECORD_EXPIRED)), Some(stored), Some(tombstone)) => {
            Ok(Outcome::RecordExpired(key_state(None, stored, tombstone)?))
        }
        (Some(Value::Int(SERVER_ERROR)), Some(message), None) => {
            Err(reply::error_of_reply(&reply::text(message)?))
        }
        (Some(other), ..) => Err(reply::unexpected(&other)),
        (None, ..) => Err(reply::unexpected(&Value::Nil)),
    }
}

/// What the script answers for a blind change that it has made.
fn added(parts: Vec<Value>) -> Result<Outcome, BackendError> {
    let Ok([_, stamp_before, length, stamp, sum, contended]) = <[Value; 6]>::try_from(parts) else {
        return Err(reply::unexpected(&Value::Nil));
    };
    let Value::Int(length) = length else {
        return Err(reply::unexpected(&length));
    };
    let before = ValueId {
        stamp: stamp_of(stamp_before)?,
        length: usize::try_from(length).unwrap_or_default(),
    };
    Ok(Outcome::Added {
        before,
        stamp: stamp_of(stamp)?,
        sum: reply::text(sum)?.parse().ok(),
        contended: reply::text(contended)?.parse().ok(),
    })
}

/// What the script answers for an edit of `base` that it has made behind others.
fn added_behind(parts: Vec<Value>, base: Option<&Document>) -> Result<Outcome, BackendError> {
    let (Ok([_, entry, before, contended]), Some(base)) = (<[Value; 4]>::try_from(parts), base)
    else {
        return Err(reply::unexpected(&Value::Nil));
    };
    Ok(Outcome::AddedBehind {
        before: stamp_of(before)?,
        made: known::changed(base, vec![entry])?,
        contended: reply::text(contended)?.parse().ok(),
    })
}

fn stamp_of(text: Value) -> Result<Stamp, BackendError> {
    Ok(reply::text(text)?.parse().map_or(Stamp::ZERO, Stamp::new))
}

/// `base`: what `stored` may be the changes of.
fn key_state(
    base: Option<&Document>,
    stored: Value,
    tombstone: Value,
) -> Result<KeyState, BackendError> {
    let stored = match (stored, base) {
        (Value::Array(changes), Some(base)) => Some(known::changed(base, changes)?),
        (stored, _) => reply::stored(stored)?.map(Document::of),
    };
    Ok(KeyState {
        stored,
        tombstone: stamp_of(tombstone)?,
    })
}
