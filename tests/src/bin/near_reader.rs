//! Another process that reads near. Its arguments are a URL, a scope and names; it reads commands,
//! one a line, and answers each with a line; at the end of its stdin it ends.
//!
//! `agree <since> <limit> <json>`: waits until its near reads show these values (an array; null for
//! nothing), at most `limit` ms after `since` (ns since 1970), and says `agreed <ms after since>`
//! or `stuck <what it shows>`. `renew`: drops its views and their slots, and makes new ones.
//! `reads`: how many there were so far, on a thread that does nothing else; none of them may fail.

use std::env::args;
use std::io::stdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use synced_memory::{Key, Memory, ReadPolicy, Synced};

type Views = Vec<Synced<Value>>;

fn main() {
    let args: Vec<String> = args().skip(1).collect();
    let [url, scope, names @ ..] = &args[..] else {
        panic!("usage: near_reader <url> <scope> <name>…")
    };
    let (least, most) = (Duration::from_millis(1), Duration::from_millis(10));
    let memory = Memory::builder()
        .url(url)
        .backoff(least, most)
        .read_policy(ReadPolicy::Near)
        .build();
    let memory = memory.expect("the arguments name a backend");
    let views = || -> Views {
        let scope = memory.scope(scope);
        names
            .iter()
            .map(|name| scope.synced(&Key::named(name.clone())))
            .collect()
    };
    let (held, reads) = (Arc::new(Mutex::new(views())), Arc::new(AtomicU64::new(0)));
    read_on(Arc::clone(&held), Arc::clone(&reads));
    println!("opened");
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["agree", since, limit, json] => {
                let expected: Vec<Value> = serde_json::from_str(json).expect("an array");
                println!(
                    "{}",
                    agree(
                        &held.lock().unwrap(),
                        number(since),
                        number(limit),
                        &expected
                    )
                );
            }
            ["renew"] => {
                let mut held = held.lock().unwrap();
                held.clear();
                *held = views();
                println!("renewed");
            }
            ["reads"] => println!("{}", reads.load(Ordering::Relaxed)),
            _ => panic!("unknown command: {line}"),
        }
    }
}

fn number(word: &str) -> u128 {
    word.parse().expect("a number")
}

/// Reads all the time. It ends the process if a read fails.
fn read_on(held: Arc<Mutex<Views>>, reads: Arc<AtomicU64>) {
    thread::spawn(move || {
        loop {
            for view in &*held.lock().unwrap() {
                if let Err(error) = view.find() {
                    println!("failed {error}");
                    std::process::exit(1);
                }
                reads.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_micros(500));
        }
    });
}

fn agree(views: &Views, since: u128, limit: u128, expected: &[Value]) -> String {
    loop {
        let shown = views
            .iter()
            .map(|view| view.find().map(Option::unwrap_or_default));
        let shown: Vec<Value> = shown.collect::<Result<_, _>>().expect("no near read fails");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("it is past 1970")
            .as_nanos();
        let millis = now.saturating_sub(since) / 1_000_000;
        if shown == expected {
            return format!("agreed {millis}");
        }
        if millis > limit {
            return format!("stuck {}", Value::Array(shown));
        }
        thread::sleep(Duration::from_micros(200));
    }
}
