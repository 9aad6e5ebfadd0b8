//! While the backend answers, a closure waits for its answer under every policy, and of many
//! concurrent closures none is lost or starved.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use support::{Canary, Direction, Server};
use synced_memory::{ErrorKind, Key, Memory, ReadPolicy, SyncedMemory, WritePolicy, Written};
use tempfile::TempDir;

use crate::line::{DEADLINE, Line, forget_dead_letters, on_every_backend, quick, wait_connected};

#[derive(SyncedMemory)]
struct Counters {
    #[synced(default)]
    hits: u64,
    pages: HashMap<String, u64>,
    list: Vec<u64>,
}

/// Forgets all dead letters, and returns how many there were.
fn take_dead_letters(memory: &Memory) -> usize {
    forget_dead_letters(memory).len()
}

/// The timeout is so long that no closure gives up on a busy machine.
fn near_and_behind(url: &str) -> Memory {
    let builder = quick(url).timeout(DEADLINE).read_policy(ReadPolicy::Near);
    builder.write_policy(WritePolicy::Behind).build().unwrap()
}

/// Two processes count 500 times each, in a number and in a map.
fn count_to_a_thousand(url: &str) {
    const EACH: u64 = 500;
    let [one, other] = &[(); 2].map(|()| Counters::attach(&near_and_behind(url)));
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for counters in [one, other] {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..EACH {
                    counters.update_hits(|hits| *hits += 1).unwrap();
                    counters
                        .update_pages(|pages| *pages.entry("/".to_owned()).or_default() += 1)
                        .unwrap();
                }
            });
        }
    });
    for counters in [one, other] {
        counters.memory().flush(DEADLINE).unwrap();
        let status = counters.memory().status();
        assert_eq!(
            (
                take_dead_letters(counters.memory()),
                status.superseded,
                status.pending
            ),
            (0, 0, 0)
        );
    }
    support::eventually(DEADLINE, "both read all of them", || {
        [one, other].iter().all(|counters| {
            counters.hits().unwrap() == 2 * EACH
                && counters.pages().at("/").find().unwrap() == Some(2 * EACH)
        })
    });
    let reader = Counters::open(url).unwrap();
    assert_eq!(reader.hits().unwrap(), 2 * EACH);
    assert_eq!(reader.pages().at("/").get().unwrap(), 2 * EACH);
}

#[test]
fn a_thousand_near_and_behind_closures_of_two_processes_are_all_made_on_redis() {
    let server = Server::redis().start();
    count_to_a_thousand(&server.url());
}

#[test]
fn a_thousand_near_and_behind_closures_of_two_processes_are_all_made_on_sqlite() {
    let directory = TempDir::new().unwrap();
    let url = format!("sqlite:{}", directory.path().join("shared.db").display());
    count_to_a_thousand(&url);
}

#[test]
fn an_earlier_behind_write_is_made_before_a_closure_on_the_same_key() {
    let line = Line::new();
    let builder = line
        .builder()
        .timeout(DEADLINE)
        .write_policy(WritePolicy::Behind);
    let counters = Counters::attach(&builder.build().unwrap());
    wait_connected(counters.memory());
    counters.update_hits(|hits| *hits = 5).unwrap();
    line.proxy
        .delay(Direction::ToServer, Duration::from_millis(20));
    for n in 1..=10 {
        assert_eq!(counters.set_hits(10 * n).unwrap(), Written::Queued);
        assert_eq!(counters.add_hits(1).unwrap(), Written::Queued);
        counters.update_hits(|hits| *hits *= 2).unwrap();
        let stored = line.server.get_text("memory:hits").unwrap();
        assert!(
            stored.starts_with(&format!(r#"{{"value": {},"#, 20 * n + 2)),
            "{stored}"
        );
        assert_eq!(counters.list().push(n).unwrap(), Written::Queued);
        assert_eq!(
            counters.update_list(|list| list.len()).unwrap(),
            usize::try_from(n).unwrap()
        );
        counters
            .update_list(|list| list.last_mut().map(|last| *last += 100))
            .unwrap();
    }
    assert_eq!(counters.memory().status().pending, 0);
    let reader = Counters::attach(&line.open_directly());
    assert_eq!(
        reader.list().to_vec().unwrap(),
        (101..=110).collect::<Vec<u64>>()
    );
}

#[test]
fn a_closure_that_is_written_behind_returns_once_it_is_stored() {
    let line = Line::new();
    for read in [ReadPolicy::Through, ReadPolicy::Near] {
        let builder = line
            .builder()
            .timeout(DEADLINE)
            .write_policy(WritePolicy::Behind)
            .read_policy(read);
        let counters = Counters::attach(&builder.build().unwrap());
        wait_connected(counters.memory());
        counters.update_hits(|hits| *hits = 0).unwrap();
        counters.update_list(Vec::clear).unwrap();
        line.proxy
            .delay(Direction::ToServer, Duration::from_millis(10));
        for n in 1..=20_u64 {
            assert_eq!(
                counters
                    .update_hits(|hits| {
                        *hits += 1;
                        *hits
                    })
                    .unwrap(),
                n
            );
            let stored = line.server.get_text("memory:hits").unwrap();
            assert!(
                stored.starts_with(&format!(r#"{{"value": {n},"#)),
                "{stored}"
            );
            counters.list().retain(|item| *item > n).unwrap();
            counters.update_list(|list| list.push(n)).unwrap();
            let stored = line.server.get_text("memory:list").unwrap();
            assert!(
                stored.starts_with(&format!(r#"{{"value": [{n}],"#)),
                "{stored}"
            );
            assert_eq!(counters.memory().status().pending, 0);
        }
        line.proxy.delay(Direction::ToServer, Duration::ZERO);
    }
}

#[test]
fn closures_of_one_process_on_one_key_run_one_after_the_other_and_none_starves() {
    const THREADS: u64 = 8;
    const EACH: u64 = 200;
    let server = Server::redis().start();
    let memory = quick(server.url()).timeout(DEADLINE).build().unwrap();
    let counters = Counters::attach(&memory);
    counters.set_hits(0).unwrap();
    server.reset_stats();
    let (barrier, canary) = (Barrier::new(8), Canary::start());
    let began = Instant::now();
    let longest = thread::scope(|scope| {
        let count = || {
            barrier.wait();
            let calls = (0..EACH).map(|_| {
                let called = Instant::now();
                counters.update_hits(|hits| *hits += 1).unwrap();
                called.elapsed()
            });
            calls.max().unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .max()
            .unwrap()
    });
    let all = began.elapsed();
    let reader = Counters::open(&server.url()).unwrap();
    assert_eq!(reader.hits().unwrap(), THREADS * EACH);
    let calls = server.command_count("eval") + server.command_count("evalsha");
    assert_eq!(
        calls,
        THREADS * EACH,
        "no closure was refused and run again"
    );
    // Without fairness one call would wait for many of the others.
    let fair =
        all / u32::try_from(EACH).unwrap() * 10 + Duration::from_millis(100) + canary.lateness();
    assert!(
        longest <= fair,
        "one call took {longest:?} of {all:?}, and may take at most {fair:?}"
    );
}

#[test]
fn two_closures_that_update_each_others_key_do_not_deadlock() {
    let count = std::cell::Cell::new(0);
    on_every_backend("fairness-crossed", |one, other| {
        // Through one memory, and through two.
        for memories in [[one.clone(), one.clone()], [one.clone(), other.clone()]] {
            count.set(count.get() + 1);
            let names = [0, 1].map(|n| format!("crossed{}-{n}", count.get()));
            let (sender, receiver) = mpsc::channel();
            let barrier = std::sync::Arc::new(Barrier::new(2));
            for (at, memory) in memories.iter().enumerate() {
                let (memory, sender, barrier) = (memory.clone(), sender.clone(), barrier.clone());
                let [own, others] =
                    [at, 1 - at].map(|at| Key::<Vec<usize>>::named(names[at].clone()));
                memory.set(&own, vec![]).unwrap();
                // The threads are not joined: in a deadlock they never end.
                thread::spawn(move || {
                    let mut runs = 0;
                    let updated = memory.synced(&own).update(|list| {
                        runs += 1;
                        if runs == 1 {
                            barrier.wait();
                            let inner = memory
                                .update(&others, |list| list.get_or_insert_default().push(10 + at));
                            inner.unwrap();
                        }
                        list.push(at);
                    });
                    sender.send((at, updated)).unwrap();
                });
            }
            for _ in 0..2 {
                let (at, updated) = receiver
                    .recv_timeout(DEADLINE)
                    .expect("there is no deadlock");
                updated.unwrap();
                assert!(at < 2);
            }
            for (at, name) in names.iter().enumerate() {
                let mut list = other
                    .get(&Key::<Vec<usize>>::named(name.clone()))
                    .unwrap()
                    .unwrap();
                list.sort_unstable();
                assert_eq!(list, [at, 10 + 1 - at], "each closure was made once");
            }
        }
    });
}

/// Otherwise other closures would overtake a slow one, which would run again and again.
#[test]
fn a_closure_that_waits_for_a_slow_one_is_a_conflict_after_the_timeout() {
    let memory = quick("memory:")
        .timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let number = memory.synced(&Key::<u64>::new("number"));
    number.set(1).unwrap();
    let (runs, number) = (Cell::new(0), &number);
    let (begun, has_begun) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            has_begun.recv().unwrap();
            let error = number.update(|number| *number += 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            end.send(()).unwrap();
        });
        number
            .update(|number| {
                runs.set(runs.get() + 1);
                let _ = begun.send(());
                may_end.recv_timeout(DEADLINE).unwrap();
                *number += 10;
            })
            .unwrap();
    });
    assert_eq!((runs.get(), number.get().unwrap()), (1, 11));
    number.update(|number| *number += 1).unwrap();
    assert_eq!(number.get().unwrap(), 12, "a later closure is made");
}

/// The closure waits for another thread that writes to the closure's own key.
#[test]
fn a_closure_that_updates_its_own_key_on_another_thread_does_not_deadlock() {
    let memory = quick("memory:")
        .timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let number = memory.synced(&Key::<u64>::new("number"));
    number.set(1).unwrap();
    let mut runs = 0;
    number
        .update(|value| {
            runs += 1;
            let inner = thread::scope(|scope| {
                scope
                    .spawn(|| number.update(|value| *value += 100))
                    .join()
                    .unwrap()
            });
            assert_eq!(inner.unwrap_err().kind(), ErrorKind::Conflict);
            *value += 10;
        })
        .unwrap();
    assert_eq!((runs, number.get().unwrap()), (1, 11));
}
