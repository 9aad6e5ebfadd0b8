//! Schedules: lists of steps. Each step draws its own random numbers, so that a failing schedule
//! can be shortened by leaving steps out.

use std::fmt::Write as _;
use std::marker::PhantomData;

use super::action::{ScheduleStep, ScheduledAction};
use super::check::RuleResult;
use super::placement::Topology;
use super::rules::Rules;
use super::world::World;

#[derive(Debug, Clone)]
pub(super) struct Schedule<R> {
    seed: u64,
    topology: Topology,
    steps: Vec<ScheduleStep>,
    rules: PhantomData<R>,
}

impl<R: Rules> Schedule<R> {
    /// Ten to forty steps, and up to sixty with two shards. Each schedule contains only some of the
    /// faults, so that these meet each other often enough.
    pub(super) fn from_seed(seed: u64, topology: Topology) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_cluster = topology != Topology::OneShard;
        let mut actions: Vec<(ScheduledAction, u32)> = [R::WRITES, ScheduledAction::USUAL].concat();
        actions.extend(
            R::RARE
                .iter()
                .chain(ScheduledAction::FAULTS)
                .filter(|_| random.u8(0..3) == 0),
        );
        let mut first = vec![ScheduledAction::Connect, ScheduledAction::RoundTrip];
        if is_cluster {
            actions.extend(ScheduledAction::LAYOUT);
            let moves = ScheduledAction::MOVES.iter();
            actions.extend(moves.filter(|_| random.bool()));
            first.insert(0, ScheduledAction::LearnLayout);
            // Each of them at one of the shards.
            first.extend_from_within(1..);
            first.extend_from_within(1..);
        }
        let mut steps = Vec::new();
        for process in 0..3 {
            if random.u8(0..4) > 0 {
                for action in first.iter().copied() {
                    steps.push(ScheduleStep {
                        action,
                        process,
                        seed: random.u64(..),
                    });
                }
            }
        }
        for _ in 0..random.usize(10..=if is_cluster { 60 } else { 40 }) {
            steps.push(ScheduleStep {
                action: weighted(&actions, &mut random),
                process: random.usize(0..3),
                seed: random.u64(..),
            });
        }

        Self {
            seed,
            topology,
            steps,
            rules: PhantomData,
        }
    }

    pub(super) fn run(&self) -> RuleResult {
        self.run_in(&mut World::<R>::new(self.seed, self.topology, false))
    }

    fn run_in(&self, world: &mut World<R>) -> RuleResult {
        for step in &self.steps {
            world.step(step)?;
        }
        world.finish()
    }

    /// A schedule that fails too, perhaps in another way, and in which every step is needed.
    pub(super) fn shortened(mut self) -> Self {
        let mut length = usize::MAX;
        while self.steps.len() < length {
            length = self.steps.len();
            for at in (0..length).rev() {
                let step = self.steps.remove(at);
                if self.run().is_ok() {
                    self.steps.insert(at, step);
                }
            }
        }
        self
    }

    /// What happens in it, and which rule is broken.
    pub(super) fn report(&self) -> String {
        let mut world = World::<R>::new(self.seed, self.topology, true);
        let broken = self.run_in(&mut world).err();
        let mut text = String::from("shortened:\n");
        for line in world.trace_lines() {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(text, "  broken: {}", broken.unwrap_or_default());
        text
    }
}

/// One of the actions, at random by their weights.
fn weighted(actions: &[(ScheduledAction, u32)], random: &mut fastrand::Rng) -> ScheduledAction {
    let total: u32 = actions.iter().map(|(_, weight)| weight).sum();
    let mut point = random.u32(0..total);
    for (action, weight) in actions {
        if point < *weight {
            return *action;
        }
        point -= weight;
    }
    unreachable!("the point is below the sum of the weights")
}
