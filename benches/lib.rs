//! What the measurements share: interleaved rounds and their medians, and other processes.
//!
//! A ratio is of medians of rounds that alternate between the two sides, so that a machine whose
//! speed drifts does not favour one.

pub mod processes;

use std::time::Instant;

/// One side of a comparison: its name, and a function that repeats its operation the given number
/// of times.
pub type Side<'a> = (&'a str, Box<dyn FnMut(u32) + 'a>);

/// Runs the sides alternately for `rounds` rounds, `count` operations each, and returns the median
/// time of one operation for each side, in seconds.
pub fn medians(rounds: usize, count: u32, sides: &mut [Side<'_>]) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(rounds); sides.len()];
    for round in 0..=rounds {
        for ((_, operate), times) in sides.iter_mut().zip(&mut times) {
            let start = Instant::now();
            operate(count);
            let elapsed = start.elapsed().as_secs_f64() / f64::from(count);
            // The first round warms up.
            if round > 0 {
                times.push(elapsed);
            }
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect()
}

/// Prints how long one operation takes on each side.
pub fn print(sides: &[Side<'_>], figures: &[f64]) {
    for ((name, _), figure) in sides.iter().zip(figures) {
        let (time, unit) = match *figure {
            short if short < 1e-6 => (1e9 * short, "ns"),
            long => (1e6 * long, "us"),
        };
        println!("{name:<62} {time:>8.1} {unit}");
    }
}

/// Prints a ratio and its bar: the value that it should reach.
pub fn report(what: &str, figure: f64, bar: &str) {
    println!("{what:<62} {figure:>8.2} x   (bar: {bar})");
}

/// Prints a ratio that should be at most `bar`, with the word `MISSED` if it is not.
pub fn report_at_most(what: &str, figure: f64, bar: f64) {
    report_figure_at_most(what, figure, "x", bar);
}

/// Prints a figure that should be at most `bar`, with the word `MISSED` if it is not.
pub fn report_figure_at_most(what: &str, figure: f64, unit: &str, bar: f64) {
    let missed = if figure > bar { "   MISSED" } else { "" };
    println!("{what:<62} {figure:>8.2} {unit}   (bar: <= {bar}){missed}");
}

/// The value below which that share of them lies; they are sorted for it.
///
/// # Panics
///
/// If there are none, or one of them is not a number.
pub fn quantile<T: Copy + PartialOrd>(values: &mut [T], share: f64) -> T {
    values.sort_unstable_by(|one, other| one.partial_cmp(other).expect("none is NaN"));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    let at = (values.len() as f64 * share) as usize;
    values[at.min(values.len() - 1)]
}
