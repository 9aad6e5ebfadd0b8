//! The SQL statements.

use rusqlite::{Connection, Error, Params};

pub(super) const READ: &str = "SELECT envelope, expires FROM keys WHERE key = ?1";

/// All that a commit by one writer has to know.
pub(super) const CONTEXT: &str = "\
    SELECT k.rowid, k.envelope, k.expires, s.tombstone, s.horizon, \
        k.writer, k.sequence, k.decided, l.expires, \
        r.sequence, r.refused, r.expires, k.waiting, k.waited, k.record_expires \
    FROM (SELECT 1) \
    LEFT JOIN keys k ON k.key = ?1 \
    LEFT JOIN sidecars s ON s.key = ?1 \
    LEFT JOIN records l ON l.key = ?1 AND l.writer = k.writer \
    LEFT JOIN records r ON r.key = ?1 AND r.writer = ?2";

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

/// Fails if the file lacks a table or column that the statements use.
pub(super) fn check_tables(connection: &Connection) -> Result<(), Error> {
    let all = [
        READ,
        CONTEXT,
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
    let all = all.iter().chain(&FORGET).chain(&CLEAN);
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
