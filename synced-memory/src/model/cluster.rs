//! What happens to a cluster of two shards, and what its processes learn of that.

use super::check::{RuleResult, ensure};
use super::rules::Rules;
use super::server::KEY;
use super::world::World;
use crate::backend::layout::slot_of;
use crate::backend::shards::Shard;

impl<R: Rules> World<R> {
    /// Whether the shard that has the key is there.
    pub(super) fn is_owner_up(&self) -> bool {
        self.are_up[self.placement.owner(false).index()]
    }

    /// The key and its sidecar go to the other shard together, or what is left of them does.
    pub(super) fn move_slot(&mut self) {
        let owner = self.placement.move_slot();
        self.arrived(owner);
        self.log_step(|| format!("the slot moves to {owner:?}"));
    }

    pub(super) fn open_slot(&mut self) {
        self.placement.open();
        self.log_step(|| "the slot is being moved".to_owned());
    }

    /// The key moves, or its sidecar.
    pub(super) fn move_part(&mut self, is_key: bool) {
        if let Some(owner) = self.placement.move_part(is_key) {
            self.arrived(owner);
        }
        self.log_step(|| {
            let part = if is_key { "key" } else { "sidecar" };
            format!("the {part} moves, if the slot does")
        });
    }

    pub(super) fn give_up_migration(&mut self) {
        if self.placement.give_up() {
            self.arrived(self.placement.owner(false));
        }
        self.log_step(|| "the slot stays where it was".to_owned());
    }

    /// The key has come to a shard. Its replica has it, if what is answered must be there.
    fn arrived(&mut self, shard: Shard) {
        if self.placement.needs_replicas() {
            self.server.replicate(shard);
        }
    }

    /// The primary of a shard is replaced by its replica: in a cluster what was on its way to the
    /// old one is lost.
    pub(super) fn fail_over(&mut self, shard: Shard) -> RuleResult {
        let mono = self.mono();
        if self.placement.is_cluster() {
            let connections = self.connections.iter_mut();
            for connection in connections.filter(|connection| connection.shard == shard) {
                connection.requests.clear();
                connection.is_cut = true;
            }
        }
        if self.placement.fail_over(shard) {
            self.server.fail_over(shard, mono)?;
            for at in 0..self.processes.len() {
                self.check_replicated(at)?;
            }
        }
        Ok(())
    }

    /// If what is answered is on a replica, nothing that was answered is ever lost.
    pub(super) fn check_replicated(&self, at: usize) -> RuleResult {
        if !self.placement.needs_replicas() {
            return Ok(());
        }
        let process = &self.processes[at];
        let writer = process.state.writer();
        for sequence in process.ledger.made() {
            ensure!(
                !self.server.is_lost(writer, sequence),
                "{at}/{sequence} was answered, and is lost though it was on a replica"
            );
        }
        Ok(())
    }

    /// A process learns of a layout, as `flusher/layout.rs` does. `is_wrong`: most of the servers
    /// have not heard of the last move.
    pub(super) fn learn_layout(&mut self, at: usize, is_wrong: bool) {
        let (mono, owner) = (self.mono(), self.placement.owner(is_wrong));
        let (process, slot) = (&mut self.processes[at], slot_of(KEY));
        let before = std::mem::replace(&mut process.laid_out, owner);
        process.wants_layout = false;
        if process.state.lay_out([(slot, before, owner)], mono) {
            process.wake_all();
        }
        process.unlocked();
        self.log_step(|| format!("{at} learns that {owner:?} has the key"));
    }

    /// A migration ends one way or the other, and the shards agree on where the key is.
    pub(super) fn heal_cluster(&mut self) {
        self.placement.point_away(false);
        self.lags.fill(false);
        if !self.placement.is_open() {
            return;
        }
        if self.random.bool() {
            self.move_slot();
        } else {
            self.give_up_migration();
        }
    }
}
