//! Rules 1 to 4, 7 and 8 of the design, held against random histories: three processes on one key,
//! with everything that can happen between them and the server.
//!
//! - `world.rs`: the processes with their wrong clocks, their connections, and what goes wrong there
//! - `server.rs`: the server, and beside it what the rules say that it holds
//! - `ledger.rs`: what the rules say of one process
//! - `promises.rs`: the promises by name, each as the shortest history that can break it
//!
//! A schedule is a list of steps of which each draws its own random numbers, so that a failing one
//! can be shortened step by step.

mod ledger;
mod promises;
mod server;
mod world;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Act, Step, World};

/// What holds, or which rule was broken.
type Check<T = ()> = Result<T, String>;

/// Returns the message as broken rule where the condition does not hold.
macro_rules! hold {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
use hold;

/// So many schedules are run, beginning with `SYNCED_MEMORY_SEED`, unless `SYNCED_MEMORY_SCHEDULES` says otherwise.
const SCHEDULES: u64 = 120_000;

#[test]
fn the_rules_hold_in_every_schedule() {
    let first = number("SYNCED_MEMORY_SEED").unwrap_or(0);
    let count = number("SYNCED_MEMORY_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= count {
                        return;
                    }
                    let _named = Named(seed);
                    let schedule = Schedule::drawn(seed);
                    if let Err(broken) = schedule.run() {
                        // The others need not look any further.
                        next.store(first + count, Ordering::Relaxed);
                        panic!("{broken}\n{}", schedule.shortened().told());
                    }
                }
            });
        }
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Says on a panic which seed it was and how to run it again.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "again: SYNCED_MEMORY_SEED={seed} SYNCED_MEMORY_SCHEDULES=1 cargo test -p synced-memory --lib model::the"
            );
        }
    }
}

#[derive(Debug, Clone)]
struct Schedule {
    seed: u64,
    steps: Vec<Step>,
}

impl Schedule {
    /// Ten to forty steps. Each schedule knows only some of the things that can go wrong, so that
    /// these come often enough together.
    fn drawn(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut acts: Vec<(Act, u32)> = Act::USUAL.to_vec();
        acts.extend(Act::FAULTS.iter().filter(|_| random.u8(0..3) == 0));
        let total: u32 = acts.iter().map(|(_, weight)| weight).sum();
        let mut steps = Vec::new();
        for process in 0..3 {
            if random.u8(0..4) > 0 {
                steps.push(Step { act: Act::Connect, process, roll: random.u64(..) });
                steps.push(Step { act: Act::Round, process, roll: random.u64(..) });
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
            steps.push(Step { act: *act, process: random.usize(0..3), roll: random.u64(..) });
        }
        Self { seed, steps }
    }

    fn run(&self) -> Check {
        self.run_in(&mut World::new(self.seed, false))
    }

    fn run_in(&self, world: &mut World) -> Check {
        for step in &self.steps {
            world.step(step)?;
        }
        world.finish()
    }

    /// The same failure, or another one, in as few steps as leaving out finds.
    fn shortened(mut self) -> Self {
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
    fn told(&self) -> String {
        let mut world = World::new(self.seed, true);
        let broken = self.run_in(&mut world).err();
        let mut text = String::from("in short:\n");
        for line in world.tale() {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(text, "  broken: {}", broken.unwrap_or_default());
        text
    }
}
