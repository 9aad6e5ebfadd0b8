//! What every room may use, and what uses none: time, waiting, locks, files, errors, policies,
//! settings.

#[cfg(feature = "redis")]
pub(crate) mod address_map;
pub(crate) mod backoff;
pub(crate) mod callback;
pub(crate) mod client_name;
pub(crate) mod clock;
#[cfg(feature = "redis")]
pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod fork;
pub(crate) mod hash;
pub(crate) mod lock;
pub(crate) mod policy;
pub(crate) mod random;
pub(crate) mod redaction;
pub(crate) mod settings;
pub(crate) mod timer;
pub(crate) mod type_name;
pub(crate) mod waiting;
