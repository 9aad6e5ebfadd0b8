//! Random numbers that the child of a fork does not share with its siblings.

use fastrand::Rng;

/// A generator that is seeded by the operating system.
///
/// `fastrand`'s own generator of each thread is copied by `fork`: two children would draw the same
/// writer number, and the server would take the writes of one for retries of the other (rule 17).
/// Their waits would have the same jitter, too.
#[allow(
    clippy::disallowed_methods,
    reason = "without the system's random numbers"
)]
pub(crate) fn rng() -> Rng {
    // The operating system always has random numbers, but in a sandbox that forbids the call.
    let seed = getrandom::u64()
        .unwrap_or_else(|_| Rng::new().u64(..) ^ u64::from(std::process::id()).rotate_left(32));
    Rng::with_seed(seed)
}
