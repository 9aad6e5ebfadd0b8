//! What servers answer: values, and errors by what is to be done about them.

use std::time::Duration;

use bytes::Bytes;
use redis::{ErrorKind, FromRedisValue, RedisError, ServerError, Value};

use crate::backend::Expiry;
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::{Node, Redirect};

/// The answer to GET.
pub(super) fn stored(answer: Value) -> Result<Option<Bytes>, BackendError> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) => Ok(Some(text.into())),
        Value::Okay => Ok(Some(Bytes::from_static(b"OK"))),
        Value::ServerError(error) => Err(server_error(&error)),
        other => Err(unexpected(&other)),
    }
}

/// What PTTL answers if there is no such key.
pub(super) const NO_KEY: i64 = -2;

/// When a key expires: the answer to PTTL.
pub(super) fn expiry(answer: &Value) -> Expiry {
    match answer {
        Value::Int(-1) => Expiry::Forever,
        // It has expired since it was read.
        Value::Int(NO_KEY) => Expiry::For(Duration::ZERO),
        Value::Int(millis) => u64::try_from(*millis).map_or(Expiry::Tracked, |millis| {
            Expiry::For(Duration::from_millis(millis))
        }),
        _ => Expiry::Tracked,
    }
}

/// The answer, or the error that the server answered with.
pub(super) fn checked(answer: Value) -> Result<Value, BackendError> {
    match answer {
        Value::ServerError(error) => Err(server_error(&error)),
        answer => Ok(answer),
    }
}

pub(super) fn text(answer: Value) -> Result<String, BackendError> {
    converted(answer, "text")
}

/// The answer to SCAN: the next cursor and the keys, which may be any bytes.
pub(super) fn page(answer: Value) -> Result<(String, Vec<Vec<u8>>), BackendError> {
    converted(answer, "page of names")
}

/// The answer to TIME, in ns since 1970.
pub(super) fn time(answer: Value) -> Result<u64, BackendError> {
    let (seconds, micros): (u64, u64) = converted(answer, "time")?;
    let nanos = seconds
        .checked_mul(1_000_000_000)
        .and_then(|whole| whole.checked_add(micros.checked_mul(1_000)?));
    nanos.ok_or_else(|| {
        let what = "an answer that is no time: it is more than 584 years after 1970";
        BackendError::rejected(what)
    })
}

/// The library's own message would repeat the answer, which may be a value.
fn converted<T: FromRedisValue>(answer: Value, what: &str) -> Result<T, BackendError> {
    redis::from_redis_value(answer)
        .map_err(|_| BackendError::rejected(format_args!("the server answered with no {what}")))
}

/// The error for an answer that makes no sense. It names the kind of the answer, without its bytes.
pub(super) fn unexpected(answer: &Value) -> BackendError {
    let kind = match answer {
        Value::Nil => "nil",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "a string",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    BackendError::rejected(format_args!(
        "the server answered with {kind}, which makes no sense here"
    ))
}

/// An error of the connection, or of the server.
pub(super) fn backend_error(error: &RedisError) -> BackendError {
    match error.code() {
        Some(code) => error_of_reply(&format!("{code} {}", error.detail().unwrap_or_default())),
        None => BackendError::connection_lost(error),
    }
}

/// As [`backend_error`], while connecting.
pub(super) fn connect_error(error: &RedisError) -> BackendError {
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
            BackendError::rejected(error)
        }
        // The same server will not know it the next time.
        ErrorKind::RESP3NotSupported => BackendError::rejected(
            "the server does not know HELLO: Redis 6.2 or later is needed, or a server like it",
        ),
        _ => backend_error(error),
    }
}

pub(super) fn server_error(error: &ServerError) -> BackendError {
    error_of_reply(&format!(
        "{} {}",
        error.code(),
        error.details().unwrap_or_default()
    ))
}

/// The error for a server's message, by its code. The redirect of a `MOVED` or an `ASK` is as the
/// server wrote it: its host is empty if it is the one that was asked.
pub(super) fn error_of_reply(message: &str) -> BackendError {
    let message = message.trim_start_matches('-').trim_end();
    let kind = kind_of(message);
    let redirect = match kind {
        BackendErrorKind::Moved => redirect(message, "MOVED "),
        BackendErrorKind::Ask => redirect(message, "ASK "),
        _ => None,
    };
    match redirect {
        Some(redirect) => BackendError::redirected(kind, redirect, message),
        None => BackendError::new(kind, message),
    }
}

/// The error for a refusal of ASKING: without it, the command behind it is refused, too. What the
/// key needs is there when its slot is settled.
pub(super) fn asking_refused(refusal: &ServerError) -> BackendError {
    let refusal = server_error(refusal);
    BackendError::new(BackendErrorKind::TryAgain, refusal)
}

/// Where `MOVED 1234 host:port` leads to; `None` if the server does not know it. An IPv6 address
/// has no brackets there.
fn redirect(message: &str, code: &str) -> Option<Redirect> {
    let (_, rest) = message.split_once(code)?;
    let mut words = rest.split(' ');
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host != UNKNOWN_HOST).then_some(Redirect {
        slot,
        node: Node {
            host: host.into(),
            port: port.parse().ok()?,
        },
    })
}

/// What a node of a cluster writes for the host of a node whose host it does not know.
pub(super) const UNKNOWN_HOST: &str = "?";

/// Whether the server said that it is no node of a cluster.
pub(super) fn is_no_cluster(error: &BackendError) -> bool {
    error.to_string().contains(CLUSTER_DISABLED)
}

const CLUSTER_DISABLED: &str = "cluster support disabled";

/// Whether the server does not know the command that it refused.
pub(super) fn is_unknown_command(error: &BackendError) -> bool {
    error.is_rejected() && error.to_string().starts_with("ERR unknown command")
}

/// The codes of refusals that pass. Any other refusal is for good.
const PASSING: &[(&str, BackendErrorKind)] = &[
    ("OOM", BackendErrorKind::Unavailable),
    ("LOADING", BackendErrorKind::Unavailable),
    ("BUSY", BackendErrorKind::Unavailable),
    ("CLUSTERDOWN", BackendErrorKind::Unavailable),
    ("MOVED", BackendErrorKind::Moved),
    ("ASK", BackendErrorKind::Ask),
    ("TRYAGAIN", BackendErrorKind::TryAgain),
    ("NOREPLICAS", BackendErrorKind::Unavailable),
    ("MISCONF", BackendErrorKind::Unavailable),
    ("READONLY", BackendErrorKind::NotPrimary),
    ("MASTERDOWN", BackendErrorKind::NotPrimary),
];

/// What refusals say that pass, and have no code of their own.
const TOPOLOGIES: &[&str] = &[CLUSTER_DISABLED, "Cluster is not yet configured"];

/// What a node of a cluster answers that serves other slots, and knows nobody who serves that of
/// the key.
const SLOT_NOT_SERVED: &str = "CLUSTERDOWN Hash slot not served";

fn kind_of(message: &str) -> BackendErrorKind {
    if message.contains(SLOT_NOT_SERVED) {
        return BackendErrorKind::Moved;
    }
    let code = message.split(' ').next().unwrap_or_default();
    // Redis 6 wraps what a command inside a script answered: "ERR Error running script ... -OOM
    // ..." if the script ended by it, "@user_script: 49: -OOM ..." if the script caught it.
    let is_wrapped = code == "ERR" || code == "@user_script:";
    let passing = PASSING.iter().find(|(passing, _)| {
        code == *passing || is_wrapped && message.contains(&format!("-{passing} "))
    });
    match passing {
        Some((_, kind)) => *kind,
        // A node that was just started, or was taken out of its cluster.
        None if is_wrapped && TOPOLOGIES.iter().any(|passing| message.contains(passing)) => {
            BackendErrorKind::Unavailable
        }
        None => BackendErrorKind::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_cannot_be_counted_in_nanoseconds_is_no_time() {
        let answer = |seconds: u64, micros: u64| {
            let parts = [seconds.to_string(), micros.to_string()];
            time(Value::Array(
                parts.map(|part| Value::BulkString(part.into())).to_vec(),
            ))
        };
        assert_eq!(answer(1_700_000_000, 5).unwrap(), 1_700_000_000_000_005_000);
        for (seconds, micros) in [
            (18_446_744_074, 0),
            (18_446_744_073, 999_999),
            (0, u64::MAX),
            (u64::MAX, u64::MAX),
        ] {
            assert!(answer(seconds, micros).is_err(), "{seconds} {micros}");
        }
    }

    #[test]
    fn a_servers_message_says_whether_to_try_again() {
        for (message, kind) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                BackendErrorKind::Unavailable,
            ),
            (
                "-READONLY You can't write against a read only replica.",
                BackendErrorKind::NotPrimary,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                BackendErrorKind::Unavailable,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                BackendErrorKind::Unavailable,
            ),
            (
                "NOPERM this user has no permissions to run the 'set' command",
                BackendErrorKind::Rejected,
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                BackendErrorKind::Rejected,
            ),
            ("ERR unknown command", BackendErrorKind::Rejected),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                BackendErrorKind::TryAgain,
            ),
            ("CLUSTERDOWN Hash slot not served", BackendErrorKind::Moved),
            (
                "CLUSTERDOWN The cluster is down",
                BackendErrorKind::Unavailable,
            ),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                BackendErrorKind::NotPrimary,
            ),
            (
                "ERR Cluster is not yet configured",
                BackendErrorKind::Unavailable,
            ),
            (
                "ERR This instance has cluster support disabled",
                BackendErrorKind::Unavailable,
            ),
            (
                "CROSSSLOT Keys in request don't hash to the same slot",
                BackendErrorKind::Rejected,
            ),
        ] {
            assert_eq!(error_of_reply(message).kind, kind, "{message}");
        }
    }

    #[test]
    fn a_redirect_says_the_slot_and_the_node() {
        use BackendErrorKind::{Ask, Moved};

        for (message, kind, redirect) in [
            (
                "MOVED 3999 127.0.0.1:6381",
                Moved,
                Some((3999, "127.0.0.1", 6381)),
            ),
            (
                "-ASK 0 node-1.example:1",
                Ask,
                Some((0, "node-1.example", 1)),
            ),
            ("MOVED 16383 :7001", Moved, Some((16_383, "", 7001))),
            (
                "MOVED 7 2001:db8::1:7001",
                Moved,
                Some((7, "2001:db8::1", 7001)),
            ),
            (
                "ASK 7 [2001:db8::1]:7001",
                Ask,
                Some((7, "2001:db8::1", 7001)),
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: -MOVED 5 h:2 script: f_1",
                Moved,
                Some((5, "h", 2)),
            ),
            ("MOVED 7 ?:7001", Moved, None),
            ("MOVED 7", Moved, None),
            ("ASK 70000 h:1", Ask, None),
        ] {
            let error = error_of_reply(message);
            assert_eq!(error.kind, kind, "{message}");
            let found = error.redirect.as_deref();
            let found = found.map(|to| (to.slot, &*to.node.host, to.node.port));
            assert_eq!(found, redirect, "{message}");
        }
    }
}
