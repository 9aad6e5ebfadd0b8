//! What a journal says: its records, replayed into an outbox.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::{ClockOrigin, Ends, JournalRecord, JournalledWrite};
use crate::cache::{Base, Ticket};
use crate::pending::outbox::{Entry, EntryName, LetterRecord, Outbox, Selector, Tried, Write};

/// A write that a process has left behind.
#[derive(Debug)]
pub(crate) struct LeftBehind {
    pub(crate) key: Arc<str>,
    pub(crate) entry: Entry,
}

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// The writes that are still to be sent, in order.
    pub(super) pending: Vec<LeftBehind>,
    /// The dead letters that were neither retried nor forgotten.
    pub(super) letters: Vec<LetterRecord>,
    /// How many of its records could not be read.
    pub(super) unread: usize,
}

/// What is left after these records.
pub(super) fn replay(records: &[Vec<u8>], origin: ClockOrigin) -> Replayed {
    let mut replay = Replay {
        outbox: Outbox::new(usize::MAX, 0),
        keys: HashMap::new(),
        letters: Vec::new(),
        origin,
    };
    let mut unread = 0;
    for (position, record) in (1..).zip(records) {
        match serde_json::from_slice::<JournalRecord<'_>>(record) {
            Ok(record) if record.is_plausible() => replay.add(record, position),
            _ => unread += 1,
        }
    }

    let pending = replay.outbox.into_entries();
    Replayed {
        pending: pending
            .map(|(key, entry)| LeftBehind { key, entry })
            .collect(),
        letters: replay.letters,
        unread,
    }
}

/// What the records up to here say.
struct Replay {
    outbox: Outbox,
    /// The key of each write in the outbox.
    keys: HashMap<EntryName, Arc<str>>,
    letters: Vec<LetterRecord>,
    origin: ClockOrigin,
}

impl Replay {
    /// `position`: the place of the record in the journal.
    fn add(&mut self, record: JournalRecord<'_>, position: Ticket) {
        match record {
            JournalRecord::Wrote {
                after,
                writer,
                write,
                ends,
            } => {
                self.end(ends);
                self.outbox.continue_after(writer, after);
                self.push(write, ends, position);
            }
            JournalRecord::State(state) => {
                let (key, name) = (Arc::from(&*state.write.key), state.name);
                self.outbox.replace_named(&key, state.entry(self.origin));
                self.keys.insert(name, key);
            }
            JournalRecord::Sent(name) => {
                if let Some(key) = self.keys.get(&name) {
                    self.outbox.edit(key, Selector::Name(name), |entry| {
                        entry.attempt.tried = Tried::Sent;
                        // Not before its last change.
                        let written = entry.write.written;
                        entry.attempt.first_tried.get_or_insert(written);
                    });
                }
            }
            JournalRecord::Done(name) => self.remove(name),
            JournalRecord::Letter(letter) => self.letters.push(letter.into()),
            JournalRecord::LetterEnded(id) => self.letters.retain(|letter| letter.id != id),
            JournalRecord::LettersForgotten => self.letters.clear(),
        }
    }

    fn end(&mut self, ends: Option<Ends>) {
        match ends {
            Some(Ends::Take(name)) => self.remove(name),
            Some(Ends::Letter(id)) => self.letters.retain(|letter| letter.id != id),
            None => {}
        }
    }

    fn push(&mut self, write: JournalledWrite<'_>, ends: Option<Ends>, position: Ticket) {
        let key: Arc<str> = Arc::from(&*write.key);
        let write = Write {
            is_retry: matches!(ends, Some(Ends::Letter(_))),
            ..write.write(self.origin)
        };
        if write.is_empty() {
            return;
        }

        // What it was recorded on is not in the journal: no two writes are known to have been
        // recorded on the same.
        let base = Base::new(None, position, None);
        let _ = self.outbox.push(&key, write, None, &base);
        if let Some(name) = self.outbox.last(&key).map(Entry::name) {
            self.keys.insert(name, key);
        }
    }

    fn remove(&mut self, name: EntryName) {
        if let Some(key) = self.keys.remove(&name) {
            self.outbox.remove_named(&key, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::clock::Stamp;
    use crate::pending::outbox::Take;
    use crate::value::mutation::{Json, Mutation};

    const ORIGIN: ClockOrigin = ClockOrigin(1_000_000);

    /// As an earlier version wrote them.
    const STATES: [&str; 3] = [
        r#"{"stands":{"name":[7,1024],"refused_retries":2,"write":{"key":"k","assign":{"envelope":"{\"value\":1,\"last_modified\":9}"},"mutate":{"calls":[{"stamp":11,"operations":[{"path":[],"do":{"add":{"amount":{"integer":{"by":1,"min":0,"max":9}}}}}]}]},"stamp":9,"expires":3000000,"at":2000000},"latest":11,"replaces_nothing":true,"since":1500000,"first_tried":1600000}}"#,
        r#"{"stands":{"name":[7,2048],"refused_retries":0,"write":{"key":"k","assign":"delete","stamp":12,"at":2000000},"retry":true,"latest":12,"replaces_nothing":false,"since":2000000}}"#,
        r#"{"stands":{"name":[7,3072],"refused_retries":0,"write":{"key":"k","mutate":{"calls":[{"stamp":13,"operations":[]}]},"take":{"item":"x","back":{"calls":[{"stamp":13,"operations":[]}]}},"stamp":13,"at":2000000},"confirmed":true,"latest":13,"replaces_nothing":false,"since":2000000}}"#,
    ];

    fn replayed(records: &[&str]) -> Vec<String> {
        let records: Vec<_> = records
            .iter()
            .map(|record| record.as_bytes().to_vec())
            .collect();
        let Replayed {
            pending, unread, ..
        } = replay(&records, ORIGIN);
        assert_eq!(unread, 0);

        let written =
            |left: &LeftBehind| JournalRecord::of_state(&left.key, &left.entry, ORIGIN).encoded();
        pending
            .iter()
            .map(|left| String::from_utf8(written(left)).unwrap())
            .collect()
    }

    #[test]
    fn a_stored_journal_is_written_again_in_the_same_form() {
        assert_eq!(replayed(&STATES), STATES);
    }

    #[test]
    fn writes_sends_and_ends_of_a_stored_journal_are_replayed() {
        let records = [
            r#"{"wrote":{"after":1024,"writer":7,"write":{"key":"k","assign":"delete","stamp":9,"at":2000000}}}"#,
            r#"{"sent":[7,2048]}"#,
            r#"{"wrote":{"after":2048,"writer":7,"write":{"key":"k","assign":{"envelope":"{}"},"stamp":10,"expires":5000000,"at":3000000}}}"#,
            r#"{"wrote":{"after":3072,"writer":7,"write":{"key":"k","mutate":{"calls":[{"stamp":11,"operations":[]}]},"stamp":11,"at":3500000}}}"#,
            r#"{"wrote":{"after":3072,"writer":7,"write":{"key":"k","assign":"delete","stamp":12,"at":4000000},"ends":{"letter":3}}}"#,
            r#"{"wrote":{"after":4096,"writer":7,"write":{"key":"gone","assign":"delete","stamp":13,"at":4000000}}}"#,
            r#"{"done":[7,5120]}"#,
        ];
        assert_eq!(
            replayed(&records),
            [
                r#"{"stands":{"name":[7,2048],"refused_retries":0,"write":{"key":"k","assign":"delete","stamp":9,"at":2000000},"latest":9,"replaces_nothing":false,"since":2000000,"first_tried":2000000}}"#,
                r#"{"stands":{"name":[7,3072],"refused_retries":0,"write":{"key":"k","assign":{"envelope":"{}"},"mutate":{"calls":[{"stamp":11,"operations":[]}]},"stamp":10,"expires":5000000,"at":3500000},"latest":11,"replaces_nothing":false,"since":3000000}}"#,
                r#"{"stands":{"name":[7,4096],"refused_retries":0,"write":{"key":"k","assign":"delete","stamp":12,"at":4000000},"retry":true,"latest":12,"replaces_nothing":false,"since":4000000}}"#,
            ]
        );
    }

    #[test]
    fn a_write_is_journalled_in_the_form_of_before() {
        let mut outbox = Outbox::new(usize::MAX, 7);
        outbox.continue_after(7, 1024);
        let take = Take {
            item: Json::encode(&1).unwrap(),
            back: None,
        };
        let write = Write {
            mutation: Some(Mutation::new(None, Vec::new())),
            take: Some(take),
            expires: Some(Duration::from_millis(2)),
            ..Write::new(Stamp::new(9), Duration::from_millis(1))
        };
        let ends = Some(Ends::Take((8, 2048)));
        let record = JournalRecord::wrote(&outbox, "k", &write, ends, ORIGIN);
        let expected = r#"{"wrote":{"after":1024,"writer":7,"write":{"key":"k","mutate":{"calls":[{"stamp":0,"operations":[]}]},"take":{"item":1},"stamp":9,"expires":3000000,"at":2000000},"ends":{"take":[8,2048]}}}"#;
        assert_eq!(String::from_utf8(record.encoded()).unwrap(), expected);
    }
}
