//! What is stored under a key: the envelope, its JSON text, and changes to it. No I/O, no clock.

pub(crate) mod addition;
pub(crate) mod document;
pub(crate) mod envelope;
pub(crate) mod json;
pub(crate) mod mutation;
pub(crate) mod shape;
