//! Runs many schedules, in all threads, and reports the first that breaks a rule.

use std::sync::atomic::{AtomicU64, Ordering};

use super::placement::Topology;
use super::rules::Rules;
use super::schedule::Schedule;

/// Runs `schedules` schedules, beginning with the seed `SYNCED_MEMORY_SEED`; the variable
/// `SYNCED_MEMORY_SCHEDULES` overrides their number. `name` is the name of the test inside
/// `model`, which a failure reports so that its schedule can be run again.
pub(super) fn hold_in_every_schedule<R: Rules>(
    name: &'static str,
    topology: Topology,
    schedules: u64,
) {
    let first = number("SYNCED_MEMORY_SEED").unwrap_or(0);
    let count = number("SYNCED_MEMORY_SCHEDULES").unwrap_or(schedules);
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
                    let _report = SeedReport(seed, name);
                    let schedule = Schedule::<R>::from_seed(seed, topology);
                    if let Err(broken) = schedule.run() {
                        // The others need not look any further.
                        next.store(first + count, Ordering::Relaxed);
                        panic!("{broken}\n{}", schedule.shortened().report());
                    }
                }
            });
        }
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// On a panic, reports the seed and how to run it again.
struct SeedReport(u64, &'static str);

impl Drop for SeedReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, name) = self;
            eprintln!(
                "again: SYNCED_MEMORY_SEED={seed} SYNCED_MEMORY_SCHEDULES=1 \
                 cargo test -p synced-memory --lib model::{name}"
            );
        }
    }
}
