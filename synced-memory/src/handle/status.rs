//! What a memory says of itself.

use std::time::Duration;

use crate::base::error::Error;
use crate::cache::Tracking;
use crate::client::shared::Shared;
use crate::client::state::{ContendedKey, Link};

/// The state of a memory and of its connection; see [`Memory::status`](crate::Memory::status).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Whether there is a connection to the backend: in a cluster, to every server that has slots,
    /// and all slots are served. If it is `false` there, [`nodes`](Self::nodes) says which server
    /// is away; the keys of the others are read and written as before.
    pub connected: bool,
    /// How many keys have writes that the backend has not answered for.
    pub pending: usize,
    /// How long the oldest of those writes has waited.
    pub oldest_pending: Option<Duration>,
    /// The last error between this process and the backend. It may be long over.
    pub last_error: Option<Error>,
    /// What was wrong with the journals that this memory found when it was opened: one error for
    /// each damaged file, which names the file and where it is kept. They stay.
    pub journal_damage: Vec<Error>,
    /// How many queued writes were not made, or may have been, and how many taken elements could
    /// not go back; [`Memory::dead_letters`](crate::Memory::dead_letters) returns them.
    pub dead_letters: usize,
    /// How many of them were dropped because there were too many.
    pub dropped_dead_letters: u64,
    /// How many writes were replaced by somebody's newer one.
    pub superseded: u64,
    /// How many queued writes were dropped because their `ttl` was over before they could be sent.
    pub expired: u64,
    /// How many keys that are read near or watched have local copies that may not be current: the
    /// backend is away, or refuses to notify this process of changes, or they are being read again.
    /// A key that is not read again because nobody looks at it does not count: its next reader asks
    /// the backend. [`Synced::staleness`](crate::Synced::staleness) says of one value since when it
    /// has not been current.
    pub stale: usize,
    /// Whether the backend notifies this process of changes of the keys that it reads near or
    /// watches; [`Tracking`] says what to do about each answer.
    pub tracking: Tracking,
    /// The keys at which the writes of this process were refused most often because others had
    /// written first, since the memory was opened; at most eight, the most refused one first. Such
    /// writes are made again, on the newer value, which costs a round trip each time.
    ///
    /// If the number at a key grows all the time, many write it. Prefer `add`, `push` and `insert`
    /// to closures there: they are refused as well, but unless they are confirmed, that never makes
    /// them a `Conflict`. To have fewer refusals, divide the value into several keys.
    pub contended: Vec<ContendedKey>,
    /// How many bytes the local copies of values take; see
    /// [`cache_limit`](crate::Builder::cache_limit).
    pub cache_bytes: usize,
    /// The server's eviction policy, if it is known; of a cluster the worst one. Anything but
    /// `noeviction` loses state when the server is short of memory; `volatile-*` loses the hashes
    /// `synced-memory/{<key>}` first, and with them the memory of deletes.
    pub eviction_policy: Option<String>,
    /// The servers of a cluster that have slots (its primaries), that of the lowest slots first;
    /// empty if the backend is no cluster.
    pub nodes: Vec<NodeStatus>,
    /// How many slots of a cluster have no server, or one that is not connected, of 16,384. Their
    /// keys are read from what is known here, and their writes are queued.
    pub unreachable_slots: usize,
}

/// The state of the connection to one server of a cluster; see [`Status::nodes`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its host and port, as the cluster names it, or as `Builder::addresses` says.
    pub address: String,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// How many keys have writes that it has not answered for.
    pub pending: usize,
    /// The last error between this process and it. It may be long over.
    pub last_error: Option<Error>,
}

impl Status {
    pub(super) fn of(shared: &Shared) -> Self {
        let mono = shared.clock.mono();
        let is_inherited = shared.is_inherited();
        let (routes, eviction_policy) = (shared.routes(), shared.eviction_policy());
        let state = shared.state();
        let is_up = |shard| state.link(shard) != Link::Down && !is_inherited;
        let nodes = routes.in_order.iter().filter_map(|shard| {
            let route = routes.get(*shard).filter(|_| shared.map.is_cluster())?;
            Some(NodeStatus {
                address: route.node.to_string(),
                connected: is_up(*shard),
                pending: state.outbox.keys_of(*shard).count(),
                last_error: state.last_error_of(*shard).cloned(),
            })
        });
        let oldest = state
            .outbox
            .entries()
            .map(|(_, entry)| entry.write.since)
            .min();
        Self {
            connected: routes.is_complete && routes.in_order.iter().copied().all(is_up),
            pending: state.outbox.len(),
            oldest_pending: oldest.map(|oldest| mono.saturating_sub(oldest)),
            last_error: state.last_error.clone(),
            journal_damage: state.journal_damage.clone(),
            dead_letters: state.letters.len(),
            dropped_dead_letters: state.dropped_letters,
            superseded: state.superseded,
            expired: state.expired,
            stale: state.cache.stale(),
            tracking: state.cache.tracking(mono),
            contended: state.contended(),
            cache_bytes: state.cache.bytes(),
            eviction_policy,
            nodes: nodes.collect(),
            unreachable_slots: shared.map.slots_of(|shard| !is_up(shard)),
        }
    }
}
