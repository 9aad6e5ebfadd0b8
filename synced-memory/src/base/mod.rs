//! What every room may use, and what uses none: time, errors, policies, settings, waiting.

pub(crate) mod clock;
pub(crate) mod error;
pub(crate) mod policy;
pub(crate) mod settings;
pub(crate) mod waiting;
