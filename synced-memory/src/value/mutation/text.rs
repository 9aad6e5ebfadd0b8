//! JSON text, one level at a time.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ApplyError;
use crate::value::json;

/// A JSON value as text, valid and without white space around it.
#[derive(Clone, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Json(Box<RawValue>);

impl Json {
    /// The value as this library writes it.
    pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        let mut text = Vec::new();
        json::write(&mut text, value)?;
        json::into_text(text).and_then(Self::parse)
    }

    /// The text as it is, if it is valid JSON.
    pub(crate) fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// Whether it has too many levels for a value in which it is so many levels down.
    pub(super) fn is_too_deep(&self, above: usize) -> bool {
        let allowed = json::LEVELS.checked_sub(above);
        allowed.is_none_or(|allowed| json::is_deeper_than(allowed, self.as_str().as_bytes()))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An optional value as a list of at most one, since `null` is a value.
pub(super) mod maybe {
    use super::Json;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option, reason = "serde calls it")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Json>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_slice().serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Json>, D::Error> {
        Ok(Vec::deserialize(deserializer)?.pop())
    }
}

/// What kind of value the text holds, in words, by its first byte.
pub(super) fn kind(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'{') => OBJECT,
        Some(b'[') => LIST,
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(b'-' | b'0'..=b'9') => NUMBER,
        _ => "nothing",
    }
}

pub(super) const OBJECT: &str = "an object";
pub(super) const LIST: &str = "a list";
pub(super) const NUMBER: &str = "a number";

/// The error if `text` is not of the kind `expected`.
pub(super) fn mismatch(text: &str, expected: &'static str) -> ApplyError {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => ApplyError::Type {
            expected,
            found: kind(text),
        },
        Err(_) => ApplyError::Invalid,
    }
}

/// White space in JSON, of which Rust knows more.
pub(in crate::value) fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\n' | '\r')
}

/// The elements of a list, which are slices of `text`.
pub(super) fn elements(text: &str) -> Result<Vec<&str>, ApplyError> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| mismatch(text, LIST))?;
    Ok(elements.into_iter().map(RawValue::get).collect())
}

/// The members of an object, names with their quotes; all of them slices of `text`.
pub(super) fn members(text: &str) -> Result<Vec<(&str, &str)>, ApplyError> {
    let members: MembersVisitor<'_> =
        serde_json::from_str(text).map_err(|_| mismatch(text, OBJECT))?;
    Ok(members.0)
}

struct MembersVisitor<'a>(Vec<(&'a str, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for MembersVisitor<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Vec<(&'de str, &'de str)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(OBJECT)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push((name.get(), value.get()));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Each).map(Self)
    }
}

/// Whether a quoted name, as it is in the text, reads as `name`.
pub(super) fn reads_as(quoted: &str, name: &str) -> bool {
    read_name(quoted) == name
}

/// A quoted name, as it is in the text, without its quotes and escapes. One with a lone surrogate,
/// which Rust cannot read, keeps its quotes, so that it equals no other.
pub(in crate::value) fn read_name(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if inner.contains('\\') {
        return serde_json::from_str(quoted).map_or(Cow::Borrowed(quoted), Cow::Owned);
    }
    Cow::Borrowed(inner)
}
