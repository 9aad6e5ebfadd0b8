//! Making attempts.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, Error, params};

use super::changes::{LoggedChange, columns_of};
use super::chunked::{self, ChunkedValue, chunked, chunked_of};
use super::chunks::{self, ChunkEdits};
use super::error::{self, is_refusal};
use super::file::Layout;
use super::records::{RecordRow, Records};
use super::statements::{self, execute};
use super::tables::{bytes_of, has_passed, nanos, text_or_blob, time_of};
use crate::backend::commit::{Attempt, KeyAfter, KeyState, Outcome, WriterRecord};
use crate::backend::effects::{KeyContext, RecordContext, StarvedWriter, effects_of, expiry_of};
use crate::backend::error::BackendError;
use crate::base::clock::{Monotonic, Stamp};
use crate::value::document::Document;

/// Makes an attempt, inside a transaction. A [`BackendError`] concerns this attempt alone, and
/// nothing of it was made; after an [`Error`] the whole transaction has to be rolled back.
///
/// The record of the last writer is in the row of the key, so that a writer that is alone changes
/// one page.
pub(super) fn commit(
    connection: &Connection,
    layout: Layout,
    attempt: &Attempt,
    now: Monotonic,
    sidecar_ttl: Duration,
) -> Result<Result<Outcome, BackendError>, Error> {
    let KeyFound {
        value,
        tombstone,
        records,
        rows,
    } = found(connection, layout, attempt, now)?;
    let effects = match value {
        FoundValue::Whole(stored) => {
            let current = KeyState { stored, tombstone };
            effects_on_whole(attempt, KeyContext { current, records }, now)
        }
        FoundValue::Chunked(value) => {
            value.effects(connection, attempt, (tombstone, records), now)?
        }
    };

    if let Some(row) = rows.row.filter(|_| effects.starved != records.starved) {
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

    match effects.made {
        Some(Made::Removed) => {
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
        Some(made) => {
            let expires = expiry_of(attempt.change.ttl(), rows.expires, now);
            // First, since the file may refuse this.
            match put(
                connection,
                layout,
                &attempt.key,
                (&rows, &own, expires),
                made,
            ) {
                Err(error) if is_refusal(&error) => return Ok(Err(error::of_write(&error))),
                made => made?,
            }
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

/// Stores what a change has made, with the record of its writer.
fn put(
    connection: &Connection,
    layout: Layout,
    key: &str,
    (rows, record, expires): (&KeyRows, &RecordRow, Option<Monotonic>),
    made: Made,
) -> Result<(), Error> {
    let put_row = |envelope: &Bytes| put_row(connection, key, rows, record, envelope, expires);
    match made {
        Made::Stored { document, is_list } => {
            let envelope = document.to_bytes();
            let value = chunked(&document, is_list).filter(|_| layout == Layout::Chunked);
            if let (Some(value), Ok(text)) = (value, std::str::from_utf8(&envelope)) {
                put_row(&Bytes::new())?;
                value.describe(connection, key)?;
                return chunks::write(connection, key, text);
            }
            put_row(&envelope)?;
            if rows.has_chunks {
                execute(connection, statements::SET_WHOLE, [key])?;
                chunked::remove(connection, key)?;
            }
            Ok(())
        }
        Made::Edited {
            edits,
            logged,
            after,
        } => {
            let row = rows.row.filter(|_| expires.is_none() && !rows.has_expiry);
            if let Some(row) = row {
                update_chunked(connection, row, record, after)?;
            } else {
                put_row(&Bytes::new())?;
                after.describe(connection, key)?;
            }
            edits.store(connection, key)?;
            logged.store(connection, key)
        }
        Made::Removed => Ok(()),
    }
}

/// Describes a value in chunks that never expires, in a row that is there.
fn update_chunked(
    connection: &Connection,
    row: i64,
    record: &RecordRow,
    value: ChunkedValue,
) -> Result<(), Error> {
    let (stamp, length) = columns_of(value.id);
    let (writer, sequence, decided, needed) = columns_of_record(record);
    execute(
        connection,
        statements::UPDATE_CHUNKED,
        params![
            row,
            stamp,
            length,
            value.is_list,
            writer,
            sequence,
            decided,
            needed
        ],
    )
}

/// The record of the last writer, as the row of its key has it.
fn columns_of_record(record: &RecordRow) -> (i64, i64, i64, Option<i64>) {
    (
        record.writer,
        record.record.sequence.cast_signed(),
        nanos(record.decided),
        record.needed.map(nanos),
    )
}

fn put_row(
    connection: &Connection,
    key: &str,
    rows: &KeyRows,
    record: &RecordRow,
    envelope: &Bytes,
    expires: Option<Monotonic>,
) -> Result<(), Error> {
    let envelope = text_or_blob(envelope);
    let (writer, sequence, decided, needed) = columns_of_record(record);
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

/// What the file has of the key of an attempt.
struct KeyFound {
    value: FoundValue,
    tombstone: Stamp,
    records: RecordContext,
    rows: KeyRows,
}

/// What a key has.
enum FoundValue {
    /// As it is, in the row of the key; or nothing.
    Whole(Option<Document>),
    Chunked(ChunkedValue),
}

/// The rows that an attempt may change.
struct KeyRows {
    row: Option<i64>,
    /// When what is stored expires.
    expires: Option<Monotonic>,
    /// The row has an expiry, which may have passed.
    has_expiry: bool,
    /// There may be chunks of the key.
    has_chunks: bool,
    /// The record of the last writer, in the key's own row; and when its row in `records` expires,
    /// if it has an older one there.
    last: Option<(RecordRow, Option<Monotonic>)>,
    /// When the row of this writer in `records` expires.
    own_expiry: Option<Monotonic>,
}

fn found(
    connection: &Connection,
    layout: Layout,
    attempt: &Attempt,
    now: Monotonic,
) -> Result<KeyFound, Error> {
    let writer = attempt.writer.cast_signed();
    let mut statement = connection.prepare_cached(statements::context(layout))?;
    statement.query_row(params![&*attempt.key, writer], |row| {
        let at = |column| {
            row.get::<_, Option<i64>>(column)
                .map(|nanos| nanos.map(time_of))
        };
        let expires: Option<i64> = row.get(2)?;
        let value = if has_passed(expires, now) {
            FoundValue::Whole(None)
        } else if let Some(id) = chunked_of(row, 1, 15)? {
            let is_list = row.get(17)?;
            FoundValue::Chunked(ChunkedValue { id, is_list })
        } else {
            FoundValue::Whole(bytes_of(row, 1)?.map(Document::of))
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
        let is_set = !matches!(value, FoundValue::Whole(None));
        let rows = KeyRows {
            row: row.get(0)?,
            expires: expires.filter(|_| is_set).map(time_of),
            has_expiry: expires.is_some(),
            has_chunks: row.get::<_, Option<i64>>(16)?.is_some(),
            last: last.zip(Some(at(8)?)),
            own_expiry: at(11)?,
        };
        Ok(KeyFound {
            value,
            tombstone,
            records: RecordContext {
                record,
                horizon,
                starved,
            },
            rows,
        })
    })
}

/// What a change makes of a value in the file.
pub(super) enum Made {
    Stored {
        document: Document,
        is_list: Option<bool>,
    },
    Edited {
        edits: ChunkEdits,
        logged: LoggedChange,
        after: ChunkedValue,
    },
    Removed,
}

/// What an attempt does, as in [`Effects`](crate::backend::effects::Effects).
pub(super) struct FileEffects {
    pub(super) made: Option<Made>,
    pub(super) record: Option<WriterRecord>,
    pub(super) starved: Option<StarvedWriter>,
    pub(super) outcome: Outcome,
}

fn effects_on_whole(attempt: &Attempt, context: KeyContext, now: Monotonic) -> FileEffects {
    let effects = effects_of(attempt, context, now);
    let made = effects.made.map(|made| match made {
        KeyAfter::Stored(document) => Made::Stored {
            document,
            is_list: attempt.change.adds_items().then_some(true),
        },
        KeyAfter::Removed => Made::Removed,
    });
    FileEffects {
        made,
        record: effects.record,
        starved: effects.starved,
        outcome: effects.outcome,
    }
}
