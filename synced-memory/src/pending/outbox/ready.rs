//! The keys whose head can be sent, for each shard those in the order in which they are sent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::backend::shards::{ByShard, Shard, ShardMap};
use crate::base::clock::Monotonic;
use crate::base::hash::KeyMap;

/// Each key is in one place at most: ready, or parked.
#[derive(Debug, Default)]
pub(super) struct ReadyKeys {
    pub(super) map: ShardMap,
    shards: ByShard<ShardKeys>,
    /// When each of the parked keys is ready.
    parked: KeyMap<Monotonic>,
    /// A key is ready at another shard than the one that was asked for it.
    has_strayed: bool,
}

#[derive(Debug, Default)]
struct ShardKeys {
    ready: VecDeque<Arc<str>>,
    /// With entries of keys that are not parked any more.
    parked: BinaryHeap<Reverse<(Monotonic, Arc<str>)>>,
}

impl ReadyKeys {
    /// `sent_to`: the shard that the head of `key` is sent to, if not to its own.
    fn shard(&self, key: &str, sent_to: Option<Shard>) -> Shard {
        sent_to.unwrap_or_else(|| self.map.shard_of(key))
    }

    pub(super) fn push_front(&mut self, key: Arc<str>, sent_to: Option<Shard>) {
        let shard = self.shard(&key, sent_to);
        self.shards[shard].ready.push_front(key);
    }

    pub(super) fn push_back(&mut self, key: Arc<str>, sent_to: Option<Shard>) {
        let shard = self.shard(&key, sent_to);
        self.shards[shard].ready.push_back(key);
    }

    /// The same of a key that was sent to the shard `from`, or was to be.
    pub(super) fn push_front_from(&mut self, from: Shard, key: Arc<str>, sent_to: Option<Shard>) {
        self.has_strayed |= self.shard(&key, sent_to) != from;
        self.push_front(key, sent_to);
    }

    /// The next key of this shard. `sent_to`: as above, of each key.
    pub(super) fn pop(
        &mut self,
        shard: Shard,
        sent_to: impl Fn(&str) -> Option<Shard>,
    ) -> Option<Arc<str>> {
        loop {
            let key = self.shards[shard].ready.pop_front()?;
            // Its slot may have gone to another shard since.
            let now = self.shard(&key, sent_to(&key));
            if now == shard {
                return Some(key);
            }
            self.shards[now].ready.push_back(key);
            self.has_strayed = true;
        }
    }

    /// Removes `key` if it is the first of its shard.
    pub(super) fn take_first(&mut self, key: &str, sent_to: Option<Shard>) -> bool {
        let shard = self.shard(key, sent_to);
        let ready = &mut self.shards[shard].ready;
        let is_first = ready.front().is_some_and(|first| **first == *key);
        if is_first {
            ready.pop_front();
        }
        is_first
    }

    /// Removes `key`, wherever it is; whether it was there.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        if self.parked.remove(key).is_some() {
            return true;
        }
        self.shards.iter_mut().any(|(_, ShardKeys { ready, .. })| {
            let at = ready.iter().position(|ready| **ready == *key);
            at.and_then(|at| ready.remove(at)).is_some()
        })
    }

    /// Makes `key`, which is not ready now, ready at `due`.
    pub(super) fn park(&mut self, key: Arc<str>, sent_to: Option<Shard>, due: Monotonic) {
        let shard = self.shard(&key, sent_to);
        self.parked.insert(Arc::clone(&key), due);
        self.shards[shard].parked.push(Reverse((due, key)));
    }

    /// If `key` is parked, it is ready now.
    pub(super) fn end_parking(&mut self, key: &str, sent_to: Option<Shard>) {
        if let Some((key, _)) = self.parked.remove_entry(key) {
            self.push_back(key, sent_to);
        }
    }

    /// Makes those of this shard ready that are due at `mono`. `sent_to`: as above, of each key.
    pub(super) fn unpark(
        &mut self,
        shard: Shard,
        mono: Monotonic,
        sent_to: impl Fn(&str) -> Option<Shard>,
    ) {
        while self.next_due(shard).is_some_and(|due| due <= mono)
            && let Some(Reverse((_, key))) = self.shards[shard].parked.pop()
        {
            self.parked.remove(&key);
            let sent_to = sent_to(&key);
            self.has_strayed |= self.shard(&key, sent_to) != shard;
            self.push_back(key, sent_to);
        }
    }

    /// When the first of the parked keys of this shard is due.
    pub(super) fn next_due(&mut self, shard: Shard) -> Option<Monotonic> {
        let parked = &mut self.shards[shard].parked;
        while let Some(Reverse((due, key))) = parked.peek() {
            if self.parked.get(key) == Some(due) {
                return Some(*due);
            }
            parked.pop();
        }
        None
    }

    pub(super) fn of(&self, shard: Shard) -> impl Iterator<Item = &Arc<str>> {
        self.shards[shard].ready.iter()
    }

    /// The shards that have ready keys.
    pub(super) fn shards(&self) -> impl Iterator<Item = Shard> {
        let ready = self
            .shards
            .iter()
            .filter(|(_, keys)| !keys.ready.is_empty());
        ready.map(|(shard, _)| shard)
    }

    /// A key may be ready at another shard than before.
    pub(super) fn note_strayed(&mut self) {
        self.has_strayed = true;
    }

    /// Whether a key went to another shard's since the last call.
    pub(super) fn take_strayed(&mut self) -> bool {
        std::mem::take(&mut self.has_strayed)
    }

    /// Puts every key where it belongs now. `sent_to`: as above, of each key.
    pub(super) fn share_out(&mut self, sent_to: impl Fn(&str) -> Option<Shard>) {
        let shards = std::mem::take(&mut self.shards);
        for (shard, keys) in shards.into_all() {
            // For a shard that has no keys, too: whoever looks finds its own.
            let _ = &mut self.shards[shard];
            for key in keys.ready {
                let now = self.shard(&key, sent_to(&key));
                self.has_strayed |= now != shard;
                self.shards[now].ready.push_back(key);
            }
            for Reverse((due, key)) in keys.parked {
                if self.parked.get(&key) == Some(&due) {
                    let now = self.shard(&key, sent_to(&key));
                    self.has_strayed |= now != shard;
                    self.shards[now].parked.push(Reverse((due, key)));
                }
            }
        }
    }

    /// Makes room for the keys of a shard.
    pub(super) fn add(&mut self, shard: Shard) {
        let _ = &mut self.shards[shard];
    }
}
