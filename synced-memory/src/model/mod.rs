//! The rules of ARCHITECTURE.md, checked against random histories: three processes write one key,
//! with everything that can happen between them and the server, or a cluster of two shards.
//!
//! - `runner.rs`: runs many schedules; `schedule.rs`: draws one from a seed, and shortens one that
//!   fails; `action.rs`: what can happen in a step
//! - `steps.rs`: performs each step, and at the end lets everything heal; `network.rs`: the
//!   connections and what goes wrong there; `reads.rs`: reads; `serving.rs`: what servers answer;
//!   `world.rs`: all that takes part
//! - `placement.rs`: which shard has the key, and what each answers for it; `cluster.rs`: what
//!   happens to the shards, and what processes learn of that
//! - `rules.rs`: what the rules have to say about a process; `process.rs`: a process and its clock;
//!   `audit.rs`: what is the same in all rules
//! - `server.rs`: the server, and beside it what the rules say that it stores
//! - `assignments/`: rules 1 to 4, 7 and 8, for processes that assign whole values; `mutations/`:
//!   rules 5, 6 and 13, for processes that change parts of a value; `additions/`: for those that
//!   add to a root list or a root integer
//! - `calls/`, `reference/`, `document.rs`: what these call, what their operations do in plain
//!   Rust, and on which value
//! - `near.rs`: rule 14, in every order of threads; `near_shards.rs`: the same of two shards
//! - `histories/`: single histories by name, most of them found by the model

mod action;
mod additions;
mod assignments;
mod audit;
mod calls;
mod check;
mod cluster;
mod document;
mod histories;
mod mutations;
mod near;
mod near_shards;
mod network;
mod placement;
mod process;
mod reads;
mod reference;
mod rules;
mod runner;
mod schedule;
mod server;
mod serving;
mod steps;
mod world;

use assignments::Ledger;
use placement::Topology;
use runner::hold_in_every_schedule;

/// How many schedules are run unless `SYNCED_MEMORY_SCHEDULES` overrides it.
const SCHEDULES: u64 = 30_000;
const OF_TWO_SHARDS: u64 = 2_500;

#[test]
fn the_rules_hold_in_every_schedule() {
    hold_in_every_schedule::<Ledger>("the_rules", Topology::OneShard, SCHEDULES);
}

#[test]
fn two_shards_keep_the_rules_in_every_schedule() {
    let topology = Topology::TwoShards {
        needs_replicas: false,
    };
    hold_in_every_schedule::<Ledger>("two_shards", topology, OF_TWO_SHARDS);
}

#[test]
fn two_shards_with_replicas_lose_nothing_that_was_answered_in_any_schedule() {
    let topology = Topology::TwoShards {
        needs_replicas: true,
    };
    hold_in_every_schedule::<Ledger>("two_shards_with", topology, OF_TWO_SHARDS / 2);
}
