//! Another process that works on what many share. It reads commands, one a line, and answers each
//! with a line.
//!
//! `contributor <url> <name> [<port>=<port>]…` says `opened`; a node of a cluster that names the
//! first port is reached at the second one. `go <n>`: `n` times, it pushes `<name>/<i>` onto the
//! list `items`, adds 1 to `count` and inserts `<name>/<i>` into the map `entries`; answered with
//! `did`. `race <kind>`: pushes or adds without end, until `stop`; `laps` says how many those are
//! so far. `flush`: delivers all. `see`: how many dead letters there are, how many writes were
//! superseded, and how much it sees in `items`, `count` and `entries`. `join <n>`: opens `n` more
//! memories, each of which adds 1 to `count` and stays open. `leave`: closes all of those.

use std::collections::HashMap;
use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use synced_memory::{Key, Memory, Synced, SyncedMemory, Written};

const DEADLINE: Duration = Duration::from_secs(120);

#[derive(SyncedMemory)]
struct Work {
    items: Vec<String>,
    #[synced(default)]
    count: u64,
    entries: HashMap<String, u64>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(name)) = (arguments.next(), arguments.next()) else {
        panic!("contributor <url> <name> [<port>=<port>]…")
    };
    let memory = open(&url, arguments.map(|pair| ports_of(&pair)).collect());
    let work = Work::attach(&memory);
    println!("opened");
    let (mut done, mut race, mut others) = (0, None, Vec::new());
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["go", rounds] => {
                for _ in 0..rounds.parse::<u64>().expect("a number") {
                    let item = format!("{name}/{done}");
                    work.items()
                        .push(item.clone())
                        .expect("a push is stored or queued");
                    work.add_count(1).expect("an add is stored or queued");
                    work.entries()
                        .insert(item, done)
                        .expect("an insert is stored or queued");
                    done += 1;
                }
                println!("did");
            }
            ["race", kind] => {
                race = Some(Race::start(
                    work.items().clone(),
                    work.synced_count().clone(),
                    kind == "push",
                ));
                println!("started");
            }
            ["laps"] => println!(
                "{}",
                race.as_ref()
                    .map_or(0, |race: &Race| race.laps.load(Ordering::Relaxed))
            ),
            ["stop"] => {
                race.take().expect("it races").stop();
                println!("stopped");
            }
            ["flush"] => {
                memory
                    .flush(DEADLINE)
                    .expect("the server is there at the end");
                println!("flushed");
            }
            ["see"] => {
                let status = memory.status();
                let seen =
                    [work.items().len(), work.entries().len()].map(|len| len.expect("it reads"));
                let count = work.count().expect("it reads");
                println!(
                    "{} {} {} {count} {}",
                    status.dead_letters, status.superseded, seen[0], seen[1]
                );
            }
            ["join", count] => {
                for _ in 0..count.parse::<usize>().expect("a number") {
                    // With a long timeout the write is stored even on a busy machine: a queued
                    // write would be lost with the process.
                    let memory = Memory::builder()
                        .url(&url)
                        .timeout(DEADLINE)
                        .build()
                        .expect("it opens");
                    let written = memory
                        .add(&Key::<u64>::new("count"), 1)
                        .expect("an add is stored or queued");
                    assert_eq!(written, Written::Stored);
                    others.push(memory);
                }
                println!("joined");
            }
            ["leave"] => {
                others
                    .drain(..)
                    .for_each(|memory| memory.close(DEADLINE).expect("all is delivered"));
                println!("left");
            }
            _ => panic!("unknown command: {line}"),
        }
    }
}

/// Opens a memory; the nodes of a cluster are reached at these ports.
fn open(url: &str, ports: HashMap<u16, u16>) -> Memory {
    let mut builder = Memory::builder().url(url);
    if !ports.is_empty() {
        builder = builder.addresses(move |host, port| {
            let at = ports.get(&port).copied();
            (host.to_owned(), at.unwrap_or(port))
        });
    }
    builder.build().expect("it opens")
}

/// Of `<port>=<port>`.
fn ports_of(pair: &str) -> (u16, u16) {
    let (named, at) = pair.split_once('=').expect("<port>=<port>");
    let port = |port: &str| port.parse().expect("a port");
    (port(named), port(at))
}

struct Race {
    stop: Arc<AtomicBool>,
    laps: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Race {
    fn start(items: Synced<Vec<String>>, count: Synced<u64>, pushes: bool) -> Self {
        let (stop, laps) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (is_stopped, done) = (Arc::clone(&stop), Arc::clone(&laps));
        let thread = thread::spawn(move || {
            while !is_stopped.load(Ordering::Relaxed) {
                let written = if pushes {
                    items.push("item".to_owned())
                } else {
                    count.add(1)
                };
                written.expect("it is stored or queued");
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, laps, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it writes");
    }
}
