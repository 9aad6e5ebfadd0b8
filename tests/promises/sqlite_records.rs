//! Rule 6 between processes whose `tombstone_ttl` differ: a record is kept for as long as its own
//! writer needs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{Child, eventually, eventually_some};
use synced_memory::{Key, Memory};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);

fn items() -> Key<Vec<String>> {
    Key::new("items")
}

fn open(url: &str, tombstone_ttl: Duration) -> Memory {
    let builder = Memory::builder().url(url).timeout(DEADLINE);
    builder.tombstone_ttl(tombstone_ttl).build().unwrap()
}

fn pass(time: Duration) {
    let began = Instant::now();
    eventually(DEADLINE, "the time has passed", || began.elapsed() >= time);
}

/// A process that is killed after its push was made, and before its journal says so. Returns its
/// journal, as it was.
fn push_that_the_journal_does_not_know_to_be_made(
    path: &Path,
    directory: &Path,
) -> (PathBuf, Vec<u8>) {
    let locker = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    db.execute(line)
    print('done', flush=True)
";
    let url = format!(
        "sqlite:{}?write_policy=behind&journal={}",
        path.display(),
        directory.display()
    );
    let mut writer = Child::spawn(env!("CARGO_BIN_EXE_sharer"), [url]);
    assert_eq!(writer.recv(), "opened");
    let mut locker = Child::spawn("python3", ["-c", locker, path.to_str().unwrap()]);
    locker.ask("BEGIN IMMEDIATE");
    writer.send("push 1 once");
    let journal = eventually_some(DEADLINE, "the push is in the journal", || {
        let entry = fs::read_dir(directory).unwrap().next()?.unwrap().path();
        let content = fs::read(&entry).unwrap();
        let is_there = content.windows(6).any(|window| window == b"once/0");
        is_there.then_some((entry, content))
    });
    locker.ask("ROLLBACK");
    writer.recv_within(DEADLINE).expect("it is delivered");
    writer.kill();
    fs::remove_file(&journal.0).unwrap();
    journal
}

/// `others` write to the list meanwhile, and remember for a short time only.
#[track_caller]
fn is_made_once(others: impl Fn(&dyn Fn())) {
    let (place, directory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = place.path().join("state.db");
    let url = format!("sqlite:{}", path.display());
    drop(open(&url, SHORT));
    let (journal, content) =
        push_that_the_journal_does_not_know_to_be_made(&path, directory.path());
    others(&|| {
        // Each new memory removes what has expired.
        let other = open(&url, SHORT);
        other.synced(&items()).push("other".to_owned()).unwrap();
    });

    fs::write(journal, content).unwrap();
    let next = Memory::builder().url(&url).timeout(DEADLINE);
    let next = next.journal(directory.path()).build().unwrap();
    next.flush(DEADLINE).unwrap();
    let items = next.get(&items()).unwrap().unwrap();
    let count = items.iter().filter(|item| *item == "once/0").count();
    assert_eq!(count, 1, "{items:?}");
    assert_eq!(next.status().dead_letters, 0);
}

#[test]
fn a_push_is_not_doubled_once_another_process_has_forgotten_it() {
    is_made_once(|push| {
        push();
        pass(2 * SHORT);
        push();
        push();
    });
}

#[test]
fn a_push_is_not_doubled_if_the_other_process_writes_only_later() {
    is_made_once(|push| {
        pass(2 * SHORT);
        push();
        push();
    });
}

/// An earlier version has made the tables, and has the file open.
#[test]
fn a_file_without_the_column_gets_it_and_keeps_its_version() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("state.db");
    let url = format!("sqlite:{}", path.display());
    open(&url, SHORT).set(&Key::new("n"), 1).unwrap();
    let query = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    print(db.execute(line).fetchall(), flush=True)
";
    let mut python = Child::spawn("python3", ["-c", query, path.to_str().unwrap()]);
    crate::sqlite_chunks::without_chunks(&mut python);
    python.ask("ALTER TABLE keys DROP COLUMN record_expires");
    let memory = open(&url, SHORT);
    assert_eq!(memory.get(&Key::<u64>::new("n")).unwrap(), Some(1));
    memory.set(&Key::new("n"), 2).unwrap();
    assert_eq!(
        python.ask("SELECT count(*) FROM keys WHERE record_expires > decided"),
        "[(1,)]"
    );
    assert_eq!(python.ask("PRAGMA user_version"), "[(1,)]");
}
