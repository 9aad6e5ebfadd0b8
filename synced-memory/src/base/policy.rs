//! What answers reads, what writes wait for, and what is on disk survives.

use crate::base::error::named;

/// What answers a read, unless the key says otherwise.
///
/// # Near and behind
///
#[doc = include_str!("../../near.md")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadPolicy {
    /// The backend answers, each time. While it is not available, a read returns what this process
    /// knows. The default.
    #[default]
    Through,
    /// A local slot answers, which the backend keeps current by notifying of changes. The first
    /// read of a key asks the backend, and so does the next read of one that nobody has looked at
    /// for a second while it changed.
    Near,
}

/// What a write waits for, unless the key says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WritePolicy {
    /// The backend's answer, for at most `timeout`. The default.
    #[default]
    Through,
    /// Nothing: it returns once it is queued, and journalled if there is a journal. Closures, and
    /// calls that take an element, wait for the answer all the same.
    Behind,
    /// The backend's answer: what it returns is a fact. Without an answer within `timeout` it is an
    /// `Err`, of kind `Unavailable` if the write was not made and never will be, and `InDoubt` if
    /// nobody knows.
    Confirmed,
}

/// How safe what is on the disk of this machine is: a journal, and the file of `sqlite:path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// It survives a crash of the process, since the operating system has it. The default.
    #[default]
    Process,
    /// It survives a loss of power, since the disk has it (`fsync` before each call returns).
    Fsync,
}

/// Whether opening a memory needs the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ConnectPolicy {
    /// No: writes are queued until the backend is there. The default.
    #[default]
    Optional,
    /// Yes: if no backend answers within `timeout`, opening is an error of kind `Unavailable`.
    Required,
}

named! {
    ReadPolicy, "a read policy",
    /// Its name in a URL, as in `read_policy=near`. It is read back by `parse`.
    { Through = "through", Near = "near" }
}

named! {
    WritePolicy, "a write policy",
    /// Its name in a URL, as in `write_policy=behind`. It is read back by `parse`.
    { Through = "through", Behind = "behind", Confirmed = "confirmed" }
}

named! {
    ConnectPolicy, "a connect policy",
    /// Its name in a URL, as in `connect=required`. It is read back by `parse`.
    { Optional = "optional", Required = "required" }
}

named! {
    Durability, "a durability",
    /// Its name in a URL, as in `durability=fsync`. It is read back by `parse`.
    { Process = "process", Fsync = "fsync" }
}
