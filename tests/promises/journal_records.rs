//! Rules 2 and 6: whatever numbers the records of a journal hold, opening it neither panics nor
//! leaves a write that is never settled, and nothing is made twice. Their checksums are right: the
//! numbers were wrong when they were written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use synced_memory::{ErrorKind, Key, Memory, SyncedMemory};
use tempfile::TempDir;

use crate::frames::{framed, records};
use crate::line::{DEADLINE, Line};

#[derive(SyncedMemory)]
struct State {
    #[synced(default)]
    list: Vec<String>,
    #[synced(default)]
    map: BTreeMap<String, Vec<i64>>,
    #[synced(default)]
    count: i64,
    #[synced(default)]
    ratio: f64,
    #[synced(ttl = "1h")]
    lease: String,
    #[synced(default)]
    gone: String,
    #[synced(default)]
    dead: Vec<i64>,
}

const EXTREMES: [&str; 11] = [
    "0",
    "1",
    "1023",
    "1024",
    "4611686018427387905",
    "9223372036854775808",
    "18446744073709550592",
    "18446744073709551615",
    "340282366920938463463374607431768211455",
    "-1",
    "1e400",
];

fn open(line: &Line, directory: &Path) -> SyncedState {
    State::attach(&line.builder().journal(directory).build().unwrap())
}

fn only_file(directory: &Path) -> Vec<u8> {
    let mut entries = fs::read_dir(directory).unwrap();
    fs::read(entries.next().unwrap().unwrap().path()).unwrap()
}

/// The records of a journal with something of everything: a dead letter, entries of a memory that
/// was adopted, writes that were queued since, and what became of two of them.
fn records_of_every_kind() -> Vec<String> {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let state = open(&line, directory.path());
    for item in ["a", "b", "c"] {
        state.list().push(item.to_owned()).unwrap();
    }
    state.dead().push(1).unwrap();
    line.down(state.memory());
    state.dead().push(2).unwrap();
    let direct = line.open_directly();
    direct.set(&Key::new("dead"), "no list".to_owned()).unwrap();
    line.deliver(state.memory());
    assert_eq!(state.memory().status().dead_letters, 1);

    line.down(state.memory());
    state.list().at(1).set("x".to_owned()).unwrap();
    state.list().insert(1, "y".to_owned()).unwrap();
    state.list().remove_item(&"c".to_owned()).unwrap();
    state.map().at("k").push(1).unwrap();
    state.add_count(2).unwrap();
    state.set_lease("me".to_owned()).unwrap();
    state.synced_gone().delete().unwrap();
    let _ = state.memory().close(Duration::ZERO);
    drop(state);

    let state = open(&line, directory.path());
    state.list().push("d".to_owned()).unwrap();
    state.map().insert("other".to_owned(), vec![2]).unwrap();
    state.add_count(3).unwrap();
    state.add_ratio(0.5).unwrap();
    state.set_lease("you".to_owned()).unwrap();
    let mut records = records(&only_file(directory.path()));
    let name = |record: &String| {
        let (_, rest) = record.split_once(r#"{"stands":{"name":"#)?;
        Some(rest.split_once(']')?.0.to_owned() + "]")
    };
    let names: Vec<_> = records.iter().filter_map(name).collect();
    records.push(format!(r#"{{"sent":{}}}"#, names[0]));
    records.push(format!(r#"{{"done":{}}}"#, names[1]));
    let kinds = ["stands", "wrote", "sent", "done", "aside"];
    for kind in kinds {
        let is_there = |record: &String| record.starts_with(&format!("{{\"{kind}\""));
        assert!(records.iter().any(is_there), "{kind}: {records:#?}");
    }
    records
}

/// Where the numbers of a text begin and end.
fn numbers(text: &str) -> Vec<(usize, usize)> {
    let mut numbers: Vec<(usize, usize)> = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match numbers.last_mut() {
            _ if !byte.is_ascii_digit() => {}
            Some((_, end)) if *end == at => *end += 1,
            _ => numbers.push((at, at + 1)),
        }
    }
    numbers
}

/// Opens a journal with these records, and delivers what is in it.
fn deliver(number: usize, records: &[&str], what: &str) -> usize {
    let directory = TempDir::new().unwrap();
    let name = format!("memory:journal-records-{number}");
    let header = format!(r#"{{"synced_memory_journal":2,"target":"{name} memory:"}}"#);
    let frames = std::iter::once(&*header).chain(records.iter().copied());
    let journal: Vec<u8> = frames.flat_map(framed).collect();
    fs::write(directory.path().join("0123456789abcdef.journal"), journal).unwrap();

    let memory = Memory::builder().url(name).journal(directory.path());
    let memory = memory
        .build()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let flushed = memory.flush(DEADLINE);
    assert!(flushed.is_ok(), "{what}: {flushed:?}");
    let status = memory.status();
    assert_eq!(status.pending, 0, "{what}: {status:?}");
    let mut list = memory
        .get(&Key::<Vec<String>>::new("list"))
        .unwrap()
        .unwrap_or_default();
    list.sort_unstable();
    let length = list.len();
    list.dedup();
    assert_eq!(list.len(), length, "{what}: {list:?}");

    for letter in memory.dead_letters() {
        match letter.retry_anyway() {
            Ok(_) => {}
            Err(error) => assert_ne!(error.kind(), ErrorKind::Closed, "{what}: {error}"),
        }
        let _ = letter.forget();
    }
    memory
        .close(DEADLINE)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let left = fs::read_dir(directory.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), status.journal_damage.len(), "{what}: {left:?}");
    let is_kept = |path: &std::path::PathBuf| path.extension().unwrap() == "damaged";
    assert!(left.iter().all(is_kept), "{what}: {left:?}");
    status.journal_damage.len()
}

#[test]
fn records_with_any_numbers_neither_panic_nor_stay_nor_double_anything() {
    let records = records_of_every_kind();
    let whole: Vec<&str> = records.iter().map(String::as_str).collect();
    assert_eq!(deliver(0, &whole, "as it was"), 0);
    let (mut count, mut damaged) = (0, 0);
    for (at, record) in records.iter().enumerate() {
        for (start, end) in numbers(record) {
            for extreme in EXTREMES {
                let changed = format!("{}{extreme}{}", &record[..start], &record[end..]);
                let mut changed_records = whole.clone();
                changed_records[at] = &changed;
                count += 1;
                damaged += deliver(count, &changed_records, &changed);
            }
        }
    }
    println!("{count} journals, {damaged} of them with a record that could not be read");
    assert!(count > 1_000 && damaged > 100, "{count}, {damaged}");
}

/// All of its numbers were refused before.
#[test]
fn a_write_that_has_no_number_left_becomes_a_dead_letter() {
    let record = r#"{"stands":{"name":[7,1024],"refused_retries":1023,"write":{"key":"memory:list","mutate":{"calls":[{"stamp":1700000000000000000,"operations":[{"path":[],"do":{"append":{"items":["a"]}}}]}],"origin":[[]]},"stamp":1700000000000000000,"at":AT},"latest":1700000000000000000,"replaces_nothing":false,"since":AT}}"#;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let record = record.replace("AT", &now.unwrap().as_nanos().to_string());
    assert_eq!(deliver(usize::MAX, &[&record], "used up"), 0);
}
