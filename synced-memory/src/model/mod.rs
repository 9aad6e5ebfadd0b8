//! The rules of the design, held against random histories: three processes on one key, with
//! everything that can happen between them and the server.
//!
//! - `rules.rs`: what can be held against histories. `assignments.rs`: rules 1 to 4, 7 and 8, for
//!   processes that assign whole values; `ledger.rs`: what these say of one process. `mutations/`:
//!   rules 5, 6 and 13, for processes that change parts
//! - `schedule.rs`: what may happen, drawn from a seed; a schedule that fails is shortened
//! - `world.rs`: what happens in each step, and in the end
//! - `process.rs`, `link.rs`: the processes with their wrong clocks, their connections, and what
//!   goes wrong there
//! - `server.rs`: the server, and beside it what the rules say that it holds
//! - `near.rs`: rule 14, in every order of threads
//! - `promises.rs`: the promises of assignments by name, each as the shortest history that can
//!   break it

mod assignments;
mod ledger;
mod link;
mod mutations;
mod near;
mod process;
mod promises;
mod rules;
mod schedule;
mod server;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use ledger::Ledger;
use rules::Rules;
use schedule::Schedule;

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

/// So many schedules are run, beginning with `SYNCED_MEMORY_SEED`, unless `SYNCED_MEMORY_SCHEDULES`
/// says otherwise.
const SCHEDULES: u64 = 100_000;

#[test]
fn the_rules_hold_in_every_schedule() {
    hold_in_every_schedule::<Ledger>("the", SCHEDULES);
}

/// Runs so many schedules. `name`: where the test is, for running one of them again.
fn hold_in_every_schedule<R: Rules>(name: &'static str, schedules: u64) {
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
                    let _named = Named(seed, name);
                    let schedule = Schedule::<R>::drawn(seed);
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
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// Says on a panic which seed it was and how to run it again.
struct Named(u64, &'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, name) = self;
            eprintln!(
                "again: SYNCED_MEMORY_SEED={seed} SYNCED_MEMORY_SCHEDULES=1 cargo test -p synced-memory --lib model::{name}"
            );
        }
    }
}
