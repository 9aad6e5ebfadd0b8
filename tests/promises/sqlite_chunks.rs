//! Large values of `sqlite:path`, which are stored in chunks, and files of earlier versions, which
//! store them like all others.

use std::fs;
use std::time::Duration;

use support::{Child, eventually};
use synced_memory::{Key, Memory, ReadPolicy, Written};

use crate::sqlite::Database;

const DEADLINE: Duration = Duration::from_secs(30);

/// A change, given its number.
type Change<'a> = Box<dyn Fn(usize) -> synced_memory::Result<Written> + 'a>;

fn list() -> Key<Vec<String>> {
    Key::new("list")
}

fn message(number: usize) -> String {
    format!("message {number} of a list that is longer than any that is stored whole")
}

fn messages(count: usize) -> Vec<String> {
    (0..count).map(message).collect()
}

/// What another program reads of the list.
fn read_by(python: &mut Child, table: &str) -> Vec<String> {
    let rows = python.ask(format!(
        "SELECT envelope FROM {table} WHERE key = 'memory:list'"
    ));
    let [[envelope]]: [[String; 1]; 1] = serde_json::from_str(&rows).unwrap();
    let envelope: serde_json::Value = serde_json::from_str(&envelope).unwrap();
    serde_json::from_value(envelope["value"].clone()).unwrap()
}

fn chunks(python: &mut Child) -> u32 {
    let rows = python.ask("SELECT count(*) FROM chunks WHERE key = 'memory:list'");
    let [[count]]: [[u32; 1]; 1] = serde_json::from_str(&rows).unwrap();
    count
}

#[test]
fn other_programs_read_large_values_and_store_what_they_like() {
    let database = Database::new();
    let (memory, mut python) = (database.open(), database.python());
    let shared = memory.synced(&list());
    let mut expected = messages(5_000);
    shared.set(expected.clone()).unwrap();
    for number in 0..100 {
        let pushed = message(number);
        assert_eq!(shared.push(pushed.clone()).unwrap(), Written::Stored);
        shared.at(number * 7).set("é".to_owned()).unwrap();
        expected.push(pushed);
        "é".clone_into(&mut expected[number * 7]);
    }
    assert_eq!(read_by(&mut python, "envelopes"), expected);
    assert!(chunks(&mut python) > 10);
    assert_eq!(database.open().get(&list()).unwrap(), Some(expected));

    let upsert = "INSERT INTO keys (key, envelope) \
                  VALUES ('memory:list', '{\"value\": [\"theirs\"],\"last_modified\": 5}') \
                  ON CONFLICT (key) DO UPDATE SET envelope = excluded.envelope";
    python.ask(upsert);
    assert_eq!(read_by(&mut python, "envelopes"), ["theirs"]);
    shared.push("ours".to_owned()).unwrap();
    assert_eq!(shared.get().unwrap(), ["theirs", "ours"]);
    assert_eq!(read_by(&mut python, "keys"), ["theirs", "ours"]);
    assert_eq!(chunks(&mut python), 0);

    shared.set(messages(5_000)).unwrap();
    python.ask("DELETE FROM keys WHERE key = 'memory:list'");
    assert_eq!(memory.get(&list()).unwrap(), None);
    assert_eq!(chunks(&mut python), 0);
    assert_eq!(python.ask("PRAGMA integrity_check"), "[[\"ok\"]]");
}

/// Nothing is lost that was edited by hand, and changes go on.
#[test]
fn chunks_that_were_edited_by_hand_are_read_and_changed_as_they_are() {
    let database = Database::new();
    let (memory, mut python) = (database.open(), database.python());
    let shared = memory.synced(&list());
    shared.set(messages(5_000)).unwrap();
    shared.push("before".to_owned()).unwrap();
    for (by_hand, text) in [
        // As long as before, and shorter.
        (
            "SET text = replace(text, 'message 77 ', 'MESSAGE 77 ')",
            "MESSAGE 77 ",
        ),
        ("SET text = replace(text, 'MESSAGE 77 ', 'M 77 ')", "M 77 "),
        (
            "SET text = replace(text, 'M 77 ', 'message 77 '), bytes = bytes + 6 \
             WHERE text LIKE '%M 77 %'",
            "message 77 ",
        ),
    ] {
        python.ask(format!("UPDATE chunks {by_hand}"));
        // It knows no more what is there.
        let other = database.open();
        let other = other.synced(&list());
        for end in ["first", "second"] {
            assert_eq!(other.push(end.to_owned()).unwrap(), Written::Stored);
        }
        assert_eq!(other.at(78).set("new".to_owned()).unwrap(), Written::Stored);
        assert_eq!(
            other.at(77).get().unwrap(),
            message(77).replace("message 77 ", text)
        );
        let there = read_by(&mut python, "envelopes");
        assert!(there[77].starts_with(text), "{}", there[77]);
        assert_eq!(there[78], "new");
        assert_eq!(there[there.len() - 2..], ["first", "second"]);
        assert_eq!(other.get().unwrap(), there);
    }
}

/// Makes a file what an earlier version has made it.
pub(crate) fn without_chunks(python: &mut Child) {
    for line in [
        "DROP VIEW envelopes",
        "DROP TRIGGER keys_end",
        "DROP TABLE chunks",
        "DROP TABLE changes",
        "ALTER TABLE keys DROP COLUMN stamp",
        "ALTER TABLE keys DROP COLUMN length",
        "ALTER TABLE keys DROP COLUMN is_list",
        "PRAGMA user_version = 1",
    ] {
        python.ask(line);
    }
}

#[test]
fn a_file_that_an_earlier_version_has_open_stays_as_it_is_until_that_has_closed_it() {
    let database = Database::new();
    let mut expected = messages(5_000);
    drop(database.open());
    let mut earlier = database.python();
    without_chunks(&mut earlier);

    let (memory, other) = (database.open(), database.open());
    memory.set(&list(), expected.clone()).unwrap();
    for (memory, name) in [(&memory, "one"), (&other, "other"), (&memory, "one")] {
        assert_eq!(
            memory.synced(&list()).push(name.to_owned()).unwrap(),
            Written::Stored
        );
        expected.push(name.to_owned());
        assert_eq!(read_by(&mut earlier, "keys"), expected);
    }
    earlier.kill();
    // They have it open themselves.
    drop(database.open());
    let mut python = database.python();
    assert_eq!(python.ask("PRAGMA user_version"), "[[1]]");
    python.kill();
    drop((memory, other));

    let memory = database.open();
    let mut python = database.python();
    assert_eq!(python.ask("PRAGMA user_version"), "[[2]]");
    assert_eq!(memory.get(&list()).unwrap(), Some(expected.clone()));
    memory.synced(&list()).push("last".to_owned()).unwrap();
    expected.push("last".to_owned());
    assert!(chunks(&mut python) > 10);
    assert_eq!(read_by(&mut python, "envelopes"), expected);
}

#[test]
fn a_push_onto_a_large_list_adds_little_to_the_log() {
    let database = Database::new();
    let memory = database.open();
    let shared = memory.synced(&list());
    shared.set(messages(10_000)).unwrap();
    // The first one looks at what is there.
    shared.push(message(0)).unwrap();
    let mut reader = database.python();
    // While somebody reads, the log is not begun anew.
    for line in [
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "BEGIN",
        "SELECT count(*) FROM keys",
    ] {
        reader.ask(line);
    }
    let log = || {
        let log = fs::metadata(database.path().with_extension("db-wal"));
        log.map_or(0, |log| log.len())
    };
    let changes: [(&str, Change<'_>); 3] = [
        ("a push", Box::new(|n| shared.push(message(n)))),
        (
            "an element",
            Box::new(|n| shared.at(50 * n).set(message(n))),
        ),
        (
            "a longer element",
            Box::new(|n| shared.at(50 * n).set(message(n).repeat(3))),
        ),
    ];
    for (name, change) in changes {
        let before = log();
        for number in 0..100 {
            assert_eq!(change(number).unwrap(), Written::Stored);
        }
        let each = (log() - before) / 100;
        println!("{name} takes {each} bytes of the log");
        assert!(each <= 160 << 10, "{name}: {each}");
    }
}

#[test]
fn a_near_reader_in_another_process_has_what_was_changed() {
    let database = Database::new();
    let other = Memory::builder().url(database.url());
    let other = other.read_policy(ReadPolicy::Near).build().unwrap();
    let (memory, near) = (database.open(), other.synced(&list()));
    let shared = memory.synced(&list());
    let mut expected = messages(5_000);
    shared.set(expected.clone()).unwrap();
    eventually(DEADLINE, "it is there", || near.len().unwrap() == 5_000);
    for number in 0..200 {
        shared.push(message(number)).unwrap();
        shared.at(number).set("x".to_owned()).unwrap();
        expected.push(message(number));
        "x".clone_into(&mut expected[number]);
        if number % 80 < 40 {
            eventually(DEADLINE, "the push is seen", || {
                near.len().unwrap() == expected.len()
            });
        }
    }
    eventually(DEADLINE, "all of it is seen", || {
        near.get().unwrap() == expected
    });
}
