//! A confirmed call on several keys reports the outcome of each; one whose future is dropped is
//! withdrawn, or settled in the background.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use support::eventually;
use synced_memory::{ErrorKind, Key, SyncedMemory, Written};

use crate::line::{DEADLINE, Line, wait_connected};

#[derive(Debug, PartialEq, SyncedMemory)]
struct Settings {
    #[synced(default)]
    first: u64,
    #[synced(confirmed, default)]
    sure: u64,
    #[synced(behind, default)]
    last: u64,
}

#[derive(SyncedMemory)]
#[synced(confirmed)]
struct Renamed {
    #[synced(alias = "old", default)]
    new: u64,
}

fn settings(n: u64) -> Settings {
    Settings {
        first: n,
        sure: n,
        last: n,
    }
}

/// Restricts the keys that the server lets this memory write.
fn allow(line: &Line, keys: &[&str]) {
    line.server
        .cli(&[&["ACL", "SETUSER", "default", "resetkeys", "%R~*"], keys].concat());
}

#[test]
fn a_restore_with_a_confirmed_field_is_confirmed_as_a_whole_and_reports_each_outcome() {
    let line = Line::new();
    let memory = line.open();
    let (mine, theirs) = (
        Settings::attach(&memory),
        Settings::attach(&line.open_directly()),
    );
    assert_eq!(mine.restore(settings(1)).unwrap(), Written::Stored);
    assert_eq!(theirs.snapshot().unwrap(), settings(1));

    line.down(&memory);
    let error = mine.restore(settings(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let unavailable = |key: &str| (key.to_owned(), Some(ErrorKind::Unavailable));
    assert_eq!(
        error.keys(),
        ["memory:first", "memory:sure", "memory:last"].map(unavailable)
    );
    assert_eq!(
        (memory.status().pending, mine.snapshot().unwrap()),
        (0, settings(1))
    );
    line.up();
    wait_connected(&memory);

    allow(&line, &["~*memory:first*"]);
    let error = mine.restore(settings(3)).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::InDoubt,
        "one of them was made: {error}"
    );
    let rejected = Some(ErrorKind::Rejected);
    let outcomes = [
        ("memory:first", None),
        ("memory:sure", rejected),
        ("memory:last", rejected),
    ];
    assert_eq!(
        error.keys(),
        outcomes.map(|(key, error)| (key.to_owned(), error))
    );
    allow(&line, &["~*"]);
    assert_eq!(
        theirs.snapshot().unwrap(),
        Settings {
            first: 3,
            ..settings(1)
        }
    );
    let status = memory.status();
    assert_eq!((status.pending, status.dead_letters), (0, 0), "{status:?}");
}

#[test]
fn a_confirmed_delete_of_a_key_with_an_older_name_reports_each_outcome() {
    let line = Line::new();
    let memory = line.open();
    let (renamed, direct) = (Renamed::attach(&memory), line.open_directly());
    let (new, old) = (Key::<u64>::new("new"), Key::<u64>::new("old"));
    direct.set(&old, 1).unwrap();
    assert!(renamed.synced_new().delete().unwrap());
    assert!(!renamed.synced_new().delete().unwrap());
    assert_eq!(
        (direct.get(&old).unwrap(), direct.get(&new).unwrap()),
        (None, None)
    );

    direct.set(&old, 1).unwrap();
    direct.set(&new, 2).unwrap();
    allow(&line, &["~*memory:old*"]);
    let error = renamed.synced_new().delete().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InDoubt, "{error}");
    assert_eq!(
        error.keys(),
        [
            ("memory:old".to_owned(), None),
            ("memory:new".to_owned(), Some(ErrorKind::Rejected))
        ]
    );
    allow(&line, &["~*"]);
    assert_eq!(
        (direct.get(&old).unwrap(), direct.get(&new).unwrap()),
        (None, Some(2))
    );
    line.down(&memory);
    assert_eq!(
        renamed.synced_new().delete().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(memory.status().pending, 0);
}

#[test]
fn a_confirmed_call_whose_future_is_dropped_is_made_once_or_never_and_blocks_no_later_call() {
    let line = Line::new();
    let memory = line
        .builder()
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let key = Key::<Vec<u64>>::new("list");
    let (mine, theirs) = (memory.synced(&key), line.open_directly().synced(&key));
    mine.set(vec![0]).unwrap();
    for round in 1..40 {
        {
            let (set, update) = (mine.confirmed(), mine.confirmed());
            let mut set = pin!(set.set_async(vec![round]));
            let mut update = pin!(update.update_async(|list| list.push(1_000 + round)));
            let mut context = Context::from_waker(Waker::noop());
            let mut is_set = false;
            for _ in 0..round {
                is_set = is_set || set.as_mut().poll(&mut context).is_ready();
                if is_set && update.as_mut().poll(&mut context).is_ready() {
                    break;
                }
                std::thread::yield_now();
            }
        }
        memory.flush(DEADLINE).unwrap();
        assert_eq!(
            mine.confirmed().push(5).unwrap(),
            Written::Stored,
            "round {round}"
        );
        let list = theirs.get().unwrap();
        assert_eq!(list.last(), Some(&5));
        assert!(
            list.iter().filter(|item| **item == 1_000 + round).count() <= 1,
            "{list:?}"
        );
    }
    let status = memory.status();
    assert_eq!(
        (status.pending, status.dead_letters, status.superseded),
        (0, 0, 0),
        "{status:?}"
    );
}

#[test]
fn a_confirmed_call_whose_future_is_dropped_before_it_was_sent_is_never_made() {
    let line = Line::new();
    let memory = line
        .builder()
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let key = Key::<u64>::new("number");
    let (mine, theirs) = (memory.synced(&key), line.open_directly().synced(&key));
    mine.set(1).unwrap();
    line.proxy.stall(true);
    {
        let confirmed = mine.confirmed();
        let mut first = pin!(confirmed.set_async(2));
        let mut second = pin!(confirmed.set_async(3));
        let mut context = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert_eq!(memory.status().pending, 1);
    }
    assert_eq!(mine.get().unwrap(), 1);
    line.proxy.stall(false);
    memory.flush(DEADLINE).unwrap();
    eventually(DEADLINE, "nothing is queued", || {
        memory.status().pending == 0
    });
    let stored = theirs.get().unwrap();
    assert!(
        stored == 1 || stored == 2,
        "{stored}: the second write waited behind the first one"
    );
}
