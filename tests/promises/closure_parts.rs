//! A value that is one part (an enum, an array, a tuple, a plain struct) is never a mixture of what
//! two closures left.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::Server;
use synced_memory::{Key, Memory, ReadPolicy, WritePolicy};

use crate::line::{DEADLINE, Line, forget_dead_letters, quick, wait_connected};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Job {
    Idle,
    Waiting { since: u64 },
    Running { pid: u64, since: u64 },
    Failed(String),
    Pair(u64, u64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Internal {
    Waiting { since: u64 },
    Running { pid: u64, since: u64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "content")]
enum Adjacent {
    Waiting { since: u64 },
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Span { from: u64, to: u64 },
    At(u64),
    Of { since: u64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Span {
    from: u64,
    to: u64,
}

/// Forgets all dead letters, and returns how many there were.
fn take_dead_letters(memory: &Memory) -> usize {
    forget_dead_letters(memory).len()
}

/// Two closures of two processes on one value.
trait TwoClosures {
    fn run<T>(&self, start: &T, one: fn(&mut T), other: fn(&mut T))
    where
        T: synced_memory::Value + PartialEq + Debug;
}

/// Runs `closures` for every type that is one part or contains one.
fn each_type(closures: &impl TwoClosures) {
    closures.run(
        &Job::Idle,
        |job| *job = Job::Running { pid: 7, since: 1 },
        |job| *job = Job::Failed("x".to_owned()),
    );
    closures.run(
        &Job::Waiting { since: 1 },
        |job| *job = Job::Pair(1, 2),
        |job| *job = Job::Waiting { since: 2 },
    );
    closures.run(
        &Job::Running { pid: 1, since: 1 },
        |job| {
            let Job::Running { pid, .. } = job else {
                return;
            };
            *pid = 7;
        },
        |job| *job = Job::Waiting { since: 9 },
    );
    closures.run(
        &Job::Pair(1, 2),
        |job| {
            let Job::Pair(first, _) = job else { return };
            *first = 7;
        },
        |job| {
            let Job::Pair(_, second) = job else { return };
            *second = 8;
        },
    );
    closures.run(
        &Internal::Waiting { since: 1 },
        |it| *it = Internal::Running { pid: 7, since: 1 },
        |it| *it = Internal::Waiting { since: 3 },
    );
    closures.run(
        &Adjacent::Waiting { since: 1 },
        |it| *it = Adjacent::Failed("x".to_owned()),
        |it| *it = Adjacent::Waiting { since: 2 },
    );
    closures.run(
        &Untagged::Of { since: 1 },
        |it| *it = Untagged::Span { from: 1, to: 2 },
        |it| *it = Untagged::Of { since: 2 },
    );
    closures.run(
        &[0.0_f64; 3],
        |it| (it[0], it[2]) = (1.0, 2.0),
        |it| it[1] = 3.0,
    );
    closures.run(&[[0_u8; 2]; 2], |it| it[0][1] = 1, |it| it[1][0] = 2);
    closures.run(
        &(1_u64, "a".to_owned(), 2_u64),
        |it| it.0 = 7,
        |it| (it.1, it.2) = ("b".to_owned(), 8),
    );
    closures.run(&Span { from: 1, to: 5 }, |it| it.from += 2, |it| it.to -= 3);
    closures.run(
        &Duration::new(1, 5),
        |it| *it += Duration::from_secs(1),
        |it| *it += Duration::from_nanos(1),
    );
    closures.run(
        &Some(Job::Idle),
        |it| *it = Some(Job::Waiting { since: 1 }),
        |it| *it = Some(Job::Running { pid: 1, since: 1 }),
    );
    closures.run(
        &BTreeMap::from([("a".to_owned(), Job::Idle)]),
        |it| _ = it.insert("a".to_owned(), Job::Waiting { since: 1 }),
        |it| _ = it.insert("a".to_owned(), Job::Pair(1, 2)),
    );
    closures.run(
        &vec![Job::Idle, Job::Waiting { since: 1 }],
        |it| it[1] = Job::Running { pid: 1, since: 1 },
        |it| it[1] = Job::Failed("x".to_owned()),
    );
    closures.run(
        &vec![(1_u64, 2_u64), (3, 4)],
        |it| it[1].0 = 7,
        |it| it[1].1 = 8,
    );
}

/// What the closures leave if they run one after the other.
fn left<T: Clone>(start: &T, closures: &[fn(&mut T)]) -> T {
    let mut left = start.clone();
    for closure in closures {
        closure(&mut left);
    }
    left
}

#[track_caller]
fn read<T: synced_memory::Value + Debug>(memory: &Memory, key: &Key<T>) -> T {
    let raw = || memory.get(&Key::<serde_json::Value>::new("value")).unwrap();
    let read = memory
        .get(key)
        .unwrap_or_else(|error| panic!("{error}: {:?}", raw()));
    read.expect("the value is set")
}

/// The first closure runs while its process is cut off; the other one runs before or after it.
struct CutOff {
    line: Line,
    mine: Memory,
    theirs: Memory,
}

impl TwoClosures for CutOff {
    fn run<T>(&self, start: &T, one: fn(&mut T), other: fn(&mut T))
    where
        T: synced_memory::Value + PartialEq + Debug,
    {
        let key = Key::<T>::new("value");
        for is_before in [false, true] {
            self.theirs.set(&key, start.clone()).unwrap();
            assert_eq!(read(&self.mine, &key), *start);
            self.line.down(&self.mine);
            let theirs = || self.theirs.synced(&key).update(other).unwrap();
            if is_before {
                theirs();
            }
            self.mine.synced(&key).update(one).unwrap();
            assert_eq!(read(&self.mine, &key), left(start, &[one]));
            if !is_before {
                theirs();
            }
            self.line.up();
            self.mine.flush(DEADLINE).unwrap();
            wait_connected(&self.mine);
            for memory in [&self.theirs, &self.mine] {
                assert_eq!(read(memory, &key), left(start, &[other]));
            }
            assert_eq!(take_dead_letters(&self.mine), 1, "{start:?}");
        }
    }
}

#[test]
fn a_closure_that_ran_while_cut_off_is_a_dead_letter_if_another_one_changed_the_same_part() {
    let line = Line::new();
    let (mine, theirs) = (line.open(), line.open_directly());
    each_type(&CutOff { line, mine, theirs });
}

/// Both run at the same time.
struct Concurrent([Memory; 2]);

impl TwoClosures for Concurrent {
    fn run<T>(&self, start: &T, one: fn(&mut T), other: fn(&mut T))
    where
        T: synced_memory::Value + PartialEq + Debug,
    {
        const ROUNDS: usize = 20;
        let (key, barrier) = (Key::<T>::new("value"), Barrier::new(2));
        let serial = [left(start, &[one, other]), left(start, &[other, one])];
        for _ in 0..ROUNDS {
            self.0[0].set(&key, start.clone()).unwrap();
            self.0[0].flush(DEADLINE).unwrap();
            support::eventually(DEADLINE, "both have read it", || {
                self.0
                    .iter()
                    .all(|memory| memory.get(&key).unwrap().as_ref() == Some(start))
            });
            thread::scope(|scope| {
                for (memory, closure) in self.0.iter().zip([one, other]) {
                    let (key, barrier) = (&key, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        memory.synced(key).update(closure).unwrap();
                    });
                }
            });
            for memory in &self.0 {
                memory.flush(DEADLINE).unwrap();
                assert_eq!(
                    (take_dead_letters(memory), memory.status().superseded),
                    (0, 0),
                    "{start:?}"
                );
            }
            let stored = read(&self.0[0], &key);
            assert!(
                serial.contains(&stored),
                "{start:?} became {stored:?}, and not one of {serial:?}"
            );
        }
    }
}

#[test]
fn concurrent_closures_on_one_part_are_made_one_after_the_other_under_every_policy() {
    let server = Server::redis().start();
    for write in [WritePolicy::Through, WritePolicy::Behind] {
        let open = || {
            let builder = quick(server.url())
                .timeout(DEADLINE)
                .read_policy(ReadPolicy::Through);
            builder.write_policy(write).build().unwrap()
        };
        each_type(&Concurrent([open(), open()]));
    }
}
