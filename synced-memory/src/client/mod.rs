//! One connection at work: what callers ask of it, the I/O thread, and the state that they share.

pub(crate) mod core;
pub(crate) mod fairness;
pub(crate) mod flusher;
pub(crate) mod large_reads;
pub(crate) mod reentrancy;
pub(crate) mod refresher;
pub(crate) mod retained;
pub(crate) mod route;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod state;
