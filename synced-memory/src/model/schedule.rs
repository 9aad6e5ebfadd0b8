//! Schedules: lists of steps, each of which draws its own random numbers, so that a failing
//! schedule can be shortened step by step.

use std::fmt::Write as _;
use std::marker::PhantomData;

use super::Check;
use super::rules::Rules;
use super::world::World;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) act: Act,
    pub(super) process: usize,
    /// The seed of whatever is drawn in this step.
    pub(super) roll: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Put,
    PutForAWhile,
    Delete,
    /// A caller's time is over: its write is promised; one that is confirmed is withdrawn, or in
    /// doubt.
    GiveUp,
    Connect,
    /// The flusher sends the next batch.
    Send,
    /// The server handles one request of any connection.
    Serve,
    /// One answer of any connection arrives.
    Deliver,
    /// Sends what waits; all of it is handled and answered.
    Round,
    Read,
    /// An answer to a read is taken in late, after the answers to later requests.
    HandleLate,
    Lose,
    GoDown,
    ComeUp,
    /// The server takes no writes, or none of ours.
    Balk,
    Thaw,
    ForeignSet,
    ForeignDelete,
    Flush,
    Replicate,
    FailOver,
    Close,
    Wait,
    WaitForDays,
}

impl Act {
    /// With how often they come.
    pub(super) const USUAL: &[(Self, u32)] = &[
        (Self::Connect, 10),
        (Self::Send, 12),
        (Self::Serve, 16),
        (Self::Deliver, 12),
        (Self::Round, 10),
        (Self::Read, 6),
    ];
    pub(super) const FAULTS: &[(Self, u32)] = &[
        (Self::GiveUp, 6),
        (Self::HandleLate, 4),
        (Self::Lose, 10),
        (Self::GoDown, 3),
        (Self::ComeUp, 6),
        (Self::Balk, 4),
        (Self::Thaw, 8),
        (Self::ForeignSet, 6),
        (Self::ForeignDelete, 4),
        (Self::Flush, 3),
        (Self::Replicate, 4),
        (Self::FailOver, 3),
        (Self::Close, 4),
        (Self::Wait, 5),
        (Self::WaitForDays, 1),
    ];
}

#[derive(Debug, Clone)]
pub(super) struct Schedule<R> {
    seed: u64,
    steps: Vec<Step>,
    rules: PhantomData<R>,
}

impl<R: Rules> Schedule<R> {
    /// Ten to forty steps. Each schedule knows only some of the things that can go wrong, so that
    /// these come often enough together.
    pub(super) fn drawn(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut acts: Vec<(Act, u32)> = [R::WRITES, Act::USUAL].concat();
        acts.extend(
            R::RARE
                .iter()
                .chain(Act::FAULTS)
                .filter(|_| random.u8(0..3) == 0),
        );
        let total: u32 = acts.iter().map(|(_, weight)| weight).sum();
        let mut steps = Vec::new();
        for process in 0..3 {
            if random.u8(0..4) > 0 {
                steps.push(Step {
                    act: Act::Connect,
                    process,
                    roll: random.u64(..),
                });
                steps.push(Step {
                    act: Act::Round,
                    process,
                    roll: random.u64(..),
                });
            }
        }
        for _ in 0..random.usize(10..=40) {
            let mut place = random.u32(0..total);
            let drawn = acts.iter().find(|(_, weight)| {
                let here = place < *weight;
                place = place.wrapping_sub(*weight);
                here
            });
            let (act, _) = drawn.expect("the place is below the sum of the weights");
            steps.push(Step {
                act: *act,
                process: random.usize(0..3),
                roll: random.u64(..),
            });
        }
        Self {
            seed,
            steps,
            rules: PhantomData,
        }
    }

    pub(super) fn run(&self) -> Check {
        self.run_in(&mut World::<R>::new(self.seed, false))
    }

    fn run_in(&self, world: &mut World<R>) -> Check {
        for step in &self.steps {
            world.step(step)?;
        }
        world.finish()
    }

    /// The same failure, or another one, in as few steps as leaving out finds.
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

    /// What happens in it, and what is wrong with that.
    pub(super) fn told(&self) -> String {
        let mut world = World::<R>::new(self.seed, true);
        let broken = self.run_in(&mut world).err();
        let mut text = String::from("in short:\n");
        for line in world.tale() {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(text, "  broken: {}", broken.unwrap_or_default());
        text
    }
}
