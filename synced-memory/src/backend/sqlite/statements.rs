//! The SQL statements.

use rusqlite::{Connection, Error, Params};

use super::file::Layout;

/// What is stored under a key.
pub(super) fn read(layout: Layout) -> &'static str {
    match layout {
        Layout::Whole => "SELECT envelope, expires, NULL, NULL FROM keys WHERE key = ?1",
        Layout::Chunked => "SELECT envelope, expires, stamp, length FROM keys WHERE key = ?1",
    }
}

macro_rules! context {
    ($($of_chunks:literal),*) => {
        concat!(
            "SELECT k.rowid, k.envelope, k.expires, s.tombstone, s.horizon, \
                k.writer, k.sequence, k.decided, l.expires, \
                r.sequence, r.refused, r.expires, k.waiting, k.waited, k.record_expires",
            $(", ", $of_chunks,)*
            " FROM (SELECT 1) \
            LEFT JOIN keys k ON k.key = ?1 \
            LEFT JOIN sidecars s ON s.key = ?1 \
            LEFT JOIN records l ON l.key = ?1 AND l.writer = k.writer \
            LEFT JOIN records r ON r.key = ?1 AND r.writer = ?2"
        )
    };
}

/// All that a commit by one writer has to know.
pub(super) fn context(layout: Layout) -> &'static str {
    match layout {
        Layout::Whole => context!("NULL", "NULL", "NULL"),
        Layout::Chunked => context!("k.stamp", "k.length", "k.is_list"),
    }
}

/// Says that a value is in chunks, and which value.
pub(super) const SET_CHUNKED: &str = "\
    UPDATE keys SET stamp = ?2, length = ?3, is_list = ?4 WHERE key = ?1";

/// The same, with the record of the writer.
pub(super) const UPDATE_CHUNKED: &str = "\
    UPDATE keys SET stamp = ?2, length = ?3, is_list = ?4, \
        writer = ?5, sequence = ?6, decided = ?7, record_expires = ?8 \
    WHERE rowid = ?1";

/// Says that it is not.
pub(super) const SET_WHOLE: &str = "\
    UPDATE keys SET stamp = NULL, length = NULL, is_list = NULL WHERE key = ?1";

pub(super) const SET_ENVELOPE: &str = "\
    UPDATE keys SET envelope = ?2, stamp = NULL, length = NULL, is_list = NULL WHERE key = ?1";

pub(super) const CHUNKS: &str = "SELECT text FROM chunks WHERE key = ?1 ORDER BY position";

pub(super) const CHUNK: &str = "SELECT text FROM chunks WHERE key = ?1 AND position = ?2";

pub(super) const POSITIONS_FROM_LAST: &str =
    "SELECT position, bytes FROM chunks WHERE key = ?1 ORDER BY position DESC";

pub(super) const INSERT_CHUNK: &str =
    "INSERT INTO chunks (key, position, bytes, text) VALUES (?1, ?2, ?3, ?4)";

pub(super) const UPDATE_CHUNK: &str =
    "UPDATE chunks SET bytes = ?3, text = ?4 WHERE key = ?1 AND position = ?2";

pub(super) const REMOVE_CHUNK: &str = "DELETE FROM chunks WHERE key = ?1 AND position = ?2";

pub(super) const REMOVE_CHUNKS: &str = "DELETE FROM chunks WHERE key = ?1";

pub(super) const INSERT: &str = "\
    INSERT INTO keys (key, envelope, expires, writer, sequence, decided, record_expires) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

pub(super) const UPDATE: &str = "\
    UPDATE keys SET envelope = ?2, writer = ?3, sequence = ?4, decided = ?5, record_expires = ?6 \
    WHERE rowid = ?1";

pub(super) const UPDATE_WITH_EXPIRY: &str = "\
    UPDATE keys SET envelope = ?2, writer = ?3, sequence = ?4, decided = ?5, record_expires = ?6, \
        expires = ?7 \
    WHERE rowid = ?1";

pub(super) const STARVE: &str = "UPDATE keys SET waiting = ?2, waited = ?3 WHERE rowid = ?1";

/// Removes the record of the last writer from the row of the key.
pub(super) const DISOWN: &str = "\
    UPDATE keys SET writer = NULL, sequence = NULL, decided = NULL, record_expires = NULL \
    WHERE rowid = ?1";

pub(super) const REMOVE: &str = "DELETE FROM keys WHERE rowid = ?1";

pub(super) const TOMBSTONE: &str = "\
    INSERT INTO sidecars (key, tombstone, expires) VALUES (?1, ?2, ?3) \
    ON CONFLICT (key) DO UPDATE SET \
        tombstone = max(tombstone, excluded.tombstone), \
        expires = max(expires, excluded.expires)";

pub(super) const RECORD: &str = "\
    INSERT INTO records (key, writer, sequence, refused, decided, expires) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
    ON CONFLICT (key, writer) DO UPDATE SET \
        sequence = ?3, refused = ?4, decided = ?5, expires = max(expires, ?6)";

pub(super) const RECORD_AGAIN: &str = "\
    UPDATE records SET sequence = ?3, refused = ?4, decided = ?5 WHERE key = ?1 AND writer = ?2";

pub(super) const COUNT: &str = "SELECT count(*) FROM records WHERE key = ?1";

pub(super) const TIMES: &str = "SELECT decided FROM records WHERE key = ?1";

/// Until when the records are needed that [`PRUNE`] drops.
pub(super) const NEEDED: &str = "\
    SELECT max(expires) FROM records WHERE key = ?1 AND decided <= ?3 AND writer <> ?2";

pub(super) const PRUNE: &str =
    "DELETE FROM records WHERE key = ?1 AND decided <= ?3 AND writer <> ?2";

pub(super) const HORIZON: &str = "\
    INSERT INTO sidecars (key, horizon, expires) VALUES (?1, ?2, ?3) \
    ON CONFLICT (key) DO UPDATE SET horizon = ?2, expires = max(expires, ?3)";

pub(super) const FORGET: [&str; 2] = [
    "DELETE FROM records WHERE key = ?1 AND writer = ?2",
    "UPDATE keys SET writer = NULL, sequence = NULL, decided = NULL, record_expires = NULL \
        WHERE key = ?1 AND writer = ?2",
];

pub(super) const EXPIRED_BETWEEN: &str = "SELECT 1 FROM keys WHERE expires > ?1 AND expires <= ?2";

pub(super) const NAMES_FROM: &str = "\
    SELECT key FROM keys WHERE key >= ?1 AND (expires IS NULL OR expires > ?2) \
    ORDER BY key LIMIT ?3";

pub(super) const NAMES_AFTER: &str = "\
    SELECT key FROM keys WHERE key > ?1 AND (expires IS NULL OR expires > ?2) \
    ORDER BY key LIMIT ?3";

/// Removes what has expired, except keys whose last writer's record still has to be kept.
pub(super) const CLEAN: [&str; 3] = [
    "DELETE FROM keys WHERE rowid IN (\
        SELECT rowid FROM keys WHERE expires <= ?1 AND writer IS NULL LIMIT ?2)",
    "DELETE FROM sidecars WHERE key IN (\
        SELECT key FROM sidecars WHERE expires <= ?1 LIMIT ?2)",
    "DELETE FROM records WHERE (key, writer) IN (\
        SELECT key, writer FROM records WHERE expires <= ?1 LIMIT ?2)",
];

pub(super) const EXPIRED_WITH_RECORD: &str = "\
    SELECT rowid, key, writer, sequence, decided, record_expires FROM keys \
    WHERE expires <= ?1 AND writer IS NOT NULL LIMIT ?2";

/// Whether the file has the column `record_expires`.
pub(super) const HAS_RECORD_EXPIRES: &str =
    "SELECT 1 FROM pragma_table_info('keys') WHERE name = 'record_expires'";

pub(super) const ADD_RECORD_EXPIRES: &str = "ALTER TABLE keys ADD COLUMN record_expires INTEGER";

pub(super) const LAST_CHANGE: &str = "\
    SELECT number, total, bytes, \
        (SELECT total FROM changes WHERE key = ?1 ORDER BY number LIMIT 1) \
    FROM changes WHERE key = ?1 ORDER BY number DESC LIMIT 1";

pub(super) const LOG_CHANGE: &str = "\
    INSERT INTO changes (key, number, total, bytes, \
        stamp_before, length_before, stamp, length, edits) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

pub(super) const DROP_CHANGES: &str =
    "DELETE FROM changes WHERE key = ?1 AND (number <= ?2 OR total < ?3)";

pub(super) const CHANGES: &str = "\
    SELECT stamp_before, length_before, stamp, length, edits FROM changes \
    WHERE key = ?1 ORDER BY number DESC";

pub(super) const REMOVE_CHANGES: &str = "DELETE FROM changes WHERE key = ?1";

/// Fails if the file lacks a table or column that the statements use.
pub(super) fn check_tables(connection: &Connection, layout: Layout) -> Result<(), Error> {
    let all = [
        read(layout),
        context(layout),
        INSERT,
        UPDATE,
        UPDATE_WITH_EXPIRY,
        STARVE,
        DISOWN,
        REMOVE,
        TOMBSTONE,
        RECORD,
        RECORD_AGAIN,
        COUNT,
        TIMES,
        NEEDED,
        PRUNE,
        HORIZON,
        EXPIRED_BETWEEN,
        NAMES_FROM,
        NAMES_AFTER,
        EXPIRED_WITH_RECORD,
    ];
    let of_chunks: &[&str] = match layout {
        Layout::Whole => &[],
        Layout::Chunked => &[
            SET_CHUNKED,
            UPDATE_CHUNKED,
            SET_WHOLE,
            SET_ENVELOPE,
            CHUNKS,
            CHUNK,
            POSITIONS_FROM_LAST,
            INSERT_CHUNK,
            UPDATE_CHUNK,
            REMOVE_CHUNK,
            REMOVE_CHUNKS,
            LAST_CHANGE,
            LOG_CHANGE,
            DROP_CHANGES,
            CHANGES,
            REMOVE_CHANGES,
        ],
    };
    let all = all.iter().chain(&FORGET).chain(&CLEAN).chain(of_chunks);
    all.into_iter()
        .try_for_each(|statement| connection.prepare_cached(statement).map(drop))
}

/// Executes a statement that returns no rows.
pub(super) fn execute(
    connection: &Connection,
    statement: &str,
    parameters: impl Params,
) -> Result<(), Error> {
    connection
        .prepare_cached(statement)?
        .execute(parameters)
        .map(drop)
}
