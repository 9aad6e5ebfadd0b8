//! JSON as this library writes it: as `serde_json` does, but a number that JSON cannot hold is an
//! error.
//!
//! `serde_json` writes a NaN and the infinities as `null`, and writes 128-bit integers, which other
//! readers round. A value that is read back as something else is worse than an error.

use serde::ser::{self, Serialize, Serializer};

/// Appends `value` to `text`.
pub(crate) fn write<T: Serialize + ?Sized>(
    text: &mut Vec<u8>,
    value: &T,
) -> Result<(), serde_json::Error> {
    value.serialize(ExactNumbers(&mut serde_json::Serializer::new(text)))
}

/// What was written, as text.
pub(crate) fn into_text(written: Vec<u8>) -> Result<String, serde_json::Error> {
    String::from_utf8(written).map_err(ser::Error::custom)
}

/// How many lists and objects may be nested in each other in a value: `serde_json` reads no more of
/// them, and the envelope is one more.
pub(crate) const LEVELS: usize = 126;

/// Whether more than `levels` lists and objects are nested in each other in this JSON, of which the
/// end may be missing.
pub(crate) fn is_deeper_than(levels: usize, json: &[u8]) -> bool {
    let is_opening = |byte: &&u8| matches!(**byte, b'[' | b'{');
    // Nearly every value ends here: this is much faster than to follow the brackets.
    if json.len() <= levels || json.iter().filter(is_opening).count() <= levels {
        return false;
    }

    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for &byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Whether another crate of the build has turned on `serde_json/arbitrary_precision`. Then serde
/// cannot read a number inside an enum with `tag` or `untagged`, or beside a `flatten`.
pub(crate) fn has_arbitrary_precision() -> bool {
    serde_json::from_str::<serde_json::Value>("1.00")
        .and_then(|number| serde_json::to_string(&number))
        .is_ok_and(|text| text == "1.00")
}

/// A serializer, or a part of one, that refuses inexact numbers and forwards everything else.
pub(crate) struct ExactNumbers<S>(S);

impl<S> ExactNumbers<S> {
    pub(crate) fn new(serializer: S) -> Self {
        Self(serializer)
    }
}

/// A value that is serialized through [`ExactNumbers`], however deeply it is nested.
struct Checked<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Checked<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(ExactNumbers(serializer))
    }
}

/// What an error says of a NaN, an infinity or an integer beyond 64 bits.
pub(crate) const INEXACT: &str = "JSON has no exact form for a number in it";

fn inexact<E: ser::Error>() -> E {
    E::custom(INEXACT)
}

/// Methods that forward one value.
macro_rules! forward {
    ($($method:ident($type:ty))*) => { $(
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.0.$method(value)
        }
    )* };
}

impl<S: Serializer> Serializer for ExactNumbers<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = ExactNumbers<S::SerializeSeq>;
    type SerializeTuple = ExactNumbers<S::SerializeTuple>;
    type SerializeTupleStruct = ExactNumbers<S::SerializeTupleStruct>;
    type SerializeTupleVariant = ExactNumbers<S::SerializeTupleVariant>;
    type SerializeMap = ExactNumbers<S::SerializeMap>;
    type SerializeStruct = ExactNumbers<S::SerializeStruct>;
    type SerializeStructVariant = ExactNumbers<S::SerializeStructVariant>;

    forward! {
        serialize_bool(bool)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_unit_struct(&'static str)
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            self.0.serialize_f32(value)
        } else {
            Err(inexact())
        }
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            self.0.serialize_f64(value)
        } else {
            Err(inexact())
        }
    }

    fn serialize_i128(self, value: i128) -> Result<S::Ok, S::Error> {
        match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => self.0.serialize_i64(value),
            (_, Ok(value)) => self.0.serialize_u64(value),
            _ => Err(inexact()),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<S::Ok, S::Error> {
        match u64::try_from(value) {
            Ok(value) => self.0.serialize_u64(value),
            Err(_) => Err(inexact()),
        }
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Checked(value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Checked(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0
            .serialize_newtype_variant(name, index, variant, &Checked(value))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(len).map(ExactNumbers)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(len).map(ExactNumbers)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, len).map(ExactNumbers)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0
            .serialize_tuple_variant(name, index, variant, len)
            .map(ExactNumbers)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(len).map(ExactNumbers)
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        self.0.serialize_struct(name, len).map(ExactNumbers)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0
            .serialize_struct_variant(name, index, variant, len)
            .map(ExactNumbers)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

/// The parts of a sequence: each element is [`Checked`].
macro_rules! elements {
    ($($trait:ident::$method:ident)*) => { $(
        impl<S: ser::$trait> ser::$trait for ExactNumbers<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.0.$method(&Checked(value))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        }
    )* };
}

elements! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

/// The parts of a struct: each field is [`Checked`].
macro_rules! fields {
    ($($trait:ident)*) => { $(
        impl<S: ser::$trait> ser::$trait for ExactNumbers<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                self.0.serialize_field(key, &Checked(value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
                self.0.skip_field(key)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        }
    )* };
}

fields! { SerializeStruct SerializeStructVariant }

impl<S: ser::SerializeMap> ser::SerializeMap for ExactNumbers<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    // A key is a string in JSON: serde_json writes a number as one, and refuses a float that is not
    // finite.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.0.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_value(&Checked(value))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_objects_in_each_other_are_counted_and_brackets_in_strings_are_not() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let objects =
            |levels: usize| format!("{}1{}", r#"{"[":"#.repeat(levels), "}".repeat(levels));
        let in_a_row = format!("[{}1]", "[{}],".repeat(1_000));
        let in_a_string = format!(r#"["\\\"{}", "\\"]"#, "[".repeat(1_000));
        for (levels, json) in [
            (0, "1".to_owned()),
            (3, nested(3)),
            (LEVELS, nested(LEVELS)),
            (LEVELS + 1, nested(LEVELS + 1)),
            (500, objects(500)),
            (3, in_a_row),
            (1, in_a_string),
        ] {
            assert!(
                !is_deeper_than(levels, json.as_bytes()),
                "{levels} in {json}"
            );
            assert!(
                levels == 0 || is_deeper_than(levels - 1, json.as_bytes()),
                "{levels} in {json}"
            );
        }
    }

    #[test]
    fn what_is_too_deep_is_exactly_what_is_not_read_out_of_an_envelope() {
        for levels in LEVELS - 2..LEVELS + 3 {
            let value = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let envelope = format!(r#"{{"value": {value},"last_modified": 1}}"#);
            let read = serde_json::from_str::<serde_json::Value>(&envelope);
            assert_eq!(read.is_err(), is_deeper_than(LEVELS, value.as_bytes()));
        }
    }

    #[test]
    fn this_build_has_no_arbitrary_precision() {
        assert!(!has_arbitrary_precision());
    }
}
