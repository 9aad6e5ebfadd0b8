//! The records of the writers to a key.

use std::time::Duration;

use rusqlite::{Connection, Error, params};

use super::statements::{self, execute};
use super::tables::{nanos, time_of};
use crate::backend::commit::{RECORDS, WriterRecord};
use crate::backend::effects::horizon_of;
use crate::base::clock::Monotonic;

/// The record of a writer.
pub(super) struct RecordRow {
    /// The writer's number, as it is stored.
    pub(super) writer: i64,
    pub(super) record: WriterRecord,
    pub(super) decided: Monotonic,
    /// Until when the writer needs it: by the `sidecar_ttl` of its own, which may be longer than
    /// that of whoever replaces it. Nothing where an earlier version has stored the record.
    pub(super) needed: Option<Monotonic>,
}

/// The records of the writers to a key, except the last one.
pub(super) struct Records<'a> {
    pub(super) connection: &'a Connection,
    pub(super) key: &'a str,
    pub(super) sidecar_ttl: Duration,
}

impl Records<'_> {
    /// Keeps a record. `expires` is when the row that its writer has here expires. If the key has
    /// too many records, the older half is dropped.
    pub(super) fn keep(
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
