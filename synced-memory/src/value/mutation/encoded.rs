//! A value as its type writes it, with how it is merged.

use serde::Serialize;

use super::{Content, Json};
use crate::value::json;
use crate::value::shape::{self, Members, Shape};

/// A value as its type writes it.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(super) text: Json,
    pub(super) shape: Shape,
}

impl Encoded {
    /// `nested`: the members of the value, if it is merged by field.
    pub(crate) fn of<T: Serialize + ?Sized>(
        value: &T,
        nested: Option<Members>,
    ) -> Result<Self, serde_json::Error> {
        let mut text = Vec::new();
        let shape = shape::write(&mut text, value, nested)?;
        Ok(Self {
            text: json::into_text(text).and_then(Json::parse)?,
            shape,
        })
    }

    /// A value whose type has this shape and writes it so.
    #[cfg(test)]
    pub(crate) fn shaped(text: Json, shape: Shape) -> Self {
        Self { text, shape }
    }

    pub(crate) fn text(&self) -> &str {
        self.text.as_str()
    }

    pub(crate) fn into_text(self) -> Json {
        self.text
    }

    /// Whether `stored`, from which it was read, is what its type writes, except for white space,
    /// escapes, and the order where none counts: then its parts are found there by their text.
    pub(crate) fn is_as_written_in(&self, stored: &str) -> bool {
        self.text() == stored
            || self.view().content() == EncodedPart::new(stored, &self.shape).content()
            || Content::keyed(self.text()) == Content::keyed(stored)
    }

    /// A number that equal values share: order counts except in maps and sets, also in those that
    /// the type hides.
    pub(crate) fn content(&self) -> Content {
        Content::of_members(self.text(), &self.shape)
    }

    pub(super) fn view(&self) -> EncodedPart<'_> {
        EncodedPart {
            text: self.text(),
            shape: &self.shape,
        }
    }
}

/// A part of an encoded value.
#[derive(Debug, Clone, Copy)]
pub(super) struct EncodedPart<'a> {
    pub(super) text: &'a str,
    pub(super) shape: &'a Shape,
}

impl<'a> EncodedPart<'a> {
    pub(super) fn new(text: &'a str, shape: &'a Shape) -> Self {
        Self { text, shape }
    }

    pub(super) fn is_same(self, other: EncodedPart<'_>) -> bool {
        self.text == other.text || self.content() == other.content()
    }

    pub(super) fn content(self) -> Content {
        Content::of_value(self.text, self.shape)
    }

    /// The same, but no order counts inside a part.
    pub(super) fn members(self) -> Content {
        Content::of_members(self.text, self.shape)
    }
}
