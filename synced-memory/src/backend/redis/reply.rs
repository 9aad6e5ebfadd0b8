//! What servers answer: values, and errors by what is to be done about them.

use std::time::Duration;

use bytes::Bytes;
use redis::{ErrorKind, RedisError, ServerError, Value};

use crate::backend::Left;
use crate::backend::fault::{Fault, FaultKind};

/// The text that GET answers with.
pub(super) fn stored(answer: Value) -> Result<Option<Bytes>, Fault> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) => Ok(Some(text.into())),
        Value::Okay => Ok(Some(Bytes::from_static(b"OK"))),
        Value::ServerError(error) => Err(server_fault(&error)),
        other => Err(unexpected(&other)),
    }
}

/// How long a key lives yet, as PTTL answers.
pub(super) fn left(answer: &Value) -> Left {
    match answer {
        Value::Int(-1) => Left::Forever,
        // It has ended since it was read.
        Value::Int(-2) => Left::For(Duration::ZERO),
        Value::Int(millis) => u64::try_from(*millis).map_or(Left::Told, |millis| {
            Left::For(Duration::from_millis(millis))
        }),
        _ => Left::Told,
    }
}

/// The answer, or the error that it is.
pub(super) fn checked(answer: Value) -> Result<Value, Fault> {
    match answer {
        Value::ServerError(error) => Err(server_fault(&error)),
        answer => Ok(answer),
    }
}

pub(super) fn text(answer: Value) -> Result<String, Fault> {
    redis::from_redis_value(answer)
        .map_err(|error| Fault::refused(format_args!("an answer that is no text: {error}")))
}

/// The next cursor and the names of a SCAN.
pub(super) fn page(answer: Value) -> Result<(String, Vec<String>), Fault> {
    redis::from_redis_value(answer)
        .map_err(|error| Fault::refused(format_args!("an answer that is no page: {error}")))
}

/// The answer to TIME, in ns since 1970.
pub(super) fn time(answer: Value) -> Result<u64, Fault> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(answer)
        .map_err(|error| Fault::refused(format_args!("an answer that is no time: {error}")))?;
    Ok(seconds * 1_000_000_000 + micros * 1_000)
}

/// An answer that no server gives; it is described by its kind, without the bytes in it.
pub(super) fn unexpected(answer: &Value) -> Fault {
    let kind = match answer {
        Value::Nil => "nil",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "a string",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    Fault::refused(format_args!(
        "the server answered with {kind} where that makes no sense"
    ))
}

/// The fault that an error of the connection or of the server is.
pub(super) fn fault(error: &RedisError) -> Fault {
    match error.code() {
        Some(code) => fault_of_message(&format!("{code} {}", error.detail().unwrap_or_default())),
        None => Fault::lost(error),
    }
}

/// As [`fault`], for what a server says to a new connection.
pub(super) fn fault_of_connect(error: &RedisError) -> Fault {
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => Fault::refused(error),
        _ => fault(error),
    }
}

pub(super) fn server_fault(error: &ServerError) -> Fault {
    fault_of_message(&format!(
        "{} {}",
        error.code(),
        error.details().unwrap_or_default()
    ))
}

/// The fault behind a server's message, by its code.
pub(super) fn fault_of_message(message: &str) -> Fault {
    let message = message.trim_start_matches('-').trim_end();
    match kind_of(message) {
        FaultKind::Busy => Fault::busy(message),
        FaultKind::Elsewhere => Fault::elsewhere(message),
        _ => Fault::refused(message),
    }
}

/// The codes of servers that cannot do now what they will do later. Any other refusal is for good.
const PASSING: &[(&str, FaultKind)] = &[
    ("OOM", FaultKind::Busy),
    ("LOADING", FaultKind::Busy),
    ("BUSY", FaultKind::Busy),
    ("CLUSTERDOWN", FaultKind::Busy),
    ("TRYAGAIN", FaultKind::Busy),
    ("NOREPLICAS", FaultKind::Busy),
    ("MISCONF", FaultKind::Busy),
    ("READONLY", FaultKind::Elsewhere),
    ("MASTERDOWN", FaultKind::Elsewhere),
];

fn kind_of(message: &str) -> FaultKind {
    let code = message.split(' ').next().unwrap_or_default();
    // Redis 6 wraps what a command within a script answered: "ERR Error running script ... -OOM
    // ..." where the script ended by it, "@user_script: 49: -OOM ..." where it caught it.
    let wraps = code == "ERR" || code == "@user_script:";
    let says =
        |passing: &str| code == passing || wraps && message.contains(&format!("-{passing} "));
    PASSING
        .iter()
        .find(|(passing, _)| says(passing))
        .map_or(FaultKind::Refused, |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_message_says_whether_to_try_again() {
        for (message, kind) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                FaultKind::Busy,
            ),
            (
                "-READONLY You can't write against a read only replica.",
                FaultKind::Elsewhere,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                FaultKind::Busy,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                FaultKind::Busy,
            ),
            (
                "NOPERM this user has no permissions to run the 'set' command",
                FaultKind::Refused,
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                FaultKind::Refused,
            ),
            ("ERR unknown command", FaultKind::Refused),
        ] {
            assert_eq!(fault_of_message(message).kind, kind, "{message}");
        }
    }
}
