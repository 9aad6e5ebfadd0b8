//! The tables: keys, and what is kept beside them.
//!
//! Times are ns since 1970 by the machine's wall clock, which all who share the file agree on. A
//! writer's number is stored with its 64 bits as SQLite's signed integer.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Row, ToSql, params};

use super::error::{self, is_refusal};
use super::statements::{self, execute};
use crate::backend::Page;
use crate::backend::commit::{Attempt, KeyAfter, KeyState, Outcome, RECORDS, Writer, WriterRecord};
use crate::backend::effects::{KeyContext, StarvedWriter, effects_of, expiry_of, horizon_of};
use crate::backend::error::BackendError;
use crate::base::clock::{Monotonic, Stamp};
use crate::value::document::Document;

/// How many expired rows of each kind are removed at a time.
const CLEANED: u32 = 200;

/// What is stored under `key` and has not expired.
pub(super) fn read(
    connection: &Connection,
    key: &str,
    now: Monotonic,
) -> Result<Option<Bytes>, Error> {
    let mut statement = connection.prepare_cached(statements::READ)?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(if has_passed(row.get(1)?, now) {
        None
    } else {
        bytes_of(row, 0)?
    })
}

/// The rows that an attempt may change.
struct KeyRows {
    row: Option<i64>,
    /// When what is stored expires.
    expires: Option<Monotonic>,
    /// The row has an expiry, which may have passed.
    has_expiry: bool,
    /// The record of the last writer, in the key's own row; and when its row in `records` expires,
    /// if it has an older one there.
    last: Option<(RecordRow, Option<Monotonic>)>,
    /// When the row of this writer in `records` expires.
    own_expiry: Option<Monotonic>,
}

/// The record of a writer.
struct RecordRow {
    /// The writer's number, as it is stored.
    writer: i64,
    record: WriterRecord,
    decided: Monotonic,
    /// Until when the writer needs it: by the `sidecar_ttl` of its own, which may be longer than
    /// that of whoever replaces it. Nothing where an earlier version has stored the record.
    needed: Option<Monotonic>,
}

/// What the file has of the key of an attempt, and in which rows.
fn context_of(
    connection: &Connection,
    attempt: &Attempt,
    now: Monotonic,
) -> Result<(KeyContext, KeyRows), Error> {
    let writer = attempt.writer.cast_signed();
    connection.prepare_cached(statements::CONTEXT)?.query_row(
        params![&*attempt.key, writer],
        |row| {
            let at = |column| {
                row.get::<_, Option<i64>>(column)
                    .map(|nanos| nanos.map(time_of))
            };
            let expires: Option<i64> = row.get(2)?;
            let stored = if has_passed(expires, now) {
                None
            } else {
                bytes_of(row, 1)?
            };
            let tombstone = row
                .get::<_, Option<i64>>(3)?
                .map_or(Stamp::ZERO, |stamp| Stamp::new(stamp.cast_unsigned()));

            let last = match (row.get(5)?, row.get::<_, Option<i64>>(6)?, at(7)?) {
                (Some(writer), Some(sequence), Some(decided)) => Some(RecordRow {
                    writer,
                    record: WriterRecord {
                        sequence: sequence.cast_unsigned(),
                        refused: false,
                    },
                    decided,
                    needed: at(14)?,
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

            let starved = row.get::<_, Option<i64>>(12)?.zip(at(13)?);
            let starved = starved.map(|(writer, tried)| StarvedWriter {
                writer: writer.cast_unsigned(),
                tried,
            });
            let horizon = at(4)?;
            let rows = KeyRows {
                row: row.get(0)?,
                expires: expires.filter(|_| stored.is_some()).map(time_of),
                has_expiry: expires.is_some(),
                last: last.zip(Some(at(8)?)),
                own_expiry: at(11)?,
            };
            Ok((
                KeyContext {
                    current: KeyState {
                        stored: stored.map(Document::of),
                        tombstone,
                    },
                    record,
                    horizon,
                    starved,
                },
                rows,
            ))
        },
    )
}

/// Makes an attempt, inside a transaction. A [`BackendError`] concerns this attempt alone, and
/// nothing of it was made; after an [`Error`] the whole transaction has to be rolled back.
///
/// The record of the last writer is in the row of the key, so that a writer that is alone changes
/// one page.
pub(super) fn commit(
    connection: &Connection,
    attempt: &Attempt,
    now: Monotonic,
    sidecar_ttl: Duration,
) -> Result<Result<Outcome, BackendError>, Error> {
    let (context, rows) = context_of(connection, attempt, now)?;
    let starved = context.starved;
    let effects = effects_of(attempt, context, now);

    if let Some(row) = rows.row.filter(|_| effects.starved != starved) {
        let (writer, tried) = (
            effects.starved.map(|starved| starved.writer.cast_signed()),
            effects.starved.map(|starved| nanos(starved.tried)),
        );
        execute(connection, statements::STARVE, params![row, writer, tried])?;
    }

    let Some(record) = effects.record else {
        return Ok(Ok(effects.outcome));
    };
    let own = RecordRow {
        writer: attempt.writer.cast_signed(),
        record,
        decided: now,
        needed: Some(now.saturating_add(sidecar_ttl)),
    };
    let records = Records {
        connection,
        key: &attempt.key,
        sidecar_ttl,
    };
    let is_own = |(last, _): &(RecordRow, _)| last.writer == own.writer;

    match &effects.made {
        Some(KeyAfter::Stored(envelope)) => {
            let expires = expiry_of(attempt.change.ttl(), rows.expires, now);
            // First, since the file may refuse this.
            match put(connection, &attempt.key, &rows, &own, envelope, expires) {
                Err(error) if is_refusal(&error) => return Ok(Err(error::of_write(&error))),
                made => made?,
            }
            if let Some((last, expires)) = rows.last.filter(|last| !is_own(last)) {
                records.keep(&last, expires, now)?;
            }
        }
        Some(KeyAfter::Removed) => {
            if let Some(row) = rows.row {
                execute(connection, statements::REMOVE, [row])?;
            }
            let stamp = Stamp::new(attempt.stamp.get()).get().cast_signed();
            execute(
                connection,
                statements::TOMBSTONE,
                params![&*attempt.key, stamp, nanos(now.saturating_add(sidecar_ttl))],
            )?;
            records.keep(&own, rows.own_expiry, now)?;
            if let Some((last, expires)) = rows.last.filter(|last| !is_own(last)) {
                records.keep(&last, expires, now)?;
            }
        }
        None => {
            if let Some(row) = rows.row.filter(|_| rows.last.as_ref().is_some_and(is_own)) {
                execute(connection, statements::DISOWN, [row])?;
            }
            records.keep(&own, rows.own_expiry, now)?;
        }
    }
    Ok(Ok(effects.outcome))
}

fn put(
    connection: &Connection,
    key: &str,
    rows: &KeyRows,
    record: &RecordRow,
    envelope: &Bytes,
    expires: Option<Monotonic>,
) -> Result<(), Error> {
    // As text, so that people can read the file. What other programs stored need not be text.
    let text = std::str::from_utf8(envelope);
    let envelope: &dyn ToSql = match &text {
        Ok(text) => text,
        Err(_) => &&envelope[..],
    };
    let (writer, sequence, decided, needed) = (
        record.writer,
        record.record.sequence.cast_signed(),
        nanos(record.decided),
        record.needed.map(nanos),
    );
    match (rows.row, expires.map(nanos)) {
        (Some(row), None) if !rows.has_expiry => execute(
            connection,
            statements::UPDATE,
            params![row, envelope, writer, sequence, decided, needed],
        ),
        (Some(row), expires) => execute(
            connection,
            statements::UPDATE_WITH_EXPIRY,
            params![row, envelope, writer, sequence, decided, needed, expires],
        ),
        (None, expires) => execute(
            connection,
            statements::INSERT,
            params![key, envelope, expires, writer, sequence, decided, needed],
        ),
    }
}

/// The records of the writers to a key, except the last one.
struct Records<'a> {
    connection: &'a Connection,
    key: &'a str,
    sidecar_ttl: Duration,
}

impl Records<'_> {
    /// Keeps a record. `expires` is when the row that its writer has here expires. If the key has
    /// too many records, the older half is dropped.
    fn keep(
        &self,
        row: &RecordRow,
        expires: Option<Monotonic>,
        now: Monotonic,
    ) -> Result<(), Error> {
        let (connection, key) = (self.connection, self.key);
        let (sequence, refused, decided) = (
            row.record.sequence.cast_signed(),
            row.record.refused,
            nanos(row.decided),
        );

        // No shorter than any of the two asks for.
        let needed = row
            .decided
            .saturating_add(self.sidecar_ttl)
            .max(row.needed.unwrap_or_default());
        if needed <= now {
            return Ok(());
        }
        if expires.is_some_and(|expires| expires >= needed) {
            return execute(
                connection,
                statements::RECORD_AGAIN,
                params![key, row.writer, sequence, refused, decided],
            );
        }
        // A tenth more than necessary, so that not every write has to move it in its index.
        let until = nanos(needed.saturating_add(self.sidecar_ttl / 10));
        execute(
            connection,
            statements::RECORD,
            params![key, row.writer, sequence, refused, decided, until],
        )?;
        if expires.is_some() {
            return Ok(());
        }

        let count: i64 = connection
            .prepare_cached(statements::COUNT)?
            .query_row([key], |row| row.get(0))?;
        // The last writer has one more, in the row of the key.
        if usize::try_from(count).is_ok_and(|count| count < RECORDS) {
            return Ok(());
        }
        let mut times = connection.prepare_cached(statements::TIMES)?;
        let times = times
            .query_map([key], |row| row.get(0).map(time_of))?
            .collect::<Result<_, _>>()?;
        let horizon = nanos(horizon_of(times));
        let dropped = params![key, row.writer, horizon];
        // The horizon stands for what is dropped, and stays for as long as that would have.
        let of_dropped: Option<i64> = connection
            .prepare_cached(statements::NEEDED)?
            .query_row(dropped, |row| row.get(0))?;
        execute(connection, statements::PRUNE, dropped)?;
        execute(
            connection,
            statements::HORIZON,
            params![
                key,
                horizon,
                of_dropped.map_or(until, |needed| needed.max(until))
            ],
        )
    }
}

/// A page of the names that begin with `prefix`, from the first or after `cursor`, and the next
/// cursor.
pub(super) fn names(
    connection: &Connection,
    prefix: &str,
    cursor: Option<&str>,
    most: u32,
    now: Monotonic,
) -> Result<Page, Error> {
    let mut statement = connection.prepare_cached(if cursor.is_some() {
        statements::NAMES_AFTER
    } else {
        statements::NAMES_FROM
    })?;
    let mut rows = statement.query(params![cursor.unwrap_or(prefix), nanos(now), most])?;
    let (mut page, mut left) = (Page::default(), most);
    while let Some(row) = rows.next()? {
        // Names come in order, and those that are no text after all others.
        let ValueRef::Text(name) = row.get_ref(0)? else {
            return Ok(page);
        };
        if !name.starts_with(prefix.as_bytes()) {
            return Ok(page);
        }
        match std::str::from_utf8(name) {
            Ok(name) => page.names.push(name.to_owned()),
            Err(_) => page.unreadable.push(name.to_owned()),
        }
        left -= 1;
    }
    if left == 0 {
        page.next = page.names.last().cloned();
    }
    Ok(page)
}

/// Whether a key has expired after `since`, and until `now`.
pub(super) fn has_expired(
    connection: &Connection,
    since: Monotonic,
    now: Monotonic,
) -> Result<bool, Error> {
    connection
        .prepare_cached(statements::EXPIRED_BETWEEN)?
        .exists([nanos(since), nanos(now)])
}

/// Drops the record of a writer.
pub(super) fn forget(connection: &Connection, writer: Writer, key: &str) -> Result<(), Error> {
    statements::FORGET.iter().try_for_each(|statement| {
        execute(connection, statement, params![key, writer.cast_signed()])
    })
}

/// Removes some of what has expired; whether there may be more.
pub(super) fn clean(
    connection: &Connection,
    now: Monotonic,
    sidecar_ttl: Duration,
) -> Result<bool, Error> {
    let mut expired = connection.prepare_cached(statements::EXPIRED_WITH_RECORD)?;
    let expired = expired.query_map(params![nanos(now), CLEANED], |row| {
        let record = WriterRecord {
            sequence: row.get::<_, i64>(3)?.cast_unsigned(),
            refused: false,
        };
        let own = RecordRow {
            writer: row.get(2)?,
            record,
            decided: time_of(row.get(4)?),
            needed: row.get::<_, Option<i64>>(5)?.map(time_of),
        };
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, own))
    })?;
    let expired = expired.collect::<Result<Vec<_>, _>>()?;
    let mut is_more = expired.len() >= CLEANED as usize;
    for (row, key, own) in expired {
        Records {
            connection,
            key: &key,
            sidecar_ttl,
        }
        .keep(&own, None, now)?;
        execute(connection, statements::REMOVE, [row])?;
    }
    for statement in statements::CLEAN {
        is_more |= connection
            .prepare_cached(statement)?
            .execute(params![nanos(now), CLEANED])?
            >= CLEANED as usize;
    }
    Ok(is_more)
}

/// The bytes of a column, which another program may have written.
fn bytes_of(row: &Row<'_>, column: usize) -> Result<Option<Bytes>, Error> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Bytes::copy_from_slice(bytes)),
        ValueRef::Null => None,
        // The column turns numbers into text.
        ValueRef::Integer(number) => Some(Bytes::from(number.to_string())),
        ValueRef::Real(number) => Some(Bytes::from(number.to_string())),
    })
}

fn has_passed(expires: Option<i64>, now: Monotonic) -> bool {
    expires.is_some_and(|expires| time_of(expires) <= now)
}

fn time_of(nanos: i64) -> Monotonic {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

fn nanos(time: Monotonic) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_utf_8_hide_no_others_of_their_page() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(include_str!("schema.sql"))
            .unwrap();
        let keys = [
            "x'613A31'",
            "x'613AFF'",
            "x'613AC3'",
            "x'613AE282AC'",
            "x'62'",
        ];
        for key in keys {
            let insert = "INSERT INTO keys (key, envelope) VALUES (CAST(";
            let insert = format!("{insert}{key} AS TEXT), '1')");
            connection.execute(&insert, []).unwrap();
        }
        connection
            .execute(
                "INSERT INTO keys (key, envelope) VALUES (x'613A32', '1')",
                [],
            )
            .unwrap();

        let (mut found, mut unreadable, mut cursor) = (Vec::new(), 0, None);
        loop {
            let page = names(
                &connection,
                "a:",
                cursor.as_deref(),
                3,
                Monotonic::default(),
            )
            .unwrap();
            found.extend(page.names);
            unreadable += page.unreadable.len();
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, ["a:1", "a:\u{20ac}"]);
        assert!(unreadable >= 2, "{unreadable}");
    }
}
