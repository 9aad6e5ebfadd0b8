//! Another process, which calls from the destructor of a thread's local: other locals, the
//! library's too, are gone by then. `late_caller <url> first|last`: whether the thread uses the
//! local first, before the library uses its own, or last. It prints what the calls returned.

use std::cell::RefCell;
use std::thread;
use std::time::Duration;

use synced_memory::{Key, Memory};

const SECOND: Duration = Duration::from_secs(1);

struct CallsOnDrop(Memory, String);

impl Drop for CallsOnDrop {
    fn drop(&mut self) {
        let Self(memory, url) = self;
        every_call(memory, url);
    }
}

thread_local! {
    static LATE: RefCell<Option<CallsOnDrop>> = const { RefCell::new(None) };
}

fn every_call(memory: &Memory, url: &str) {
    let (number, list) = (
        Key::<i64>::new("number"),
        memory.synced(&Key::<Vec<i64>>::new("list")),
    );
    let view = memory.synced(&number);
    println!("set {:?}", memory.set(&number, 1));
    println!("get {:?}", memory.get(&number));
    println!("add {:?}", view.add(1));
    println!(
        "update {:?}",
        view.update(|number| {
            *number += 1;
            *number
        })
    );
    let inside = view.update(|number| {
        *number += 1;
        memory
            .set(&Key::<i64>::new("number"), 9)
            .map_err(|error| error.kind())
    });
    println!("own {:?}", inside.map_err(|error| error.kind()));
    println!("push {:?}", list.push(7));
    println!("pop {:?}", list.pop());
    println!("confirmed {:?}", view.confirmed().set(5));
    println!("watch {:?}", memory.watch(&number).recv_timeout(SECOND));
    println!("names {:?}", memory.names());
    println!("scope {:?}", memory.scope("below").set(&number, 1));
    println!("purge {:?}", memory.scope("below").purge());
    println!("delete {:?}", memory.delete(&number));
    println!("flush {:?}", memory.flush(SECOND));
    println!("pending {:?}", memory.status().pending);
    let opened = Memory::open(url).map(|memory| {
        let set = memory.set(&number, 3);
        (set, memory.close(SECOND))
    });
    println!("open {opened:?}");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(order)) = (arguments.next(), arguments.next()) else {
        panic!("late_caller <url> first|last")
    };
    let memory = Memory::open(&url).expect("it opens");
    let caller = thread::spawn(move || {
        let keep = |memory: Memory| {
            LATE.set(Some(CallsOnDrop(memory, url.clone())));
        };
        let number = Key::<i64>::new("before");
        let used = |memory: &Memory| {
            memory.set(&number, 1).expect("it can be written");
            memory
                .synced(&number)
                .update(|number| *number += 1)
                .expect("it can be changed");
        };
        if order == "first" {
            keep(memory.clone());
            used(&memory);
        } else {
            used(&memory);
            keep(memory.clone());
        }
        // The last handle is the local's.
        drop(memory);
    });
    caller.join().expect("the thread ends");
    println!("end");
}
