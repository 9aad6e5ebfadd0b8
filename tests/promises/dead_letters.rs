//! Rule 13: a queued write that no longer applies becomes a dead letter and is never dropped; a
//! superseded write is counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::eventually;
use synced_memory::{ErrorKind, Key, SyncedMemory, Written};
use tempfile::TempDir;

use crate::line::{DEADLINE, Line, forget_dead_letters};

#[derive(SyncedMemory)]
struct State {
    list: Vec<i64>,
    #[synced(default)]
    small: u8,
    users: BTreeMap<String, User>,
    team: Vec<User>,
    any: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SyncedMemory)]
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

struct Two {
    line: Line,
    mine: SyncedState,
    theirs: SyncedState,
}

impl Two {
    /// Both have read the same state.
    fn new() -> Self {
        let line = Line::new();
        let (mine, theirs) = line.attach::<State>();
        theirs.list().set(vec![1]).unwrap();
        theirs.set_small(100).unwrap();
        theirs
            .users()
            .extend(["ada", "bob"].map(|name| (name.to_owned(), user(name))))
            .unwrap();
        theirs.team().extend([user("ada"), user("bob")]).unwrap();
        theirs.any().set(json!({"list": [], "object": {}})).unwrap();
        assert_eq!(
            (
                mine.list().len().unwrap(),
                mine.users().len().unwrap(),
                mine.team().len().unwrap()
            ),
            (1, 2, 2)
        );
        assert_eq!((mine.any().len().unwrap(), mine.small().unwrap()), (2, 100));
        Self { line, mine, theirs }
    }

    fn down(&self) {
        self.line.down(self.mine.memory());
    }

    fn up(&self) {
        self.line.deliver(self.mine.memory());
    }

    /// Checks that one write became a dead letter with this key and reason, which is kept until it
    /// is forgotten. Returns its changes.
    #[track_caller]
    fn forget_the_one_letter(&self, key: &str, reason: &str) -> Value {
        let memory = self.mine.memory();
        let status = memory.status();
        assert_eq!(
            (status.pending, status.dead_letters, status.superseded),
            (0, 1, 0),
            "{status:?}"
        );
        let letters = memory.dead_letters();
        assert_eq!(
            (
                letters.len(),
                memory.status().dead_letters,
                memory.dead_letters().len()
            ),
            (1, 1, 1)
        );
        let letter = &letters[0];
        letter.forget().unwrap();
        assert_eq!(
            (memory.status().dead_letters, memory.dead_letters().len()),
            (0, 0)
        );
        assert_eq!(
            (letter.key.as_str(), letter.reason.kind()),
            (key, ErrorKind::Conflict)
        );
        assert!(
            letter.reason.to_string().contains(reason),
            "{}",
            letter.reason
        );
        assert!(letter.last_modified > 1_600_000_000_000_000_000 && letter.value().is_none());
        Value::Array(letter.changes())
    }

    fn replace<T: synced_memory::Value>(&self, name: &'static str, value: T) {
        self.theirs
            .memory()
            .set(&Key::<T>::new(name), value)
            .unwrap();
    }
}

#[test]
fn a_queued_change_of_a_value_whose_type_changed_meanwhile_is_a_dead_letter() {
    let two = Two::new();
    two.down();
    assert_eq!(two.mine.list().push(2).unwrap(), Written::Queued);
    assert_eq!(two.mine.list().push(3).unwrap(), Written::Queued);
    two.replace("list", "text".to_owned());
    two.up();
    let changes =
        two.forget_the_one_letter("memory:list", "found a string where a list was expected");
    assert_eq!(
        changes[0][0]["do"]["append"]["items"],
        json!([2, 3]),
        "{changes}"
    );
    assert_eq!(
        two.theirs
            .memory()
            .get(&Key::<String>::new("list"))
            .unwrap()
            .unwrap(),
        "text"
    );
    // This key has the wrong type; all other keys work.
    assert_eq!(two.mine.list().get().unwrap_err().kind(), ErrorKind::Decode);
    assert_eq!(
        two.mine.list().push(4).unwrap_err().kind(),
        ErrorKind::Conflict,
        "the caller that waits gets the error"
    );
    assert_eq!(two.mine.add_small(1).unwrap(), Written::Stored);
    two.replace("list", vec![1]);
    assert_eq!(two.mine.list().push(4).unwrap(), Written::Stored);
    assert_eq!(two.theirs.list().to_vec().unwrap(), [1, 4]);
}

#[test]
fn every_kind_of_change_is_a_dead_letter_if_the_type_changed() {
    type Change = fn(&SyncedState) -> synced_memory::Result<()>;
    const CHANGES: &[(&str, Change)] = &[
        ("memory:list", |s| s.list().push(2).map(drop)),
        ("memory:list", |s| s.list().insert(0, 2).map(drop)),
        ("memory:list", |s| s.list().remove_item(&1).map(drop)),
        ("memory:list", |s| s.list().at(0).add(1).map(drop)),
        ("memory:list", |s| s.update_list(|list| list.push(3))),
        ("memory:small", |s| s.add_small(1).map(drop)),
        ("memory:users", |s| {
            s.users().insert("eve".to_owned(), user("eve")).map(drop)
        }),
        ("memory:users", |s| s.users().remove("ada").map(drop)),
        ("memory:users", |s| {
            s.users()
                .at("ada")
                .fields()
                .set_name("eve".to_owned())
                .map(drop)
        }),
        ("memory:team", |s| {
            s.team().at(0).fields().add_age(1).map(drop)
        }),
        ("memory:any", |s| {
            s.any().at("object").insert("x", 1).map(drop)
        }),
        ("memory:any", |s| s.any().at("list").push(1).map(drop)),
    ];
    for (key, change) in CHANGES {
        let two = Two::new();
        two.down();
        change(&two.mine).unwrap();
        let name: &'static str = key.strip_prefix("memory:").unwrap();
        two.replace(name, true);
        two.up();
        let changes = two.forget_the_one_letter(key, "found a boolean");
        assert_eq!(changes.as_array().unwrap().len(), 1, "{changes}");
        assert_eq!(
            two.theirs.memory().get(&Key::<bool>::new(name)).unwrap(),
            Some(true)
        );
    }
}

#[test]
fn a_queued_change_below_a_path_that_is_gone_is_a_dead_letter() {
    let two = Two::new();
    two.down();
    two.mine
        .users()
        .at("ada")
        .fields()
        .set_name("Ada".to_owned())
        .unwrap();
    assert_eq!(two.mine.users().at("ada").get().unwrap().name, "Ada");
    two.theirs.users().remove("ada").unwrap();
    two.up();
    two.forget_the_one_letter("memory:users", "does not apply to what is there");
    assert_eq!(two.mine.users().keys().unwrap(), ["bob"]);

    two.down();
    two.mine.team().at(1).fields().add_age(1).unwrap();
    two.theirs.team().remove(1).unwrap();
    two.up();
    two.forget_the_one_letter("memory:team", "the list element that it changes is gone");
    assert_eq!(two.theirs.team().to_vec().unwrap(), [user("ada")]);
}

#[test]
fn a_caller_that_waits_gets_a_conflict_for_a_vanished_path_and_nothing_is_changed() {
    let two = Two::new();
    two.theirs.users().remove("ada").unwrap();
    let before = two.line.server.get_raw("memory:users");
    // It has not read the removal yet: the server's refusal reveals it.
    let error = two.mine.users().at("ada").fields().add_age(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("memory:users"), "{error}");
    let error = two.mine.users().at("ada").fields().add_age(1).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unset,
        "now it has read the removal: {error}"
    );
    assert_eq!(two.line.server.get_raw("memory:users"), before);
    assert_eq!(
        (
            two.mine.memory().status().pending,
            two.mine.memory().status().dead_letters
        ),
        (0, 0)
    );
    assert_eq!(two.mine.users().keys().unwrap(), ["bob"]);
}

#[test]
fn an_overflow_is_a_conflict_to_a_caller_that_waits_and_a_dead_letter_if_it_was_queued() {
    let two = Two::new();
    let too_much = [
        two.mine.add_small(156),
        two.mine.sub_small(101),
        two.mine.synced_small().add(255),
    ];
    for refused in too_much {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert_eq!(
        (two.mine.small().unwrap(), two.theirs.small().unwrap()),
        (100, 100)
    );
    let deep = two
        .mine
        .users()
        .at("ada")
        .fields()
        .sub_age(31)
        .unwrap_err()
        .to_string();
    assert!(
        deep.contains("`memory:users.ada.age`") && deep.contains("leave its range"),
        "{deep}"
    );
    two.down();
    // Each of the two additions alone stays in the range.
    assert_eq!(two.mine.add_small(100).unwrap(), Written::Queued);
    assert_eq!(two.mine.small().unwrap(), 200);
    two.theirs.add_small(90).unwrap();
    two.up();
    let changes = two.forget_the_one_letter("memory:small", "the number would leave its range");
    assert_eq!(
        changes[0][0]["do"]["add"]["amount"]["integer"]["by"],
        json!(100),
        "{changes}"
    );
    assert_eq!(
        (two.mine.small().unwrap(), two.theirs.small().unwrap()),
        (190, 190)
    );
    two.down();
    assert_eq!(two.mine.sub_small(150).unwrap(), Written::Queued);
    two.theirs.sub_small(100).unwrap();
    two.up();
    two.forget_the_one_letter("memory:small", "the number would leave its range");
    assert_eq!(
        (two.mine.small().unwrap(), two.theirs.small().unwrap()),
        (90, 90)
    );
    let float = Key::<f64>::new("float");
    two.mine.memory().set(&float, f64::MAX).unwrap();
    assert_eq!(
        two.mine.memory().add(&float, f64::MAX).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(
        two.mine.memory().get(&float).unwrap().unwrap().to_bits(),
        f64::MAX.to_bits()
    );
}

#[test]
fn the_changes_of_one_call_become_one_dead_letter() {
    let two = Two::new();
    two.down();
    let birthday =
        |users: &mut BTreeMap<String, User>| users.values_mut().for_each(|user| user.age += 1);
    two.mine.update_users(birthday).unwrap();
    two.theirs.users().remove("bob").unwrap();
    two.up();
    let changes = two.forget_the_one_letter("memory:users", "does not apply to what is there");
    assert_eq!(
        (
            changes.as_array().unwrap().len(),
            changes[0].as_array().unwrap().len()
        ),
        (1, 2),
        "{changes}"
    );
    assert_eq!(
        two.theirs.users().at("ada").get().unwrap(),
        user("ada"),
        "it is not made for one user alone"
    );
}

#[test]
fn calls_that_apply_are_made_although_others_become_dead_letters() {
    let two = Two::new();
    two.down();
    two.mine.any().at("list").push(1).unwrap();
    two.mine.any().at("object").insert("x", 1).unwrap();
    two.mine.any().insert("new", true).unwrap();
    two.theirs.any().at("object").set(json!(5)).unwrap();
    two.up();
    let changes = two.forget_the_one_letter("memory:any", "where an object was expected");
    assert_eq!(changes.as_array().unwrap().len(), 1, "{changes}");
    assert_eq!(
        two.theirs.any().get().unwrap(),
        json!({"list": [1], "object": 5, "new": true})
    );
    assert_eq!(
        two.mine.any().get().unwrap(),
        json!({"list": [1], "object": 5, "new": true})
    );
}

#[test]
fn a_queued_change_that_the_server_refuses_for_good_is_a_dead_letter() {
    let two = Two::new();
    two.down();
    two.mine.list().push(2).unwrap();
    two.mine.add_small(1).unwrap();
    two.line.server.cli(&[
        "ACL",
        "SETUSER",
        "default",
        "resetkeys",
        "~memory:small",
        "~synced-memory/{memory:small}",
    ]);
    two.up();
    let letters = forget_dead_letters(two.mine.memory());
    assert_eq!(
        (
            letters.len(),
            letters[0].key.as_str(),
            letters[0].reason.kind()
        ),
        (1, "memory:list", ErrorKind::Rejected)
    );
    assert_eq!(
        letters[0].changes()[0][0]["do"]["append"]["items"],
        json!([2]),
        "{letters:?}"
    );
    assert_eq!(
        two.theirs.small().unwrap(),
        101,
        "the other write is delivered"
    );
    two.line
        .server
        .cli(&["ACL", "SETUSER", "default", "allkeys"]);
    assert_eq!(two.mine.list().to_vec().unwrap(), [1]);
}

#[test]
fn superseded_queued_writes_are_counted_and_are_no_dead_letters() {
    let two = Two::new();
    two.down();
    two.mine.set_small(1).unwrap();
    two.mine
        .users()
        .at("ada")
        .fields()
        .set_name("mine".to_owned())
        .unwrap();
    two.mine.team().at(0).fields().set_age(1).unwrap();
    // The other writes have to be later than these by more than two clocks may differ.
    let queued = two.mine.team().last_modified().unwrap();
    eventually(DEADLINE, "the clock has moved on", || {
        two.theirs.set_small(2).unwrap();
        two.theirs.synced_small().last_modified().unwrap() > queued
    });
    two.theirs
        .users()
        .at("ada")
        .fields()
        .set_name("theirs".to_owned())
        .unwrap();
    two.theirs.team().at(0).fields().set_age(2).unwrap();
    two.up();
    let status = two.mine.memory().status();
    assert_eq!(
        (status.superseded, status.dead_letters),
        (3, 0),
        "{status:?}"
    );
    assert_eq!(two.mine.small().unwrap(), 2);
    assert_eq!(two.mine.users().at("ada").get().unwrap().name, "theirs");
    assert_eq!(two.mine.team().at(0).get().unwrap().age, 2);
}

#[test]
fn a_write_that_waited_longer_than_the_tombstone_ttl_is_a_dead_letter_and_not_applied() {
    const TOMBSTONE_TTL: Duration = Duration::from_millis(500);
    for is_journalled in [false, true] {
        let (line, directory) = (Line::new(), TempDir::new().unwrap());
        let open = || {
            let builder = line.builder().tombstone_ttl(TOMBSTONE_TTL);
            let builder = if is_journalled {
                builder.journal(directory.path())
            } else {
                builder
            };
            builder.build().unwrap()
        };
        let (early, late) = (Key::<i64>::new("early"), Key::<i64>::new("late"));
        let (memory, direct) = (open(), line.open_directly());
        memory.set(&early, 1).unwrap();
        line.down(&memory);
        assert_eq!(memory.set(&early, 2).unwrap(), Written::Queued);
        assert_eq!(
            memory.add(&Key::<i64>::new("count"), 5).unwrap(),
            Written::Queued
        );
        let began = Instant::now();
        direct.delete(&early).unwrap();
        eventually(DEADLINE, "the write has waited for too long", || {
            began.elapsed() > TOMBSTONE_TTL
        });
        // A delete of this key would still have its tombstone.
        assert_eq!(memory.set(&late, 3).unwrap(), Written::Queued);
        let memory = if is_journalled {
            memory.close(Duration::ZERO).unwrap_err();
            drop(memory);
            line.up();
            open()
        } else {
            line.up();
            memory
        };
        memory.flush(DEADLINE).unwrap();
        assert_eq!(
            (memory.get(&early).unwrap(), memory.get(&late).unwrap()),
            (None, Some(3))
        );
        let mut letters = forget_dead_letters(&memory);
        letters.sort_by(|one, other| one.key.cmp(&other.key));
        let reasons: Vec<_> = letters
            .iter()
            .map(|letter| (letter.key.as_str(), letter.reason.kind()))
            .collect();
        assert_eq!(
            reasons,
            [
                ("memory:count", ErrorKind::Conflict),
                ("memory:early", ErrorKind::Conflict)
            ]
        );
        assert_eq!(
            (letters[0].changes().len(), letters[1].value()),
            (1, Some(json!(2)))
        );
        assert!(
            letters[1].reason.to_string().contains("waited longer"),
            "{}",
            letters[1].reason
        );
    }
}
