//! Rule 19: what is on disk is for its owner, and no link is followed in place of a file of ours.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::Child;
use synced_memory::{ErrorKind, Key, Memory};
use tempfile::TempDir;

use crate::line::{DEADLINE, Line};

fn text() -> Key<String> {
    Key::new("text")
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The files in a directory with their modes.
fn modes(directory: &Path) -> Vec<(String, u32)> {
    let entries = fs::read_dir(directory).unwrap();
    let mut modes: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, mode(&path))
        })
        .collect();
    modes.sort_unstable();
    modes
}

fn only_file(directory: &Path) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap();
    entries.next().unwrap().unwrap().path()
}

/// A memory that is cut off and has queued a text in the journal there.
fn cut_off(line: &Line, directory: &Path) -> Memory {
    let memory = line.builder().journal(directory).build().unwrap();
    line.down(&memory);
    memory.set(&text(), "secret".to_owned()).unwrap();
    memory
}

/// Writes so much that the journal is rewritten.
fn rewrite(memory: &Memory, journal: &Path) {
    for n in 0..40 {
        let long = format!("{n}{}", "x".repeat(100_000));
        memory.set(&text(), long).unwrap();
    }
    let length = fs::metadata(journal).unwrap().len();
    assert!(length < 3_000_000, "it was rewritten: {length} bytes");
}

fn sqlite(path: &Path) -> synced_memory::Result<Memory> {
    Memory::open(&format!("sqlite:{}", path.display()))
}

/// A directory of this mode.
fn directory_of(mode: u32) -> TempDir {
    let directory = TempDir::new().unwrap();
    set_mode(directory.path(), mode);
    directory
}

#[test]
fn a_journal_and_its_directories_are_for_their_owner() {
    let (line, parent) = (Line::new(), directory_of(0o755));
    let (outer, inner) = (parent.path().join("a"), parent.path().join("a/b"));
    let memory = cut_off(&line, &inner);
    assert_eq!((mode(&outer), mode(&inner)), (0o700, 0o700));
    let journal = only_file(&inner);
    assert_eq!(mode(&journal), 0o600);
    rewrite(&memory, &journal);
    assert_eq!(mode(&journal), 0o600, "also once it was rewritten");
    assert_eq!(mode(parent.path()), 0o755, "what was there is as it was");
}

#[test]
fn in_a_directory_that_is_open_to_its_group_alone_files_are_for_the_group_too() {
    let line = Line::new();
    for (directory_mode, expected) in [
        (0o700, 0o600),
        (0o750, 0o600),
        (0o755, 0o600),
        (0o770, 0o660),
        (0o2775, 0o660),
        (0o777, 0o600),
        (0o1777, 0o600),
    ] {
        let directory = directory_of(directory_mode);
        let memory = cut_off(&line, directory.path());
        let journal = only_file(directory.path());
        assert_eq!(mode(&journal), expected, "{directory_mode:o}");
        rewrite(&memory, &journal);
        assert_eq!(mode(&journal), expected, "{directory_mode:o}");
        line.up();

        let directory = directory_of(directory_mode);
        let memory = sqlite(&directory.path().join("state.db")).unwrap();
        memory.set(&text(), "secret".to_owned()).unwrap();
        let all = ["state.db", "state.db-shm", "state.db-wal"];
        let expected = all.map(|name| (name.to_owned(), expected));
        assert_eq!(modes(directory.path()), expected, "{directory_mode:o}");
    }
}

#[test]
fn a_file_that_was_there_keeps_its_mode() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = cut_off(&line, directory.path());
    let journal = only_file(directory.path());
    set_mode(&journal, 0o640);
    rewrite(&memory, &journal);
    assert_eq!(mode(&journal), 0o640);

    let path = directory.path().join("state.db");
    sqlite(&path).unwrap().set(&text(), "a".to_owned()).unwrap();
    set_mode(&path, 0o644);
    let memory = sqlite(&path).unwrap();
    memory.set(&text(), "b".to_owned()).unwrap();
    assert_eq!(mode(&path), 0o644);
    let log = directory.path().join("state.db-wal");
    assert_eq!(mode(&log), 0o644, "who may read the one reads both");
}

#[test]
fn a_damaged_journal_is_kept_for_its_owner() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = cut_off(&line, directory.path());
    let _ = memory.close(Duration::ZERO);
    drop(memory);
    let journal = only_file(directory.path());
    let mut content = fs::read(&journal).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&journal, content).unwrap();
    let memory = line.builder().journal(directory.path()).build().unwrap();
    assert_eq!(memory.status().journal_damage.len(), 1);
    assert_eq!(mode(&journal.with_extension("damaged")), 0o600);
}

/// A file that others have, with a link to it.
fn victim(at: &Path) -> PathBuf {
    let victim = at.parent().unwrap().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, at).unwrap();
    victim
}

#[track_caller]
fn is_untouched(victim: &Path) {
    assert_eq!(fs::read(victim).unwrap(), b"precious");
}

#[test]
fn a_link_in_place_of_what_is_written_beside_a_journal_is_not_followed() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let memory = cut_off(&line, directory.path());
    let journal = only_file(directory.path());
    let precious = victim(&journal.with_extension("new"));
    rewrite(&memory, &journal);
    is_untouched(&precious);

    let _ = memory.close(Duration::ZERO);
    drop(memory);
    let mut content = fs::read(&journal).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&journal, content).unwrap();
    let precious = victim(&journal.with_extension("damaged"));
    let memory = line.builder().journal(directory.path()).build().unwrap();
    assert_eq!(memory.status().journal_damage.len(), 1);
    is_untouched(&precious);
}

#[test]
fn a_link_in_place_of_a_journal_is_not_followed() {
    let (line, directory) = (Line::new(), TempDir::new().unwrap());
    let elsewhere = TempDir::new().unwrap();
    drop(cut_off(&line, elsewhere.path()));
    let journal = only_file(elsewhere.path());
    let content = fs::read(&journal).unwrap();
    symlink(&journal, directory.path().join("a.journal")).unwrap();
    symlink("/dev/null", directory.path().join("b.journal")).unwrap();
    fs::create_dir(directory.path().join("c.journal")).unwrap();
    line.up();
    let memory = line.builder().journal(directory.path()).build().unwrap();
    memory.flush(DEADLINE).unwrap();
    assert_eq!(memory.get(&text()).unwrap(), None);
    assert_eq!(fs::read(&journal).unwrap(), content);
}

#[test]
fn a_link_in_place_of_a_file_of_sqlite_is_not_followed() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    for precious in [victim(&path), directory.path().join("missing")] {
        let error = sqlite(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert!(!precious.exists() || fs::read(&precious).unwrap() == b"precious");
        fs::remove_file(&path).unwrap();
        symlink(directory.path().join("missing"), &path).unwrap();
    }
    assert!(!directory.path().join("missing").exists());
    fs::remove_file(&path).unwrap();

    for beside in ["state.db-wal", "state.db-shm"] {
        let precious = victim(&directory.path().join(beside));
        if let Ok(memory) = sqlite(&path) {
            let _ = memory.set(&text(), "a".to_owned());
        }
        is_untouched(&precious);
        for name in ["state.db", beside] {
            let _ = fs::remove_file(directory.path().join(name));
        }
    }
}

#[test]
fn a_directory_may_be_a_link() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("real")).unwrap();
    let link = directory.path().join("link");
    symlink(directory.path().join("real"), &link).unwrap();
    let memory = sqlite(&link.join("state.db")).unwrap();
    memory.set(&text(), "a".to_owned()).unwrap();
    let same = sqlite(&directory.path().join("real/state.db")).unwrap();
    assert_eq!(same.get(&text()).unwrap().unwrap(), "a");
}

/// Whatever the process takes away from the files that it makes.
#[test]
fn the_umask_does_not_shut_the_group_out() {
    let directory = directory_of(0o770);
    let script = "umask 077; exec \"$0\" \"$1\"";
    let url = format!("sqlite:{}", directory.path().join("state.db").display());
    let arguments = ["-c", script, env!("CARGO_BIN_EXE_sharer"), url.as_str()];
    let mut child = Child::spawn("sh", arguments);
    assert_eq!(child.recv(), "opened");
    assert_eq!(child.ask("set n 1"), "Stored");
    assert_eq!(mode(&directory.path().join("state.db")), 0o660);
}
