//! Another process with a memory of its own, opened from the environment. It reads commands, one a
//! line, and answers each with a line; at the end of its stdin it drops its memory and ends.
//!
//! `set <name> <json>`, `delete <name>`, `get <name>`, `write <name> <name>…` (writes to these keys
//! one after the other, on a thread, until `stop`), `writes` (how many so far), `stop` (the writes
//! that it made, one a line, and `.`).

use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use synced_memory::{Key, Memory};

fn main() {
    let memory = Memory::from_env().expect("the environment names a backend");
    let mut writer = None;
    println!("opened");
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["set", name, json] => {
                println!(
                    "{}",
                    said(memory.set(&key(name), serde_json::from_str(json).expect("it is JSON")))
                );
            }
            ["delete", name] => println!("{}", said(memory.delete(&key(name)))),
            ["get", name] => println!("{}", said(memory.get(&key(name)))),
            ["write", ref names @ ..] => {
                writer = Some(Writer::start(
                    memory.clone(),
                    names.iter().map(|name| (*name).to_owned()).collect(),
                ));
                println!("started");
            }
            ["writes"] => println!(
                "{}",
                writer
                    .as_ref()
                    .map_or(0, |writer| writer.count.load(Ordering::Relaxed))
            ),
            ["stop"] => {
                for written in writer.take().expect("it writes").stop() {
                    println!("{written}");
                }
                println!(".");
            }
            _ => panic!("unknown command: {line}"),
        }
    }
}

fn key(name: &str) -> Key<Value> {
    Key::named(name.to_owned())
}

fn said<T: std::fmt::Debug>(answer: synced_memory::Result<T>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("{:?}", error.kind()),
    }
}

struct Writer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Vec<String>>,
}

impl Writer {
    fn start(memory: Memory, names: Vec<String>) -> Self {
        let (stop, count) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (is_stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = thread::spawn(move || {
            let mut written = Vec::new();
            while !is_stopped.load(Ordering::Relaxed) {
                let n = counted.fetch_add(1, Ordering::Relaxed);
                let name = &names[usize::try_from(n).expect("a count is small") % names.len()];
                let value = 1_000_000_000 + n;
                let started = now();
                memory
                    .set(&Key::<u64>::named(name.clone()), value)
                    .expect("a write is stored or queued");
                written.push(format!("{name} {value} {started} {}", now()));
            }
            memory
                .flush(std::time::Duration::from_secs(20))
                .expect("the server is there at the end");
            written
        });
        Self {
            stop,
            count,
            thread,
        }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it writes")
    }
}

fn now() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is past 1970")
        .as_nanos()
}
