//! Pending writes: the outbox, its journal, and what is sent of a write given what is stored.

pub(crate) mod journal;
pub(crate) mod outbox;
pub(crate) mod rebase;
