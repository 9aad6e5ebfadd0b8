//! A process with a memory, for tests of clocks: it reads commands as lines, and runs under a clock
//! of its own.
//!
//! `set <name> <value>`, `get <name>`, `stamp <name>`, `wall`, `connected`, `flush`; each is
//! answered with a line. `keep <name> <value>` writes on a thread that keeps its own memory in a
//! thread-local, and says `ended` when that has.

use std::cell::RefCell;
use std::env::args;
use std::io::stdin;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use synced_memory::{Key, Memory};

fn main() {
    let url = args().nth(1).expect("the URL is the argument");
    let memory = Memory::builder()
        .url(&url)
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
            ["wall"] => println!(
                "{}",
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |time| time.as_nanos())
            ),
            ["connected"] => println!("{}", memory.status().connected),
            ["flush"] => println!("{:?}", memory.flush(Duration::from_secs(10))),
            ["keep", name, value] => {
                let (url, key, value) = (url.clone(), key(name), value.to_owned());
                thread::spawn(move || keep(&url, &key, value))
                    .join()
                    .expect("the thread ends in good order");
                println!("ended");
            }
            _ => panic!("not understood: {line}"),
        }
    }
}

fn keep(url: &str, key: &Key<String>, value: String) {
    thread_local! {
        static KEPT: RefCell<Option<Memory>> = const { RefCell::new(None) };
    }
    // The thread's own local is initialized first, and so is dropped last: after those of the
    // library.
    KEPT.with_borrow_mut(|kept| {
        let memory = kept.insert(Memory::open(url).expect("the memory opens"));
        memory.set(key, value).expect("the write is taken");
    });
}
