//! What a memory is set to, with the defaults.

use std::time::Duration;

use crate::base::policy::{ReadPolicy, WritePolicy};

/// What can be set about a memory, beside where it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// How long one call waits at most for a backend that does not answer.
    pub(crate) timeout: Duration,
    /// The first and the longest wait between tries to connect.
    pub(crate) backoff: (Duration, Duration),
    /// How many bytes wait for the backend at most.
    pub(crate) outbox_limit: usize,
    /// How long the last drop waits at most for what is still queued.
    pub(crate) shutdown_timeout: Duration,
    /// How long a delete is remembered.
    pub(crate) tombstone_ttl: Duration,
    pub(crate) read_policy: ReadPolicy,
    pub(crate) write_policy: WritePolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(500),
            backoff: (Duration::from_millis(50), Duration::from_secs(5)),
            outbox_limit: 64 << 20,
            shutdown_timeout: Duration::from_secs(2),
            tombstone_ttl: Duration::from_secs(10 * 24 * 3600),
            read_policy: ReadPolicy::default(),
            write_policy: WritePolicy::default(),
        }
    }
}
