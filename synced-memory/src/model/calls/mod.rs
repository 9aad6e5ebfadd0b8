//! The calls of users that change parts of a value.
//!
//! - `kinds.rs`: the calls; `plainly.rs`: what each does to a document that nobody else changes
//! - `recorder.rs`, `recorded.rs`: the operations that the library records for them

pub(super) mod kinds;
pub(super) mod plainly;
pub(super) mod recorded;
mod recorder;
