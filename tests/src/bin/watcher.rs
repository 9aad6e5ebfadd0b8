//! Another process that watches. `watcher <url> <name>`: prints each value of that key as JSON, one
//! a line; at the end of its stdin it drops its memory, and ends when its watch does.

use std::io::stdin;
use std::thread;

use serde_json::Value;
use synced_memory::{ErrorKind, Key, Memory};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(name)) = (arguments.next(), arguments.next()) else {
        panic!("watcher <url> <name>")
    };
    let memory = Memory::open(&url).expect("it opens");
    let watch = memory.watch(&Key::<Value>::named(name));
    thread::spawn(move || {
        stdin().lines().for_each(drop);
        drop(memory);
    });
    for item in watch {
        match item {
            Ok(value) => println!("{}", value.unwrap_or_default()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
        }
    }
}
