//! The credentials in use, which no text from outside may repeat.
//!
//! Servers repeat commands in their errors, AUTH and its arguments included, and some cut them
//! short. [`scrubbed`] is applied where such a text becomes an error of a backend, which is the
//! only way for it into errors, events and the status.

#![cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only servers have passwords")
)]

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;

/// What stands in place of a secret.
const REDACTED: &str = "<redacted>";

/// The shortest beginning of a secret that is taken out where the text was cut short.
const LEAST_BEGINNING: usize = 4;

/// The secrets of all backends that are there, each in the forms in which it may be repeated. Not
/// under a lock, which a parent could hold at a fork.
static IN_USE: ArcSwapOption<Vec<Weak<[String]>>> = ArcSwapOption::const_empty();

/// A secret that is taken out of every text from outside as long as this lives.
#[derive(Clone)]
pub(crate) struct Redaction {
    _forms: Arc<[String]>,
}

impl Redaction {
    pub(crate) fn of(secret: &str) -> Self {
        let forms: Arc<[String]> = forms(secret).into();
        IN_USE.rcu(|in_use| {
            let in_use = in_use.iter().flat_map(|in_use| in_use.iter());
            let mut in_use: Vec<_> = in_use
                .filter(|other| other.strong_count() > 0)
                .cloned()
                .collect();
            in_use.push(Arc::downgrade(&forms));
            Some(Arc::new(in_use))
        });
        Self { _forms: forms }
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A password: no `Debug` shows it, and it is taken out of every text from outside.
#[derive(Clone)]
pub(crate) struct Secret {
    text: String,
    _redaction: Redaction,
}

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            _redaction: Redaction::of(&text),
            text,
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

/// How a text may repeat a secret: as it is, with the line ends that Redis
/// replaces by spaces, with escapes, and as in a URL.
fn forms(secret: &str) -> Vec<String> {
    let url = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC);
    let mut forms = vec![
        secret.to_owned(),
        secret.replace(['\r', '\n'], " "),
        secret.escape_debug().to_string(),
        secret.replace('\\', "\\\\").replace('"', "\\\""),
        url.to_string(),
    ];
    forms.retain(|form| !form.is_empty());
    forms
}

/// The text without the credentials in use, and without their beginnings where it was cut short.
pub(crate) fn scrubbed(text: String) -> String {
    let in_use = IN_USE.load();
    let in_use = in_use.iter().flat_map(|in_use| in_use.iter());
    let in_use: Vec<_> = in_use.filter_map(Weak::upgrade).collect();
    if in_use.is_empty() {
        return text;
    }
    let mut scrubbed = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(character) = text[at..].chars().next() {
        // The longest form: what is left of a longer one would be a part of the secret.
        let forms = in_use.iter().flat_map(|forms| forms.iter());
        let length = forms.map(|form| repeated(&text[at..], form)).max();
        match length {
            None | Some(0) => at += character.len_utf8(),
            Some(length) => {
                scrubbed.push_str(&text[copied..at]);
                scrubbed.push_str(REDACTED);
                at += length;
                copied = at;
            }
        }
    }
    if copied == 0 {
        return text;
    }
    scrubbed.push_str(&text[copied..]);
    scrubbed
}

/// How many bytes at the beginning of the text repeat the secret.
fn repeated(text: &str, secret: &str) -> usize {
    let common: usize = text
        .chars()
        .zip(secret.chars())
        .take_while(|(one, other)| one == other)
        .map(|(one, _)| one.len_utf8())
        .sum();
    let rest = &text[common..];
    let is_cut_short = rest.is_empty() || rest.starts_with(['\'', '"', '`', '…']);
    let is_repeated = common == secret.len()
        || common >= LEAST_BEGINNING && (is_cut_short || rest.starts_with("..."));
    if is_repeated { common } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::clock::Deadline;

    fn scrub(text: &str) -> String {
        scrubbed(text.to_owned())
    }

    #[test]
    fn a_secret_in_use_is_taken_out_of_a_text_however_it_is_repeated() {
        let _held = Redaction::of("s3cr\r\n3t \"&");
        for said in [
            "s3cr\r\n3t \"&",
            "s3cr  3t \"&",
            "s3cr\\r\\n3t \\\"&",
            "s3cr%0D%0A3t%20%22%26",
            "s3cr  3t",
            "s3cr",
        ] {
            let text = scrub(&format!(
                "ERR args: 'AUTH' 'default' '{said}' twice '{said}'"
            ));
            let expected = format!("ERR args: 'AUTH' 'default' '{REDACTED}' twice '{REDACTED}'");
            assert_eq!(text, expected, "{said}");
        }
        assert_eq!(scrub("it ends with s3cr  3"), "it ends with <redacted>");
        assert_eq!(scrub("it ends with s3c"), "it ends with s3c");
    }

    #[test]
    fn a_text_without_a_secret_stays_as_it_is() {
        let _held = Redaction::of("userland-7");
        let text = "WRONGPASS invalid username-password pair or user is disabled.";
        assert_eq!(scrub(text), text);
        let _empty = Redaction::of("");
        assert_eq!(scrub(text), text);
    }

    #[test]
    fn a_password_is_shown_by_nobody_who_holds_it() {
        let password: Secret = "t0p-s3cret".parse().unwrap();
        assert_eq!(
            (format!("{password:?}"), password.text()),
            (REDACTED.to_owned(), "t0p-s3cret")
        );
        assert_eq!(scrub("AUTH t0p-s3cret"), format!("AUTH {REDACTED}"));
    }

    #[test]
    fn a_secret_that_nobody_uses_any_more_is_forgotten() {
        let held = Redaction::of("0nce-in-use");
        assert_eq!(scrub("0nce-in-use"), REDACTED);
        assert_eq!(format!("{held:?}"), REDACTED);
        let other = held.clone();
        drop(held);
        assert_eq!(scrub("0nce-in-use"), REDACTED);
        drop(other);
        // Another test may be scrubbing a text at this moment, which holds all secrets.
        let deadline = Deadline::after(Duration::from_secs(10));
        while scrub("0nce-in-use") != "0nce-in-use" {
            assert!(!deadline.remaining().is_zero(), "it is never forgotten");
            std::thread::yield_now();
        }
    }
}
