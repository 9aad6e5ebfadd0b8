use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(1);

/// Polls until `condition` holds; panics with `what` when it does not within `deadline`.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(deadline, what, || condition().then_some(()));
}

/// Polls until `answer` returns a value, and returns that; panics with `what` when there is none
/// within `deadline`.
#[track_caller]
pub fn eventually_some<T>(deadline: Duration, what: &str, answer: impl FnMut() -> Option<T>) -> T {
    poll(deadline, answer).unwrap_or_else(|| panic!("not within {deadline:?}: {what}"))
}

pub(crate) fn poll<T>(deadline: Duration, mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        // The clock is read first: a condition that was met in time counts even if this thread
        // slept.
        let late = started.elapsed() >= deadline;
        let found = answer();
        if late || found.is_some() {
            return found;
        }
        thread::sleep(POLL);
    }
}
