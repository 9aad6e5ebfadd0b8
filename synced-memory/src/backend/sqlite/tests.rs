//! Values in chunks, and files of the first version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::changes::{self, LoggedChange};
use super::chunks::{self, LARGE};
use super::file::{self, CHUNKS, Layout};
use crate::backend::commit::ValueId;
use crate::backend::test_servers::Directory;
use crate::base::policy::Durability;
use crate::value::document::{ByteEdit, Document, Guard, GuardedEdit};

const KEY: &str = "k";

fn tables() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    for tables in [include_str!("schema.sql"), CHUNKS] {
        connection.execute_batch(tables).unwrap();
    }
    connection
}

/// Replaces letters of a text, which are named by their bytes, with what is there before.
fn guarded(text: &str, start: usize, end: usize, new: &str) -> GuardedEdit {
    let beside = [8.min(start), 8.min(text.len() - end)];
    let found = start - beside[0]..end + beside[1];
    GuardedEdit {
        edit: ByteEdit {
            start,
            old_len: end - start,
            new: Bytes::copy_from_slice(new.as_bytes()),
        },
        guard: Guard {
            found: Bytes::copy_from_slice(&text.as_bytes()[found]),
            beside,
        },
    }
}

fn edit(connection: &Connection, text: &str, edits: &[GuardedEdit]) -> Option<String> {
    let found = chunks::edits_of(connection, KEY, text.len(), edits).unwrap()?;
    let mut edited = text.to_owned();
    for GuardedEdit { edit, .. } in edits.iter().rev() {
        let new = std::str::from_utf8(&edit.new).unwrap();
        edited.replace_range(edit.start..edit.start + edit.old_len, new);
    }
    assert_eq!(found.length, edited.len());
    found.store(connection, KEY).unwrap();
    check(connection, &edited);
    Some(edited)
}

/// The chunks are those of this text, and neither too many nor too long.
fn check(connection: &Connection, text: &str) {
    let stored = chunks::read(connection, KEY).unwrap();
    assert!(stored == text, "{} bytes", stored.len());
    let rows = "SELECT bytes, length(CAST(text AS BLOB)) FROM chunks ORDER BY position";
    let mut statement = connection.prepare(rows).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let rows = statement.query_map([], row).unwrap();
    let lengths: Vec<(u32, u32)> = rows.map(Result::unwrap).collect();
    assert!(lengths.iter().all(|(said, real)| said == real && *real > 0));
    assert!(lengths.iter().all(|(length, _)| *length <= 12 << 10));
    assert!(lengths.len() <= text.len() / (1 << 10) + 2, "{lengths:?}");
}

fn boundary(text: &str, at: usize) -> usize {
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap()
}

#[test]
fn any_edits_make_of_chunks_what_they_make_of_the_text() {
    for seed in 0..20 {
        let (connection, mut random) = (tables(), fastrand::Rng::with_seed(seed));
        let mut text = "aé€".repeat(random.usize(1..30_000));
        chunks::write(&connection, KEY, &text).unwrap();
        check(&connection, &text);
        for _ in 0..40 {
            let mut edits = Vec::new();
            let mut from = 0;
            for _ in 0..random.usize(1..5) {
                let start = match random.u8(0..4) {
                    0 => from,
                    1 => text.len(),
                    _ => random.usize(from..=text.len()),
                };
                let start = boundary(&text, start).max(from);
                let most = [10, 3_000, 30_000][random.usize(0..3)];
                let end = boundary(&text, text.len().min(start + random.usize(0..most)));
                let end = end.max(start);
                let new = "yß".repeat(random.usize(0..most / 3));
                edits.push(guarded(&text, start, end, &new));
                from = end;
            }
            text = edit(&connection, &text, &edits).expect("nobody else has changed it");
        }
    }
}

/// The gaps between positions are used up.
#[test]
fn more_and_more_is_inserted_at_one_place() {
    for place in [0, 1, 50_000, 99_999] {
        let connection = tables();
        let mut text = "x".repeat(100_000);
        chunks::write(&connection, KEY, &text).unwrap();
        for number in 0..200_usize {
            let new = char::from(b'a' + u8::try_from(number % 26).unwrap());
            let edit_at = guarded(&text, place, place, &new.to_string().repeat(9_000));
            text = edit(&connection, &text, &[edit_at]).unwrap();
        }
    }
}

#[test]
fn chunks_that_were_changed_by_hand_are_left_as_they_are() {
    let text = "0123456789".repeat(10_000);
    for by_hand in [
        "UPDATE chunks SET text = replace(text, '5', '6')",
        "UPDATE chunks SET text = text || 'x', bytes = bytes + 1 WHERE position = 0",
        "UPDATE chunks SET text = text || 'x'",
        "UPDATE chunks SET bytes = bytes + 1",
        "DELETE FROM chunks WHERE position = 0",
        "DELETE FROM chunks WHERE position > 0",
        "DELETE FROM chunks",
        "UPDATE chunks SET text = CAST(x'FF' || text AS BLOB), bytes = bytes + 1",
    ] {
        let connection = tables();
        chunks::write(&connection, KEY, &text).unwrap();
        connection.execute_batch(by_hand).unwrap();
        let there = chunks::read(&connection, KEY).unwrap();
        for at in [5, text.len() / 2 + 5, text.len() - 5] {
            let edits = [guarded(&text, at, at + 1, "new")];
            let found = chunks::edits_of(&connection, KEY, text.len(), &edits).unwrap();
            // The last ones may be as they were, whatever is before them.
            if let Some(found) = found {
                assert!(
                    at > 5 && there.ends_with(&text.as_bytes()[at - 8..]),
                    "{by_hand}"
                );
                assert_eq!(found.length, text.len() + 2);
            }
        }
        assert_eq!(chunks::read(&connection, KEY).unwrap(), there);
    }
}

/// The log of 100 changes of a value, each of which adds some bytes at its end.
fn logged(connection: &Connection, length: usize, added: usize) -> Vec<Document> {
    let text = |number: usize| {
        let letters = "x".repeat(length + number * added);
        format!(
            "{{\"value\": \"{letters}\",\"last_modified\": {}}}",
            1_000 + number
        )
    };
    let mut documents = vec![Document::of(text(0).into())];
    for number in 1..=100 {
        let (before, after) = (text(number - 1), text(number));
        let end = before.len() - "\",\"last_modified\": 1000}".len();
        let edit = guarded(&before, end, before.len(), &after[end..]);
        let [before, after] = [before, after].map(|text| Document::of(text.into()));
        let ids = [&before, &after].map(ValueId::of);
        let change = LoggedChange::new(ids[0], ids[1], &[&edit.edit]);
        change.store(connection, KEY).unwrap();
        documents.push(after);
    }
    documents
}

#[test]
fn the_log_has_the_last_changes_and_little_of_a_value() {
    for (length, added, entries) in [(20_000, 10, 56), (1_000, 200, 20), (1_000, 2_000, 0)] {
        let connection = tables();
        let documents = logged(&connection, length, added);
        let last = documents.last().unwrap();
        let since =
            |known: &Document| changes::since(&connection, KEY, ValueId::of(last), known).unwrap();
        for (behind, known) in documents.iter().rev().enumerate() {
            match since(known) {
                Some(found) => assert_eq!(&found, last),
                None => assert!(behind > entries, "{added}: {behind}"),
            }
        }
        let query = "SELECT count(*), total(bytes) FROM changes";
        let (count, bytes): (usize, f64) = connection
            .query_row(query, [], |row| {
                Ok((row.get::<_, u32>(0)? as usize, row.get(1)?))
            })
            .unwrap();
        assert!((entries..=64).contains(&count), "{added}: {count}");
        #[allow(clippy::cast_precision_loss)]
        let most = last.len() as f64 / 4.0;
        assert!(bytes <= most, "{added}: {bytes}");
        // Of what others have stored it says nothing.
        let other = Document::of(r#"{"value": 1,"last_modified": 1099}"#.into());
        assert_eq!(since(&other), None);
        let id = ValueId::of(&other);
        let found = changes::since(&connection, KEY, id, &documents[99]).unwrap();
        assert_eq!(found, None);
    }
}

struct OldFile {
    path: PathBuf,
    _directory: Directory,
}

impl OldFile {
    /// As the first version has made it, with a value that is large.
    fn new() -> Self {
        let directory = Directory::new();
        let path = directory.0.join("state.db");
        let connection = Connection::open(&path).unwrap();
        let begin = "PRAGMA journal_mode = WAL; PRAGMA application_id = 0x53794d65; \
                     PRAGMA user_version = 1;";
        connection.execute_batch(begin).unwrap();
        connection
            .execute_batch(include_str!("schema.sql"))
            .unwrap();
        let insert = "INSERT INTO keys (key, envelope) VALUES (?1, ?2)";
        connection.execute(insert, params![KEY, large()]).unwrap();
        Self {
            path,
            _directory: directory,
        }
    }

    fn layout(&self) -> Layout {
        open(&self.path).layout
    }
}

fn open(path: &Path) -> file::Opened {
    file::open(path, Durability::Process, Duration::from_secs(5)).unwrap()
}

fn large() -> String {
    let value = "x".repeat(2 * LARGE);
    format!("{{\"value\": \"{value}\",\"last_modified\": 5}}")
}

fn envelope_of(connection: &Connection, table: &str) -> String {
    let query = format!("SELECT envelope FROM {table} WHERE key = ?1");
    connection
        .query_row(&query, [KEY], |row| row.get(0))
        .unwrap()
}

#[test]
fn a_file_of_the_first_version_is_taken_over_once_nobody_else_has_it_open() {
    let old = OldFile::new();
    let other = Connection::open(&old.path).unwrap();
    assert_eq!(envelope_of(&other, "keys"), large());
    assert_eq!(old.layout(), Layout::Whole);
    let first = open(&old.path);
    drop(other);
    // Now this one has it open.
    assert_eq!((first.layout, old.layout()), (Layout::Whole, Layout::Whole));
    let version = |connection: &Connection| -> i32 {
        connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap()
    };
    assert_eq!(version(&first.connection), 1);
    drop(first);

    let taken = open(&old.path);
    assert_eq!(
        (taken.layout, old.layout()),
        (Layout::Chunked, Layout::Chunked)
    );
    assert_eq!(version(&taken.connection), 2);
    assert_eq!(envelope_of(&taken.connection, "envelopes"), large());
}

/// A process of it that was killed has left its log.
#[test]
fn a_file_that_lacks_a_column_and_was_not_closed_is_taken_over_too() {
    let old = OldFile::new();
    let copy = Directory::new();
    let path = copy.0.join("state.db");
    let killed = Connection::open(&old.path).unwrap();
    killed
        .execute_batch(
            "ALTER TABLE keys DROP COLUMN record_expires; UPDATE keys SET envelope = '7'",
        )
        .unwrap();
    for end in ["", "-wal"] {
        let name = format!("state.db{end}");
        std::fs::copy(old.path.with_file_name(&name), path.with_file_name(&name)).unwrap();
    }
    let taken = open(&path);
    assert_eq!(taken.layout, Layout::Chunked);
    assert_eq!(envelope_of(&taken.connection, "envelopes"), "7");
    // The one that is still open is as it was.
    assert_eq!(old.layout(), Layout::Whole);
}
