//! Where the key is in a cluster of two shards, and what each of them answers for it.
//!
//! A cluster commits as one server does: the key and its sidecar are at one shard, or one of them
//! is at each, and then nobody decides. What is modelled here is who decides when, as servers do it
//! (`getNodeByQuery` of Redis and Valkey).

use super::server::{Existing, KEY};
use crate::backend::error::{BackendError, BackendErrorKind};
use crate::backend::layout::{Node, Redirect, slot_of};
use crate::backend::shards::{Shard, ShardMap};
use crate::client::state::State;

/// How many servers share the keys out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topology {
    OneShard,
    /// A cluster of two shards. `needs_replicas`: what is made is answered when the replica has it.
    TwoShards {
        needs_replicas: bool,
    },
}

/// One of the two shards of a cluster. [`Shard::FIRST`] is that of keys which nobody serves.
const A: Shard = Shard::numbered(1);
const B: Shard = Shard::numbered(2);

/// The slot of the key is being moved, in parts: the key and its sidecar are two keys.
#[derive(Debug, Clone, Copy)]
struct Migration {
    to: Shard,
    has_key_moved: bool,
    has_sidecar_moved: bool,
}

#[derive(Debug)]
pub(super) struct Placement {
    topology: Topology,
    /// The shard that has the slot.
    owner: Shard,
    migration: Option<Migration>,
    /// Counts the migrations that have begun or ended.
    era: u32,
    /// Each shard says that the other one has the slot.
    points_away: bool,
}

/// What a shard does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routing {
    Here,
    Moved(Shard),
    Ask(Shard),
    TryAgain,
    /// A read of a key that the shard does not have (yet): nothing is there.
    Nothing,
}

impl Placement {
    pub(super) fn new(topology: Topology, random: &mut fastrand::Rng) -> Self {
        let owner = match topology {
            Topology::OneShard => Shard::FIRST,
            Topology::TwoShards { .. } if random.bool() => A,
            Topology::TwoShards { .. } => B,
        };
        Self {
            topology,
            owner,
            migration: None,
            era: 0,
            points_away: false,
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.topology != Topology::OneShard
    }

    /// Whether what was made is answered only when the replica has it.
    pub(super) fn needs_replicas(&self) -> bool {
        matches!(
            self.topology,
            Topology::TwoShards {
                needs_replicas: true
            }
        )
    }

    pub(super) fn shards(&self) -> &'static [Shard] {
        match self.topology {
            Topology::OneShard => &[Shard::FIRST],
            Topology::TwoShards { .. } => &[A, B],
        }
    }

    /// One of the shards, at random if there are several.
    pub(super) fn any(&self, random: &mut fastrand::Rng) -> Shard {
        match self.shards() {
            [only] => *only,
            shards => shards[random.usize(0..shards.len())],
        }
    }

    /// What has the numbers of all shards, and of the one that serves nothing.
    pub(super) fn by_shard<T: Clone>(&self, of_each: T) -> Vec<T> {
        let last = self.shards().last().map_or(0, |shard| shard.index());
        vec![of_each; last + 1]
    }

    /// What a layout says; `is_wrong`: that of a server which has not heard of the last move.
    pub(super) fn owner(&self, is_wrong: bool) -> Shard {
        if is_wrong {
            other_than(self.owner)
        } else {
            self.owner
        }
    }

    pub(super) fn era(&self) -> u32 {
        self.era
    }

    /// Gives a process its map, of which nothing is known yet, and the shards.
    pub(super) fn share_out(&self, state: State) -> State {
        if !self.is_cluster() {
            return state;
        }
        let mut state = state.with_map(&ShardMap::cluster());
        for shard in self.shards() {
            state.add_shard(*shard, &node_of(*shard));
        }
        state
    }

    /// What a shard does with an attempt.
    pub(super) fn of_commit(&self, at: Shard, asking: bool, existing: Existing) -> Routing {
        if self.points_away {
            return Routing::Moved(other_than(at));
        }
        let Some(migration) = self.migration else {
            return self.settled(at);
        };
        let has_moved = [
            (existing.key, migration.has_key_moved),
            (existing.sidecar, migration.has_sidecar_moved),
        ];
        let count = |is_here: fn(bool) -> bool| {
            let here = has_moved
                .iter()
                .filter(|(exists, has_moved)| *exists && is_here(*has_moved));
            here.count()
        };
        if at == self.owner {
            match count(|has_moved| !has_moved) {
                2 => Routing::Here,
                1 => Routing::TryAgain,
                _ => Routing::Ask(migration.to),
            }
        } else if !asking {
            Routing::Moved(self.owner)
        } else if count(|has_moved| has_moved) == 2 {
            Routing::Here
        } else {
            Routing::TryAgain
        }
    }

    /// What a shard does with a read. `asked_in`: the era in which it was asked to answer although
    /// it does not have the slot.
    pub(super) fn of_read(&self, at: Shard, asked_in: Option<u32>, has_key: bool) -> Routing {
        if self.points_away {
            return Routing::Moved(other_than(at));
        }
        let Some(migration) = self.migration else {
            return self.settled(at);
        };
        let is_at_owner = has_key && !migration.has_key_moved;
        match asked_in {
            _ if at == self.owner && is_at_owner => Routing::Here,
            _ if at == self.owner => Routing::Ask(migration.to),
            // One that took longer than a whole migration would show what no server can tell it.
            Some(era) if era == self.era && !is_at_owner => Routing::Here,
            Some(era) if era == self.era => Routing::Nothing,
            _ => Routing::Moved(self.owner),
        }
    }

    fn settled(&self, at: Shard) -> Routing {
        if at == self.owner {
            Routing::Here
        } else {
            Routing::Moved(self.owner)
        }
    }

    /// Whether a shard has the key and the sidecar, those that there are.
    pub(super) fn is_whole_at(&self, shard: Shard) -> bool {
        match self.migration {
            None => shard == self.owner,
            Some(migration) => {
                let moved = (migration.has_key_moved, migration.has_sidecar_moved);
                moved == (shard == migration.to, shard == migration.to)
            }
        }
    }

    /// The slot is at the other shard from now on. Returns that.
    pub(super) fn move_slot(&mut self) -> Shard {
        self.owner = match self.migration.take() {
            Some(migration) => migration.to,
            None => other_than(self.owner),
        };
        self.era += 1;
        self.owner
    }

    /// The slot is to be moved in parts.
    pub(super) fn open(&mut self) {
        if self.migration.is_none() {
            self.era += 1;
            self.migration = Some(Migration {
                to: other_than(self.owner),
                has_key_moved: false,
                has_sidecar_moved: false,
            });
        }
    }

    /// The key moves, or its sidecar. Returns the shard that it moves to.
    pub(super) fn move_part(&mut self, is_key: bool) -> Option<Shard> {
        let migration = self.migration.as_mut()?;
        if is_key {
            migration.has_key_moved = true;
        } else {
            migration.has_sidecar_moved = true;
        }
        Some(migration.to)
    }

    /// The migration is given up, and what has moved is moved back. Returns whether anything had.
    pub(super) fn give_up(&mut self) -> bool {
        let Some(migration) = self.migration.take() else {
            return false;
        };
        self.era += 1;
        migration.has_key_moved || migration.has_sidecar_moved
    }

    pub(super) fn is_open(&self) -> bool {
        self.migration.is_some()
    }

    pub(super) fn point_away(&mut self, points_away: bool) {
        self.points_away = points_away && self.is_cluster();
    }

    /// The primary of a shard is replaced by its replica, which knows nothing of a migration: the
    /// slot stays where it was. Returns whether anything of the key was at that shard.
    ///
    /// If all had moved away from a shard whose replica has received that, the migration is taken
    /// up again: otherwise the slot would be at a shard that has nothing of what was answered.
    pub(super) fn fail_over(&mut self, shard: Shard) -> bool {
        match self.migration {
            None => shard == self.owner,
            Some(migration) => {
                let moved = [migration.has_key_moved, migration.has_sidecar_moved];
                let had_nothing = shard == migration.to && !moved.contains(&true);
                let has_nothing = shard == self.owner && !moved.contains(&false);
                if had_nothing || has_nothing && self.needs_replicas() {
                    return false;
                }
                self.migration = None;
                self.era += 1;
                true
            }
        }
    }

    /// The error that a server answers, if it does not do what it was asked.
    pub(super) fn error(routing: Routing) -> Option<BackendError> {
        let redirected = |kind, to, what| {
            let redirect = Redirect {
                slot: slot_of(KEY),
                node: node_of(to),
            };
            BackendError::redirected(kind, redirect, what)
        };
        match routing {
            Routing::Here | Routing::Nothing => None,
            Routing::Moved(to) => Some(redirected(BackendErrorKind::Moved, to, "MOVED")),
            Routing::Ask(to) => Some(redirected(BackendErrorKind::Ask, to, "ASK")),
            Routing::TryAgain => Some(BackendError::new(BackendErrorKind::TryAgain, "TRYAGAIN")),
        }
    }
}

fn other_than(shard: Shard) -> Shard {
    if shard == A { B } else { A }
}

fn node_of(shard: Shard) -> Node {
    Node {
        host: "shard".into(),
        port: u16::try_from(shard.index()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What source and target (after ASKING) answer, for each place that the two keys can be in.
    #[test]
    fn both_sides_of_a_migration_answer_as_servers_do() {
        let table = [
            // key exists and has moved, sidecar exists and has moved, source, target
            (
                (true, false),
                (true, false),
                Routing::Here,
                Routing::TryAgain,
            ),
            ((true, true), (true, true), Routing::Ask(B), Routing::Here),
            (
                (true, true),
                (true, false),
                Routing::TryAgain,
                Routing::TryAgain,
            ),
            (
                (true, false),
                (true, true),
                Routing::TryAgain,
                Routing::TryAgain,
            ),
            (
                (false, false),
                (false, false),
                Routing::Ask(B),
                Routing::TryAgain,
            ),
            (
                (false, false),
                (true, false),
                Routing::TryAgain,
                Routing::TryAgain,
            ),
            (
                (false, false),
                (true, true),
                Routing::Ask(B),
                Routing::TryAgain,
            ),
            (
                (true, false),
                (false, false),
                Routing::TryAgain,
                Routing::TryAgain,
            ),
            (
                (true, true),
                (false, false),
                Routing::Ask(B),
                Routing::TryAgain,
            ),
        ];
        for (key, sidecar, source, target) in table {
            let placement = Placement {
                topology: Topology::TwoShards {
                    needs_replicas: false,
                },
                owner: A,
                migration: Some(Migration {
                    to: B,
                    has_key_moved: key.1,
                    has_sidecar_moved: sidecar.1,
                }),
                era: 1,
                points_away: false,
            };
            let existing = Existing {
                key: key.0,
                sidecar: sidecar.0,
            };
            let of = |at, asking| placement.of_commit(at, asking, existing);
            assert_eq!(of(A, false), source, "{key:?} {sidecar:?}");
            assert_eq!(of(B, true), target, "{key:?} {sidecar:?}");
            assert_eq!(of(B, false), Routing::Moved(A), "{key:?} {sidecar:?}");
        }
    }
}
