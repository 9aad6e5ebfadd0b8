//! What the journal needs from the outbox: adopted entries, and the replay of its records.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entry, EntryName, NUMBERS, Outbox, Tried};
use crate::backend::commit::{Sequence, Writer};

impl Outbox {
    /// Queues what another process has left behind, which may have been sent: before everything
    /// that is written here.
    pub(crate) fn adopt(&mut self, key: &Arc<str>, mut entry: Entry) {
        self.last_sequence += NUMBERS;
        entry.identity.id = self.last_sequence;
        entry.attempt.tried = Tried::InDoubt;
        entry.attempt.was_in_doubt = true;
        entry.write.fresh = false;

        self.bytes += entry.cost(key);
        let queue = self.queues.entry(Arc::clone(key)).or_default();
        if queue.is_empty() {
            self.ready.push_back(Arc::clone(key), None);
        }
        queue.push_back(entry);
    }

    /// Replaces the entry with the same name, or queues this one behind the others.
    pub(crate) fn replace_named(&mut self, key: &Arc<str>, mut entry: Entry) {
        self.bytes += entry.cost(key);
        let queue = self.queues.entry(Arc::clone(key)).or_default();
        if let Some(same) = queue.iter_mut().find(|other| other.name() == entry.name()) {
            self.bytes -= same.cost(key);
            entry.identity.id = same.identity.id;
            *same = entry;
            return;
        }

        self.last_sequence = self.last_sequence.max(entry.identity.sequence);
        entry.identity.id = self.last_sequence;
        queue.push_back(entry);
    }

    pub(crate) fn remove_named(&mut self, key: &str, name: EntryName) {
        let Some(queue) = self.queues.get_mut(key) else {
            return;
        };
        let at = queue.iter().position(|entry| entry.name() == name);
        if let Some(entry) = at.and_then(|at| queue.remove(at)) {
            self.bytes -= entry.cost(key);
        }
    }

    /// Continues as the outbox of this writer, after this sequence number.
    pub(crate) fn continue_after(&mut self, writer: Writer, last: Sequence) {
        self.writer = writer;
        self.last_sequence = last;
    }

    /// All entries, for each key in order.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (Arc<str>, Entry)> {
        self.queues.into_iter().flat_map(|(key, queue)| {
            queue
                .into_iter()
                .map(move |entry| (Arc::clone(&key), entry))
        })
    }

    /// Whether every entry that has to be in the journal is there.
    pub(crate) fn is_all_journalled(&self) -> bool {
        self.entries()
            .all(|(_, entry)| entry.journalled || !entry.write.must_survive())
    }

    /// Marks the entries that have to be in the journal and are not, if `journal` has added them
    /// there.
    pub(crate) fn journal_rest(&mut self, mut journal: impl FnMut(&str, &Entry) -> bool) {
        for (key, queue) in &mut self.queues {
            journal_queue(key, queue, &mut journal);
        }
    }

    /// The same of one key.
    pub(crate) fn journal_rest_of(
        &mut self,
        key: &str,
        mut journal: impl FnMut(&str, &Entry) -> bool,
    ) {
        if let Some(queue) = self.queues.get_mut(key) {
            journal_queue(key, queue, &mut journal);
        }
    }
}

fn journal_queue(
    key: &str,
    queue: &mut VecDeque<Entry>,
    journal: &mut impl FnMut(&str, &Entry) -> bool,
) {
    let is_missing = |entry: &&mut Entry| !entry.journalled && entry.write.must_survive();
    for entry in queue.iter_mut().filter(is_missing) {
        entry.journalled = journal(key, entry);
    }
}
