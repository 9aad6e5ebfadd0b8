//! Another process whose journal grows and is rewritten: pushes `<n>` onto the list `items`, and
//! sets the long text `big`, which begins with `<n>`.
//!
//! `journal_filler <url> <from> <to> <durability>`: prints `opened`, then each `<n>` once both
//! calls have returned; then it waits to be killed.

use std::thread;

use synced_memory::{Durability, Key, Memory};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, from, to, durability] = &arguments[..] else {
        panic!("journal_filler <url> <from> <to> <durability>")
    };
    let durability = if durability == "fsync" {
        Durability::Fsync
    } else {
        Durability::Process
    };
    let memory = Memory::builder()
        .url(url)
        .durability(durability)
        .build()
        .expect("it can be opened");
    println!("opened");
    let items = memory.synced(&Key::<Vec<u64>>::new("items"));
    let big = memory.synced(&Key::<String>::new("big"));
    let number = |text: &str| text.parse::<u64>().expect("a number");
    for n in number(from)..number(to) {
        items.push(n).expect("a push is queued");
        big.set(format!("{n}:{}", "x".repeat(200_000)))
            .expect("a set is queued");
        println!("{n}");
    }
    loop {
        thread::park();
    }
}
