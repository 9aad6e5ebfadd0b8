//! The tables: keys, and what is kept beside them.
//!
//! Times are ns since 1970 by the machine's wall clock, which all who share the file agree on. A
//! writer's number is stored with its 64 bits as SQLite's signed integer.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, Row, params};

use super::chunked::chunked_of;
use super::file::Layout;
use super::records::{RecordRow, Records};
use super::statements::{self, execute};
use super::{changes, chunks};
use crate::backend::commit::{ValueId, Writer, WriterRecord};
use crate::backend::{KeyRead, KnownValue, Page};
use crate::base::clock::Monotonic;
use crate::value::document::Document;

/// How many expired rows of each kind are removed at a time.
const CLEANED: u32 = 200;

/// What is stored under a key and has not expired.
pub(super) fn read(
    connection: &Connection,
    layout: Layout,
    read: &KeyRead,
    now: Monotonic,
) -> Result<Option<Document>, Error> {
    let key = &*read.key;
    let mut statement = connection.prepare_cached(statements::read(layout))?;
    let mut rows = statement.query([key])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    if has_passed(row.get(1)?, now) {
        return Ok(None);
    }
    let Some(id) = chunked_of(row, 0, 2)? else {
        return Ok(bytes_of(row, 0)?.map(Document::of));
    };
    // As long as this row is looked at, all that is read is of one moment.
    let known = match &read.known {
        Some(KnownValue {
            document,
            trusts_stamp,
        }) if ValueId::of(document) == id => trusts_stamp.then(|| document.clone()),
        Some(known) => changes::since(connection, key, id, &known.document)?,
        None => None,
    };
    match known {
        Some(known) => Ok(Some(known)),
        None => Ok(Some(Document::of(chunks::read(connection, key)?))),
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
pub(super) fn bytes_of(row: &Row<'_>, column: usize) -> Result<Option<Bytes>, Error> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Bytes::copy_from_slice(bytes)),
        ValueRef::Null => None,
        // The column turns numbers into text.
        ValueRef::Integer(number) => Some(Bytes::from(number.to_string())),
        ValueRef::Real(number) => Some(Bytes::from(number.to_string())),
    })
}

/// As text, so that people can read the file. What other programs stored need not be text.
pub(super) fn text_or_blob(envelope: &[u8]) -> ToSqlOutput<'_> {
    let borrowed = match std::str::from_utf8(envelope) {
        Ok(_) => ValueRef::Text(envelope),
        Err(_) => ValueRef::Blob(envelope),
    };
    ToSqlOutput::Borrowed(borrowed)
}

pub(super) fn has_passed(expires: Option<i64>, now: Monotonic) -> bool {
    expires.is_some_and(|expires| time_of(expires) <= now)
}

pub(super) fn time_of(nanos: i64) -> Monotonic {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

pub(super) fn nanos(time: Monotonic) -> i64 {
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
