//! Reads of values of which something is known: what has changed since comes, not all of it.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::{reply, script};
use crate::backend::commit::ValueId;
use crate::backend::error::{BackendError, BackendErrorKind, Recovery};
use crate::backend::{KnownValue, LARGE_VALUE, sidecar};
use crate::base::clock::Stamp;
use crate::value::document::{ByteEdit, Document};

// What the script answers.
pub(super) const UNCHANGED: i64 = 0;
pub(super) const TOO_LARGE: i64 = 1;

/// How this session calls the script.
#[derive(Debug)]
pub(super) struct KnownReader {
    /// The server may lack the script: the next call carries its text.
    sends_text: AtomicBool,
}

/// What a read of a key of which something is known has brought.
pub(super) enum ReadSince {
    Stored(Option<Document>),
    /// More than is read together with others.
    TooLarge,
}

impl Default for KnownReader {
    fn default() -> Self {
        Self {
            sends_text: AtomicBool::new(true),
        }
    }
}

impl KnownReader {
    /// Asks for what has changed since what is known.
    pub(super) fn add_read(&self, commands: &mut Pipeline, key: &str, known: &KnownValue) {
        let mut call = Cmd::new();
        script::READ.name_in(&mut call, self.sends_text.swap(false, Ordering::Relaxed));
        call.arg(2).arg(key).arg(sidecar::sidecar(key));
        call.arg(known.document.stamp().get());
        call.arg(known.document.len());
        call.arg(u8::from(known.trusts_stamp)).arg(LARGE_VALUE);
        commands.add_command(call);
    }

    /// The answer to that.
    ///
    /// # Errors
    ///
    /// `ChangesUnknown`, `ChangesWrong`, or that another server is to be asked.
    pub(super) fn since(
        &self,
        known: &KnownValue,
        answer: Value,
    ) -> Result<ReadSince, BackendError> {
        match answer {
            Value::Int(UNCHANGED) => Ok(ReadSince::Stored(Some(known.document.clone()))),
            Value::Int(TOO_LARGE) => Ok(ReadSince::TooLarge),
            Value::Array(changes) => {
                Ok(ReadSince::Stored(Some(changed(&known.document, changes)?)))
            }
            Value::ServerError(refusal) => {
                if refusal.code() == "NOSCRIPT" {
                    self.sends_text.store(true, Ordering::Relaxed);
                }
                Err(refused(reply::server_error(&refusal)))
            }
            whole => Ok(ReadSince::Stored(reply::stored(whole)?.map(Document::of))),
        }
    }
}

/// The error for a read that was refused: a server that does not run the script may answer a plain
/// read all the same.
pub(super) fn refused(error: BackendError) -> BackendError {
    match error.recovery() {
        Recovery::Redirect
        | Recovery::PauseThenReconnect
        | Recovery::Reconnect
        | Recovery::ReconnectNow => error,
        _ => BackendError::new(BackendErrorKind::ChangesUnknown, error),
    }
}

/// What a document has become by the entries of a log, of which the last one comes first.
///
/// # Errors
///
/// `ChangesWrong` if they do not lead from it to what they name, or what they lead to is no JSON.
pub(super) fn changed(base: &Document, entries: Vec<Value>) -> Result<Document, BackendError> {
    let mut document = base.clone();
    for entry in entries.into_iter().rev() {
        let changed = match entry {
            Value::BulkString(entry) => LogEntry::parse(&entry.into()),
            _ => None,
        };
        let changed = changed.and_then(|entry| entry.made_of(&document));
        document = changed.ok_or_else(|| {
            let what = "what the server says has changed does not lead to what it says is there";
            BackendError::new(BackendErrorKind::ChangesWrong, what)
        })?;
    }
    Ok(document)
}

/// A change in the log: `log.lua` says how it is written.
struct LogEntry {
    before: ValueId,
    after: ValueId,
    edits: Vec<ByteEdit>,
}

impl LogEntry {
    fn parse(entry: &Bytes) -> Option<Self> {
        let end = entry.iter().position(|byte| *byte == b'\n')?;
        let head = std::str::from_utf8(&entry[..end]).ok()?;
        let numbers: Vec<u64> = head
            .split(' ')
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        let (ids, ranges) = numbers.split_at_checked(4)?;
        let id = |stamp: u64, length: u64| {
            Some(ValueId {
                stamp: Stamp::new(stamp),
                length: usize::try_from(length).ok()?,
            })
        };

        let mut texts = entry.slice(end + 1..);
        let mut edits = Vec::with_capacity(ranges.len() / 3);
        for range in ranges.chunks(3) {
            let [start, old_len, length] = *range else {
                return None;
            };
            let length = usize::try_from(length).ok()?;
            if length > texts.len() {
                return None;
            }
            edits.push(ByteEdit {
                start: usize::try_from(start).ok()?,
                old_len: usize::try_from(old_len).ok()?,
                new: texts.split_to(length),
            });
        }
        texts.is_empty().then_some(Self {
            before: id(ids[0], ids[1])?,
            after: id(ids[2], ids[3])?,
            edits,
        })
    }

    fn made_of(&self, document: &Document) -> Option<Document> {
        let Self {
            before,
            after,
            edits,
        } = self;
        if ValueId::of(document) != *before {
            return None;
        }
        document.edited(edits, after.stamp, after.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_lead_from_what_is_known_to_what_is_there_or_are_wrong() {
        let base = Document::of(Bytes::from_static(br#"{"value": [1],"last_modified": 5}"#));
        let made = r#"{"value": [1,22],"last_modified": 7}"#;
        let first = "5 33 6 35 12 21 23\n,2],\"last_modified\": 6}";
        let second = "6 35 7 36 13 1 2 33 1 1\n227";
        let after = |entries: &[&str]| changed(&base, entries.iter().copied().map(entry).collect());
        assert_eq!(after(&[]).unwrap(), base);
        assert_eq!(after(&[second, first]).unwrap().to_bytes(), made);

        for wrong in [
            &[second][..],
            &[first, second],
            &[first, first],
            &["5 33 6 35 12 21 23\n,2],\"last_modified\": 7}"],
            &["5 33 6 36 12 21 23\n,2],\"last_modified\": 6}"],
            &["5 33 6 35 12 21 23\n,,],\"last_modified\": 6}"],
            &["5 33 6 35 12 21 23\n,2],\"last_modified\": 6}x"],
            &["5 33 6 35 12 21 24\n,2],\"last_modified\": 6}"],
            &["5 33 6 35 99 21 23\n,2],\"last_modified\": 6}"],
            &["5 33 6 35 12 21\n"],
            &["5 33 6\n"],
            &["x"],
            &[""],
        ] {
            let error = after(wrong).unwrap_err();
            assert_eq!(error.kind, BackendErrorKind::ChangesWrong, "{wrong:?}");
        }
        assert!(changed(&base, vec![Value::Int(1)]).is_err());
    }
}
