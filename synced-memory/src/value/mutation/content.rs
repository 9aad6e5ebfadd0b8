//! A hash of what a JSON text says: two texts that read the same have the same content.
//!
//! White space, escapes, the order of members and the spelling of a float (`1e2`, `100.0`) do not
//! count, since another program that rewrites a value changes them; of duplicate members the last
//! one counts. Numbers are compared exactly, of whatever length.
//!
//! The number that is on disk (in journals) must not change from version to version, so anybody can
//! compute it, and make a string that shares it with another one. Texts that are compared in one
//! process have a number with a key, which nobody knows.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::value::shape::{Children, PLAIN, Shape};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Content(u64);

/// The key of what stays in this process; zero until it is drawn. No lock is held while that is
/// done: a fork at that moment would leave the child with a lock that nobody releases.
static KEY: AtomicU64 = AtomicU64::new(0);

fn process_key() -> u64 {
    let key = KEY.load(Ordering::Relaxed);
    if key != 0 {
        return key;
    }
    let drawn = RandomState::new().build_hasher().finish() | 1;
    // Of several threads that draw one, the first decides for all.
    match KEY.compare_exchange(0, drawn, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => drawn,
        Err(key) => key,
    }
}

impl Content {
    /// The content of a valid text, as it is on disk.
    pub(crate) fn of(text: &str) -> Self {
        Self(Walk::with_key(0, text).value(0))
    }

    /// The content of a valid text, to be compared with other keyed contents of this process.
    pub(crate) fn keyed(text: &str) -> Self {
        Self(Walk::with_key(process_key(), text).value(0))
    }

    /// The same, but the order of members counts.
    pub(super) fn with_order(text: &str) -> Self {
        Self(Walk::with_key(0, text).shaped(&PLAIN, false, 0))
    }

    /// The keyed content of a value as its type writes it: order counts except in maps and sets.
    pub(super) fn of_value(text: &str, shape: &Shape) -> Self {
        Self(Walk::with_key(process_key(), text).shaped(shape, false, 0))
    }

    /// The same, but order does not count inside a part either: a type that hides a set in it
    /// writes the members in another order each time.
    pub(super) fn of_members(text: &str, shape: &Shape) -> Self {
        Self(Walk::with_key(process_key(), text).shaped(shape, true, 0))
    }

    /// Four parts of the number.
    pub(super) fn parts(self) -> [u16; 4] {
        let bytes = self.0.to_le_bytes();
        [0, 2, 4, 6].map(|at| u16::from_le_bytes([bytes[at], bytes[at + 1]]))
    }
}

/// How deep `serde_json` reads; what is deeper counts letter by letter.
const DEPTH: usize = 128;

const LIST: u64 = 1;
const OBJECT: u64 = 2;
const STRING: u64 = 3;
const FLOAT: u64 = 4;
const OTHER: u64 = 5;
const DECIMAL: u64 = 6;

/// Walks over a valid text; an invalid one leads to some hash, without a panic.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Zero for what is on disk.
    key: u64,
}

impl<'a> Walk<'a> {
    fn with_key(key: u64, text: &'a str) -> Self {
        Self { text, at: 0, key }
    }

    fn value(&mut self, depth: usize) -> u64 {
        match self.peek() {
            Some(b'{') if depth < DEPTH => self.object(depth),
            Some(b'[') if depth < DEPTH => self.list(depth),
            Some(b'{' | b'[') => bytes(self.key ^ OTHER, self.nested().as_bytes()),
            Some(b'"') => string(self.key, self.quoted()),
            _ => self.scalar(),
        }
    }

    /// `hides_order`: inside a part no order counts.
    fn shaped(&mut self, shape: &Shape, hides_order: bool, depth: usize) -> u64 {
        let (is_ordered, children) = match shape {
            Shape::Part(children) => (!hides_order, children),
            Shape::List(children) => (true, children),
            Shape::Unordered(children) | Shape::Set(children) | Shape::Map(children) => {
                (false, children)
            }
            Shape::Json => return self.value(depth),
            Shape::Fields(fields) => {
                return self.shaped_members(true, depth, hides_order, |at| {
                    // A text that is not of this shape may have more members.
                    fields.get(at).map_or(&PLAIN, |(_, shape)| shape)
                });
            }
        };
        match self.peek() {
            Some(b'{') if depth < DEPTH => {
                self.shaped_members(is_ordered, depth, hides_order, |at| children.at(at))
            }
            Some(b'[') if depth < DEPTH => {
                self.shaped_elements(is_ordered, depth, hides_order, children)
            }
            _ => self.value(depth),
        }
    }

    fn shaped_elements(
        &mut self,
        is_ordered: bool,
        depth: usize,
        hides_order: bool,
        children: &Children,
    ) -> u64 {
        self.at += 1;
        let mut elements = Vec::new();
        while self.has_next(b']') {
            elements.push(self.shaped(children.at(elements.len()), hides_order, depth + 1));
        }
        if !is_ordered {
            elements.sort_unstable();
        }
        elements.into_iter().fold(mix(self.key ^ LIST), join)
    }

    fn shaped_members<'s>(
        &mut self,
        is_ordered: bool,
        depth: usize,
        hides_order: bool,
        child: impl Fn(usize) -> &'s Shape,
    ) -> u64 {
        if self.peek() != Some(b'{') {
            return self.value(depth);
        }
        self.at += 1;
        let mut members = Vec::new();
        while self.has_next(b'}') {
            let name = if self.peek() == Some(b'"') {
                string(self.key, self.quoted())
            } else {
                self.scalar()
            };
            self.skip(b':');
            members.push((
                name,
                self.shaped(child(members.len()), hides_order, depth + 1),
            ));
        }
        if !is_ordered {
            members.sort_unstable();
        }
        members
            .into_iter()
            .fold(mix(self.key ^ OBJECT), |hash, (name, value)| {
                join(join(hash, name), value)
            })
    }

    fn list(&mut self, depth: usize) -> u64 {
        self.at += 1;
        let mut hash = mix(self.key ^ LIST);
        while self.has_next(b']') {
            hash = join(hash, self.value(depth + 1));
        }
        hash
    }

    fn object(&mut self, depth: usize) -> u64 {
        self.at += 1;
        let mut members = Vec::new();
        while self.has_next(b'}') {
            let name = if self.peek() == Some(b'"') {
                string(self.key, self.quoted())
            } else {
                self.scalar()
            };
            self.skip(b':');
            members.push((name, self.value(depth + 1)));
        }
        members.sort_by_key(|(name, _)| *name);
        let mut hash = mix(self.key ^ OBJECT);
        for (index, (name, value)) in members.iter().enumerate() {
            if members.get(index + 1).is_none_or(|(next, _)| next != name) {
                hash = join(join(hash, *name), *value);
            }
        }
        hash
    }

    fn scalar(&mut self) -> u64 {
        let rest = &self.text.as_bytes()[self.at..];
        let ends = |byte: &u8| {
            matches!(
                byte,
                b',' | b':' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'
            )
        };
        // At least one byte, so that the walk always ends.
        let length = rest
            .iter()
            .position(ends)
            .unwrap_or(rest.len())
            .max(1)
            .min(rest.len());
        self.at += length;
        number(self.key, &rest[..length])
    }

    /// A string with its quotes.
    fn quoted(&mut self) -> &'a str {
        let start = self.at;
        let text = self.text.as_bytes();
        self.at += 1;
        while let Some(byte) = text.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => self.at = text.len().min(self.at + 1),
                _ => {}
            }
        }
        self.since(start)
    }

    /// A list or an object as it is written, however deep.
    fn nested(&mut self) -> &'a str {
        let start = self.at;
        let mut open = 0_usize;
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'"' => {
                    self.quoted();
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                break;
            }
        }
        self.since(start)
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn peek(&mut self) -> Option<u8> {
        let text = self.text.as_bytes();
        while matches!(text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        text.get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Whether there is another one before `end`. Skips commas, and `end`.
    fn has_next(&mut self, end: u8) -> bool {
        !self.skip(end) && (self.skip(b',') || self.peek().is_some())
    }
}

fn string(key: u64, quoted: &str) -> u64 {
    let inner = quoted.as_bytes();
    if inner.contains(&b'\\') {
        // A lone surrogate, which Python writes and Rust does not read, counts as it is written,
        // and is not the string that reads as these letters.
        return match serde_json::from_str::<String>(quoted) {
            Ok(read) => bytes(key ^ STRING, read.as_bytes()),
            Err(_) => bytes(key ^ OTHER, inner),
        };
    }
    bytes(
        key ^ STRING,
        inner
            .get(1..inner.len().saturating_sub(1))
            .unwrap_or_default(),
    )
}

fn number(key: u64, text: &[u8]) -> u64 {
    let integer = text != b"-0" && !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    let starts = text
        .first()
        .is_some_and(|byte| matches!(byte, b'-' | b'0'..=b'9'));
    let read = std::str::from_utf8(text).ok().filter(|_| starts);
    match read {
        Some(read) if !integer => match read.parse::<f64>() {
            Ok(float) if float.is_finite() => {
                let exact = Decimal::of(read);
                // A decimal type may write more digits than a float has.
                if exact == Decimal::of(&format!("{float:e}")) {
                    mix(mix(key ^ FLOAT) ^ float.to_bits())
                } else {
                    exact.hash(key)
                }
            }
            _ => bytes(key ^ OTHER, text),
        },
        _ => bytes(key ^ OTHER, text),
    }
}

/// A number as it is written: `0.digits * 10^exponent`, without zeros at the ends of the digits.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Of a valid number.
    fn of(text: &str) -> Self {
        let is_negative = text.starts_with('-');
        let text = text.trim_start_matches('-');
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole.as_bytes(), fraction.as_bytes()].concat();
        let zeros = all.iter().take_while(|digit| **digit == b'0').count();
        let end = all
            .iter()
            .rposition(|digit| *digit != b'0')
            .map_or(zeros, |last| last + 1);
        let digits = all[zeros..end].to_vec();
        let power: i64 = power.trim_start_matches('+').parse().unwrap_or_default();
        let point = i64::try_from(whole.len()).unwrap_or(i64::MAX);
        let zeros = i64::try_from(zeros).unwrap_or(i64::MAX);
        let exponent = if digits.is_empty() {
            0
        } else {
            power.saturating_add(point).saturating_sub(zeros)
        };
        Self {
            is_negative,
            digits,
            exponent,
        }
    }

    fn hash(&self, key: u64) -> u64 {
        let hash = join(
            bytes(key ^ DECIMAL, &self.digits),
            self.exponent.cast_unsigned(),
        );
        join(hash, u64::from(self.is_negative))
    }
}

fn bytes(tag: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(tag ^ (bytes.len() as u64).rotate_left(32));
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(hash ^ u64::from_le_bytes(chunk.try_into().expect("chunks of eight")));
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(hash ^ u64::from_le_bytes(last))
}

/// Not an exclusive or: a list and its elements are hashed in the same way, and would cancel out.
fn join(hash: u64, next: u64) -> u64 {
    mix(hash.wrapping_mul(0xff51_afd7_ed55_8ccd).wrapping_add(next))
}

/// One step of `SplitMix64` (<https://prng.di.unimi.it/splitmix64.c>).
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_read_the_same_have_the_same_content() {
        for (one, other) in [
            (r#"{"a": [1, 2], "b": "A"}"#, r#"{"b":"\u0041","a":[1,2]}"#),
            (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#),
            (r#"{"\u0061": 1, "a": 2}"#, r#"{"a": 2}"#),
            ("1e2", "100.0"),
            ("-0", "-0.0"),
            ("0.0", "0.000e7"),
            ("0.30000000000000004", "30000000000000004e-17"),
            ("12345678901234567890.5", "1.23456789012345678905e+19"),
            ("[ ]", "[]"),
            ("\"\\u00fc\"", "\"ü\""),
        ] {
            assert_eq!(Content::of(one), Content::of(other), "{one} and {other}");
        }
    }

    #[test]
    fn texts_that_read_differently_have_different_contents() {
        let deep = |last: &str| format!("{}{last}{}", "[".repeat(200), "]".repeat(200));
        let texts = [
            "1",
            "1.0",
            "-1",
            "0",
            "-0",
            "true",
            "false",
            "null",
            "\"1\"",
            "\"\"",
            "[]",
            "{}",
            "[1]",
            "[[1]]",
            "[1,2]",
            "[2,1]",
            "[[1],2]",
            "[[1,2]]",
            "[[]]",
            "[[],[]]",
            "[[],[[]]]",
            "[[[]]]",
            "[{}]",
            "[[],{}]",
            "\"true\"",
            "\"null\"",
            r#"{"a":1}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"["a",1]"#,
            "1180591620717411303424",
            "1180591620717411303425",
            "1.0e400",
            "1.0e401",
            "\"\\ud800\"",
            "\"\\ud801\"",
            // The text of six letters.
            "\"\\\\ud800\"",
            "0.30000000000000000001",
            "0.30000000000000000002",
            "0.3",
            "-0.30000000000000000001",
            "3.0000000000000000001",
            "10000000000000000000000001.0",
            "10000000000000000000000002.0",
        ];
        let mut texts: Vec<String> = texts.map(str::to_owned).into();
        texts.extend([deep("1"), deep("2")]);
        for (index, one) in texts.iter().enumerate() {
            for other in &texts[index + 1..] {
                assert_ne!(Content::of(one), Content::of(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn an_integer_beyond_64_bits_counts_exactly() {
        assert_ne!(
            Content::of("1180591620717411303424"),
            Content::of("1.1805916207174113e21")
        );
        assert_ne!(
            Content::of("18446744073709551615"),
            Content::of("18446744073709551614")
        );
    }

    #[test]
    fn order_counts_but_in_maps_and_sets() {
        let of = |text: &str, shape: &Shape| Content::of_value(text, shape);
        let (list, set) = (
            Shape::List(Children::default()),
            Shape::Set(Children::default()),
        );
        assert_eq!(of("[1,2]", &set), of("[2, 1]", &set));
        assert_ne!(of("[1,2]", &list), of("[2,1]", &list));
        let (part, unordered) = (Shape::default(), Shape::Unordered(Children::default()));
        let (one, other) = (r#"{"a":[1,2],"b":0}"#, r#"{"b":0,"a":[1,2]}"#);
        assert_ne!(of(one, &part), of(other, &part));
        assert_eq!(of(one, &unordered), of(other, &unordered));
        assert_eq!(of(one, &Shape::Json), of(other, &Shape::Json));
        let hidden = r#"{"b":0,"a":[2,1]}"#;
        assert_ne!(of(one, &unordered), of(hidden, &unordered));
        assert_eq!(
            Content::of_members(one, &part),
            Content::of_members(hidden, &part)
        );
        assert_ne!(
            Content::of_members("[[1,2]]", &list),
            Content::of_members("[[1,1]]", &list)
        );
    }

    #[test]
    fn texts_that_were_made_to_share_a_content_have_different_keyed_ones() {
        let (one, other) = (r#""admin of company""#, r#""00000971oBf2Iixl""#);
        assert_eq!(Content::of(one), Content::of(other));
        assert_ne!(Content::keyed(one), Content::keyed(other));
        let [one, other] = [one, other].map(|text| Content::of_value(text, &PLAIN));
        assert_ne!(one, other);
    }

    #[test]
    fn contents_are_the_same_in_every_version() {
        let text =
            r#"{"a": [1, 2.5, "ü", null], "b": {"c": true, "long": "more than eight bytes"}}"#;
        assert_eq!(Content::of(text), Content(17_886_777_688_140_486_515));
    }
}
