//! Rule 5: changes are rebased, not overwritten.

use std::collections::BTreeMap;
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::Python;
use synced_memory::{ErrorKind, Key, Synced, SyncedMemory, Written};

use crate::line::{Line, forget_dead_letters, wait_for_later_stamp};

#[derive(Debug, Clone, PartialEq, SyncedMemory)]
struct State {
    list: Vec<i64>,
    map: BTreeMap<String, i64>,
    #[synced(nested, default = Account { from: 10, to: 0, note: 0 })]
    account: Account,
    #[synced(default = vec![1, 2])]
    known: Vec<i64>,
    #[synced(alias = "older")]
    newer: Vec<i64>,
    #[synced(default = 5)]
    five: i64,
    #[synced(alias = "older_count", default = 5)]
    count: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
struct Account {
    from: i64,
    to: i64,
    note: i64,
}

/// Two memories on one server, one of them on a line that goes down and up.
struct Two {
    line: Line,
    mine: SyncedState,
    theirs: SyncedState,
}

impl Two {
    fn new() -> Self {
        let line = Line::new();
        let (mine, theirs) = line.attach::<State>();
        Self { line, mine, theirs }
    }

    fn with_list(list: &[i64]) -> Self {
        let two = Self::new();
        two.theirs.list().set(list.to_vec()).unwrap();
        assert_eq!(two.mine.list().to_vec().unwrap(), list);
        two
    }

    fn with_map(map: &[(&str, i64)]) -> Self {
        let two = Self::new();
        two.theirs.map().set(entries(map)).unwrap();
        assert_eq!(two.mine.map().to_map().unwrap(), entries(map));
        two
    }

    fn down(&self) {
        self.line.down(self.mine.memory());
    }

    /// Waits until writes of the other memory get a later stamp than the last write to `view`: each
    /// memory estimates the server's clock, and the estimates may differ by a little.
    fn let_theirs_be_later<T: synced_memory::Value>(&self, view: &Synced<T>) {
        let before = view.last_modified().unwrap();
        wait_for_later_stamp(self.theirs.memory(), before);
    }

    fn let_mine_be_later<T: synced_memory::Value>(&self, view: &Synced<T>) {
        let before = view.last_modified().unwrap();
        wait_for_later_stamp(self.mine.memory(), before);
    }

    fn up(&self) {
        self.line.deliver(self.mine.memory());
    }

    /// Asserts that both see this list, how many writes of mine were superseded, and that none
    /// became a dead letter.
    #[track_caller]
    fn assert_list(&self, list: &[i64], superseded: u64) {
        assert_eq!(self.theirs.list().to_vec().unwrap(), list);
        assert_eq!(self.mine.list().to_vec().unwrap(), list);
        self.assert_superseded(superseded);
    }

    #[track_caller]
    fn assert_map(&self, map: &[(&str, i64)], superseded: u64) {
        assert_eq!(self.theirs.map().to_map().unwrap(), entries(map));
        assert_eq!(self.mine.map().to_map().unwrap(), entries(map));
        self.assert_superseded(superseded);
    }

    #[track_caller]
    fn assert_superseded(&self, superseded: u64) {
        let status = self.mine.memory().status();
        assert_eq!(
            (status.superseded, status.dead_letters),
            (superseded, 0),
            "{status:?}"
        );
    }
}

fn entries(map: &[(&str, i64)]) -> BTreeMap<String, i64> {
    map.iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

#[test]
fn a_push_on_a_queued_assignment_goes_onto_the_list_that_supersedes_it() {
    let two = Two::with_list(&[0]);
    two.down();
    assert_eq!(two.mine.set_list(vec![]).unwrap(), Written::Queued);
    assert_eq!(two.mine.list().push(9).unwrap(), Written::Queued);
    assert_eq!(two.mine.list().to_vec().unwrap(), [9]);
    two.let_theirs_be_later(two.mine.list());
    two.theirs.set_list(vec![1]).unwrap();
    two.theirs.list().push(2).unwrap();
    two.up();
    two.assert_list(&[1, 2, 9], 1);
}

#[test]
fn a_queued_assignment_with_a_push_on_it_replaces_what_was_written_before_it() {
    let two = Two::with_list(&[0]);
    two.down();
    two.theirs.set_list(vec![1]).unwrap();
    two.theirs.list().push(2).unwrap();
    two.let_mine_be_later(two.theirs.list());
    two.mine.set_list(vec![]).unwrap();
    two.mine.list().push(9).unwrap();
    two.up();
    two.assert_list(&[9], 0);
}

#[test]
fn queued_pushes_and_adds_are_never_superseded() {
    let two = Two::with_list(&[0]);
    two.theirs.set_five(7).unwrap();
    two.down();
    two.mine.list().push(9).unwrap();
    two.mine.add_five(1).unwrap();
    two.let_theirs_be_later(two.mine.list());
    two.theirs.list().push(1).unwrap();
    two.theirs.add_five(10).unwrap();
    two.up();
    two.assert_list(&[0, 1, 9], 0);
    assert_eq!(
        (two.mine.five().unwrap(), two.theirs.five().unwrap()),
        (18, 18)
    );
}

/// A case: its name, what each of the two does to a map with one entry, whether the other change is
/// the later one, the entries in the end, and how many writes were superseded.
type Case = (
    &'static str,
    Change,
    Change,
    bool,
    &'static [(&'static str, i64)],
    u64,
);
type Change = fn(&Synced<BTreeMap<String, i64>>);

const INSERT_1: Change = |map| _ = map.insert("a".to_owned(), 1).unwrap();
const INSERT_2: Change = |map| _ = map.insert("a".to_owned(), 2).unwrap();
const REMOVE: Change = |map| _ = map.remove("a").unwrap();
const BESIDE: Change = |map| _ = map.insert("b".to_owned(), 3).unwrap();

#[test]
fn under_one_key_of_a_map_the_newest_wins() {
    const CASES: &[Case] = &[
        ("a newer insert", INSERT_1, INSERT_2, true, &[("a", 2)], 1),
        ("an older insert", INSERT_1, INSERT_2, false, &[("a", 1)], 0),
        ("a newer remove", INSERT_1, REMOVE, true, &[], 1),
        ("an older remove", INSERT_1, REMOVE, false, &[("a", 1)], 0),
        (
            "a remove against a newer insert",
            REMOVE,
            INSERT_2,
            true,
            &[("a", 2)],
            1,
        ),
        (
            "a remove against an older insert",
            REMOVE,
            INSERT_2,
            false,
            &[],
            0,
        ),
        ("a remove of a removed entry", REMOVE, REMOVE, true, &[], 0),
        ("the same insert", INSERT_2, INSERT_2, true, &[("a", 2)], 0),
        (
            "an insert beside a newer one",
            INSERT_1,
            BESIDE,
            true,
            &[("a", 1), ("b", 3)],
            0,
        ),
        (
            "a remove beside a newer insert",
            REMOVE,
            BESIDE,
            true,
            &[("b", 3)],
            0,
        ),
    ];
    for (what, change, other, is_newer, expected, superseded) in CASES {
        println!("{what}");
        let two = Two::with_map(&[("a", 0)]);
        two.down();
        if *is_newer {
            change(two.mine.map());
            two.let_theirs_be_later(two.mine.map());
            other(two.theirs.map());
        } else {
            other(two.theirs.map());
            two.let_mine_be_later(two.theirs.map());
            change(two.mine.map());
        }
        two.up();
        two.assert_map(expected, *superseded);
    }
}

#[test]
fn two_processes_that_remove_the_first_of_two_equal_elements_remove_one_each() {
    let two = Two::with_list(&[7, 7, 8]);
    assert!(two.mine.list().remove_item(&7).unwrap() && two.theirs.list().remove_item(&7).unwrap());
    two.assert_list(&[8], 0);
    assert!(!two.mine.list().remove_item(&7).unwrap());

    two.theirs.set_list(vec![7, 7, 8]).unwrap();
    assert_eq!(two.mine.list().len().unwrap(), 3);
    two.down();
    assert!(two.mine.list().remove_item(&7).unwrap());
    assert!(two.theirs.list().remove_item(&7).unwrap());
    two.up();
    two.assert_list(&[8], 0);
}

#[test]
fn two_processes_that_remove_the_second_of_two_equal_elements_remove_the_same_one() {
    let two = Two::with_list(&[7, 7, 8]);
    two.down();
    for state in [&two.mine, &two.theirs] {
        state
            .update_list(|list| assert_eq!(list.remove(1), 7))
            .unwrap();
    }
    two.up();
    two.assert_list(&[7, 8], 0);
}

#[test]
fn an_operation_on_an_element_follows_it_and_never_hits_another_element() {
    let two = Two::with_list(&[10, 20, 30, 40]);
    two.down();
    two.mine.list().at(2).add(1).unwrap();
    assert!(two.mine.list().remove_item(&40).unwrap());
    two.mine.list().insert(1, 15).unwrap();
    two.let_theirs_be_later(two.mine.list());
    two.theirs.list().insert(0, 5).unwrap();
    assert_eq!(two.theirs.list().remove(4).unwrap(), Some(40));
    two.theirs.list().push(50).unwrap();
    two.up();
    two.assert_list(&[5, 10, 15, 20, 31, 50], 0);
}

#[test]
fn the_changes_of_one_call_are_made_together_or_not_at_all() {
    let transfer = |account: &mut Account| {
        account.from -= 5;
        account.to += 5;
    };
    let two = Two::new();
    two.theirs
        .update_account(|account| account.note = 1)
        .unwrap();
    assert_eq!(two.mine.account().snapshot().unwrap().note, 1);
    // Another process changes one of the two fields: neither change is made, whichever is newer.
    two.down();
    two.mine.update_account(transfer).unwrap();
    assert_eq!(
        two.mine.account().snapshot().unwrap(),
        Account {
            from: 5,
            to: 5,
            note: 1
        }
    );
    two.let_theirs_be_later(two.mine.synced_account());
    two.theirs
        .update_account(|account| account.to = 100)
        .unwrap();
    two.up();
    assert_eq!(
        two.mine.account().snapshot().unwrap(),
        Account {
            from: 10,
            to: 100,
            note: 1
        }
    );
    assert_eq!(
        two.theirs.account().snapshot().unwrap(),
        Account {
            from: 10,
            to: 100,
            note: 1
        }
    );
    let status = two.mine.memory().status();
    assert_eq!(
        (status.superseded, status.dead_letters),
        (0, 1),
        "{status:?}"
    );
    assert_eq!(
        forget_dead_letters(two.mine.memory())[0].reason.kind(),
        ErrorKind::Conflict
    );
    // Another process changes a third field: both changes are made.
    two.down();
    two.mine.update_account(transfer).unwrap();
    two.let_theirs_be_later(two.mine.synced_account());
    two.theirs
        .update_account(|account| account.note = 2)
        .unwrap();
    two.up();
    assert_eq!(
        two.theirs.account().snapshot().unwrap(),
        Account {
            from: 5,
            to: 105,
            note: 2
        }
    );
    two.assert_superseded(0);
    // While the server is there, the closure runs again.
    let mut runs = 0;
    two.mine
        .update_account(|account| {
            if runs == 0 {
                two.theirs.update_account(|account| account.to = 0).unwrap();
            }
            runs += 1;
            transfer(account);
        })
        .unwrap();
    assert_eq!(
        two.theirs.account().snapshot().unwrap(),
        Account {
            from: 0,
            to: 5,
            note: 2
        }
    );
    assert_eq!(runs, 2);

    let two = Two::with_map(&[("a", 0)]);
    two.down();
    two.mine
        .map()
        .extend(entries(&[("a", 1), ("b", 1)]))
        .unwrap();
    two.let_theirs_be_later(two.mine.map());
    INSERT_2(two.theirs.map());
    two.up();
    two.assert_map(&[("a", 2)], 1);
}

#[test]
fn a_big_integer_and_the_key_order_of_python_survive_a_push_beside_them() {
    let two = Two::new();
    let mut python = Python::against(&two.line.server);
    python.run("from synced_memory import Memory; m = Memory()\nm.data = {'z': 2**70, 'list': [1], 'a': 0.1, 'm': {}}");
    let data = two.mine.memory().synced(&Key::<Value>::new("data"));
    data.at("list").push(2).unwrap();
    let stored = two.line.server.get_text("memory:data").unwrap();
    let expected = r#"{"value": {"z": 1180591620717411303424, "list": [1,2], "a": 0.1, "m": {}},"#;
    assert!(stored.starts_with(expected), "{stored}");
    two.down();
    data.at("list").push(3).unwrap();
    data.at("m").insert("n", 1).unwrap();
    two.up();
    let seen =
        python.run("m = Memory(); print(m.data['z'] == 2**70, list(m.data), m.data['list'][:], dict(m.data['m']))");
    assert_eq!(seen, "True ['z', 'list', 'a', 'm'] [1, 2, 3] {'n': 1}");
}

#[test]
fn a_change_starts_from_what_a_read_of_the_unset_key_returns() {
    let two = Two::new();
    for scope in ["up", "down"] {
        let [mine, theirs] =
            [&two.mine, &two.theirs].map(|state| State::attach(&state.memory().scope(scope)));
        theirs
            .memory()
            .set(&Key::<Vec<i64>>::new("older"), vec![7])
            .unwrap();
        theirs
            .memory()
            .set(&Key::<i64>::new("older_count"), 40)
            .unwrap();
        assert_eq!(
            (mine.newer().len().unwrap(), mine.count().unwrap()),
            (1, 40)
        );
        // A closure needs a value that is known.
        mine.account().snapshot().unwrap();
        if scope == "down" {
            two.down();
        }
        mine.list().push(1).unwrap();
        mine.known().push(3).unwrap();
        mine.newer().push(8).unwrap();
        mine.map().insert("a".to_owned(), 1).unwrap();
        mine.add_five(1).unwrap();
        mine.add_count(2).unwrap();
        mine.update_account(|account| account.to += 1).unwrap();
        mine.memory().add(&Key::<i64>::new("zero"), 3).unwrap();
        two.up();
        for state in [mine, theirs] {
            assert_eq!(
                (
                    state.list().to_vec().unwrap(),
                    state.known().to_vec().unwrap()
                ),
                (vec![1], vec![1, 2, 3])
            );
            assert_eq!(
                state.newer().to_vec().unwrap(),
                [7, 8],
                "it starts from the value of the older name"
            );
            assert_eq!(state.map().to_map().unwrap(), entries(&[("a", 1)]));
            assert_eq!((state.five().unwrap(), state.count().unwrap()), (6, 42));
            assert_eq!(
                state.account().snapshot().unwrap(),
                Account {
                    from: 10,
                    to: 1,
                    note: 0
                }
            );
            assert_eq!(
                state.memory().get(&Key::<i64>::new("zero")).unwrap(),
                Some(3)
            );
        }
    }
}

#[test]
fn a_change_of_a_key_that_was_not_read_yet_starts_from_its_older_name() {
    let two = Two::new();
    two.theirs
        .memory()
        .set(&Key::new("older"), vec![7_i64])
        .unwrap();
    two.theirs
        .memory()
        .set(&Key::new("older_count"), 40_i64)
        .unwrap();
    two.mine.newer().push(8).unwrap();
    two.mine.add_count(2).unwrap();
    assert_eq!(two.theirs.newer().to_vec().unwrap(), [7, 8]);
    assert_eq!(two.theirs.count().unwrap(), 42);
}

#[test]
fn get_or_insert_is_insert_if_absent() {
    let two = Two::with_map(&[("a", 0)]);
    let get_or_insert =
        |state: &SyncedState, name: &str, n| state.map().get_or_insert(name.to_owned(), n).unwrap();
    assert_eq!(
        (
            get_or_insert(&two.mine, "a", 9),
            get_or_insert(&two.mine, "b", 1)
        ),
        (0, 1)
    );
    assert_eq!(get_or_insert(&two.theirs, "b", 2), 1);
    // Of several at once, all get the value that one of them has stored.
    let got = thread::scope(|scope| {
        let both = [(&two.mine, 10), (&two.theirs, 11)];
        let threads = both.map(|(state, n)| scope.spawn(move || get_or_insert(state, "c", n)));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(got[0], got[1]);
    assert_eq!(two.theirs.map().at("c").get().unwrap(), got[0]);
    two.theirs.map().remove("c").unwrap();
    // Offline it returns what this process saw, and gives way to any value that is there on
    // reconnect, however old.
    assert_eq!(two.mine.map().len().unwrap(), 2);
    two.down();
    two.theirs.map().insert("c".to_owned(), 2).unwrap();
    two.let_mine_be_later(two.theirs.map());
    assert_eq!(
        (
            get_or_insert(&two.mine, "c", 3),
            get_or_insert(&two.mine, "d", 4)
        ),
        (3, 4)
    );
    two.up();
    two.assert_map(&[("a", 0), ("b", 1), ("c", 2), ("d", 4)], 0);
}

#[test]
fn after_a_delete_a_later_push_starts_a_new_list_and_an_earlier_one_is_a_dead_letter() {
    let two = Two::with_list(&[1]);
    assert!(two.theirs.list().delete().unwrap());
    two.mine.list().push(2).unwrap();
    two.assert_list(&[2], 0);
    // Queued after the delete, without knowing of it.
    two.down();
    two.theirs.list().delete().unwrap();
    wait_for_later_stamp(
        two.mine.memory(),
        two.theirs.list().last_modified().unwrap(),
    );
    two.mine.list().push(3).unwrap();
    assert_eq!(
        two.mine.list().to_vec().unwrap(),
        [2, 3],
        "as far as it knows"
    );
    two.up();
    two.assert_list(&[3], 0);
    // Queued before the delete.
    two.down();
    two.mine.list().push(4).unwrap();
    two.let_theirs_be_later(two.mine.list());
    two.theirs.list().delete().unwrap();
    two.up();
    assert_eq!(
        two.line.server.get_raw("memory:list"),
        None,
        "it does not come back"
    );
    assert_eq!(two.mine.list().find().unwrap(), None);
    assert_eq!(two.mine.memory().status().dead_letters, 1);
    let letters = forget_dead_letters(two.mine.memory());
    assert_eq!(
        (letters[0].key.as_str(), letters[0].reason.kind()),
        ("memory:list", ErrorKind::Conflict)
    );
    assert!(
        letters[0].changes()[0].to_string().contains('4'),
        "{:?}",
        letters[0]
    );
    two.mine.list().push(5).unwrap();
    two.assert_list(&[5], 0);
}

#[test]
fn while_offline_a_call_returns_what_this_process_saw() {
    let two = Two::with_list(&[1, 2, 3]);
    two.theirs
        .map()
        .set(entries(&[("a", 1), ("b", 2)]))
        .unwrap();
    assert_eq!(two.mine.map().len().unwrap(), 2);
    two.down();
    two.theirs.map().insert("a".to_owned(), 7).unwrap();
    two.let_mine_be_later(two.theirs.map());
    assert_eq!(two.mine.map().insert("a".to_owned(), 8).unwrap(), Some(1));
    assert_eq!(two.mine.map().remove("b").unwrap(), Some(2));
    assert_eq!(
        (
            two.mine.map().remove("b").unwrap(),
            two.mine.list().remove_item(&3).unwrap()
        ),
        (None, true)
    );
    // Offline, calls that take an element without naming it could hand the same one to several
    // callers.
    let taken = [
        two.mine.list().pop().map(drop),
        two.mine.list().remove(0).map(drop),
        two.mine.list().splice(0..1, [9]).map(drop),
        two.mine.map().pop().map(drop),
    ];
    for taken in taken {
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    two.up();
    two.assert_list(&[1, 2], 0);
    two.assert_map(&[("a", 8)], 0);
}

#[test]
fn an_element_that_cannot_be_decoded_is_not_taken() {
    let two = Two::new();
    for is_down in [false, true] {
        two.theirs
            .memory()
            .set(&Key::new("map"), json!({"a": "text"}))
            .unwrap();
        two.theirs
            .memory()
            .set(&Key::new("list"), json!([1, "text"]))
            .unwrap();
        let before = ["memory:map", "memory:list"].map(|key| two.line.server.get_text(key));
        // The memory knows what is stored.
        two.mine.map().get().unwrap_err();
        two.mine.list().get().unwrap_err();
        if is_down {
            two.down();
        }
        let named = [
            two.mine.map().insert("a".to_owned(), 1).map(drop),
            two.mine.map().remove("a").map(drop),
            two.mine.map().get_or_insert("a".to_owned(), 1).map(drop),
        ];
        for refused in named {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Decode);
        }
        let taken = [
            two.mine.map().pop().map(drop),
            two.mine.list().pop().map(drop),
            two.mine.list().remove(1).map(drop),
            two.mine.list().splice(1..2, [2]).map(drop),
        ];
        for refused in taken {
            let expected = if is_down {
                ErrorKind::Unavailable
            } else {
                ErrorKind::Decode
            };
            assert_eq!(refused.unwrap_err().kind(), expected);
        }
        assert_eq!(two.mine.memory().status().pending, 0);
        two.up();
        assert_eq!(
            ["memory:map", "memory:list"].map(|key| two.line.server.get_text(key)),
            before
        );
    }
    // Calls that return no element still work.
    two.mine.map().extend(entries(&[("a", 1)])).unwrap();
    two.mine.list().at(1).delete().unwrap();
    two.assert_map(&[("a", 1)], 0);
    two.assert_list(&[1], 0);
}

#[test]
fn a_value_without_a_stamp_is_compared_byte_by_byte() {
    let two = Two::new();
    // The value that the memory knows, and the one that another program has stored since: of the
    // same length, and without a stamp.
    for (known, since, added) in [("5", "6", "7"), ("[1, 2]", "[3, 2]", "[3, 2,9]")] {
        two.line.server.set_raw("memory:raw", known);
        let raw = two.mine.memory().synced(&Key::<Value>::new("raw"));
        assert_eq!(
            raw.get().unwrap(),
            serde_json::from_str::<Value>(known).unwrap()
        );
        two.line.server.set_raw("memory:raw", since);
        if known == "5" {
            two.mine.memory().add(&Key::<i64>::new("raw"), 1).unwrap();
        } else {
            raw.push(9).unwrap();
        }
        let stored = two.line.server.get_text("memory:raw").unwrap();
        assert!(
            stored.starts_with(&format!(r#"{{"value": {added},"#)),
            "{stored}"
        );
        two.line.server.cli(&["DEL", "memory:raw"]);
    }
}
