//! Another process, which has no descriptors or threads left when it is told so.
//! `limited descriptors|threads <url>`: it answers each line of its stdin with one line.
//!
//! - `limit`, `free`: nothing more can be opened or started from now on; and then again
//! - `open`: opens the URL
//! - `set`, `flush`, `error`: of the memory that was opened last

use std::error::Error as _;
use std::fs::File;
use std::io::stdin;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use synced_memory::{Key, Memory};

fn main() {
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
            other => panic!("{other}?"),
        }
    }
}
