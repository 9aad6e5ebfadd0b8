//! One of several processes on one backend. It reads commands, one a line, and answers each with a
//! line.
//!
//! `sharer <url>`: says `opened`, or `failed <kind>: <message>` and ends. `push <n> <name>`: `n`
//! rounds of a push of `<name>/<i>` onto `items`, an add to `count` and an insert of `<name>/<i>`
//! into `map`; says how many ms that took. `add`: adds to `fair` without end, on a thread, until
//! `stop`, which says how often. `added`: how often so far. `set <name> <json>`, `get <name>`,
//! `fill <name> <bytes>`. `status`: whether connected, what is pending, and the last error.

use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use synced_memory::{Key, Memory, Written};

fn main() {
    let url = std::env::args().nth(1).expect("the URL is the argument");
    // With a long timeout each call waits until it is stored, even on a busy machine: a queued add
    // would be counted at once.
    let builder = Memory::builder().url(url).timeout(Duration::from_secs(10));
    let memory = builder
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .build();
    let memory = match memory {
        Ok(memory) => memory,
        Err(error) => return println!("failed {:?}: {error}", error.kind()),
    };
    println!("opened");
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut adder = None;
    let key = |name: &str| Key::<Value>::named(name.to_owned());
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["push", rounds, name] => {
                let began = Instant::now();
                push(&memory, rounds.parse().expect("it is a number"), name);
                println!("{}", began.elapsed().as_millis());
            }
            ["add"] => {
                let (memory, stop, count) = (memory.clone(), Arc::clone(&stop), Arc::clone(&count));
                adder = Some(thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        memory
                            .add(&Key::<u64>::new("fair"), 1)
                            .expect("an add is stored or queued");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }));
                println!("started");
            }
            ["added"] => println!("{}", count.load(Ordering::Relaxed)),
            ["stop"] => {
                stop.store(true, Ordering::Relaxed);
                adder.take().expect("it adds").join().expect("it adds");
                println!("{}", count.load(Ordering::Relaxed));
            }
            ["set", name, json] => {
                println!(
                    "{}",
                    said(memory.set(&key(name), serde_json::from_str(json).expect("it is JSON")))
                );
            }
            ["fill", name, bytes] => {
                let text = "x".repeat(bytes.parse().expect("it is a number"));
                println!("{}", said(memory.set(&key(name), text.into())));
            }
            ["get", name] => println!(
                "{}",
                memory
                    .get(&key(name))
                    .expect("it can be read")
                    .unwrap_or_default()
            ),
            ["status"] => {
                let status = memory.status();
                println!(
                    "{} {} {:?}",
                    status.connected, status.pending, status.last_error
                );
            }
            _ => panic!("not understood: {line}"),
        }
    }
}

fn said(answer: synced_memory::Result<Written>) -> String {
    answer.map_or_else(
        |error| format!("{:?}", error.kind()),
        |written| format!("{written:?}"),
    )
}

fn push(memory: &Memory, rounds: u64, name: &str) {
    let items = memory.synced(&Key::<Vec<String>>::new("items"));
    let map = memory.synced(&Key::<std::collections::HashMap<String, u64>>::new("map"));
    for number in 0..rounds {
        items
            .push(format!("{name}/{number}"))
            .expect("a push is stored or queued");
        memory
            .add(&Key::<u64>::new("count"), 1)
            .expect("an add is stored or queued");
        map.insert(format!("{name}/{number}"), number)
            .expect("an insert is stored or queued");
    }
    memory
        .flush(Duration::from_secs(60))
        .expect("the backend is there");
}
