//! The rules of ARCHITECTURE.md, checked against random histories: three processes write one key,
//! with everything that can happen between them and the server.
//!
//! - `runner.rs`: runs many schedules; `schedule.rs`: draws one from a seed, and shortens one that
//!   fails; `action.rs`: what can happen in a step
//! - `steps.rs`: performs each step, and at the end lets everything heal; `network.rs`: the
//!   connections and what goes wrong there; `world.rs`: all that takes part
//! - `rules.rs`: what the rules have to say about a process; `process.rs`: a process and its clock
//! - `server.rs`: the server, and beside it what the rules say that it stores
//! - `assignments/`: rules 1 to 4, 7 and 8, for processes that assign whole values; `mutations/`:
//!   rules 5, 6 and 13, for processes that change parts of a value
//! - `calls/`, `reference/`, `document.rs`: what these call, what their operations do in plain
//!   Rust, and on which value
//! - `near.rs`: rule 14, in every order of threads
//! - `histories/`: single histories by name, most of them found by the model

mod action;
mod assignments;
mod calls;
mod check;
mod document;
mod histories;
mod mutations;
mod near;
mod network;
mod process;
mod reference;
mod rules;
mod runner;
mod schedule;
mod server;
mod steps;
mod world;

use assignments::Ledger;
use runner::hold_in_every_schedule;

/// How many schedules are run unless `SYNCED_MEMORY_SCHEDULES` overrides it.
const SCHEDULES: u64 = 100_000;

#[test]
fn the_rules_hold_in_every_schedule() {
    hold_in_every_schedule::<Ledger>("the", SCHEDULES);
}
