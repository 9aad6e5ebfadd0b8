//! Reads of keys as commands, and what servers answer to them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use redis::{Pipeline, Value};

use super::known::{self, KnownReader, ReadSince};
use super::{add_asking, next_answer, reply, tracking};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::{Expiry, KeyRead, KnownValue, LARGE_VALUE, ReadKind, SizeHint, WithExpiry};
use crate::base::lock::lock;
use crate::value::document::Document;

/// How this session reads.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The keys whose values were too large when they were last read: of them a read asks for one
    /// byte.
    large_keys: Mutex<HashSet<Arc<str>>>,
    known: KnownReader,
}

/// The commands of a request.
pub(super) struct ReadCommands {
    pub(super) commands: Pipeline,
    /// For each key, whether its value was too large before.
    pub(super) were_large: Vec<bool>,
}

/// Whether the server is to track the key of this read. What another node has sent here is never
/// tracked, whatever comes first of CACHING and ASKING: each holds for the next command.
fn is_caching(read: &KeyRead) -> bool {
    read.kind == ReadKind::Tracked && !read.asking
}

/// What is known of the value, for a read that asks what has changed since. What another node has
/// sent here may lack its sidecar.
fn known_of(read: &KeyRead) -> Option<&KnownValue> {
    read.known.as_ref().filter(|_| !read.asking)
}

impl Reader {
    /// Of a small value it is GET. One that has become large since comes over this connection once.
    pub(super) fn commands(&self, reads: &[KeyRead]) -> ReadCommands {
        let mut commands = Pipeline::with_capacity(4 * reads.len());
        let mut were_large = Vec::with_capacity(reads.len());
        for read in reads {
            let is_tracked = read.kind == ReadKind::Tracked;
            let known = known_of(read);
            if read.size == SizeHint::Unknown && !is_tracked && known.is_none() {
                add_asking(&mut commands, read.asking);
                commands.cmd("EXISTS").arg(&*read.key);
            }
            if is_caching(read) {
                tracking::add_caching(&mut commands);
                if known.is_some() {
                    // It is this command whose key is tracked. With the script the sidecar would
                    // be, too, and others' records would be reported.
                    commands.cmd("STRLEN").arg(&*read.key);
                }
            }
            // Directly behind it: it is the next command that is tracked, and no other.
            add_asking(&mut commands, read.asking);
            were_large.push(match (known, read.size) {
                (Some(known), _) => {
                    self.known.add_read(&mut commands, &read.key, known);
                    false
                }
                (None, SizeHint::Small) => {
                    commands.cmd("GET").arg(&*read.key);
                    false
                }
                (None, SizeHint::Unknown) => self.add_bounded_read(&mut commands, &read.key),
            });
            // Expiry is not tracked: the server notifies us only when it happens to notice it.
            if is_tracked {
                add_asking(&mut commands, read.asking);
                commands.cmd("PTTL").arg(&*read.key);
            }
        }
        ReadCommands {
            commands,
            were_large,
        }
    }

    /// The answer to a read, from those to its commands. `was_large`: as for
    /// [`value`](Self::value).
    pub(super) fn answer(
        &self,
        read: &KeyRead,
        answers: &mut impl Iterator<Item = Value>,
        was_large: bool,
    ) -> Result<WithExpiry, BackendError> {
        let is_tracked = read.kind == ReadKind::Tracked;
        let known = known_of(read);
        let is_unsure = read.size == SizeHint::Unknown && !is_tracked && known.is_none();
        let mut next = |asking| next_answer(answers, asking);
        // All of them are taken, also if one is an error.
        let exists = is_unsure.then(|| next(read.asking));
        let caching = is_caching(read).then(|| next(false));
        let length = (is_caching(read) && known.is_some()).then(|| next(false));
        let value = next(read.asking);
        let left = is_tracked.then(|| next(read.asking));

        if let Some(caching) = caching {
            tracking::caching(caching?)?;
        }
        let (exists, left) = (exists.transpose()?, left.transpose()?);
        let exists = || match &left {
            Some(left) => *left != Value::Int(reply::NO_KEY),
            None => exists != Some(Value::Int(0)),
        };
        let stored = match (known, read.size) {
            (Some(known), _) => {
                if let Some(length) = length {
                    reply::checked(length?).map_err(known::refused)?;
                }
                self.since(&read.key, known, value?)?
            }
            (None, SizeHint::Small) => reply::stored(value?)?.map(Document::of),
            (None, SizeHint::Unknown) => {
                let value = self.value(&read.key, value?, exists(), was_large)?;
                value.map(Document::of)
            }
        };
        let expiry = left.as_ref().map_or(Expiry::Tracked, reply::expiry);
        Ok((stored, expiry))
    }

    /// The answer to a read of what has changed since something is known.
    ///
    /// # Errors
    ///
    /// As [`KnownReader::since`], and `TooLarge`.
    fn since(
        &self,
        key: &Arc<str>,
        known: &KnownValue,
        answer: Value,
    ) -> Result<Option<Document>, BackendError> {
        match self.known.since(known, answer)? {
            ReadSince::Stored(stored) => Ok(stored),
            ReadSince::TooLarge => {
                lock(&self.large_keys).insert(Arc::clone(key));
                Err(too_large())
            }
        }
    }

    /// Asks for so much of a value that its answer says whether it is large; and for all of it, if
    /// it was not large before. Returns whether it was.
    fn add_bounded_read(&self, commands: &mut Pipeline, key: &Arc<str>) -> bool {
        let was_large = lock(&self.large_keys).contains(key);
        let first = if was_large { LARGE_VALUE } else { 0 };
        commands
            .cmd("GETRANGE")
            .arg(&**key)
            .arg(first)
            .arg(LARGE_VALUE);
        was_large
    }

    /// The value in the answer to a bounded read. `exists`: whether there was one at about the same
    /// time.
    /// `was_large`: as it was known when it was asked.
    ///
    /// # Errors
    ///
    /// `TooLarge` also if nothing else is certain: if it is not large any more, or may be empty.
    fn value(
        &self,
        key: &Arc<str>,
        answer: Value,
        exists: bool,
        was_large: bool,
    ) -> Result<Option<Bytes>, BackendError> {
        let stored = reply::stored(answer)?.unwrap_or_default();
        let mut large_keys = lock(&self.large_keys);
        let is_large = stored.len() > LARGE_VALUE || was_large && !stored.is_empty();
        if is_large {
            large_keys.insert(Arc::clone(key));
        } else {
            large_keys.remove(key);
        }
        if is_large || was_large || stored.is_empty() && exists {
            return Err(too_large());
        }
        Ok(Some(stored).filter(|stored| !stored.is_empty()))
    }
}

fn too_large() -> BackendError {
    let what = "the value is larger than 1 MiB, and is read apart";
    BackendError::new(BackendErrorKind::TooLarge, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two reads that ask for one byte of a large value are under way. It is small when the first
    /// is answered, and large again when the second is.
    #[test]
    fn one_byte_of_a_large_value_is_never_taken_for_the_value() {
        let (reader, key) = (Reader::default(), Arc::from("k"));
        let mut commands = Pipeline::new();
        let mut ask = || reader.add_bounded_read(&mut commands, &key);
        let answer = |text: &[u8], was_large| {
            let answer = Value::BulkString(text.to_vec());
            reader.value(&key, answer, true, was_large)
        };
        let was_large = ask();
        let read = answer(&vec![b'x'; LARGE_VALUE + 1], was_large);
        assert_eq!(read.unwrap_err().kind, BackendErrorKind::TooLarge);

        let [first, second] = [ask(), ask()];
        let read = answer(b"", first);
        assert_eq!(read.unwrap_err().kind, BackendErrorKind::TooLarge);
        let read = answer(b"x", second);
        assert_eq!(read.unwrap_err().kind, BackendErrorKind::TooLarge);

        assert!(ask(), "it is large again");
        assert_eq!(
            answer(b"", true).unwrap_err().kind,
            BackendErrorKind::TooLarge
        );
        let was_large = ask();
        assert_eq!(answer(b"y", was_large).unwrap(), Some(Bytes::from("y")));
    }
}
