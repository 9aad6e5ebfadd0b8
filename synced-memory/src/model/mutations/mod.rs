//! Rules 5, 6 and 13, and 1 to 4 and 7, for processes that change parts of a value.
//!
//! - `rules.rs`: all that is checked; `checks.rs`: what must hold for every history
//! - `history.rs`: the calls of a process, and the entries that they are queued in
//! - `callers.rs`: how a call is made; `accepted.rs`: what it becomes in the history
//! - `attempts.rs`: what is sent; `unsent.rs`: what ends without being sent; `answers.rs`: what
//!   becomes of each answer
//! - `abandoned.rs`, `dead_letters.rs`: calls that do not apply; `propagation.rs`: closures that
//!   were made on what was not applied
//! - `confirmed.rs`, `takes.rs`: confirmed calls, and the elements that they take
//! - `reports.rs`: what callers are answered; `counted.rs`: the log and the sums

mod abandoned;
mod accepted;
mod answers;
mod attempts;
mod callers;
mod checks;
mod confirmed;
mod counted;
mod dead_letters;
mod history;
mod propagation;
mod reports;
mod rules;
mod takes;
mod unsent;

use super::placement::Topology;
use super::runner::hold_in_every_schedule;
use history::History;

/// Fewer than of assignments: each takes about ten times as long.
const SCHEDULES: u64 = 6_000;
const OF_TWO_SHARDS: u64 = 400;

#[test]
fn no_mutation_is_lost_doubled_or_torn_in_any_schedule() {
    hold_in_every_schedule::<History>("mutations::no_mutation", Topology::OneShard, SCHEDULES);
}

#[test]
fn two_shards_lose_double_or_tear_no_mutation_in_any_schedule() {
    for needs_replicas in [false, true] {
        let topology = Topology::TwoShards { needs_replicas };
        hold_in_every_schedule::<History>("mutations::two_shards", topology, OF_TWO_SHARDS);
    }
}
