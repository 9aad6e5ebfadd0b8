//! The requests that Dragonfly handles differently from Redis, as read in its sources, v1.14 to
//! v1.40.1.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::resp::Resp;

/// Put before each script: it lets no command touch a key that was not declared.
const GUARD: &str = include_str!("guard.lua");

/// How a request is handled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handling {
    /// The server gets this, and its answer is changed.
    Passed(Vec<Vec<u8>>, Answer),
    /// The server does not see it.
    Answered(Resp),
}

/// How the answer is changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    AsItIs,
    /// It says that this is Dragonfly.
    Named,
    /// Names come twice.
    Doubled,
    /// The script has this hash.
    Hashed(String),
}

/// The guarded forms of scripts by the hashes of the plain ones.
#[derive(Debug, Default)]
pub(super) struct Scripts(Mutex<HashMap<String, String>>);

impl Scripts {
    fn guarded(&self, text: &str) -> String {
        let guarded = format!("{GUARD}{text}");
        let (plain, hash) = (hash(text), hash(&guarded));
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(plain, hash);
        guarded
    }

    fn guarded_hash(&self, plain: &str) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(plain)
            .cloned()
    }
}

fn hash(text: &str) -> String {
    redis::Script::new(text).get_hash().to_owned()
}

fn error(text: &str) -> Handling {
    Handling::Answered(Resp::Line(format!("-ERR {text}").into_bytes()))
}

/// How a request is handled, on a connection that speaks RESP3 or RESP2.
pub(super) fn handling(mut words: Vec<Vec<u8>>, is_resp3: bool, scripts: &Scripts) -> Handling {
    let text = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
    let upper: Vec<String> = words
        .iter()
        .take(8)
        .map(|word| text(word).to_uppercase())
        .collect();
    let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
    match upper[..] {
        ["CLIENT", "TRACKING", ..] if !is_resp3 => {
            error("Client tracking is currently not supported for RESP2. Please use RESP3.")
        }
        ["CLIENT", "TRACKING", _, ref options @ ..] => match options {
            // It answers, and tracks nothing.
            ["NOLOOP"] => Handling::Passed(
                ["CLIENT", "TRACKING", "OFF"].map(Vec::from).to_vec(),
                Answer::AsItIs,
            ),
            [] | ["OPTIN" | "OPTOUT"] => Handling::Passed(words, Answer::AsItIs),
            _ => error("syntax error"),
        },
        [
            "CLIENT",
            subcommand @ ("TRACKINGINFO" | "NO-EVICT" | "NO-TOUCH" | "REPLY"),
            ..,
        ] => error(&format!(
            "Unknown subcommand or wrong number of arguments for '{subcommand}'. Try CLIENT HELP."
        )),
        [name @ ("FUNCTION" | "FCALL" | "FCALL_RO"), ..] => {
            error(&format!("unknown command `{name}`"))
        }
        ["SCRIPT", "LOAD", _] => {
            let plain = text(&words[2]);
            words[2] = scripts.guarded(&plain).into_bytes();
            Handling::Passed(words, Answer::Hashed(hash(&plain)))
        }
        ["EVAL", ..] => {
            words[1] = scripts.guarded(&text(&words[1])).into_bytes();
            Handling::Passed(words, Answer::AsItIs)
        }
        ["EVALSHA", ..] => {
            if let Some(hash) = scripts.guarded_hash(&text(&words[1])) {
                words[1] = hash.into_bytes();
            }
            Handling::Passed(words, Answer::AsItIs)
        }
        ["SCAN", _, ref options @ ..] => {
            if let Some(count) = options.iter().position(|option| *option == "COUNT") {
                words[2 + count + 1] = b"7".to_vec();
            }
            Handling::Passed(words, Answer::Doubled)
        }
        ["HELLO", ..] => Handling::Passed(words, Answer::Named),
        _ => Handling::Passed(words, Answer::AsItIs),
    }
}

/// The answer as the client gets it.
pub(super) fn changed(answer: Resp, how: Answer) -> Resp {
    match (how, answer) {
        (Answer::Named, Resp::Many(kind, mut pairs)) => {
            pairs.extend(["dragonfly_version", "df-v1.40.1"].map(Resp::bulk));
            Resp::Many(kind, pairs)
        }
        (Answer::Doubled, Resp::Many(kind, mut page)) => {
            if let Some(Resp::Many(_, names)) = page.get_mut(1) {
                names.extend_from_within(..names.len().div_ceil(2));
            }
            Resp::Many(kind, page)
        }
        (Answer::Hashed(hash), Resp::Bulk(..)) => Resp::bulk(hash),
        (_, answer) => answer,
    }
}

/// Pushes of one key each.
pub(super) fn one_by_one(push: Vec<Resp>) -> Vec<Resp> {
    let of = |what: Resp| Resp::Many(b'>', vec![Resp::bulk("invalidate"), what]);
    match &push[..] {
        [Resp::Bulk(_, kind), Resp::Many(array, keys)] if kind == b"invalidate" => keys
            .iter()
            .map(|key| of(Resp::Many(*array, vec![key.clone()])))
            .collect(),
        _ => vec![Resp::Many(b'>', push)],
    }
}
