//! Attempts as calls of `commit.lua`, and its answers.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, Pipeline, Script, Value};

use super::reply;
use crate::backend::commit::{
    self, Attempt, Expects, KeyChange, KeyState, Outcome, RECORDS, TimeToLive,
};
use crate::backend::error::BackendError;
use crate::backend::sidecar;
use crate::base::clock::Stamp;

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT));
const TEXT: &str = include_str!("commit.lua");

/// So many keys go into one call at most: one call for many keys costs the server half of many
/// calls, and a long one keeps others waiting.
const KEYS_IN_ONE_CALL: usize = 32;

/// The stamp of an envelope is in so many bytes at its end.
const TAIL: usize = 64;

/// How this session calls the script. It finds out from the server's refusals.
#[derive(Debug)]
pub(super) struct Committer {
    sidecar_ttl: Duration,
    /// The server may lack the script, which then goes along with the call.
    sends_text: AtomicBool,
    /// One key per call, since the server refused a call with many for the sake of one of them.
    one_by_one: AtomicBool,
}

pub(super) struct Calls {
    pub(super) commands: Pipeline,
    /// How many attempts each call has.
    pub(super) sizes: Vec<usize>,
}

impl Committer {
    pub(super) fn new(sidecar_ttl: Duration) -> Self {
        Self {
            sidecar_ttl,
            sends_text: AtomicBool::new(true),
            one_by_one: AtomicBool::new(false),
        }
    }

    pub(super) fn calls(&self, batch: &[Attempt], now: u64) -> Calls {
        let most = if self.one_by_one.load(Ordering::Relaxed) {
            1
        } else {
            KEYS_IN_ONE_CALL
        };
        let chunks = batch.chunks(most);
        let mut calls = Calls {
            commands: Pipeline::with_capacity(chunks.len()),
            sizes: Vec::new(),
        };
        // Once in a session, and again after the server forgot it: later calls in a pipeline find
        // it there.
        let mut sends_text = self.sends_text.swap(false, Ordering::Relaxed);
        for chunk in chunks {
            calls.sizes.push(chunk.len());
            calls
                .commands
                .add_command(self.call(chunk, now, std::mem::take(&mut sends_text)));
        }
        calls
    }

    fn call(&self, attempts: &[Attempt], now: u64, sends_text: bool) -> Cmd {
        let bytes = attempts
            .iter()
            .map(|attempt| 160 + 2 * attempt.key.len() + attempt.size())
            .sum();
        let mut call = Cmd::with_capacity(4 + 8 * attempts.len(), bytes);
        if sends_text {
            call.arg("EVAL").arg(TEXT);
        } else {
            call.arg("EVALSHA").arg(SCRIPT.get_hash());
        }
        call.arg(2 * attempts.len());
        for attempt in attempts {
            call.arg(&*attempt.key).arg(sidecar::sidecar(&attempt.key));
        }
        let recent = commit::recent(self.sidecar_ttl);
        let (kept, steps, now) = (
            millis(self.sidecar_ttl + recent),
            recent.as_secs() + 1,
            now / 1_000_000_000,
        );
        call.arg(format!("{kept} {steps} {now} {RECORDS}"));
        for attempt in attempts {
            call.arg(attempt.writer).arg(attempt.sequence);
            match step(attempt) {
                Some(step) => call.arg(step),
                None => call.arg(""),
            };
            call.arg(attempt.stamp.get());
            match &attempt.change {
                KeyChange::Put { envelope, .. } => call.arg(&envelope[..]),
                KeyChange::Delete => call.arg(""),
            };
            call.arg(how(attempt));
        }
        call
    }

    /// An answer for each attempt, from an answer for each call.
    pub(super) fn answers(
        &self,
        sizes: Vec<usize>,
        answers: Vec<Value>,
    ) -> Vec<Result<Outcome, BackendError>> {
        let mut outcomes = Vec::with_capacity(sizes.iter().sum());
        for (size, answer) in sizes.into_iter().zip(answers) {
            match answer {
                Value::Int(1) => outcomes.extend(std::iter::repeat_n(Ok(REPLACED), size)),
                Value::Array(of_each) if of_each.len() == size => {
                    outcomes.extend(of_each.into_iter().map(outcome));
                }
                Value::ServerError(error) => {
                    let error = self.call_error(size, &error);
                    outcomes.extend(std::iter::repeat_n(Err(error), size));
                }
                other => {
                    let error = reply::unexpected(&other);
                    outcomes.extend(std::iter::repeat_n(Err(error), size));
                }
            }
        }
        outcomes
    }

    /// The server did not run the script at all.
    fn call_error(&self, size: usize, refusal: &redis::ServerError) -> BackendError {
        let error = reply::server_error(refusal);
        if refusal.code() == "NOSCRIPT" {
            self.sends_text.store(true, Ordering::Relaxed);
            return BackendError::retry(error);
        }
        if error.is_rejected() && size > 1 {
            self.one_by_one.store(true, Ordering::Relaxed);
            return BackendError::retry(error);
        }
        error
    }
}

/// How far the attempt's number is above the one on record, where the script can go by that.
fn step(attempt: &Attempt) -> Option<u64> {
    /// Lua's numbers are whole up to here.
    const WHOLE: u64 = 1 << 53;
    let keeps = matches!(
        attempt.change,
        KeyChange::Put {
            ttl: TimeToLive::Keep,
            ..
        }
    );
    let is_common = matches!(attempt.expects, Expects::Anything | Expects::Stamped { .. });
    let recorded = attempt
        .recorded
        .filter(|_| keeps && is_common && attempt.retry.is_none())?;
    attempt
        .sequence
        .checked_sub(recorded)
        .filter(|step| *step > 0 && attempt.sequence < WHOLE)
}

/// What is to be done, and on what.
fn how(attempt: &Attempt) -> Cow<'static, [u8]> {
    let change = match &attempt.change {
        KeyChange::Put {
            ttl: TimeToLive::Keep,
            ..
        } => "keep".into(),
        KeyChange::Put {
            ttl: TimeToLive::Never,
            ..
        } => "never".into(),
        KeyChange::Put {
            ttl: TimeToLive::For(ttl),
            ..
        } => millis(*ttl).max(1).to_string().into(),
        KeyChange::Delete => Cow::Borrowed("delete"),
    };
    if (&*change, &attempt.expects, attempt.retry) == ("keep", &Expects::Anything, None) {
        return b"keep"[..].into();
    }
    // Rounded up: the record of it may have the second before, and is gone with that.
    let retry = attempt
        .retry
        .map(|ago| (ago.as_secs() + 1).to_string())
        .unwrap_or_default();
    let mut how = format!("{change} {retry} ").into_bytes();
    match &attempt.expects {
        Expects::Anything => {}
        Expects::Absent => how.extend(b"absent"),
        Expects::Nothing => how.extend(b"nothing"),
        Expects::Stamped { stamp, length } => {
            let start = length.saturating_sub(TAIL);
            how.extend(format!("{start} {} {stamp}", length - start).into_bytes());
        }
        Expects::Unstamped(bytes) => {
            how.push(b'=');
            how.extend(&bytes[..]);
        }
    }
    how.into()
}

/// What the script says of an attempt that took its short way.
const REPLACED: Outcome = Outcome::Applied {
    existed: true,
    contended: None,
};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn outcome(answer: Value) -> Result<Outcome, BackendError> {
    let parts = match answer {
        Value::Array(parts) => parts,
        Value::Int(1) => return Ok(REPLACED),
        other => return Err(reply::unexpected(&other)),
    };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Value::Int(1)), Some(Value::Int(existed)), Some(contended)) => Ok(Outcome::Applied {
            existed: existed == 1,
            contended: reply::text(contended)?.parse().ok(),
        }),
        (Some(Value::Int(2)), Some(stored), Some(tombstone)) => {
            Ok(Outcome::AlreadyApplied(found(stored, tombstone)?))
        }
        (Some(Value::Int(3)), Some(stored), Some(tombstone)) => {
            Ok(Outcome::Refused(found(stored, tombstone)?))
        }
        (Some(Value::Int(4)), Some(stored), Some(tombstone)) => {
            Ok(Outcome::RecordExpired(found(stored, tombstone)?))
        }
        (Some(Value::Int(0)), Some(message), None) => {
            Err(reply::error_of_reply(&reply::text(message)?))
        }
        (Some(other), ..) => Err(reply::unexpected(&other)),
        (None, ..) => Err(reply::unexpected(&Value::Nil)),
    }
}

fn found(stored: Value, tombstone: Value) -> Result<KeyState, BackendError> {
    let tombstone = reply::text(tombstone)?
        .parse()
        .map_or(Stamp::ZERO, Stamp::new);
    Ok(KeyState {
        stored: reply::stored(stored)?,
        tombstone,
    })
}
