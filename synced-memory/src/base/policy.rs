//! What reads ask, and what writes wait for.

/// What a read asks, unless the key says otherwise.
///
/// # Near and behind
///
#[doc = include_str!("../../near.md")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadPolicy {
    /// The backend, each time; while it is away, what this process knows. The default.
    #[default]
    Through,
    /// A local slot, which the backend keeps current: it tells what changes. Only the first read of
    /// a key asks.
    Near,
}

/// What a write waits for, unless the key says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WritePolicy {
    /// The backend's answer, for at most `timeout`. The default.
    #[default]
    Through,
    /// Nothing: it returns once it is queued, and journalled where there is a journal. Closures and
    /// what takes an element wait all the same.
    Behind,
    /// The backend's answer: what it returns is a fact. Where there is no answer within `timeout`
    /// it is an `Err`, of kind `Unavailable` where it was not made and never will be, and `InDoubt`
    /// where nobody knows.
    Confirmed,
}
