//! Rules 2 and 11: a record that a kill has torn is none, and what was changed since it was written
//! is kept and reported, for as long as the memory is open.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Logs, eventually};
use synced_memory::{ErrorKind, Key, Memory};
use tempfile::TempDir;

use crate::frames::frame_length;
use crate::line::{DEADLINE, Line, wait_connected, wait_disconnected};

fn items() -> Key<Vec<String>> {
    Key::new("items")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The journal that a process has left which had queued these items while the line was down.
fn left_behind(line: &Line, items_pushed: &[&str]) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let memory = line.builder().journal(directory.path()).build().unwrap();
    line.down(&memory);
    for item in items_pushed {
        memory.synced(&items()).push((*item).to_owned()).unwrap();
    }
    let journal = fs::read(&files(directory.path())[0]).unwrap();
    let _ = memory.close(Duration::ZERO);
    journal
}

/// A memory that finds this journal. Nobody is there: what it shows is what it has adopted.
fn adopting(line: &Line, directory: &Path, journal: &[u8]) -> Memory {
    fs::write(directory.join("0123456789abcdef.journal"), journal).unwrap();
    line.builder()
        .timeout(Duration::from_millis(1))
        .journal(directory)
        .build()
        .unwrap()
}

fn shown(memory: &Memory) -> Vec<String> {
    memory.synced(&items()).to_vec().unwrap_or_default()
}

#[test]
fn a_record_that_a_kill_has_torn_is_cut_off_without_a_word_or_a_copy() {
    let line = Line::new();
    let whole = left_behind(&line, &["a", "b", "c \u{fc} \"{}\""]);
    let mut starts = vec![frame_length(&whole)];
    while starts[starts.len() - 1] < whole.len() {
        let start = starts[starts.len() - 1];
        starts.push(start + frame_length(&whole[start..]));
    }
    let last = starts[starts.len() - 2];
    let logs = Logs::capture();
    // Also within the first record, before anything was queued.
    for end in (0..starts[0]).chain(last..whole.len()) {
        let directory = TempDir::new().unwrap();
        let memory = adopting(&line, directory.path(), &whole[..end]);
        let status = memory.status();
        assert!(
            status.journal_damage.is_empty(),
            "after {end} bytes: {status:?}"
        );
        let expected: &[&str] = if end < last { &[] } else { &["a", "b"] };
        assert_eq!(shown(&memory), expected, "after {end} bytes");
        let _ = memory.close(Duration::ZERO);
        let left = files(directory.path());
        assert_eq!(left.len(), usize::from(end >= last), "{end}: {left:?}");
        let path = directory.path().display().to_string();
        let told = logs.containing(&path);
        assert!(told.is_empty(), "after {end} bytes: {told:?}");
    }
}

#[test]
fn whatever_byte_of_a_record_was_changed_it_is_reported_and_the_file_is_kept() {
    let line = Line::new();
    let whole = left_behind(&line, &["a", "b"]);
    for changed in frame_length(&whole)..whole.len() {
        let mut journal = whole.clone();
        journal[changed] ^= 4;
        let directory = TempDir::new().unwrap();
        let memory = adopting(&line, directory.path(), &journal);
        let damage = memory.status().journal_damage;
        assert_eq!(damage.len(), 1, "byte {changed}");
        assert_eq!(damage[0].kind(), ErrorKind::Journal, "{}", damage[0]);
        let kept = directory.path().join("0123456789abcdef.damaged");
        assert!(damage[0].to_string().contains(kept.to_str().unwrap()));
        assert_eq!(fs::read(kept).unwrap(), journal, "byte {changed}");
        assert!(shown(&memory).len() < 2, "byte {changed}");
        let _ = memory.close(Duration::ZERO);
    }
}

/// Nobody knows whose it is then: it may belong to another program.
#[test]
fn a_journal_whose_first_record_was_changed_is_reported_and_stays_as_it_is() {
    let line = Line::new();
    let whole = left_behind(&line, &["a", "b"]);
    let changed = (0..frame_length(&whole)).map(|changed| {
        let mut journal = whole.clone();
        journal[changed] ^= 4;
        journal
    });
    let foreign = [
        b"hello world, this is somebody else's".to_vec(),
        vec![0; 5_000],
        b"{}".to_vec(),
    ];
    for journal in changed.chain(foreign) {
        let directory = TempDir::new().unwrap();
        let memory = adopting(&line, directory.path(), &journal);
        let damage = memory.status().journal_damage;
        assert_eq!(damage.len(), 1, "{damage:?}");
        let path = directory.path().join("0123456789abcdef.journal");
        assert!(damage[0].to_string().contains(path.to_str().unwrap()));
        assert_eq!(fs::read(path).unwrap(), journal);
        assert!(shown(&memory).is_empty());
        let _ = memory.close(Duration::ZERO);
    }
}

#[test]
fn the_journal_of_another_target_or_of_a_later_version_is_no_damage() {
    let line = Line::new();
    for header in [
        r#"{"synced_memory_journal":2,"target":"elsewhere"}"#,
        r#"{"synced_memory_journal":99,"target":"elsewhere","more":1}"#,
    ] {
        let directory = TempDir::new().unwrap();
        let journal = crate::frames::framed(header);
        let memory = adopting(&line, directory.path(), &journal);
        assert!(memory.status().journal_damage.is_empty());
        drop(memory);
        assert_eq!(files(directory.path()).len(), 1);
    }
}

#[test]
fn damage_stays_to_be_seen_whatever_goes_wrong_later() {
    let line = Line::new();
    let mut journals = [left_behind(&line, &["a"]), left_behind(&line, &["b"])];
    let directory = TempDir::new().unwrap();
    for (number, journal) in journals.iter_mut().enumerate() {
        *journal.last_mut().unwrap() ^= 1;
        fs::write(directory.path().join(format!("{number}.journal")), journal).unwrap();
    }
    let memory = line.builder().journal(directory.path()).build().unwrap();
    wait_disconnected(&memory);
    line.up();
    wait_connected(&memory);
    line.down(&memory);
    memory.synced(&items()).push("c".to_owned()).unwrap();
    eventually(DEADLINE, "something else went wrong", || {
        let last = memory.status().last_error;
        last.is_some_and(|error| error.kind() != ErrorKind::Journal)
    });
    let damage = memory.status().journal_damage;
    assert_eq!(damage.len(), 2, "each file has its own: {damage:?}");
    for (number, damage) in damage.iter().enumerate() {
        assert!(damage.to_string().contains(&format!("{number}.journal")));
    }
}

/// Of a process that was killed between the two, the first copy is still there.
#[test]
fn an_earlier_damaged_file_is_not_overwritten() {
    let line = Line::new();
    let mut journal = left_behind(&line, &["a"]);
    *journal.last_mut().unwrap() ^= 1;
    let directory = TempDir::new().unwrap();
    let first = directory.path().join("0123456789abcdef.damaged");
    fs::write(&first, "the first").unwrap();
    let memory = adopting(&line, directory.path(), &journal);
    let damage = memory.status().journal_damage[0].to_string();
    let _ = memory.close(Duration::ZERO);
    assert_eq!(fs::read(&first).unwrap(), b"the first");
    let kept = files(directory.path());
    let kept = kept.iter().find(|path| fs::read(path).unwrap() == journal);
    let kept = kept.expect("it is kept").to_str().unwrap();
    assert!(damage.contains(kept), "{damage}");
}

/// A process that adopts journals ends before it has removed them.
#[test]
fn a_dead_letter_that_is_in_two_journals_is_there_once() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = line.builder().journal(directory.path()).build().unwrap();
    line.down(&memory);
    memory.synced(&items()).push("a".to_owned()).unwrap();
    // It is no list any more.
    line.open_directly().set(&Key::new("items"), 5).unwrap();
    line.deliver(&memory);
    assert_eq!(memory.status().dead_letters, 1);
    let journal = fs::read(&files(directory.path())[0]).unwrap();
    fs::write(directory.path().join("copy.journal"), journal).unwrap();
    memory.close(DEADLINE).unwrap();
    drop(memory);
    let memory = line.builder().journal(directory.path()).build().unwrap();
    assert_eq!(memory.status().dead_letters, 1);
}
