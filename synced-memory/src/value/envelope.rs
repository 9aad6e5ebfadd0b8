//! The stored form of a value: `{"value": <json>,"last_modified": <stamp>}`.
//!
//! The last bytes alone decide whether something is an envelope and what its stamp is, here as in
//! `commit.lua`: nothing has to read a long value to compare two stamps.

use std::ops::Range;

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::clock::Stamp;
use crate::value::json;

/// How many bytes at the end are looked at, here and in `commit.lua`.
pub(crate) const TAIL: usize = 64;

/// What an envelope of ours begins with.
pub(crate) const PREFIX: &str = r#"{"value": "#;

/// An envelope without its stamp.
#[derive(Debug)]
pub(crate) struct Unsealed(Vec<u8>);

impl Unsealed {
    /// The envelope of a value, which is written as JSON.
    pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        let mut text = Vec::with_capacity(128);
        text.extend_from_slice(PREFIX.as_bytes());
        json::write(&mut text, value)?;
        Ok(Self(text))
    }

    /// The envelope of a value that is JSON already.
    pub(crate) fn of_text(value: &str) -> Self {
        let mut text = Vec::with_capacity(value.len() + 48);
        text.extend_from_slice(PREFIX.as_bytes());
        text.extend_from_slice(value.as_bytes());
        Self(text)
    }

    /// The value.
    pub(crate) fn json(&self) -> &[u8] {
        &self.0[PREFIX.len()..]
    }

    pub(crate) fn seal(mut self, stamp: Stamp) -> Bytes {
        use std::io::Write;
        write!(self.0, r#","last_modified": {stamp}}}"#).expect("a Vec takes every write");
        self.0.into()
    }
}

/// The same value under another stamp. Expects an envelope that [`Unsealed::seal`] made.
pub(crate) fn restamped(envelope: &[u8], stamp: Stamp) -> Bytes {
    let value = find_tail(envelope).map_or(envelope.len(), |tail| tail.start);
    let value = &envelope[..value];
    Unsealed(value.strip_suffix(b",").unwrap_or(value).to_vec()).seal(stamp)
}

/// The stamp of what is stored; a JSON value without an envelope has the stamp zero.
pub(crate) fn stamp_of(stored: &[u8]) -> Stamp {
    find_tail(stored).map_or(Stamp::ZERO, |tail| tail.stamp())
}

/// Whether what is stored ends like an envelope.
pub(super) fn has_tail(stored: &[u8]) -> bool {
    find_tail(stored).is_some()
}

/// Where `"last_modified"` begins, and where the digits of the stamp are, if it is an envelope.
pub(super) fn tail_of(stored: &[u8]) -> Option<(usize, Range<usize>)> {
    let Tail { start, digits } = find_tail(stored)?;
    let first = digits.as_ptr().addr() - stored.as_ptr().addr();
    Some((start, first..first + digits.len()))
}

/// The value as JSON text, byte for byte: a slice of what is stored. Empty if that is not JSON.
pub(crate) fn value_of(stored: &Bytes) -> Text {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let value = if find_tail(stored).is_some() {
        serde_json::from_slice::<Envelope<'_>>(stored).map(|envelope| envelope.value.get())
    } else {
        serde_json::from_slice::<&RawValue>(stored).map(RawValue::get)
    };
    Text(value.map_or_else(|_| Bytes::new(), |value| stored.slice_ref(value.as_bytes())))
}

/// The same for an envelope that [`Unsealed::seal`] made, without parsing the value.
pub(crate) fn own_value_of(sealed: &Bytes) -> Text {
    let prefix = PREFIX.len();
    let end = find_tail(sealed).map_or(sealed.len(), |tail| tail.start);
    Text(sealed.slice(prefix.min(end)..end.saturating_sub(1).max(prefix.min(end))))
}

/// The integer that is the value, in an envelope of at most [`LONGEST_INTEGER`] bytes.
pub(crate) fn integer_of(stored: &Bytes) -> Option<i64> {
    let tail = find_tail(stored).filter(|_| stored.len() <= LONGEST_INTEGER)?;
    let (before, after) = (&stored[..tail.start], trim_end(&stored[..tail.start]));
    let digits = trim_end(after.strip_suffix(b",")?);
    let start = digits
        .iter()
        .rposition(|byte| !matches!(byte, b'0'..=b'9' | b'-'))?
        + 1;
    let without_space = |text: &[u8]| -> Vec<u8> {
        text.iter()
            .copied()
            .filter(|byte| !is_lua_space(*byte))
            .collect()
    };
    let is_plain = without_space(&before[..start]) == br#"{"value":"#;
    let text = std::str::from_utf8(&digits[start..]).ok()?;
    let number = text.parse::<i64>().ok()?;
    (is_plain && number.to_string() == text).then_some(number)
}

/// How long an envelope is at most in which an integer is looked for, here and in `commit.lua`.
pub(crate) const LONGEST_INTEGER: usize = 128;

/// JSON text that shares its bytes with what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(Bytes);

impl Text {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Text that is JSON.
    pub(super) fn of_json(json: Bytes) -> Self {
        Self(json)
    }

    pub(super) fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The part of this text that `part` is a slice of.
    pub(crate) fn part(&self, part: &str) -> Self {
        Self(self.0.slice_ref(part.as_bytes()))
    }
}

/// Reads the value out of what is stored: an envelope, or any other JSON as it is.
pub(crate) fn decode<T: DeserializeOwned>(stored: &[u8]) -> Result<T, serde_json::Error> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        value: T,
    }
    if find_tail(stored).is_some() {
        serde_json::from_slice::<Envelope<T>>(stored).map(|envelope| envelope.value)
    } else {
        serde_json::from_slice(stored)
    }
}

/// What is wrong with a stored value, which is this JSON, without any of the value.
pub(crate) fn describe(error: &serde_json::Error, json: &str) -> String {
    let found = describe_found(error, json);
    if json::has_arbitrary_precision() && may_be_of_arbitrary_precision(error) {
        return format!("{found}; {ARBITRARY_PRECISION}");
    }
    found
}

/// Why a number may not be read.
const ARBITRARY_PRECISION: &str = "if that is a number, it is since a crate of this build turns \
     on `serde_json/arbitrary_precision`, with which serde reads no numbers inside an enum with \
     `tag` or `untagged`, or beside a `flatten`";

/// With `arbitrary_precision` serde takes a number inside such an enum for a map.
fn may_be_of_arbitrary_precision(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    text.starts_with("invalid type: map, expected")
        || text.starts_with("data did not match any variant of untagged enum")
}

/// Whether it is JSON at all, of whatever type.
pub(crate) fn is_json(json: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(json).is_ok()
}

fn describe_found(error: &serde_json::Error, json: &str) -> String {
    let text = error.to_string();
    let place = format!("line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    // serde_json reports some valid JSON of another type as an error of syntax.
    match error.is_data() || is_json(json) {
        true if text == "recursion limit exceeded" => {
            let levels = json::LEVELS;
            return format!("found JSON with more than {levels} levels, at {place}");
        }
        true => {}
        false => return format!("found no valid JSON, at {place}"),
    }
    if text.starts_with("missing field `") {
        return format!("{text}, at {place}");
    }
    let parts = text.split_once(": ").zip(text.rsplit_once(", expected "));
    match parts {
        Some((("invalid type" | "invalid value" | "invalid length", found), (_, expected))) => {
            let kind = found
                .split(['`', '"', ','])
                .next()
                .unwrap_or_default()
                .trim();
            format!("found {kind} where {expected} was expected, at {place}")
        }
        _ => format!("found JSON that does not fit, at {place}"),
    }
}

/// Where this JSON is not a `T`: names of members, each with a dot behind it, or nothing.
pub(crate) fn path_of_error<T: DeserializeOwned>(json: &str) -> String {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) if error.path().iter().next().is_some() => format!("{}.", error.path()),
        _ => String::new(),
    }
}

/// Why a value cannot be written, without any of the value.
pub(crate) fn describe_refusal(error: &serde_json::Error) -> String {
    const KNOWN: [&str; 3] = [
        json::INEXACT,
        "key must be a string",
        "float key must be finite",
    ];
    let text = error.to_string();
    let known = KNOWN.into_iter().find(|known| text.contains(known));
    format!(
        "the value cannot be written as JSON: {}",
        known.unwrap_or("its `Serialize` failed")
    )
}

struct Tail<'a> {
    /// Where `"last_modified"` begins.
    start: usize,
    /// Those of the stamp.
    digits: &'a [u8],
}

/// The pattern `"last_modified":%s*(%d+)%s*}%s*$` of `commit.lua`.
fn find_tail(stored: &[u8]) -> Option<Tail<'_>> {
    const NAME: &[u8] = br#""last_modified":"#;
    let first = stored.len().saturating_sub(TAIL);
    let rest = trim_end(&stored[first..]).strip_suffix(b"}")?;
    let rest = trim_end(rest);
    let digits = rest
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (rest, digits) = rest.split_at(rest.len() - digits);
    let rest = trim_end(rest).strip_suffix(NAME)?;
    (!digits.is_empty()).then_some(Tail {
        start: first + rest.len(),
        digits,
    })
}

impl Tail<'_> {
    /// Digits that are no u64 are a stamp above 2^62, which counts as zero.
    fn stamp(&self) -> Stamp {
        let add = |number: u64, digit: &u8| {
            let number = number.checked_mul(10)?;
            number.checked_add(u64::from(digit - b'0'))
        };
        let number = self.digits.iter().try_fold(0, add);
        number.map_or(Stamp::ZERO, Stamp::new)
    }
}

fn trim_end(text: &[u8]) -> &[u8] {
    // Lua's %s: the ASCII white space, vertical tab included.
    let end = text
        .iter()
        .rposition(|byte| !is_lua_space(*byte))
        .map_or(0, |last| last + 1);
    &text[..end]
}

fn is_lua_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sealed<T: Serialize>(value: &T, stamp: u64) -> Bytes {
        Unsealed::encode(value).unwrap().seal(Stamp::new(stamp))
    }

    #[test]
    fn an_envelope_has_its_value_first_and_its_stamp_last() {
        assert_eq!(
            &sealed(&"a", 17)[..],
            br#"{"value": "a","last_modified": 17}"#
        );
    }

    #[test]
    fn what_was_sealed_is_read_back_with_its_stamp() {
        let value = json!({"a": [1, 2.5, null, "ü"], "last_modified": 3});
        let stored = sealed(&value, 1_700_000_000_000_000_123);
        assert_eq!(decode::<Value>(&stored).unwrap(), value);
        assert_eq!(stamp_of(&stored).get(), 1_700_000_000_000_000_123);
    }

    #[test]
    fn a_new_stamp_leaves_the_value_as_it_was() {
        for value in [
            json!("x"),
            json!({"value": 1, "last_modified": 5}),
            json!([",", "\"last_modified\": 9}"]),
        ] {
            assert_eq!(
                restamped(&sealed(&value, 1_000_000_000_000_000_000), Stamp::new(7)),
                sealed(&value, 7)
            );
        }
    }

    #[test]
    fn the_envelopes_of_python_are_read() {
        let stored = br#"{"value": {"a": 1}, "last_modified": 1719400000000000000}"#;
        assert_eq!(decode::<Value>(stored).unwrap(), json!({"a": 1}));
        assert_eq!(stamp_of(stored).get(), 1_719_400_000_000_000_000);
    }

    #[test]
    fn the_value_is_a_part_of_what_is_stored_byte_for_byte() {
        for (stored, value) in [
            (
                r#"{"value": {"b" :1e2,"a": [ ]}, "last_modified": 5}"#,
                r#"{"b" :1e2,"a": [ ]}"#,
            ),
            (
                r#"{"other": 1, "value":1180591620717411303424 ,"last_modified": 5}"#,
                "1180591620717411303424",
            ),
            (r#" {"a": 1} "#, r#"{"a": 1}"#),
            ("garbage", ""),
            (r#"{"value": garbage, "last_modified": 5}"#, ""),
        ] {
            assert_eq!(
                value_of(&Bytes::from_static(stored.as_bytes())).as_str(),
                value,
                "{stored}"
            );
        }
        for value in [
            json!("x"),
            json!({"value": 1, "last_modified": 5}),
            json!([",", "\"last_modified\": 9}"]),
        ] {
            let sealed = sealed(&value, 17);
            assert_eq!(own_value_of(&sealed), value_of(&sealed));
        }
    }

    #[test]
    fn only_the_last_bytes_decide_what_an_envelope_is() {
        for (stored, stamp) in [
            (r#"{"value":1,"last_modified":5}"#, 5),
            ("{\"value\":1,\n \"last_modified\":\t5 }\r\n", 5),
            (r#"{"last_modified": 5, "value": 1}"#, 0),
            (r#"{"value": "\"last_modified\": 5}"}"#, 0),
            (r#"{"value": 1, "last_modified": -5}"#, 0),
            (r#"{"value": 1, "last_modified": 5.0}"#, 0),
            (
                r#"{"value": 1, "last_modified": 99999999999999999999999}"#,
                0,
            ),
            (r#"{"value": 1, "last_modified": 4611686018427387905}"#, 0),
            (
                r#"{"value": 1, "last_modified": 4611686018427387904}"#,
                1 << 62,
            ),
            ("5", 0),
            ("", 0),
            ("}", 0),
        ] {
            assert_eq!(stamp_of(stored.as_bytes()).get(), stamp, "{stored}");
        }
    }

    #[test]
    fn json_without_an_envelope_is_the_value_itself() {
        assert_eq!(
            decode::<Value>(br#"{"last_modified": 5, "value": 1}"#).unwrap(),
            json!({"last_modified": 5, "value": 1})
        );
        assert_eq!(decode::<i64>(b"5").unwrap(), 5);
        assert!(decode::<i64>(b"garbage").is_err());
    }

    #[test]
    fn every_number_survives_exactly() {
        for float in [
            0.1,
            -0.0,
            f64::MIN_POSITIVE,
            5e-324,
            f64::MAX,
            1.0 / 3.0,
            123_456_789.123_456_79,
        ] {
            assert_eq!(
                decode::<f64>(&sealed(&float, 1)).unwrap().to_bits(),
                float.to_bits()
            );
        }
        assert_eq!(decode::<u64>(&sealed(&u64::MAX, 1)).unwrap(), u64::MAX);
        assert_eq!(decode::<i64>(&sealed(&i64::MIN, 1)).unwrap(), i64::MIN);
    }

    #[test]
    fn a_description_says_what_was_found_without_the_value() {
        #[derive(Debug, Deserialize)]
        struct Age {
            #[allow(dead_code)]
            age: u8,
        }
        let describe = |stored: &'static str| {
            let value = value_of(&Bytes::from_static(stored.as_bytes()));
            super::describe(
                &decode::<Age>(stored.as_bytes()).unwrap_err(),
                value.as_str(),
            )
        };
        assert_eq!(
            describe(r#"{"age": "secret, expected 5"}"#),
            "found string where u8 was expected, at line 1 column 28"
        );
        assert_eq!(
            describe(r#"{"age": 300}"#),
            "found integer where u8 was expected, at line 1 column 11"
        );
        assert_eq!(describe("{}"), "missing field `age`, at line 1 column 2");
        assert_eq!(
            describe("nonsense"),
            "found no valid JSON, at line 1 column 2"
        );
        assert_eq!(
            describe(r#"{"age": }"#),
            "found no valid JSON, at line 1 column 9"
        );
    }

    #[test]
    fn json_of_another_type_is_not_called_invalid() {
        fn of<T: DeserializeOwned>(json: &str) -> String {
            describe(
                &serde_json::from_str::<T>(json).map(drop).unwrap_err(),
                json,
            )
        }
        #[derive(Debug, Deserialize)]
        enum Light {
            #[allow(dead_code)]
            Green,
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (described, expected) in [
            (of::<Light>("7"), "found JSON that does not fit"),
            (of::<(u8, u8)>("[1, 2, 3]"), "found JSON that does not fit"),
            (
                of::<std::collections::HashMap<u8, u8>>(r#"{"a": 1}"#),
                "found JSON that does not fit",
            ),
            (of::<f64>("1e999"), "found JSON that does not fit"),
            (of::<Value>(&deep), "found JSON with more than 126 levels"),
            (of::<(u8, u8)>("[1, 2, 3"), "found no valid JSON"),
        ] {
            assert_eq!(described.split(", at line").next(), Some(expected));
        }
    }

    #[test]
    fn a_number_that_serde_takes_for_a_map_is_explained() {
        let error = |json| serde_json::from_str::<f64>(json).unwrap_err();
        assert!(may_be_of_arbitrary_precision(&error("{}")));
        assert!(!may_be_of_arbitrary_precision(&error("[]")));
        assert!(ARBITRARY_PRECISION.contains("`serde_json/arbitrary_precision`"));
        // This build has not turned it on.
        let described = describe(&error("{}"), "{}");
        assert!(described.starts_with("found map where f64 was expected, at"));
        assert!(!described.contains(ARBITRARY_PRECISION));
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        assert!(Unsealed::encode(&f64::NAN).is_err());
        assert!(Unsealed::encode(&vec![Some(f32::INFINITY)]).is_err());
        assert!(
            Unsealed::encode(&std::collections::HashMap::from([(
                "a",
                (1, f64::NEG_INFINITY)
            )]))
            .is_err()
        );
        assert!(Unsealed::encode(&u128::MAX).is_err());
        assert!(Unsealed::encode(&(i128::from(i64::MIN) - 1)).is_err());
    }
}
