//! A process that forks: each scenario is named by the first argument, the second is a URL. Whoever
//! finds a promise broken panics; the exit code of the parent says whether anybody did.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use synced_memory::{Builder, Error, ErrorKind, Key, Memory, Synced, Written};

const LIST: Key<Vec<String>> = Key::new("list");
const NUMBER: Key<i64> = Key::new("number");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["own", url] => own_memories(url, false),
        ["own-beside-the-parents", url] => own_memories(url, true),
        ["inherited", url] => inherited(Memory::builder().url(url)),
        ["inherited-with-journal", url, journal] => {
            inherited(Memory::builder().url(url).journal(journal));
        }
        ["journal", url, journal] => journal_of_the_parent(url, journal),
        ["file", url, other] => file_of_the_parent(url, other),
        ["deadline", url] => deadline_of_a_task(url),
        ["passwords", url] => passwords_in_use(url),
        _ => panic!("no scenario: {arguments:?}"),
    }
    println!("done");
}

/// Runs `child` in the child of a fork, and waits for its end.
fn fork(child: impl FnOnce()) {
    // SAFETY: the child calls what is not async-signal-safe, as forking servers do; that is what is
    // tested. glibc makes its allocator usable in the child.
    let process = unsafe { libc::fork() };
    assert!(process >= 0, "fork failed");
    if process == 0 {
        let result = catch_unwind(AssertUnwindSafe(child));
        // SAFETY: ends the process, without the destructors of the parent's statics.
        unsafe { libc::_exit(i32::from(result.is_err())) }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writes.
        let ended = unsafe { libc::waitpid(process, &raw mut status, libc::WNOHANG) };
        if ended == process {
            assert!(libc::WIFEXITED(status), "the child was killed");
            assert_eq!(libc::WEXITSTATUS(status), 0, "the child panicked");
            return;
        }
        if Instant::now() > deadline {
            // SAFETY: it is a child of this process that was not waited for.
            unsafe { libc::kill(process, libc::SIGKILL) };
            panic!("the child hangs");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the I/O thread of a memory that was dropped has ended, and has closed its file.
fn wait_for_io_thread() {
    let deadline = Instant::now() + Duration::from_secs(30);
    let is_there = || {
        let threads = std::fs::read_dir("/proc/self/task").expect("the threads are listed");
        let names = threads.flatten().map(|thread| thread.path().join("comm"));
        names
            .flat_map(std::fs::read_to_string)
            .any(|name| name.trim() == "synced-memory")
    };
    while is_there() {
        assert!(Instant::now() < deadline, "the I/O thread does not end");
        thread::sleep(Duration::from_millis(2));
    }
}

fn is_closed<T>(what: &str, answer: Result<T, Error>) {
    let error = answer
        .err()
        .unwrap_or_else(|| panic!("{what} was not refused"));
    assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error}");
    assert!(
        error.to_string().contains("before a fork"),
        "{what}: {error}"
    );
}

/// Four children push 50 elements each, through memories of their own.
fn own_memories(url: &str, keeps_open: bool) {
    let parent = Memory::open(url).expect("a memory");
    parent.set(&LIST, Vec::new()).expect("stored");
    let parent = keeps_open.then_some(parent);
    if !keeps_open {
        wait_for_io_thread();
    }
    for child in 0..4 {
        fork(|| {
            let memory = Memory::open(url).expect("a memory of the child");
            for number in 0..50 {
                let pushed = memory.synced(&LIST).push(format!("{child}-{number}"));
                assert_eq!(pushed.expect("pushed"), Written::Stored);
            }
            // As one that is killed: it does not take its number off the server's records.
            std::mem::forget(memory);
        });
    }
    let list = Memory::open(url).and_then(|memory| memory.get(&LIST));
    let mut list = list.expect("read").expect("a list");
    list.sort();
    list.dedup();
    assert_eq!(list.len(), 200);
    drop(parent);
}

/// What a child may do with the memory of its parent, while other threads of the parent use it.
fn inherited(options: Builder) {
    let options = options.timeout(Duration::from_millis(500));
    let memory = options.build().expect("a memory");
    memory.set(&NUMBER, 7).expect("stored");
    memory.set(&LIST, vec!["first".to_owned()]).expect("stored");
    let near = memory.synced(&NUMBER);
    assert_eq!(near.get().expect("read"), 7);

    // They hold every lock now and then, so that some fork happens in that moment.
    let is_over = Arc::new(AtomicBool::new(false));
    let users: Vec<_> = (0..2)
        .map(|user| {
            let (memory, is_over) = (memory.clone(), Arc::clone(&is_over));
            thread::spawn(move || {
                let mut pushed = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let written = memory.synced(&LIST).push(format!("{user}-{pushed}"));
                    assert_eq!(written.expect("pushed"), Written::Stored);
                    let name = Key::<i64>::named(format!("other{user}-{pushed}"));
                    memory.get(&name).expect("read");
                    pushed += 1;
                }
                pushed
            })
        })
        .collect();
    let mut seen = memory.watch(&NUMBER);
    assert_eq!(seen.recv().expect("the first item"), Some(7));
    for _ in 0..30 {
        let (list, watch) = (memory.synced(&LIST), memory.watch(&NUMBER));
        fork(|| {
            let began = Instant::now();
            refuses(&memory, &near, &list);
            is_closed(
                "a watch that has seen",
                seen.recv_timeout(Duration::from_secs(5)),
            );
            let mut watch = watch;
            // What was known may come first.
            let end = (0..3).find_map(|_| watch.recv_timeout(Duration::from_secs(5)).err());
            is_closed("a watch", end.map_or(Ok(()), Err));
            drop((watch, list));
            let dropped = memory.scope("deeper");
            drop(dropped);
            assert!(began.elapsed() < Duration::from_secs(5), "it waited");
        });
    }
    is_over.store(true, Ordering::Relaxed);
    let pushed: usize = users
        .into_iter()
        .map(|user| user.join().expect("a user"))
        .sum();
    assert!(memory.status().connected);
    memory.flush(Duration::from_secs(5)).expect("delivered");
    assert_eq!(
        memory.get(&LIST).expect("read").expect("a list").len(),
        pushed + 1
    );

    // The last drop in the child ends nothing of the parent's.
    fork(|| {
        let began = Instant::now();
        // SAFETY: reads a value that is never used again in this process.
        drop(unsafe { std::ptr::read(&raw const memory) });
        // SAFETY: the same.
        drop(unsafe { std::ptr::read(&raw const near) });
        assert!(began.elapsed() < Duration::from_secs(5), "the drop waited");
    });
    assert_eq!(memory.add(&NUMBER, 1).expect("added"), Written::Stored);
    assert_eq!(memory.get(&NUMBER).expect("read"), Some(8));
    memory.close(Duration::from_secs(5)).expect("delivered");
}

fn refuses(memory: &Memory, number: &Synced<i64>, list: &Synced<Vec<String>>) {
    // What is known is answered; if the parent held the lock at the fork, nothing is known.
    match number.get() {
        Ok(value) => assert_eq!(value, 7),
        other => is_closed("a read", other),
    }
    is_closed(
        "a read of what is unknown",
        memory.get(&Key::<i64>::new("never")),
    );
    is_closed("set", memory.set(&NUMBER, 8));
    is_closed("add", memory.add(&NUMBER, 1));
    is_closed("delete", memory.delete(&NUMBER));
    is_closed("update", memory.update(&NUMBER, |number| *number = Some(1)));
    is_closed("push", list.push("child".to_owned()));
    is_closed("pop", list.pop());
    is_closed("insert", list.insert(0, "child".to_owned()));
    is_closed("sort", list.sort());
    is_closed("confirmed", list.confirmed().push("child".to_owned()));
    is_closed("a confirmed read", list.confirmed().get());
    is_closed("names", memory.names());
    is_closed("purge", memory.scope("deeper").purge());
    is_closed("flush", memory.flush(Duration::from_secs(5)));
    is_closed("close", memory.close(Duration::from_secs(5)));
    assert!(!memory.status().connected);
    assert!(memory.dead_letters().is_empty());
}

/// The journal of a parent that cannot deliver is neither adopted by its child nor unlocked by the
/// child's drop. The backend comes once `queued` was printed.
fn journal_of_the_parent(url: &str, journal: &str) {
    let options = || Memory::builder().url(url).journal(journal);
    let memory = options().build().expect("a memory");
    for number in 0..10 {
        let written = memory.synced(&LIST).push(number.to_string());
        assert_eq!(written.expect("queued"), Written::Queued);
    }
    let adopts_nothing = || {
        let other = options().build().expect("a memory");
        assert_eq!(other.status().pending, 0, "it adopted the parent's writes");
    };
    fork(|| {
        adopts_nothing();
        // SAFETY: reads a value that is never used again in this process.
        drop(unsafe { std::ptr::read(&raw const memory) });
        adopts_nothing();
    });
    // The child is gone, and what it had locked.
    fork(adopts_nothing);
    println!("queued");
    memory.flush(Duration::from_secs(20)).expect("delivered");
    assert_eq!(memory.get(&LIST).expect("read").expect("a list").len(), 10);
    memory.close(Duration::from_secs(5)).expect("closed");
}

/// A file that the parent has open at the fork is refused; it may be opened once it was closed
/// before the fork.
fn file_of_the_parent(url: &str, other: &str) {
    let memory = Memory::open(url).expect("a memory");
    memory.set(&NUMBER, 1).expect("stored");
    fork(|| {
        let error = Memory::open(url).expect_err("the parent has it open");
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains("forked"), "{error}");
        let other = Memory::open(other).expect("another file");
        assert_eq!(other.set(&NUMBER, 1).expect("stored"), Written::Stored);
    });
    assert_eq!(memory.add(&NUMBER, 1).expect("added"), Written::Stored);
    memory.close(Duration::from_secs(5)).expect("closed");
    drop(memory);
    wait_for_io_thread();
    fork(|| {
        let memory = Memory::open(url).expect("nobody has it open");
        assert_eq!(memory.add(&NUMBER, 1).expect("added"), Written::Stored);
    });
    let number = Memory::open(url).and_then(|memory| memory.get(&NUMBER));
    assert_eq!(number.expect("read"), Some(3));
}

/// Deadlines of tasks come in a child as well, though the thread that watched them in the parent is
/// not there.
fn deadline_of_a_task(url: &str) {
    let wait = || {
        let memory = Memory::open(url).expect("a memory");
        assert_eq!(memory.set(&NUMBER, 1).expect("queued"), Written::Queued);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let flush = memory.flush_async(Duration::from_millis(50));
        let error = runtime
            .expect("a runtime")
            .block_on(flush)
            .expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Timeout);
    };
    wait();
    fork(wait);
}

/// While the memories of the parent look for their passwords in what they are told, a child opens
/// one that has a password, too.
fn passwords_in_use(url: &str) {
    let open = || {
        let builder = Memory::builder().url(url);
        let often = builder.backoff(Duration::from_millis(1), Duration::from_millis(1));
        let options = often.timeout(Duration::from_millis(20));
        options.build().expect("a memory")
    };
    let parents: Vec<_> = (0..16).map(|_| open()).collect();
    for _ in 0..100 {
        fork(|| {
            let memory = open();
            assert_eq!(memory.set(&NUMBER, 1).expect("queued"), Written::Queued);
            std::mem::forget(memory);
        });
    }
    drop(parents);
}
