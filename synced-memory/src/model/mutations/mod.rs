//! Rules 5, 6 and 13 of the design, and 1 to 4 and 7 for processes that change parts of a value.
//!
//! - `kinds.rs`: what users call, `plainly.rs`: what that is to do; `calls.rs`: how it is recorded
//! - `document.rs`: the value that is changed
//! - `reference.rs`: what operations come to, in plain Rust; `aims.rs`: which element they may mean
//! - `ways.rs`: what several calls may come to, one after the other
//! - `compared.rs`: which closures are one call, and which were made on what others did;
//!   `fates.rs`: what becomes of those
//! - `book.rs`: what the rules say of one process; `draws.rs`, `answers.rs`: of what it sends and
//!   is answered
//! - `confirmed.rs`: calls that are made or withdrawn, or in doubt, and what they take
//! - `checks.rs`: what must hold for every history
//! - `promises.rs`: what was found, each as the shortest history that shows it

mod aims;
mod answers;
mod book;
mod calls;
mod checks;
mod compared;
mod confirmed;
mod document;
mod draws;
mod fates;
mod kinds;
mod plainly;
mod promises;
mod reference;
mod ways;

use super::hold_in_every_schedule;
use book::Book;

/// Fewer than of assignments: each takes about ten times as long.
const SCHEDULES: u64 = 20_000;

#[test]
fn no_mutation_is_lost_doubled_or_torn_in_any_schedule() {
    hold_in_every_schedule::<Book>("mutations::no_mutation", SCHEDULES);
}
