//! An unknown value is not an unset one: reads and closures fail with `Unavailable`, and closures
//! change nothing.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::eventually;
use synced_memory::{
    Error, ErrorKind, Key, Memory, ReadPolicy, SyncedMemory, WritePolicy, Written,
};

use crate::line::{DEADLINE, Line, forget_dead_letters, wait_connected, wait_disconnected};

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct State {
    #[synced(default = 7)]
    number: u64,
    #[synced(default)]
    zero: i64,
    list: Vec<u64>,
    map: BTreeMap<String, u64>,
    #[synced(nested, default)]
    user: User,
    #[synced(nested)]
    boss: User,
    option: Option<Vec<u64>>,
    text: String,
    #[synced(value, default)]
    log: Vec<String>,
    tags: HashSet<String>,
    any: Value,
    #[synced(alias = "older")]
    newer: Vec<u64>,
}

/// Every field has a default, so that all of it can be read without a backend.
#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct Defaults {
    #[synced(default = 7)]
    number: u64,
    #[synced(nested, default)]
    user: User,
    #[synced(value, default)]
    log: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct User {
    name: String,
    age: u32,
}

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        age: 30,
    }
}

fn stored() -> State {
    State {
        number: 100,
        zero: 100,
        list: vec![1, 2, 3],
        map: BTreeMap::from([("k".to_owned(), 1)]),
        user: user("Ada"),
        boss: user("Grace"),
        option: Some(vec![1, 2, 3]),
        text: "text".to_owned(),
        log: vec!["a".to_owned(), "b".to_owned()],
        tags: HashSet::from(["a".to_owned()]),
        any: json!({"list": [1], "n": 1}),
        newer: vec![1],
    }
}

/// How long a read waits for its answer.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Forgets all dead letters, and returns how many there were.
fn take_dead_letters(memory: &Memory) -> usize {
    forget_dead_letters(memory).len()
}

/// Why the values are unknown.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// This process could never connect.
    Never,
    /// It was connected, and the line is down now.
    Down,
    /// It is connected, and gets no answers.
    Silent,
}

/// A process that has read no stored value, and gets no answers.
struct Unread {
    line: Line,
    mine: SyncedState,
    theirs: SyncedState,
    outage: Outage,
}

impl Unread {
    /// Runs `check` in each kind of outage and under each policy.
    fn each(check: impl Fn(&Self)) {
        for outage in [Outage::Never, Outage::Down, Outage::Silent] {
            for read in [ReadPolicy::Through, ReadPolicy::Near] {
                for write in [WritePolicy::Through, WritePolicy::Behind] {
                    println!("{outage:?}, {read:?}, {write:?}");
                    check(&Self::new(outage, read, write));
                }
            }
        }
    }

    fn new(outage: Outage, read: ReadPolicy, write: WritePolicy) -> Self {
        let line = Line::new();
        let theirs = State::attach(&line.open_directly());
        theirs.restore(stored()).unwrap();
        if let Outage::Never = outage {
            line.proxy.refuse(true);
        }
        let memory = line
            .builder()
            .timeout(TIMEOUT)
            .read_policy(read)
            .write_policy(write);
        let memory = memory.build().unwrap();
        match outage {
            Outage::Never => {}
            Outage::Down => {
                wait_connected(&memory);
                line.down(&memory);
            }
            Outage::Silent => {
                wait_connected(&memory);
                line.proxy.stall(true);
            }
        }
        Self {
            line,
            mine: State::attach(&memory),
            theirs,
            outage,
        }
    }

    fn end(&self) {
        self.line.up();
        self.line.proxy.stall(false);
        self.mine.memory().flush(DEADLINE).unwrap();
        wait_connected(self.mine.memory());
        eventually(DEADLINE, "the text is read", || self.mine.text().is_ok());
    }

    /// Checks that each call failed with `Unavailable` and queued nothing.
    #[track_caller]
    fn assert_unavailable<const N: usize>(&self, calls: [(&str, Result<(), Error>); N]) {
        let is_unavailable = |error: &Error| error.kind() == ErrorKind::Unavailable;
        let wrong = calls
            .into_iter()
            .filter(|(_, result)| !result.as_ref().is_err_and(is_unavailable));
        let wrong: Vec<_> = wrong.collect();
        assert!(wrong.is_empty(), "{:?}: {wrong:#?}", self.outage);
        assert_eq!(self.mine.memory().status().pending, 0, "nothing is queued");
    }
}

#[test]
fn a_closure_on_a_value_that_was_never_read_is_unavailable_and_changes_nothing() {
    Unread::each(|unread| {
        let (s, memory) = (&unread.mine, unread.mine.memory());
        let names = |map: &mut BTreeMap<String, u64>| _ = map.insert("new".to_owned(), 2);
        unread.assert_unavailable([
            ("a number with a default", s.update_number(|n| *n += 1)),
            (
                "a number with the default of its type",
                s.update_zero(|n| *n += 1),
            ),
            ("a list", s.update_list(|list| list.push(4))),
            ("a map", s.update_map(names)),
            (
                "a nested struct with a default",
                s.update_user(|user| user.age += 1),
            ),
            (
                "a nested field with a default",
                s.user().update_age(|age| *age += 1),
            ),
            ("a nested struct", s.update_boss(|user| user.age += 1)),
            ("a nested field", s.boss().update_age(|age| *age += 1)),
            (
                "an option",
                s.update_option(|option| option.get_or_insert_default().push(4)),
            ),
            ("a text", s.update_text(|text| text.push('!'))),
            (
                "a list that is one value, with a default",
                s.update_log(|log| log.push("c".to_owned())),
            ),
            (
                "a set",
                s.update_tags(|tags| _ = tags.insert("b".to_owned())),
            ),
            ("any value", s.update_any(|any| any["n"] = json!(2))),
            (
                "a list with an older name",
                s.update_newer(|list| list.push(2)),
            ),
            (
                "a closure that may fail",
                s.synced_zero().try_update(|n| {
                    *n += 1;
                    Ok::<_, Error>(())
                }),
            ),
            ("an element", s.list().at(0).update(|item| *item += 1)),
            ("an entry", s.map().at("k").update(|entry| *entry += 1)),
            ("sort", s.list().sort().map(drop)),
            ("reverse", s.list().reverse().map(drop)),
            ("retain of a list", s.list().retain(|_| false).map(drop)),
            ("retain of a map", s.map().retain(|_, _| false).map(drop)),
        ]);
        let (list, unset) = (Key::<Vec<u64>>::new("list"), Key::<u64>::new("unset"));
        unread.assert_unavailable([
            (
                "a list by its key",
                memory.update(&list, |list| list.get_or_insert_default().push(4)),
            ),
            (
                "a closure that creates a key",
                memory.update(&unset, |n| _ = n.get_or_insert(1)),
            ),
            (
                "a closure that deletes a key",
                memory.update(&list, |list| *list = None),
            ),
            (
                "a closure that changes nothing",
                memory.update(&list, |_| ()),
            ),
        ]);
        unread.end();
        assert_eq!(unread.theirs.snapshot().unwrap(), stored());
        assert_eq!(unread.theirs.memory().get(&unset).unwrap(), None);
        assert_eq!(
            (take_dead_letters(memory), memory.status().superseded),
            (0, 0)
        );
        // Now the value is known.
        s.update_number(|n| *n += 1).unwrap();
        assert_eq!(unread.theirs.number().unwrap(), 101);
    });
}

#[test]
fn a_closure_on_a_value_that_this_process_assigned_is_queued_even_if_it_was_never_read() {
    Unread::each(|unread| {
        let s = &unread.mine;
        assert_eq!(s.set_number(10).unwrap(), Written::Queued);
        s.update_number(|n| *n += 1).unwrap();
        assert_eq!(s.set_list(vec![9]).unwrap(), Written::Queued);
        s.update_list(|list| list.push(10)).unwrap();
        assert_eq!(
            (s.number().unwrap(), s.list().to_vec().unwrap()),
            (11, vec![9, 10])
        );
        unread.end();
        assert_eq!(
            (
                unread.theirs.number().unwrap(),
                unread.theirs.list().to_vec().unwrap()
            ),
            (11, vec![9, 10])
        );
        assert_eq!(take_dead_letters(s.memory()), 0);
    });
}

#[test]
fn a_value_that_was_never_read_is_unavailable_and_not_none_empty_or_unset() {
    Unread::each(|unread| {
        let (s, memory) = (&unread.mine, unread.mine.memory());
        unread.assert_unavailable([
            ("a text", s.text().map(drop)),
            ("an option", s.option().map(drop)),
            ("find of an option", s.synced_option().find().map(drop)),
            ("find with a default", s.synced_number().find().map(drop)),
            ("last_modified", s.synced_text().last_modified().map(drop)),
            (
                "last_modified with a default",
                s.synced_number().last_modified().map(drop),
            ),
            ("a list", s.list().get().map(drop)),
            ("find of a list", s.list().find().map(drop)),
            ("read", s.list().read().map(drop)),
            ("with", s.list().with(Vec::len).map(drop)),
            ("to_vec", s.list().to_vec().map(drop)),
            ("len of a list", s.list().len().map(drop)),
            ("is_empty of a list", s.list().is_empty().map(drop)),
            ("an element", s.list().at(0).get().map(drop)),
            ("find of an element", s.list().at(0).find().map(drop)),
            ("a map", s.map().to_map().map(drop)),
            ("len of a map", s.map().len().map(drop)),
            ("keys", s.map().keys().map(drop)),
            ("contains_key", s.map().contains_key("k").map(drop)),
            ("an entry", s.map().at("k").get().map(drop)),
            ("find of an entry", s.map().at("k").find().map(drop)),
            (
                "last_modified of an entry",
                s.map().at("k").last_modified().map(drop),
            ),
            ("a set", s.tags().to_set().map(drop)),
            ("len of a set", s.tags().len().map(drop)),
            (
                "contains of a set",
                s.tags().contains(&"a".to_owned()).map(drop),
            ),
            ("any value", s.any().get().map(drop)),
            ("len of any value", s.any().len().map(drop)),
            ("a nested field", s.boss().name().map(drop)),
            ("find of a nested struct", s.synced_boss().find().map(drop)),
            ("snapshot of a nested struct", s.boss().snapshot().map(drop)),
            ("a list with an older name", s.newer().get().map(drop)),
            ("snapshot", s.snapshot().map(drop)),
        ]);
        unread.assert_unavailable([
            (
                "get by key",
                memory.get(&Key::<String>::new("text")).map(drop),
            ),
            (
                "get by key of an unset value",
                memory.get(&Key::<u64>::new("unset")).map(drop),
            ),
            (
                "contains",
                memory.contains(&Key::<String>::new("text")).map(drop),
            ),
            (
                "a view of a key",
                memory.synced(&Key::<String>::new("text")).get().map(drop),
            ),
            (
                "find by a view of a key",
                memory.synced(&Key::<String>::new("text")).find().map(drop),
            ),
        ]);
        // These fields have defaults.
        assert_eq!(
            (s.number().unwrap(), s.zero().unwrap(), s.log().unwrap()),
            (7, 0, vec![])
        );
        assert_eq!(memory.get(&SyncedState::NUMBER).unwrap(), Some(7));
        assert_eq!(
            (s.user().name().unwrap(), s.user().snapshot().unwrap()),
            (String::new(), User::default())
        );
        let defaults = Defaults {
            number: 7,
            user: User::default(),
            log: vec![],
        };
        assert_eq!(Defaults::attach(memory).snapshot().unwrap(), defaults);
        unread.end();
        assert_eq!(s.snapshot().unwrap(), stored());
        assert_eq!(
            memory.get(&Key::<u64>::new("unset")).unwrap(),
            None,
            "now it is known to be unset"
        );
    });
}

#[test]
fn a_member_of_a_json_value_that_was_never_read_is_unavailable() {
    Unread::each(|unread| {
        let any = unread.mine.any();
        unread.assert_unavailable([
            ("find of a member", any.at("list").find().map(drop)),
            ("a member", any.at("n").get().map(drop)),
            (
                "find of an element of a member",
                any.at("list").at(0).find().map(drop),
            ),
            ("len of a member", any.at("list").len().map(drop)),
            ("keys", any.keys().map(drop)),
            ("contains_key", any.contains_key("n").map(drop)),
        ]);
    });
}

#[test]
fn a_value_that_was_never_read_reads_as_its_queued_changes() {
    Unread::each(|unread| {
        let s = &unread.mine;
        s.list().push(4).unwrap();
        s.map().insert("new".to_owned(), 2).unwrap();
        s.tags().insert("new".to_owned()).unwrap();
        s.add_number(1).unwrap();
        s.log().unwrap();
        s.user().set_age(31).unwrap();
        s.set_option(None).unwrap();
        assert_eq!(
            (
                s.list().to_vec().unwrap(),
                s.list().len().unwrap(),
                s.list().at(0).get().unwrap()
            ),
            (vec![4], 1, 4)
        );
        assert_eq!(
            (s.map().keys().unwrap(), s.map().at("new").get().unwrap()),
            (vec!["new".to_owned()], 2)
        );
        assert!(s.tags().contains(&"new".to_owned()).unwrap());
        assert_eq!((s.number().unwrap(), s.option().unwrap()), (8, None));
        assert_eq!(
            s.user().snapshot().unwrap(),
            User {
                name: String::new(),
                age: 31
            }
        );
        assert_eq!(
            s.text().unwrap_err().kind(),
            ErrorKind::Unavailable,
            "other values are unknown"
        );
        unread.end();
        let mut left = State {
            list: vec![1, 2, 3, 4],
            number: 101,
            option: None,
            ..stored()
        };
        left.map.insert("new".to_owned(), 2);
        left.tags.insert("new".to_owned());
        left.user.age = 31;
        assert_eq!(unread.theirs.snapshot().unwrap(), left);
        assert_eq!(s.snapshot().unwrap(), left);
    });
}

#[test]
fn a_value_read_before_an_outage_stays_known_and_an_absent_one_stays_unset() {
    let line = Line::new();
    let (mine, theirs) = line.attach::<State>();
    theirs.list().push(1).unwrap();
    assert_eq!(
        (
            mine.list().len().unwrap(),
            mine.option().unwrap(),
            mine.map().len().unwrap()
        ),
        (1, None, 0)
    );
    assert_eq!(mine.text().unwrap_err().kind(), ErrorKind::Unset);
    line.proxy.stall(true);
    assert_eq!(
        (
            mine.list().to_vec().unwrap(),
            mine.option().unwrap(),
            mine.map().len().unwrap()
        ),
        (vec![1], None, 0)
    );
    wait_disconnected(mine.memory());
    assert_eq!(
        (
            mine.list().to_vec().unwrap(),
            mine.option().unwrap(),
            mine.map().len().unwrap()
        ),
        (vec![1], None, 0)
    );
    assert_eq!(mine.text().unwrap_err().kind(), ErrorKind::Unset);
    mine.update_map(|map| map.insert("a".to_owned(), 1))
        .unwrap();
    mine.update_option(|option| option.get_or_insert_default().push(1))
        .unwrap();
    line.proxy.stall(false);
    mine.memory().flush(DEADLINE).unwrap();
    assert_eq!(
        (theirs.map().len().unwrap(), theirs.option().unwrap()),
        (1, Some(vec![1]))
    );
}

#[test]
fn a_value_that_was_never_read_can_be_read_as_soon_as_the_memory_is_connected() {
    const ROUNDS: usize = 10;
    for read in [ReadPolicy::Through, ReadPolicy::Near] {
        for round in 0..ROUNDS {
            let unread = Unread::new(Outage::Never, read, WritePolicy::Through);
            // Reads wait for a while after a lost connection; that time is over.
            let began = Instant::now();
            eventually(DEADLINE, "no read waits any more", || {
                began.elapsed() > TIMEOUT
            });
            unread.line.up();
            // Read in the very moment in which the memory says that it is connected.
            while !unread.mine.memory().status().connected {
                assert!(began.elapsed() < DEADLINE, "the memory reconnects");
                std::hint::spin_loop();
            }
            let snapshot = unread
                .mine
                .snapshot()
                .map_err(|error| format!("{read:?}, round {round}: {error}"));
            assert_eq!(snapshot, Ok(stored()));
        }
    }
}

#[test]
fn a_watch_reports_nothing_while_the_value_is_unknown() {
    Unread::each(|unread| {
        let (mut list, mut option) = (
            unread.mine.list().watch(),
            unread.mine.synced_option().watch(),
        );
        let mut by_key = unread.mine.memory().watch(&Key::<String>::new("text"));
        // This waits for longer than a read waits for its answer.
        let early = list.recv_timeout(2 * TIMEOUT).map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::Timeout));
        let early = option
            .recv_timeout(Duration::ZERO)
            .map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::Timeout));
        let early = by_key
            .recv_timeout(Duration::ZERO)
            .map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::Timeout));
        unread.end();
        assert_eq!(
            list.recv_timeout(DEADLINE).unwrap(),
            Some(stored().list),
            "the first value it reports"
        );
        assert_eq!(
            option.recv_timeout(DEADLINE).unwrap(),
            Some(stored().option)
        );
        assert_eq!(by_key.recv_timeout(DEADLINE).unwrap(), Some(stored().text));
    });
}
