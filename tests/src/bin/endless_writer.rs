//! Another process that writes without end, until it is killed, and prints each round of writes
//! that has returned: a push of `<name>/<n>` onto the list `items`, an add to `count`, and a set of
//! `last_<name>`.
//!
//! `endless_writer <url> <name>`: prints `opened`, then each `<n>`.

use synced_memory::{Key, Memory};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(name)) = (arguments.next(), arguments.next()) else {
        panic!("endless_writer <url> <name>")
    };
    let memory = Memory::open(&url).expect("it can be opened");
    println!("opened");
    let items = memory.synced(&Key::<Vec<String>>::new("items"));
    let count = Key::<u64>::new("count");
    let last = Key::<u64>::named(format!("last_{name}"));
    for number in 0.. {
        items
            .push(format!("{name}/{number}"))
            .expect("a push is stored or queued");
        memory.add(&count, 1).expect("an add is stored or queued");
        memory
            .set(&last, number)
            .expect("a set is stored or queued");
        println!("{number}");
    }
}
