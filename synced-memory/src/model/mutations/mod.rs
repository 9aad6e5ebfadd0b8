//! Rules 5, 6 and 13 of the design, and 1 to 4 and 7 for processes that change parts of a value.
//!
//! - `kinds.rs`: what users call; `calls.rs`: how it is recorded; `document.rs`: the value that is changed
//! - `reference.rs`: what operations come to, in plain Rust; `aims.rs`: which element they may mean
//! - `book.rs`: what the rules say of one process; `draws.rs`, `answers.rs`: of what it sends and is answered
//! - `checks.rs`: what must hold for every history
//! - `promises.rs`: what was found, each as the shortest history that shows it

mod aims;
mod answers;
mod book;
mod calls;
mod checks;
mod document;
mod draws;
mod kinds;
mod promises;
mod reference;

use super::hold_in_every_schedule;
use book::Book;

/// Fewer than of assignments: each takes about ten times as long.
const SCHEDULES: u64 = 20_000;

#[test]
fn no_mutation_is_lost_doubled_or_torn_in_any_schedule() {
    hold_in_every_schedule::<Book>("mutations::no_mutation", SCHEDULES);
}
