//! Rules 5 and 10: what a change costs, counted by the server.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::Server;
use synced_memory::{Key, SyncedMemory, Written};

use crate::line::{DEADLINE, Line, wait_connected};

#[derive(SyncedMemory)]
struct State {
    list: Vec<u64>,
    map: BTreeMap<String, u64>,
    set: BTreeSet<u64>,
    #[synced(default)]
    count: u64,
    #[synced(default)]
    share: f64,
    #[synced(nested, default)]
    user: User,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, SyncedMemory)]
struct User {
    name: String,
    tags: Vec<String>,
}

/// How often the script was called, a key was read, and a key was written.
fn counted(server: &Server) -> (u64, u64, u64) {
    let calls = server.command_count("eval") + server.command_count("evalsha");
    (
        calls,
        server.command_count("get") + server.command_count("mget"),
        server.command_count("set"),
    )
}

#[test]
fn a_change_is_one_round_trip_or_two_if_another_process_interfered() {
    type Change = fn(&SyncedState, u64);
    const CHANGES: &[(&str, Change)] = &[
        ("push", |s, n| _ = s.list().push(n).unwrap()),
        ("extend", |s, n| _ = s.list().extend([n, 1]).unwrap()),
        ("pop", |s, _| assert!(s.list().pop().unwrap().is_some())),
        ("remove item", |s, n| {
            assert!(s.list().remove_item(&n).unwrap());
        }),
        ("insert into a map", |s, n| {
            _ = s.map().insert("a".to_owned(), n).unwrap();
        }),
        ("get or insert", |s, n| {
            _ = s.map().get_or_insert("b".to_owned(), n).unwrap();
        }),
        ("remove from a map", |s, n| {
            assert_eq!(s.map().remove("b").unwrap(), Some(n));
        }),
        ("insert into a set", |s, n| {
            assert!(s.set().insert(n).unwrap());
        }),
        ("remove from a set", |s, n| {
            assert!(s.set().remove(&n).unwrap());
        }),
        ("add", |s, _| _ = s.add_count(1).unwrap()),
        ("sub", |s, _| _ = s.sub_count(1).unwrap()),
        ("add to a float", |s, _| _ = s.add_share(0.5).unwrap()),
        ("set of a field", |s, n| {
            _ = s.user().set_name(n.to_string()).unwrap();
        }),
        ("push below a field", |s, n| {
            _ = s.user().tags().push(n.to_string()).unwrap();
        }),
    ];
    let line = Line::new();
    let (mine, theirs) = (
        State::attach(&line.open()),
        State::attach(&line.open_directly()),
    );
    // Once before, so that all keys exist and the script is loaded.
    for (_, change) in CHANGES {
        change(&mine, 1);
    }
    mine.add_count(5).unwrap();
    for (name, change) in CHANGES {
        line.server.reset_stats();
        change(&mine, 2);
        assert_eq!(counted(&line.server), (1, 0, 1), "{name}");
    }
    // A refusal carries the stored value, which the script reads: no other read is needed.
    for (_, change) in CHANGES {
        change(&theirs, 3);
    }
    for (name, change) in [CHANGES[0], CHANGES[4], CHANGES[9], CHANGES[12]] {
        change(&theirs, 4);
        line.server.reset_stats();
        change(&mine, 5);
        assert_eq!(counted(&line.server), (2, 1, 1), "{name}");
    }
    // A closure gets the stored value, which is read first.
    line.server.reset_stats();
    mine.update_list(|list| list.push(7)).unwrap();
    assert_eq!(counted(&line.server), (1, 1, 1), "update");
}

#[test]
fn ten_thousand_changes_while_offline_are_one_command_on_reconnect() {
    const CHANGES: u64 = 10_000;
    type Change = fn(&SyncedState, u64) -> Written;
    const KINDS: &[(&str, Change)] = &[
        ("pushes", |s, n| s.list().push(n).unwrap()),
        ("adds", |s, _| s.add_count(1).unwrap()),
        ("members", |s, n| s.set().extend([n]).unwrap()),
        ("pushes below a field", |s, n| {
            s.user().tags().push(n.to_string()).unwrap()
        }),
    ];
    for (name, change) in KINDS {
        let line = Line::new();
        let (mine, theirs) = (
            State::attach(&line.open()),
            State::attach(&line.open_directly()),
        );
        change(&mine, 0);
        line.down(mine.memory());
        // Each of these changes looks at all those before it: the short form makes fewer.
        let is_short = name.contains("below") && std::env::var_os("SYNCED_MEMORY_SOAK").is_none();
        let changes = if is_short { CHANGES / 5 } else { CHANGES };
        let began = Instant::now();
        for n in 1..=changes {
            assert_eq!(change(&mine, n), Written::Queued, "{name}");
        }
        println!("{changes} {name} while offline took {:?}", began.elapsed());
        line.server.reset_stats();
        line.up();
        mine.memory().flush(DEADLINE).unwrap();
        wait_connected(mine.memory());
        assert_eq!(counted(&line.server), (1, 0, 1), "{name}");
        assert_eq!(
            line.server.command_count("hset"),
            1,
            "{name}: one record of it"
        );
        match *name {
            "pushes" => assert!(theirs.list().to_vec().unwrap().into_iter().eq(0..=changes)),
            "adds" => assert_eq!(theirs.count().unwrap(), changes + 1),
            "members" => assert!(theirs.set().to_set().unwrap().into_iter().eq(0..=changes)),
            _ => assert!(
                theirs
                    .user()
                    .tags()
                    .to_vec()
                    .unwrap()
                    .into_iter()
                    .eq((0..=changes).map(|n| n.to_string()))
            ),
        }
    }
}

thread_local! {
    static ENCODED: Cell<u32> = const { Cell::new(0) };
    static DECODED: Cell<u32> = const { Cell::new(0) };
}

/// Counts how often it is encoded and decoded.
#[derive(Debug, Clone, PartialEq)]
struct Counted(u64);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.set(ENCODED.get() + 1);
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.set(DECODED.get() + 1);
        u64::deserialize(deserializer).map(Self)
    }
}

#[test]
fn a_push_encodes_what_is_pushed_and_no_more_and_a_read_decodes_once_for_each_change() {
    const INITIAL: u32 = 100;
    // What a debug build writes is read back; a release build does so with the first write alone.
    const READ_BACK: u32 = if cfg!(debug_assertions) { 1 } else { 0 };
    let line = Line::new();
    let (memory, other) = (line.open(), line.open_directly());
    let key = Key::<Vec<Counted>>::new("list");
    let (list, theirs) = (memory.synced(&key), other.synced(&key));
    list.extend((0..INITIAL).map(|n| Counted(n.into())))
        .unwrap();
    let counts = || (ENCODED.take(), DECODED.take());
    assert_eq!(counts(), (INITIAL, INITIAL), "the first write");
    list.push(Counted(1)).unwrap();
    assert_eq!(counts(), (1, READ_BACK));
    assert_eq!(list.len().unwrap(), 101);
    assert_eq!(counts(), (0, 101));
    // Nothing has changed: the reads ask the server, and decode nothing.
    assert_eq!(
        (
            list.len().unwrap(),
            list.with(|list| list[100].clone()).unwrap()
        ),
        (101, Counted(1))
    );
    assert_eq!(counts(), (0, 0));
    theirs.push(Counted(2)).unwrap();
    list.push(Counted(3)).unwrap();
    let expected = (2, 1 + READ_BACK);
    assert_eq!(counts(), expected, "even if another process interfered");
    list.insert(1, Counted(4)).unwrap();
    assert_eq!(counts(), (1, READ_BACK));
    assert_eq!(list.pop().unwrap(), Some(Counted(3)));
    assert_eq!(counts(), (0, 1), "what is returned is decoded");
    assert_eq!(list.len().unwrap(), 103);
    assert_eq!(counts(), (0, 103));
}
