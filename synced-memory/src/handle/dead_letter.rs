//! Dead letters, as users look at them, retry and forget them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::waiting::block_on;
use crate::client::core::Core;
use crate::pending::outbox::{LetterRecord, Written};
use crate::value::mutation::Json;

/// A queued write that was refused or is in doubt, or a taken element that could not go back.
///
/// It is kept, and counted in [`Status::dead_letters`](crate::Status::dead_letters), until it is
/// [retried](Self::retry) or [forgotten](Self::forget). If dead letters take more than a quarter of
/// [`outbox_limit`](crate::Builder::outbox_limit), the oldest is dropped and counted. With a
/// [journal](crate::Builder::journal) they outlive the process.
///
/// ```
/// # let memory = synced_memory::Memory::open("memory:")?;
/// for letter in memory.dead_letters() {
///     eprintln!("{}: {}; {:?}", letter.key, letter.reason, letter.changes());
///     if letter.key.ends_with(":log") && !letter.may_have_been_made() {
///         letter.retry()?; // over whatever is there by now
///     }
/// }
/// # Ok::<(), synced_memory::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Identifies it, also after a restart with a journal.
    pub id: u64,
    /// The key, with prefix and scope.
    pub key: String,
    /// Why it was not made.
    pub reason: Error,
    /// The stamp of the write, in ns since 1970.
    pub last_modified: u64,
    /// The time to live that the value was to have, from its write.
    pub ttl: Option<Duration>,
    letter: LetterRecord,
    core: Arc<Core>,
}

impl DeadLetter {
    pub(crate) fn new(core: &Arc<Core>, letter: LetterRecord) -> Self {
        Self {
            id: letter.id,
            key: letter.key.to_string(),
            reason: letter.reason.clone(),
            last_modified: letter.stamp.get(),
            ttl: letter.ttl,
            letter,
            core: Arc::clone(core),
        }
    }

    /// Whether nobody knows if it was made: its answer was lost.
    pub fn may_have_been_made(&self) -> bool {
        self.letter.may_have_been_made
    }

    /// The value that was assigned, as JSON; `None` for a delete, and if only a part was changed.
    pub fn value(&self) -> Option<Value> {
        serde_json::from_str(&self.letter.value()?).ok()
    }

    /// The changes to a part of the value as JSON, one element for each call: a list of operations,
    /// each with its `path` and what it was to `do` there. Empty if a value was assigned.
    pub fn changes(&self) -> Vec<Value> {
        if self.letter.assignment.is_some() {
            Vec::new()
        } else {
            self.letter.changes()
        }
    }

    /// The element that was taken and reached no caller, as JSON: for a map an object with the
    /// entry, for `splice` a list.
    pub fn taken(&self) -> Option<Value> {
        self.letter
            .taken
            .as_ref()
            .and_then(|taken: &Json| serde_json::from_str(taken.as_str()).ok())
    }

    /// Makes the write now, as a new one: parts are assigned whatever is there, what was appended
    /// is appended, and what was taken goes back (an entry of a map only if its key is absent).
    /// That ends the letter.
    ///
    /// # Errors
    ///
    /// After an error the letter stays. `InDoubt` if the write may have been made already
    /// ([`retry_anyway`](Self::retry_anyway) makes it all the same); `Conflict` if it still does
    /// not apply, or if the letter was retried or forgotten before; `OutboxFull`, `Rejected`,
    /// `Journal`, `Closed`.
    pub fn retry(&self) -> Result<Written> {
        if self.may_have_been_made() {
            let what =
                "it may have been made already: `retry_anyway` makes it, perhaps a second time";
            return Err(Error::of_key(ErrorKind::InDoubt, &self.key, what));
        }
        self.retry_anyway()
    }

    /// As [`retry`](Self::retry), even if the write may have been made already: then what it
    /// appends or adds may be there twice.
    ///
    /// # Errors
    ///
    /// As [`retry`](Self::retry), but for `InDoubt`.
    pub fn retry_anyway(&self) -> Result<Written> {
        block_on(self.core.retry(self.id))
    }

    /// Drops it for good.
    ///
    /// # Errors
    ///
    /// `Conflict` if it was retried or forgotten before.
    pub fn forget(&self) -> Result<()> {
        self.core.shared().check_open()?;
        self.core.shared().state().forget_letter(self.id)
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id)
            .field("key", &self.key)
            .field("reason", &self.reason)
            .field("last_modified", &self.last_modified)
            .field("ttl", &self.ttl)
            .field("may_have_been_made", &self.may_have_been_made())
            .finish_non_exhaustive()
    }
}
