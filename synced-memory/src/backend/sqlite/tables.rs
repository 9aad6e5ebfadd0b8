//! The statements: keys, and what is beside them.
//!
//! Times are ns since 1970 by the wall clock of the machine, which all who share the file agree on. Numbers of
//! writers are stored with their 64 bits as SQLite's signed integers.

use super::fault::{self, is_refusal};
use crate::backend::Page;
use crate::backend::step::{Seen, end_of, horizon, step};
use crate::clock::{Mono, Stamp};
use crate::commit::{Attempt, Change, Found, Outcome, RECORDS, Record, Writer};
use crate::fault::Fault;
use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Params, Row, ToSql, params};
use std::time::Duration;

/// So many rows that are over go at a time at most.
const CLEANED: u32 = 200;

const READ: &str = "SELECT envelope, expires FROM keys WHERE key = ?1";
const LOOK: &str = "SELECT k.rowid, k.envelope, k.expires, s.tombstone, s.horizon, r.sequence, r.refused, r.expires \
                    FROM (SELECT 1) LEFT JOIN keys k ON k.key = ?1 LEFT JOIN sidecars s ON s.key = ?1 \
                    LEFT JOIN records r ON r.key = ?1 AND r.writer = ?2";
const INSERT: &str = "INSERT INTO keys (key, envelope, expires) VALUES (?1, ?2, ?3)";
const UPDATE: &str = "UPDATE keys SET envelope = ?2 WHERE rowid = ?1";
const UPDATE_WITH_END: &str = "UPDATE keys SET envelope = ?2, expires = ?3 WHERE rowid = ?1";
const REMOVE: &str = "DELETE FROM keys WHERE rowid = ?1";
const BURY: &str = "INSERT INTO sidecars (key, tombstone, expires) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE \
                    SET tombstone = max(tombstone, excluded.tombstone), expires = max(expires, excluded.expires)";
const RECORD: &str = "INSERT INTO records (key, writer, sequence, refused, decided, expires) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (key, writer) DO UPDATE \
                      SET sequence = ?3, refused = ?4, decided = ?5, expires = max(expires, ?6)";
const RECORD_AGAIN: &str =
    "UPDATE records SET sequence = ?3, refused = ?4, decided = ?5 WHERE key = ?1 AND writer = ?2";
const COUNT: &str = "SELECT count(*) FROM records WHERE key = ?1";
const TIMES: &str = "SELECT decided FROM records WHERE key = ?1";
const PRUNE: &str = "DELETE FROM records WHERE key = ?1 AND decided <= ?3 AND writer <> ?2";
const HORIZON: &str = "INSERT INTO sidecars (key, horizon, expires) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE \
                       SET horizon = ?2, expires = max(expires, ?3)";
const FORGET: &str = "DELETE FROM records WHERE key = ?1 AND writer = ?2";
const NAMES_FROM: &str =
    "SELECT key FROM keys WHERE key >= ?1 AND (expires IS NULL OR expires > ?2) ORDER BY key LIMIT ?3";
const NAMES_AFTER: &str =
    "SELECT key FROM keys WHERE key > ?1 AND (expires IS NULL OR expires > ?2) ORDER BY key LIMIT ?3";
const CLEAN: [&str; 3] = [
    "DELETE FROM keys WHERE rowid IN (SELECT rowid FROM keys WHERE expires <= ?1 LIMIT ?2)",
    "DELETE FROM sidecars WHERE key IN (SELECT key FROM sidecars WHERE expires <= ?1 LIMIT ?2)",
    "DELETE FROM records WHERE (key, writer) IN (SELECT key, writer FROM records WHERE expires <= ?1 LIMIT ?2)",
];

/// Whether the file has the tables that the statements speak of.
pub(super) fn check(connection: &Connection) -> Result<(), Error> {
    let all = [
        READ,
        LOOK,
        INSERT,
        UPDATE,
        UPDATE_WITH_END,
        REMOVE,
        BURY,
        RECORD,
        RECORD_AGAIN,
        COUNT,
        TIMES,
        PRUNE,
        HORIZON,
        FORGET,
        NAMES_FROM,
        NAMES_AFTER,
    ];
    all.iter().chain(&CLEAN).try_for_each(|statement| connection.prepare_cached(statement).map(drop))
}

/// What is stored under `key`. What is over is not there.
pub(super) fn read(connection: &Connection, key: &str, now: Mono) -> Result<Option<Bytes>, Error> {
    let mut statement = connection.prepare_cached(READ)?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(if is_over(row.get(1)?, now) { None } else { bytes(row, 0)? })
}

/// Where things are that a step may change.
struct Place {
    row: Option<i64>,
    /// When what is stored ends.
    end: Option<Mono>,
    /// There is an end, which may be over.
    has_end: bool,
    /// When the writer's record ends.
    record_end: Option<Mono>,
}

fn look(connection: &Connection, attempt: &Attempt, now: Mono) -> Result<(Seen, Place), Error> {
    connection.prepare_cached(LOOK)?.query_row(params![&*attempt.key, attempt.writer.cast_signed()], |row| {
        let end: Option<i64> = row.get(2)?;
        let stored = if is_over(end, now) { None } else { bytes(row, 1)? };
        let tombstone = row.get::<_, Option<i64>>(3)?.map_or(Stamp::ZERO, |stamp| Stamp::new(stamp.cast_unsigned()));
        let record = match row.get::<_, Option<i64>>(5)? {
            Some(sequence) => Some(Record { sequence: sequence.cast_unsigned(), refused: row.get(6)? }),
            None => None,
        };
        let horizon = row.get::<_, Option<i64>>(4)?.map(time);
        let place = Place {
            row: row.get(0)?,
            end: end.filter(|_| stored.is_some()).map(time),
            has_end: end.is_some(),
            record_end: row.get::<_, Option<i64>>(7)?.map(time),
        };
        Ok((Seen { found: Found { stored, tombstone }, record, horizon }, place))
    })
}

/// Makes an attempt, within a transaction. A fault is of this attempt alone, of which nothing was made; after an
/// error nothing of the transaction must stay.
pub(super) fn commit(
    connection: &Connection,
    attempt: &Attempt,
    now: Mono,
    sidecar_ttl: Duration,
) -> Result<Result<Outcome, Fault>, Error> {
    let (seen, place) = look(connection, attempt, now)?;
    let step = step(attempt, seen, now);
    if step.applies {
        // First, since this is what may be refused.
        match change(connection, attempt, &place, now) {
            Err(error) if is_refusal(&error) => return Ok(Err(fault::of_write(&error))),
            made => made?,
        }
        if attempt.change == Change::Delete {
            let stamp = Stamp::new(attempt.stamp.get()).get().cast_signed();
            let until = nanos(now.saturating_add(sidecar_ttl));
            execute(connection, BURY, params![&*attempt.key, stamp, until])?;
        }
    }
    if let Some(made) = step.record {
        record(connection, attempt, made, place.record_end, now, sidecar_ttl)?;
    }
    Ok(Ok(step.outcome))
}

fn change(connection: &Connection, attempt: &Attempt, place: &Place, now: Mono) -> Result<(), Error> {
    match (&attempt.change, place.row) {
        (Change::Put { envelope, ttl }, row) => {
            let end = end_of(*ttl, place.end, now).map(nanos);
            // Text, so that whoever looks into the file can read it. Not everything that is stored was written here.
            let text = std::str::from_utf8(envelope);
            let envelope: &dyn ToSql = match &text {
                Ok(text) => text,
                Err(_) => &&envelope[..],
            };
            match row {
                Some(row) if end.is_none() && !place.has_end => execute(connection, UPDATE, params![row, envelope]),
                Some(row) => execute(connection, UPDATE_WITH_END, params![row, envelope, end]),
                None => execute(connection, INSERT, params![&*attempt.key, envelope, end]),
            }
        }
        (Change::Delete, Some(row)) => execute(connection, REMOVE, [row]),
        (Change::Delete, None) => Ok(()),
    }
}

/// Records that an attempt was decided on. Where its key has too many records, the older half goes.
fn record(
    connection: &Connection,
    attempt: &Attempt,
    record: Record,
    end: Option<Mono>,
    now: Mono,
    sidecar_ttl: Duration,
) -> Result<(), Error> {
    let (key, writer) = (&*attempt.key, attempt.writer.cast_signed());
    let (sequence, decided) = (record.sequence.cast_signed(), nanos(now));
    let needed = now.saturating_add(sidecar_ttl);
    if end.is_some_and(|end| end >= needed) {
        return execute(connection, RECORD_AGAIN, params![key, writer, sequence, record.refused, decided]);
    }
    // A tenth more than asked for, so that not every write has to move it in its index.
    let until = nanos(needed.saturating_add(sidecar_ttl / 10));
    execute(connection, RECORD, params![key, writer, sequence, record.refused, decided, until])?;
    if end.is_some() {
        return Ok(());
    }
    let count: i64 = connection.prepare_cached(COUNT)?.query_row([key], |row| row.get(0))?;
    if usize::try_from(count).is_ok_and(|count| count <= RECORDS) {
        return Ok(());
    }
    let mut times = connection.prepare_cached(TIMES)?;
    let times = times.query_map([key], |row| row.get(0).map(time))?.collect::<Result<_, _>>()?;
    let horizon = nanos(horizon(times));
    execute(connection, PRUNE, params![key, writer, horizon])?;
    execute(connection, HORIZON, params![key, horizon, until])
}

/// The names that begin with `prefix`, from there or after `cursor`, and where the next ones begin.
pub(super) fn names(
    connection: &Connection,
    prefix: &str,
    cursor: Option<&str>,
    most: u32,
    now: Mono,
) -> Result<Page, Error> {
    let mut statement = connection.prepare_cached(if cursor.is_some() { NAMES_AFTER } else { NAMES_FROM })?;
    let names = statement.query_map(params![cursor.unwrap_or(prefix), nanos(now), most], |row| {
        // What is no text is nobody's name.
        Ok(row.get_ref(0)?.as_str().map(str::to_owned).unwrap_or_default())
    })?;
    let mut names = names.collect::<Result<Vec<String>, _>>()?;
    names.retain(|name| name.starts_with(prefix) && !name.is_empty());
    // In order, so that those with this prefix are over where one page has another.
    let next = names.last().filter(|_| names.len() == most as usize).cloned();
    Ok((names, next))
}

/// Drops the record of a writer.
pub(super) fn forget(connection: &Connection, writer: Writer, key: &str) -> Result<(), Error> {
    execute(connection, FORGET, params![key, writer.cast_signed()])
}

/// Removes some of what is over; whether there may be more.
pub(super) fn clean(connection: &Connection, now: Mono) -> Result<bool, Error> {
    let mut is_more = false;
    for statement in CLEAN {
        is_more |= connection.prepare_cached(statement)?.execute(params![nanos(now), CLEANED])? >= CLEANED as usize;
    }
    Ok(is_more)
}

fn execute(connection: &Connection, statement: &str, parameters: impl Params) -> Result<(), Error> {
    connection.prepare_cached(statement)?.execute(parameters).map(drop)
}

/// What a column holds, as somebody else may have stored it, too.
fn bytes(row: &Row<'_>, column: usize) -> Result<Option<Bytes>, Error> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Bytes::copy_from_slice(bytes)),
        ValueRef::Null => None,
        // The column turns numbers into text.
        ValueRef::Integer(number) => Some(Bytes::from(number.to_string())),
        ValueRef::Real(number) => Some(Bytes::from(number.to_string())),
    })
}

fn is_over(end: Option<i64>, now: Mono) -> bool {
    end.is_some_and(|end| time(end) <= now)
}

fn time(nanos: i64) -> Mono {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

fn nanos(time: Mono) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
