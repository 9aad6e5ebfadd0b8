//! Rule 5: closures that change a value.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use support::Direction::ToClient;
use support::{Stop, eventually};
use synced_memory::{Error, ErrorKind, Key, Memory, SyncedMemory, WritePolicy, Written};

use crate::line::{DEADLINE, Line, commits, quick, wait_connected, wait_disconnected};

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct State {
    list: Vec<i64>,
    items: Vec<Item>,
    #[synced(nested, default = User { name: "ada".to_owned(), age: 36 })]
    user: User,
    #[synced(default)]
    count: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct User {
    name: String,
    age: u32,
}

/// An item whose comparison runs the code in `COMPARING`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Item(i64);

thread_local! {
    static COMPARING: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        if let Some(action) = COMPARING.take() {
            action();
        }
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

struct Two {
    line: Line,
    mine: SyncedState,
    theirs: SyncedState,
}

impl Two {
    fn new() -> Self {
        let line = Line::new();
        let (mine, theirs) = line.attach::<State>();
        theirs.list().set(vec![3, 1, 2]).unwrap();
        assert_eq!(mine.list().len().unwrap(), 3);
        Self { line, mine, theirs }
    }

    fn up(&self) {
        self.line.deliver(self.mine.memory());
    }

    /// Everything that is stored, visible or queued.
    fn everything(&self) -> (Option<String>, Vec<i64>, Option<u64>, usize) {
        let visible = self.mine.list().to_vec().unwrap();
        let stamp = self.mine.list().last_modified().unwrap();
        (
            self.line.server.get_text("memory:list"),
            visible,
            stamp,
            self.mine.memory().status().pending,
        )
    }
}

#[test]
fn a_closure_that_fails_commits_nothing() {
    let two = Two::new();
    let failing = || {
        two.mine.list().try_update(|list| {
            list.push(4);
            Err::<(), Box<dyn std::error::Error>>("no".into())
        })
    };
    for is_down in [false, true] {
        if is_down {
            two.line.down(two.mine.memory());
        }
        let before = two.everything();
        assert_eq!(failing().unwrap_err().to_string(), "no");
        assert_eq!(two.everything(), before);
    }
    two.line.up();
    wait_connected(two.mine.memory());
    two.line.server.reset_stats();
    failing().unwrap_err();
    assert_eq!(
        two.line.server.command_count("evalsha") + two.line.server.command_count("eval"),
        0,
        "nothing is sent"
    );
    // The same closure without the failure.
    let pushed = two.mine.list().try_update(|list| {
        list.push(4);
        Ok::<_, Error>(list.len())
    });
    assert_eq!(
        (pushed.unwrap(), two.theirs.list().to_vec().unwrap()),
        (4, vec![3, 1, 2, 4])
    );
}

#[test]
fn a_closure_that_panics_leaves_everything_as_it_was() {
    let two = Two::new();
    for is_down in [false, true] {
        if is_down {
            two.line.down(two.mine.memory());
        }
        let before = two.everything();
        let panics: [&dyn Fn(); 3] = [
            &|| {
                two.mine
                    .update_list(|list| {
                        list.push(4);
                        panic!("in an update")
                    })
                    .unwrap();
            },
            &|| {
                two.mine.list().retain(|_| panic!("in a retain")).unwrap();
            },
            &|| {
                two.mine
                    .memory()
                    .update(&SyncedState::LIST, |list: &mut Option<Vec<i64>>| {
                        *list = None;
                        panic!("in an update by key")
                    })
                    .unwrap();
            },
        ];
        for panics in panics {
            catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
            assert_eq!(two.everything(), before);
        }
        // This thread and others can still use the key.
        two.mine.list().push(5).unwrap();
        thread::scope(|scope| {
            scope
                .spawn(|| assert!(two.mine.list().remove_item(&5).unwrap()))
                .join()
                .unwrap();
        });
        two.mine.update_list(|list| list.push(6)).unwrap();
        assert!(two.mine.list().remove_item(&6).unwrap());
    }
    two.up();
    assert_eq!(two.theirs.list().to_vec().unwrap(), [3, 1, 2]);
}

#[test]
fn a_closure_that_writes_to_its_own_key_is_a_conflict_and_changes_nothing() {
    let two = Two::new();
    two.mine
        .restore(State {
            list: vec![3],
            items: vec![],
            user: two.mine.user().snapshot().unwrap(),
            count: 0,
        })
        .unwrap();
    for is_down in [false, true] {
        if is_down {
            two.line.down(two.mine.memory());
        }
        let before = two.everything();
        let runs = Cell::new(0);
        let writes: [&dyn Fn() -> synced_memory::Result<()>; 5] = [
            &|| two.mine.list().push(4).map(drop),
            &|| two.mine.set_list(vec![]).map(drop),
            &|| two.mine.list().delete().map(drop),
            &|| {
                two.mine
                    .memory()
                    .set(&Key::<Vec<i64>>::new("list"), vec![])
                    .map(drop)
            },
            &|| two.mine.update_list(|list| list.push(4)),
        ];
        for write in writes {
            runs.set(0);
            let error = two.mine.update_list(|list| {
                runs.set(runs.get() + 1);
                list.push(5);
                // The error is ignored here, and returned below.
                let _ = write();
            });
            assert_eq!(
                (error.unwrap_err().kind(), runs.get()),
                (ErrorKind::Conflict, 1)
            );
            let error = two.mine.list().try_update(|_| write());
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(two.everything(), before);
        }
        // Also if it writes to a part of its key.
        let error = two.mine.update_user(|_| two.mine.user().set_age(1));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(two.mine.user().age().unwrap(), 36);
        // It may read its own key, and write to others.
        let read = two.mine.update_list(|list| {
            two.mine.add_count(1).unwrap();
            list.push(9);
            two.mine.list().to_vec().unwrap()
        });
        assert_eq!(read.unwrap(), before.1);
        assert!(two.mine.list().remove_item(&9).unwrap());
    }
    two.up();
    assert_eq!(two.theirs.count().unwrap(), 2);
}

#[test]
fn a_closure_that_writes_to_its_own_key_through_another_memory_ends_as_a_conflict() {
    let two = Two::new();
    let (started, runs) = (Instant::now(), Cell::new(0));
    let error = two.mine.update_list(|list| {
        runs.set(runs.get() + 1);
        list.push(4);
        two.theirs.list().push(5).unwrap();
    });
    let took = started.elapsed();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);
    println!("{} runs in {took:?}", runs.get());
    // The time spent in the closure, by the other memory, does not count.
    assert!(
        runs.get() > 1 && took < DEADLINE,
        "{} runs in {took:?}",
        runs.get()
    );
    let list = two.theirs.list().to_vec().unwrap();
    assert_eq!(
        (list.len(), list.contains(&4)),
        (3 + runs.get(), false),
        "its own change was never made"
    );
    assert_eq!(
        (
            two.mine.list().to_vec().unwrap(),
            two.mine.memory().status().pending
        ),
        (list, 0)
    );
}

#[test]
fn a_closure_runs_again_on_what_another_process_wrote_meanwhile() {
    let two = Two::new();
    // Another process writes while the closure runs for the first time.
    let push_in_first_run = |runs: &Cell<u32>, item: i64| {
        runs.set(runs.get() + 1);
        if runs.get() == 1 {
            two.theirs.list().push(item).unwrap();
        }
    };
    let runs = Cell::new(0);
    let sum = two.mine.update_list(|list| {
        push_in_first_run(&runs, 10);
        for item in list.iter_mut() {
            *item *= 2;
        }
        list.iter().sum::<i64>()
    });
    assert_eq!((sum.unwrap(), runs.get()), (32, 2));
    assert_eq!(two.theirs.list().to_vec().unwrap(), [6, 2, 4, 20]);
    runs.set(0);
    let mut visited = Vec::new();
    let kept = two.mine.list().retain(|item| {
        if *item == 6 {
            push_in_first_run(&runs, 2);
        }
        visited.push(*item);
        *item != 2
    });
    assert_eq!(
        (kept.unwrap(), visited),
        (Written::Stored, vec![6, 2, 4, 20, 6, 2, 4, 20, 2])
    );
    assert_eq!(two.theirs.list().to_vec().unwrap(), [6, 4, 20]);

    two.theirs
        .items()
        .set([3, 1, 2].map(Item).to_vec())
        .unwrap();
    assert_eq!(two.mine.items().len().unwrap(), 3);
    let items = two.theirs.items().clone();
    COMPARING.set(Some(Box::new(move || _ = items.push(Item(0)).unwrap())));
    two.mine.items().sort().unwrap();
    assert_eq!(
        two.theirs.items().to_vec().unwrap(),
        [0, 1, 2, 3].map(Item),
        "sorted together with the item that was added meanwhile"
    );

    runs.set(0);
    let error = two.mine.list().try_update(|list| {
        push_in_first_run(&runs, -1);
        if list.contains(&-1) {
            return Err(Box::<dyn std::error::Error>::from("negative"));
        }
        list.clear();
        Ok(())
    });
    assert_eq!(
        (error.unwrap_err().to_string().as_str(), runs.get()),
        ("negative", 2),
        "it is decided on the current value"
    );
    assert_eq!(two.theirs.list().to_vec().unwrap(), [6, 4, 20, -1]);
}

#[test]
fn a_closure_never_runs_again_after_an_unknown_outcome() {
    // Either the server has made the change, or the request has not arrived.
    for is_made in [true, false] {
        let two = Two::new();
        let runs = Cell::new(0);
        if is_made {
            two.line.proxy.lose_answer_to(commits);
        } else {
            // The request is held back until long after the line has gone down.
            two.mine.update_list(|_| ()).unwrap();
        }
        two.line.proxy.refuse(true);
        let double = |list: &mut Vec<i64>| {
            runs.set(runs.get() + 1);
            if !is_made {
                two.line.proxy.hold_requests();
            }
            for item in list.iter_mut() {
                *item *= 10;
            }
        };
        two.mine.update_list(double).unwrap();
        wait_disconnected(two.mine.memory());
        assert_eq!(two.mine.memory().status().pending, 1);
        assert_eq!(
            two.theirs.list().to_vec().unwrap(),
            if is_made { [30, 10, 20] } else { [3, 1, 2] }
        );
        assert_eq!(two.mine.list().to_vec().unwrap(), [30, 10, 20]);
        two.theirs.list().push(99).unwrap();
        two.up();
        if !is_made {
            // The first attempt arrives late.
            assert!(two.line.proxy.held() > 0);
            two.line.proxy.release();
            eventually(DEADLINE, "the attempt has arrived", || {
                two.line.proxy.open() == 1
            });
        }
        assert_eq!(runs.get(), 1);
        assert_eq!(
            two.theirs.list().to_vec().unwrap(),
            [30, 10, 20, 99],
            "made once, and without the later item"
        );
        assert_eq!(two.mine.list().to_vec().unwrap(), [30, 10, 20, 99]);
    }
}

#[test]
fn a_closure_does_not_starve_while_another_process_writes_behind_all_the_time() {
    let line = Line::new();
    let behind = quick(line.server.url())
        .write_policy(WritePolicy::Behind)
        .build()
        .unwrap();
    let (state, count) = (State::attach(&line.open()), Key::<i64>::new("count"));
    // The closure has the slower line.
    line.proxy.delay(ToClient, Duration::from_millis(5));
    let stop = Stop::default();
    let adds = thread::scope(|scope| {
        let stopped = stop.on_drop();
        let adds = scope.spawn(|| {
            let mut adds = 0;
            while !stop.is_set() {
                behind.add(&count, 1).unwrap();
                adds += 1;
            }
            adds
        });
        for _ in 0..30 {
            state.update_count(|count| *count += 1_000_000).unwrap();
        }
        drop(stopped);
        adds.join().unwrap()
    });
    behind.flush(DEADLINE).unwrap();
    assert_eq!(state.count().unwrap(), 30_000_000 + adds);
}

/// A `Conflict` means that nothing was changed.
#[test]
fn a_purge_inside_a_closure_of_one_of_its_keys_deletes_nothing() {
    let memory = Memory::open("memory:").unwrap();
    let [one, other] = ["one", "other"].map(|name| memory.synced(&Key::<u64>::new(name)));
    one.set(1).unwrap();
    other.set(1).unwrap();
    let result = one.update(|_| memory.purge());
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!((one.get().unwrap(), other.get().unwrap()), (1, 1));
}
