//! Answers lines, for the tests of the support itself: `wall` and `monotonic` with its clock in ms,
//! anything else with the same line.

use std::io::stdin;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

fn main() {
    let started = Instant::now();
    for line in stdin().lines().map_while(Result::ok) {
        match line.as_str() {
            "wall" => println!(
                "{}",
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |time| time.as_millis())
            ),
            "monotonic" => println!("{}", started.elapsed().as_millis()),
            other => println!("{other}"),
        }
    }
}
