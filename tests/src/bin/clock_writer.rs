//! A process with a memory, for tests of clocks: it is spoken to in lines, and runs under a clock of its own.
//!
//! `set <name> <value>`, `get <name>`, `stamp <name>`, `wall`, `connected`, `flush`; each is answered with a line.

use std::env::args;
use std::io::stdin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use synced_memory::{Key, Memory};

fn main() {
    let url = args().nth(1).expect("the URL is the argument");
    let memory = Memory::builder()
        .url(url)
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .build()
        .expect("the memory opens");
    let key = |name: &str| Key::<String>::named(name.to_owned());
    println!("ready");
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["set", name, value] => println!("{:?}", memory.set(&key(name), value.to_owned())),
            ["get", name] => println!("{:?}", memory.get(&key(name))),
            ["stamp", name] => println!("{:?}", memory.synced(&key(name)).last_modified()),
            ["wall"] => println!("{}", SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos())),
            ["connected"] => println!("{}", memory.status().connected),
            ["flush"] => println!("{:?}", memory.flush(Duration::from_secs(10))),
            _ => panic!("not understood: {line}"),
        }
    }
}
