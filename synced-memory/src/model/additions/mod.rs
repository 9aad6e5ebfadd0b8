//! Rules 1 to 7 for additions: processes that push items of their own onto a root list, or add to a
//! root integer, and now and then assign, delete or take.
//!
//! - `rules.rs`: all that is checked; `calls.rs`: the calls of processes and foreign clients
//! - `history.rs`: the calls of a process, in the entries that they are queued in
//! - `attempts.rs`: what is sent; `answers.rs`: what becomes of each answer; `confirmed.rs`:
//!   confirmed calls, and the items that they take; `letters.rs`: what ends in another way
//! - `view.rs`: what a read shows; `values.rs`: what calls do, and what must hold for every value

mod answers;
mod attempts;
mod calls;
mod confirmed;
mod history;
mod letters;
mod rules;
mod values;
mod view;

use super::placement::Topology;
use super::runner::hold_in_every_schedule;
use history::AdditionHistory;

const SCHEDULES: u64 = 3_500;
const OF_TWO_SHARDS: u64 = 250;

#[test]
fn no_addition_is_lost_or_doubled_in_any_schedule() {
    let name = "additions::no_addition";
    hold_in_every_schedule::<AdditionHistory>(name, Topology::OneShard, SCHEDULES);
}

#[test]
fn two_shards_lose_or_double_no_addition_in_any_schedule() {
    for needs_replicas in [false, true] {
        let topology = Topology::TwoShards { needs_replicas };
        let name = "additions::two_shards";
        hold_in_every_schedule::<AdditionHistory>(name, topology, OF_TWO_SHARDS);
    }
}
