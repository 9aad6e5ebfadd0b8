//! What every room may use, and what uses none: time, waiting, locks, errors, policies, settings.

pub(crate) mod backoff;
pub(crate) mod clock;
pub(crate) mod error;
pub(crate) mod fork;
pub(crate) mod lock;
pub(crate) mod policy;
pub(crate) mod random;
pub(crate) mod settings;
pub(crate) mod timer;
pub(crate) mod type_name;
pub(crate) mod waiting;
