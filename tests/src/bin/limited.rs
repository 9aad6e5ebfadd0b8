//! Another process, which has no descriptors or threads left when it is told so.
//! `limited descriptors|threads <url>`: it answers each line of its stdin with one line.
//!
//! - `limit`, `free`: nothing more can be opened or started from now on; and then again
//! - `open`: opens the URL
//! - `set`, `flush`, `error`: of the memory that was opened last
//! - `drop`: drops it
//! - `events`: on which threads there were events, in their order

use std::error::Error as _;
use std::fs::File;
use std::io::stdin;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use synced_memory::{Key, Memory};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes each event with the thread on which it is emitted.
struct Noting;

impl<S: tracing::Subscriber> Layer<S> for Noting {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("synced_memory") {
            event.record(&mut Message);
        }
    }
}

/// The message of an event.
struct Message;

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let thread = thread::current();
            let line = format!("{}: {value:?}", thread.name().unwrap_or("another"));
            EVENTS.lock().unwrap().push(line);
        }
    }
}

fn main() {
    let subscriber = tracing_subscriber::registry().with(Noting);
    tracing::subscriber::set_global_default(subscriber).expect("the only one");
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(url)) = (arguments.next(), arguments.next()) else {
        panic!("limited descriptors|threads <url>")
    };
    let resource = match what.as_str() {
        "descriptors" => Resource::Nofile,
        "threads" => Resource::Nproc,
        other => panic!("{other}?"),
    };
    let free = getrlimit(resource);
    let mut opened: Option<Memory> = None;
    for line in stdin().lines().map_while(Result::ok) {
        match line.as_str() {
            "limit" => {
                let current = match resource {
                    // The next descriptor would be this one.
                    Resource::Nofile => File::open("/dev/null").map(|file| file.as_raw_fd()),
                    _ => Ok(1),
                };
                let current = current.ok().and_then(|number| u64::try_from(number).ok());
                let limit = Rlimit { current, ..free };
                setrlimit(resource, limit).expect("a limit can be lowered");
                println!("limited");
            }
            "free" => {
                setrlimit(resource, free).expect("it can be raised to what it was");
                println!("free");
            }
            "open" => match Memory::open(&url) {
                Ok(memory) => {
                    opened = Some(memory);
                    println!("open");
                }
                Err(error) => {
                    println!(
                        "{:?}: {error}: {:?}",
                        error.kind(),
                        error.source().map(ToString::to_string)
                    );
                }
            },
            "set" => {
                let memory = opened.as_ref().expect("it was opened");
                println!(
                    "{:?}",
                    memory
                        .set(&Key::new("n"), 1_i64)
                        .map_err(|error| error.kind())
                );
            }
            "flush" => {
                let memory = opened.as_ref().expect("it was opened");
                let flushed = memory.flush(Duration::from_secs(15));
                println!("{:?}", flushed.map_err(|error| error.to_string()));
            }
            "error" => {
                let status = opened.as_ref().expect("it was opened").status();
                println!("{:?}", status.last_error.map(|error| error.to_string()));
            }
            "drop" => {
                drop(opened.take());
                println!("dropped");
            }
            "events" => println!("{}", EVENTS.lock().unwrap().join("; ")),
            other => panic!("{other}?"),
        }
    }
}
