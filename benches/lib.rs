//! What the measurements share: interleaved rounds and their medians.
//!
//! A ratio is of medians of rounds that alternate between the two sides, so that a machine whose speed
//! drifts does not favour one.

use std::time::{Duration, Instant};

/// One side of a comparison: a name, and what is done so many times.
pub type Side<'a> = (&'a str, Box<dyn FnMut(u32) + 'a>);

/// Runs the sides in turn for `rounds`, `count` times each, and returns the median time of one
/// operation for each side.
pub fn medians(rounds: usize, count: u32, sides: &mut [Side<'_>]) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(rounds); sides.len()];
    for round in 0..=rounds {
        for ((_, operate), times) in sides.iter_mut().zip(&mut times) {
            let start = Instant::now();
            operate(count);
            let elapsed = start.elapsed() / count;
            // The first round warms up.
            if round > 0 {
                times.push(elapsed);
            }
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        })
        .collect()
}

/// Prints a figure as a ratio, with its bar.
pub fn report(what: &str, figure: f64, bar: &str) {
    println!("{what:<62} {figure:>8.2} x   (bar: {bar})");
}

/// `a / b`.
#[must_use]
pub fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
