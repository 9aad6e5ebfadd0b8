//! What the rules have to say: of one process, and of the calls that processes make.

use super::action::ScheduledAction;
use super::check::RuleResult;
use super::process::ProcessRules;
use super::server::HeldValue;
use super::world::World;

/// How processes write, what their callers do, and what must be true at the end.
pub(super) trait Rules: ProcessRules {
    /// The writes, with their weights.
    const WRITES: &'static [(ScheduledAction, u32)];
    /// Writes that only some schedules contain.
    const RARE: &'static [(ScheduledAction, u32)];

    /// The process writes something.
    fn write(
        world: &mut World<Self>,
        at: usize,
        action: ScheduledAction,
        random: &mut fastrand::Rng,
    ) -> RuleResult;

    /// A foreign client that knows nothing of processes and stamps stores something.
    fn foreign_set(world: &mut World<Self>, random: &mut fastrand::Rng) -> RuleResult;

    /// What callers do after a step of their process: they record calls again when an answer asks
    /// for it, and they pick up elements that were taken for them.
    fn callers_continue(_world: &mut World<Self>, _at: usize) -> RuleResult {
        Ok(())
    }

    /// Checks the outcome of each write of a process, at its end.
    fn ended(world: &World<Self>, at: usize) -> RuleResult;

    /// Checks the whole history once everything is delivered. `held`: what the server stores.
    fn finished(_world: &World<Self>, _held: Option<&HeldValue>) -> RuleResult {
        Ok(())
    }
}
