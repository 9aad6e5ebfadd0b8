//! What is one part is never a mixture of what two closures left: an enum, an array, a tuple, a
//! plain struct.

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

/// How many queued writes were not made; each is over with that.
fn take_dead_letters(memory: &Memory) -> usize {
    forget_dead_letters(memory).len()
}

/// Two closures of two processes on one value.
trait TwoClosures {
    fn run<T>(&self, start: &T, one: fn(&mut T), other: fn(&mut T))
    where
        T: synced_memory::Value + PartialEq + Debug;
}

/// All the types that are one part, or hold what is.
fn each_type(of: &impl TwoClosures) {
    of.run(
        &Job::Idle,
        |job| *job = Job::Running { pid: 7, since: 1 },
        |job| *job = Job::Failed("x".to_owned()),
    );
    of.run(
        &Job::Waiting { since: 1 },
        |job| *job = Job::Pair(1, 2),
        |job| *job = Job::Waiting { since: 2 },
    );
    of.run(
        &Job::Running { pid: 1, since: 1 },
        |job| {
            let Job::Running { pid, .. } = job else {
                return;
            };
            *pid = 7;
        },
        |job| *job = Job::Waiting { since: 9 },
    );
    of.run(
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
    of.run(
        &Internal::Waiting { since: 1 },
        |it| *it = Internal::Running { pid: 7, since: 1 },
        |it| *it = Internal::Waiting { since: 3 },
    );
    of.run(
        &Adjacent::Waiting { since: 1 },
        |it| *it = Adjacent::Failed("x".to_owned()),
        |it| *it = Adjacent::Waiting { since: 2 },
    );
    of.run(
        &Untagged::Of { since: 1 },
        |it| *it = Untagged::Span { from: 1, to: 2 },
        |it| *it = Untagged::Of { since: 2 },
    );
    of.run(
        &[0.0_f64; 3],
        |it| (it[0], it[2]) = (1.0, 2.0),
        |it| it[1] = 3.0,
    );
    of.run(&[[0_u8; 2]; 2], |it| it[0][1] = 1, |it| it[1][0] = 2);
    of.run(
        &(1_u64, "a".to_owned(), 2_u64),
        |it| it.0 = 7,
        |it| (it.1, it.2) = ("b".to_owned(), 8),
    );
    of.run(&Span { from: 1, to: 5 }, |it| it.from += 2, |it| it.to -= 3);
    of.run(
        &Duration::new(1, 5),
        |it| *it += Duration::from_secs(1),
        |it| *it += Duration::from_nanos(1),
    );
    of.run(
        &Some(Job::Idle),
        |it| *it = Some(Job::Waiting { since: 1 }),
        |it| *it = Some(Job::Running { pid: 1, since: 1 }),
    );
    of.run(
        &BTreeMap::from([("a".to_owned(), Job::Idle)]),
        |it| _ = it.insert("a".to_owned(), Job::Waiting { since: 1 }),
        |it| _ = it.insert("a".to_owned(), Job::Pair(1, 2)),
    );
    of.run(
        &vec![Job::Idle, Job::Waiting { since: 1 }],
        |it| it[1] = Job::Running { pid: 1, since: 1 },
        |it| it[1] = Job::Failed("x".to_owned()),
    );
    of.run(
        &vec![(1_u64, 2_u64), (3, 4)],
        |it| it[1].0 = 7,
        |it| it[1].1 = 8,
    );
}

/// What closures leave, one after the other.
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
    read.expect("it is there")
}

/// The first closure runs while its process is cut off, the other one before or after it.
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
fn of_two_closures_on_one_part_one_of_them_cut_off_one_is_made_and_the_other_is_a_dead_letter() {
    let line = Line::new();
    let (mine, theirs) = (line.open(), line.open_directly());
    each_type(&CutOff { line, mine, theirs });
}

/// Both run at the same time.
struct AtOnce([Memory; 2]);

impl TwoClosures for AtOnce {
    fn run<T>(&self, start: &T, one: fn(&mut T), other: fn(&mut T))
    where
        T: synced_memory::Value + PartialEq + Debug,
    {
        const ROUNDS: usize = 20;
        let (key, barrier) = (Key::<T>::new("value"), Barrier::new(2));
        let in_turn = [left(start, &[one, other]), left(start, &[other, one])];
        for _ in 0..ROUNDS {
            self.0[0].set(&key, start.clone()).unwrap();
            self.0[0].flush(DEADLINE).unwrap();
            support::eventually(DEADLINE, "both know it", || {
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
                in_turn.contains(&stored),
                "{start:?} became {stored:?}, and not one of {in_turn:?}"
            );
        }
    }
}

#[test]
fn two_closures_on_one_part_at_once_are_made_one_after_the_other_under_every_policy() {
    let server = Server::redis().start();
    for write in [WritePolicy::Through, WritePolicy::Behind] {
        let open = || {
            let builder = quick(server.url())
                .timeout(DEADLINE)
                .read_policy(ReadPolicy::Through);
            builder.write_policy(write).build().unwrap()
        };
        each_type(&AtOnce([open(), open()]));
    }
}
