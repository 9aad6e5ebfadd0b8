//! What passes between the outbox and its journal.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entry, NUMBERS, Outbox, Tried};
use crate::backend::commit::{Sequence, Writer};

impl Outbox {
    /// Queues what another process has left behind, which may have been sent: before everything
    /// that is written here.
    pub(crate) fn adopt(&mut self, key: &Arc<str>, mut entry: Entry) {
        self.last_sequence += NUMBERS;
        entry.id = self.last_sequence;
        entry.tried = Tried::InDoubt;
        entry.was_in_doubt = true;
        entry.fresh = false;
        self.bytes += entry.cost(key);
        let queue = self.queues.entry(Arc::clone(key)).or_default();
        if queue.is_empty() {
            self.ready.push_back(Arc::clone(key));
        }
        queue.push_back(entry);
    }

    /// Puts an entry in the place of the one with its name, or behind the others.
    pub(crate) fn put_in_place(&mut self, key: &Arc<str>, mut entry: Entry) {
        let queue = self.queues.entry(Arc::clone(key)).or_default();
        self.bytes += entry.cost(key);
        if let Some(place) = queue.iter_mut().find(|other| other.name() == entry.name()) {
            self.bytes -= place.cost(key);
            entry.id = place.id;
            *place = entry;
            return;
        }
        self.last_sequence = self.last_sequence.max(entry.sequence);
        entry.id = self.last_sequence;
        queue.push_back(entry);
    }

    /// The entry of `key` with this name.
    pub(crate) fn named(&mut self, key: &str, name: (Writer, Sequence)) -> Option<&mut Entry> {
        self.of_mut(key).find(|entry| entry.name() == name)
    }

    pub(crate) fn drop_named(&mut self, key: &str, name: (Writer, Sequence)) {
        let Some(queue) = self.queues.get_mut(key) else {
            return;
        };
        if let Some(entry) = queue
            .iter()
            .position(|entry| entry.name() == name)
            .and_then(|at| queue.remove(at))
        {
            self.bytes -= entry.cost(key);
        }
    }

    /// Goes on as the outbox of this writer, after this sequence number.
    pub(crate) fn go_on_after(&mut self, writer: Writer, last: Sequence) {
        self.writer = writer;
        self.last_sequence = last;
    }

    /// Everything in it, for each key in order.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (Arc<str>, Entry)> {
        let of_key = |(key, queue): (Arc<str>, VecDeque<Entry>)| {
            queue
                .into_iter()
                .map(move |entry| (Arc::clone(&key), entry))
        };
        self.queues.into_iter().flat_map(of_key)
    }

    /// What is not in the journal yet.
    pub(crate) fn not_journalled(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut Entry)> {
        let of_key = |(key, queue)| {
            let queue: &mut VecDeque<Entry> = queue;
            queue.iter_mut().map(move |entry| (key, entry))
        };
        self.queues
            .iter_mut()
            .flat_map(of_key)
            .filter(|(_, entry)| !entry.journalled && entry.is_to_survive())
    }
}
