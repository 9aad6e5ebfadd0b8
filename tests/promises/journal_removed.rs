//! Rules 2 and 11: a journal that somebody removes while it is in use is noticed, and what is
//! queued is on disk again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::eventually;
use synced_memory::{ErrorKind, Key, Memory};
use tempfile::TempDir;

use crate::line::{DEADLINE, Line};

fn items() -> Key<Vec<String>> {
    Key::new("items")
}

fn push(memory: &Memory, item: &str) -> synced_memory::Result<synced_memory::Written> {
    memory.synced(&items()).push(item.to_owned())
}

/// A memory that is cut off and has queued an item.
fn cut_off(line: &Line, directory: &Path) -> Memory {
    let memory = line.builder().journal(directory).build().unwrap();
    line.down(&memory);
    push(&memory, "a").unwrap();
    memory
}

fn journals(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "journal"))
        .collect()
}

/// What the next memory delivers.
fn delivered(line: &Line, directory: &Path) -> Vec<String> {
    line.up();
    let next = line.builder().journal(directory).build().unwrap();
    next.flush(DEADLINE).unwrap();
    let items = line.open_directly().get(&items()).unwrap();
    next.close(DEADLINE).unwrap();
    assert_eq!(journals(directory), [""; 0].map(PathBuf::from));
    items.unwrap_or_default()
}

#[test]
fn a_write_after_the_removal_begins_a_new_journal_with_all_that_is_queued() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = cut_off(&line, directory.path());
    memory.set(&Key::new("theme"), "dark".to_owned()).unwrap();
    for path in journals(directory.path()) {
        fs::remove_file(path).unwrap();
    }
    push(&memory, "b").unwrap();
    // From here on the process may be killed.
    assert_eq!(journals(directory.path()).len(), 1);
    let _ = memory.close(Duration::ZERO);
    drop(memory);
    assert_eq!(delivered(&line, directory.path()), ["a", "b"]);
    let theme = line.open_directly().get(&Key::<String>::new("theme"));
    assert_eq!(theme.unwrap().unwrap(), "dark");
}

#[test]
fn the_directory_is_made_again() {
    let (line, parent) = (Line::new(), TempDir::new().unwrap());
    let directory = parent.path().join("some/where");
    let memory = cut_off(&line, &directory);
    fs::remove_dir_all(parent.path().join("some")).unwrap();
    push(&memory, "b").unwrap();
    let _ = memory.close(Duration::ZERO);
    drop(memory);
    assert_eq!(delivered(&line, &directory), ["a", "b"]);
}

#[test]
fn the_removal_is_noticed_while_nobody_writes() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = cut_off(&line, directory.path());
    fs::remove_file(&journals(directory.path())[0]).unwrap();
    eventually(DEADLINE, "a new one is begun", || {
        journals(directory.path()).len() == 1
    });
    let _ = memory.close(Duration::ZERO);
    drop(memory);
    assert_eq!(delivered(&line, directory.path()), ["a"]);
}

#[test]
fn what_close_says_to_be_kept_is_kept() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = cut_off(&line, directory.path());
    fs::remove_file(&journals(directory.path())[0]).unwrap();
    let error = memory.close(Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("kept in the journal"), "{error}");
    drop(memory);
    assert_eq!(delivered(&line, directory.path()), ["a"]);
}

#[test]
fn where_none_can_be_begun_a_write_is_an_error_and_close_does_not_say_that_it_is_kept() {
    let (line, parent) = (Line::new(), TempDir::new().unwrap());
    let directory = parent.path().join("journal");
    let memory = cut_off(&line, &directory);
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "a file").unwrap();
    let error = push(&memory, "b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Journal, "{error}");
    assert_eq!(memory.synced(&items()).to_vec().unwrap(), ["a"]);
    let error = memory.flush(Duration::ZERO).unwrap_err();
    assert!(!error.to_string().contains("kept"), "{error}");

    // Once it can, it is.
    fs::remove_file(&directory).unwrap();
    push(&memory, "c").unwrap();
    let _ = memory.close(Duration::ZERO);
    drop(memory);
    assert_eq!(delivered(&line, &directory), ["a", "c"]);
}

#[test]
fn what_was_put_in_its_place_is_left_alone() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = cut_off(&line, directory.path());
    let path = journals(directory.path()).remove(0);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody else's").unwrap();
    // Enough to have it rewritten, too.
    for n in 0..40 {
        let text = format!("{n}{}", "x".repeat(100_000));
        memory.set(&Key::new("long"), text).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
    line.up();
    memory.close(DEADLINE).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
    assert_eq!(journals(directory.path()), [path]);
}

#[test]
fn a_dead_letter_outlives_the_process_all_the_same() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = cut_off(&line, directory.path());
    // It is no list any more.
    line.open_directly().set(&Key::new("items"), 5).unwrap();
    line.deliver(&memory);
    assert_eq!(memory.status().dead_letters, 1);
    fs::remove_file(&journals(directory.path())[0]).unwrap();
    memory.close(DEADLINE).unwrap();
    drop(memory);
    let next = line.builder().journal(directory.path()).build().unwrap();
    assert_eq!(next.status().dead_letters, 1);
}
