//! A process whose SIGPIPE is at its default, as that of a C host or of a tool in a pipe.
//!
//! `hosted <url>` says `opened` and writes without end, in several threads. `count` is answered
//! with how many writes were stored so far.

use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use synced_memory::{Key, Memory, Written};

fn main() {
    sigpipe::reset();
    let url = std::env::args().nth(1).expect("hosted <url>");
    let memory = Memory::builder()
        .url(url)
        .backoff(Duration::from_millis(1), Duration::from_millis(10))
        .build()
        .expect("it opens");
    let stored = Arc::new(AtomicU64::new(0));
    for writer in 0..4 {
        let (memory, stored) = (memory.clone(), Arc::clone(&stored));
        thread::spawn(move || {
            let key = Key::<String>::named(format!("k{writer}"));
            for size in (0..).map(|n| n * 1_009 % 60_000) {
                if matches!(memory.set(&key, "x".repeat(size)), Ok(Written::Stored)) {
                    stored.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    println!("opened");
    for line in stdin().lines().map_while(Result::ok) {
        assert_eq!(line, "count");
        println!("{}", stored.load(Ordering::Relaxed));
    }
}
