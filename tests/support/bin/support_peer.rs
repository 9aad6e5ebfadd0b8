//! Answers lines, for the tests of the support itself: `wall` and `mono` in ms, anything else as it
//! came.

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
            "mono" => println!("{}", started.elapsed().as_millis()),
            other => println!("{other}"),
        }
    }
}
