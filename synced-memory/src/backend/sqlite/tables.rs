//! The statements: keys, and what is beside them.
//!
//! Times are ns since 1970 by the wall clock of the machine, which all who share the file agree on.
//! Numbers of writers are stored with their 64 bits as SQLite's signed integers.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Params, Row, ToSql, params};

use super::error::{self, is_refusal};
use crate::backend::Page;
use crate::backend::commit::{
    Attempt, KeyChange, KeyState, Outcome, RECORDS, Writer, WriterRecord,
};
use crate::backend::error::BackendError;
use crate::backend::step::{StarvedWriter, StepInput, end_of, horizon, step};
use crate::base::clock::{Monotonic, Stamp};

/// So many rows that are over go at a time at most.
const CLEANED: u32 = 200;

const READ: &str = "SELECT envelope, expires FROM keys WHERE key = ?1";
const LOOK: &str = "SELECT k.rowid, k.envelope, k.expires, s.tombstone, s.horizon, k.writer, k.sequence, k.decided, \
                    l.expires, r.sequence, r.refused, r.expires, k.waiting, k.waited \
                    FROM (SELECT 1) LEFT JOIN keys k ON k.key = ?1 LEFT JOIN sidecars s ON s.key = ?1 \
                    LEFT JOIN records l ON l.key = ?1 AND l.writer = k.writer \
                    LEFT JOIN records r ON r.key = ?1 AND r.writer = ?2";
const INSERT: &str = "INSERT INTO keys (key, envelope, expires, writer, sequence, decided) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const UPDATE: &str =
    "UPDATE keys SET envelope = ?2, writer = ?3, sequence = ?4, decided = ?5 WHERE rowid = ?1";
const UPDATE_WITH_END: &str = "UPDATE keys SET envelope = ?2, writer = ?3, sequence = ?4, decided = ?5, expires = ?6 \
                               WHERE rowid = ?1";
const WAIT: &str = "UPDATE keys SET waiting = ?2, waited = ?3 WHERE rowid = ?1";
const DISOWN: &str =
    "UPDATE keys SET writer = NULL, sequence = NULL, decided = NULL WHERE rowid = ?1";
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
const FORGET: [&str; 2] = [
    "DELETE FROM records WHERE key = ?1 AND writer = ?2",
    "UPDATE keys SET writer = NULL, sequence = NULL, decided = NULL WHERE key = ?1 AND writer = ?2",
];
const ENDED: &str = "SELECT 1 FROM keys WHERE expires > ?1 AND expires <= ?2";
const NAMES_FROM: &str = "SELECT key FROM keys WHERE key >= ?1 AND (expires IS NULL OR expires > ?2) ORDER BY key LIMIT ?3";
const NAMES_AFTER: &str = "SELECT key FROM keys WHERE key > ?1 AND (expires IS NULL OR expires > ?2) ORDER BY key LIMIT ?3";
/// What is over, but for keys whose last writer's record has to be kept yet.
const CLEAN: [&str; 3] = [
    "DELETE FROM keys WHERE rowid IN (SELECT rowid FROM keys WHERE expires <= ?1 AND writer IS NULL LIMIT ?2)",
    "DELETE FROM sidecars WHERE key IN (SELECT key FROM sidecars WHERE expires <= ?1 LIMIT ?2)",
    "DELETE FROM records WHERE (key, writer) IN (SELECT key, writer FROM records WHERE expires <= ?1 LIMIT ?2)",
];
const OVER: &str = "SELECT rowid, key, writer, sequence, decided FROM keys \
                    WHERE expires <= ?1 AND writer IS NOT NULL LIMIT ?2";

/// Whether the file has the tables that the statements speak of.
pub(super) fn check(connection: &Connection) -> Result<(), Error> {
    let all = [
        READ,
        LOOK,
        INSERT,
        UPDATE,
        UPDATE_WITH_END,
        WAIT,
        DISOWN,
        REMOVE,
        BURY,
        RECORD,
        RECORD_AGAIN,
        COUNT,
        TIMES,
        PRUNE,
        HORIZON,
        ENDED,
        NAMES_FROM,
        NAMES_AFTER,
        OVER,
    ];
    let all = all.iter().chain(&FORGET).chain(&CLEAN);
    all.into_iter()
        .try_for_each(|statement| connection.prepare_cached(statement).map(drop))
}

/// What is stored under `key`. What is over is not there.
pub(super) fn read(
    connection: &Connection,
    key: &str,
    now: Monotonic,
) -> Result<Option<Bytes>, Error> {
    let mut statement = connection.prepare_cached(READ)?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(if is_over(row.get(1)?, now) {
        None
    } else {
        bytes(row, 0)?
    })
}

/// Where things are that a step may change.
struct TableKeys {
    row: Option<i64>,
    /// When what is stored ends.
    end: Option<Monotonic>,
    /// There is an end, which may be over.
    has_end: bool,
    /// What is on record in the key's own row about the last writer, and when its row in `records`
    /// ends, where it has an older one there.
    last: Option<(Note, Option<Monotonic>)>,
    /// When the row of this writer in `records` ends.
    own_end: Option<Monotonic>,
}

/// What is on record about a writer.
struct Note {
    /// As it is stored.
    writer: i64,
    record: WriterRecord,
    decided: Monotonic,
}

fn look(
    connection: &Connection,
    attempt: &Attempt,
    now: Monotonic,
) -> Result<(StepInput, TableKeys), Error> {
    let writer = attempt.writer.cast_signed();
    connection
        .prepare_cached(LOOK)?
        .query_row(params![&*attempt.key, writer], |row| {
            let at = |column| {
                row.get::<_, Option<i64>>(column)
                    .map(|nanos| nanos.map(time))
            };
            let end: Option<i64> = row.get(2)?;
            let stored = if is_over(end, now) {
                None
            } else {
                bytes(row, 1)?
            };
            let tombstone = row
                .get::<_, Option<i64>>(3)?
                .map_or(Stamp::ZERO, |stamp| Stamp::new(stamp.cast_unsigned()));
            let last = match (row.get(5)?, row.get::<_, Option<i64>>(6)?, at(7)?) {
                (Some(writer), Some(sequence), Some(decided)) => Some(Note {
                    writer,
                    record: WriterRecord {
                        sequence: sequence.cast_unsigned(),
                        refused: false,
                    },
                    decided,
                }),
                _ => None,
            };
            let record = match (&last, row.get::<_, Option<i64>>(9)?) {
                (Some(last), _) if last.writer == writer => Some(last.record),
                (_, Some(sequence)) => Some(WriterRecord {
                    sequence: sequence.cast_unsigned(),
                    refused: row.get(10)?,
                }),
                _ => None,
            };
            let waiting = row.get::<_, Option<i64>>(12)?.zip(at(13)?);
            let waiting = waiting.map(|(writer, when)| StarvedWriter {
                writer: writer.cast_unsigned(),
                when,
            });
            let horizon = at(4)?;
            let place = TableKeys {
                row: row.get(0)?,
                end: end.filter(|_| stored.is_some()).map(time),
                has_end: end.is_some(),
                last: last.zip(Some(at(8)?)),
                own_end: at(11)?,
            };
            Ok((
                StepInput {
                    found: KeyState { stored, tombstone },
                    record,
                    horizon,
                    waiting,
                },
                place,
            ))
        })
}

/// Makes an attempt, within a transaction. A error is of this attempt alone, of which nothing was
/// made; after an error nothing of the transaction must stay.
///
/// What is on record about the last writer is in the row of the key, so that a writer that is alone
/// changes one page.
pub(super) fn commit(
    connection: &Connection,
    attempt: &Attempt,
    now: Monotonic,
    sidecar_ttl: Duration,
) -> Result<Result<Outcome, BackendError>, Error> {
    let (seen, place) = look(connection, attempt, now)?;
    let waiting = seen.waiting;
    let step = step(attempt, seen, now);
    if let Some(row) = place.row.filter(|_| step.waiting != waiting) {
        let (writer, when) = (
            step.waiting.map(|one| one.writer.cast_signed()),
            step.waiting.map(|one| nanos(one.when)),
        );
        execute(connection, WAIT, params![row, writer, when])?;
    }
    let Some(record) = step.record else {
        return Ok(Ok(step.outcome));
    };
    let note = Note {
        writer: attempt.writer.cast_signed(),
        record,
        decided: now,
    };
    let records = Records {
        connection,
        key: &attempt.key,
        sidecar_ttl,
    };
    let is_own = |(last, _): &(Note, _)| last.writer == note.writer;
    match (&attempt.change, step.applies) {
        (KeyChange::Put { envelope, ttl }, true) => {
            let end = end_of(*ttl, place.end, now);
            // First, since this is what may be refused.
            match put(connection, &attempt.key, &place, &note, envelope, end) {
                Err(error) if is_refusal(&error) => return Ok(Err(error::of_write(&error))),
                made => made?,
            }
            if let Some((last, end)) = place.last.filter(|last| !is_own(last)) {
                records.keep(&last, end, now)?;
            }
        }
        (KeyChange::Delete, true) => {
            if let Some(row) = place.row {
                execute(connection, REMOVE, [row])?;
            }
            let stamp = Stamp::new(attempt.stamp.get()).get().cast_signed();
            execute(
                connection,
                BURY,
                params![&*attempt.key, stamp, nanos(now.saturating_add(sidecar_ttl))],
            )?;
            records.keep(&note, place.own_end, now)?;
            if let Some((last, end)) = place.last.filter(|last| !is_own(last)) {
                records.keep(&last, end, now)?;
            }
        }
        (_, false) => {
            if let Some(row) = place
                .row
                .filter(|_| place.last.as_ref().is_some_and(is_own))
            {
                execute(connection, DISOWN, [row])?;
            }
            records.keep(&note, place.own_end, now)?;
        }
    }
    Ok(Ok(step.outcome))
}

fn put(
    connection: &Connection,
    key: &str,
    place: &TableKeys,
    note: &Note,
    envelope: &Bytes,
    end: Option<Monotonic>,
) -> Result<(), Error> {
    // Text, so that whoever looks into the file can read it. Not everything that is stored was
    // written here.
    let text = std::str::from_utf8(envelope);
    let envelope: &dyn ToSql = match &text {
        Ok(text) => text,
        Err(_) => &&envelope[..],
    };
    let (writer, sequence, decided) = (
        note.writer,
        note.record.sequence.cast_signed(),
        nanos(note.decided),
    );
    match (place.row, end.map(nanos)) {
        (Some(row), None) if !place.has_end => execute(
            connection,
            UPDATE,
            params![row, envelope, writer, sequence, decided],
        ),
        (Some(row), end) => execute(
            connection,
            UPDATE_WITH_END,
            params![row, envelope, writer, sequence, decided, end],
        ),
        (None, end) => execute(
            connection,
            INSERT,
            params![key, envelope, end, writer, sequence, decided],
        ),
    }
}

/// What is on record about the writers to a key, but for the last one.
struct Records<'a> {
    connection: &'a Connection,
    key: &'a str,
    sidecar_ttl: Duration,
}

impl Records<'_> {
    /// Keeps a note, where `end` is when the row that its writer has here ends. Where the key has
    /// too many, the older half goes.
    fn keep(&self, note: &Note, end: Option<Monotonic>, now: Monotonic) -> Result<(), Error> {
        let (connection, key) = (self.connection, self.key);
        let (sequence, refused, decided) = (
            note.record.sequence.cast_signed(),
            note.record.refused,
            nanos(note.decided),
        );
        let needed = note.decided.saturating_add(self.sidecar_ttl);
        if needed <= now {
            return Ok(());
        }
        if end.is_some_and(|end| end >= needed) {
            return execute(
                connection,
                RECORD_AGAIN,
                params![key, note.writer, sequence, refused, decided],
            );
        }
        // A tenth more than asked for, so that not every write has to move it in its index.
        let until = nanos(needed.saturating_add(self.sidecar_ttl / 10));
        execute(
            connection,
            RECORD,
            params![key, note.writer, sequence, refused, decided, until],
        )?;
        if end.is_some() {
            return Ok(());
        }
        let count: i64 = connection
            .prepare_cached(COUNT)?
            .query_row([key], |row| row.get(0))?;
        // The last writer has one, too.
        if usize::try_from(count).is_ok_and(|count| count < RECORDS) {
            return Ok(());
        }
        let mut times = connection.prepare_cached(TIMES)?;
        let times = times
            .query_map([key], |row| row.get(0).map(time))?
            .collect::<Result<_, _>>()?;
        let horizon = nanos(horizon(times));
        execute(connection, PRUNE, params![key, note.writer, horizon])?;
        execute(connection, HORIZON, params![key, horizon, until])
    }
}

/// The names that begin with `prefix`, from there or after `cursor`, and where the next ones begin.
pub(super) fn names(
    connection: &Connection,
    prefix: &str,
    cursor: Option<&str>,
    most: u32,
    now: Monotonic,
) -> Result<Page, Error> {
    let mut statement = connection.prepare_cached(if cursor.is_some() {
        NAMES_AFTER
    } else {
        NAMES_FROM
    })?;
    let names =
        statement.query_map(params![cursor.unwrap_or(prefix), nanos(now), most], |row| {
            // What is no text is nobody's name.
            Ok(row
                .get_ref(0)?
                .as_str()
                .map(str::to_owned)
                .unwrap_or_default())
        })?;
    let mut names = names.collect::<Result<Vec<String>, _>>()?;
    names.retain(|name| name.starts_with(prefix) && !name.is_empty());
    // In order, so that those with this prefix are over where one page has another.
    let next = names
        .last()
        .filter(|_| names.len() == most as usize)
        .cloned();
    Ok((names, next))
}

/// Whether a key has ended after `since`, and until `now`.
pub(super) fn has_ended(
    connection: &Connection,
    since: Monotonic,
    now: Monotonic,
) -> Result<bool, Error> {
    connection
        .prepare_cached(ENDED)?
        .exists([nanos(since), nanos(now)])
}

/// Drops the record of a writer.
pub(super) fn forget(connection: &Connection, writer: Writer, key: &str) -> Result<(), Error> {
    FORGET.iter().try_for_each(|statement| {
        execute(connection, statement, params![key, writer.cast_signed()])
    })
}

/// Removes some of what is over; whether there may be more.
pub(super) fn clean(
    connection: &Connection,
    now: Monotonic,
    sidecar_ttl: Duration,
) -> Result<bool, Error> {
    let mut over = connection.prepare_cached(OVER)?;
    let over = over.query_map(params![nanos(now), CLEANED], |row| {
        let record = WriterRecord {
            sequence: row.get::<_, i64>(3)?.cast_unsigned(),
            refused: false,
        };
        let note = Note {
            writer: row.get(2)?,
            record,
            decided: time(row.get(4)?),
        };
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, note))
    })?;
    let over = over.collect::<Result<Vec<_>, _>>()?;
    let mut is_more = over.len() >= CLEANED as usize;
    for (row, key, note) in over {
        Records {
            connection,
            key: &key,
            sidecar_ttl,
        }
        .keep(&note, None, now)?;
        execute(connection, REMOVE, [row])?;
    }
    for statement in CLEAN {
        is_more |= connection
            .prepare_cached(statement)?
            .execute(params![nanos(now), CLEANED])?
            >= CLEANED as usize;
    }
    Ok(is_more)
}

fn execute(connection: &Connection, statement: &str, parameters: impl Params) -> Result<(), Error> {
    connection
        .prepare_cached(statement)?
        .execute(parameters)
        .map(drop)
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

fn is_over(end: Option<i64>, now: Monotonic) -> bool {
    end.is_some_and(|end| time(end) <= now)
}

fn time(nanos: i64) -> Monotonic {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

fn nanos(time: Monotonic) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
