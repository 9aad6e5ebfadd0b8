//! The file: how it is opened, what makes it ours, and whether it is still there.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::busy_timeout::BusyTimeout;
use super::error::is_busy;
use super::tables;
use crate::backend::error::BackendError;

/// In the header of every file of ours; as characters `SyMe`.
const APPLICATION: i32 = 0x5379_4d65;

/// Of the tables in `schema.sql`.
const VERSION: i32 = 1;
const SCHEMA: &str = include_str!("schema.sql");

/// A write-ahead log that was longer than this is cut back to it once its pages are in the file.
const LONGEST_LOG: i64 = 16 << 20;

/// More than there are statements.
const STATEMENTS: usize = 32;

/// Which file it is that was opened, so that another one in its place is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Identity {
    fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: file_at(path),
        }
    }

    /// # Errors
    ///
    /// `Lost` where the file is gone, or another one is there: what is written into the open one is
    /// seen by nobody who opens the path now.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        if file_at(&self.path) == self.file {
            Ok(())
        } else {
            Err(BackendError::connection_lost(
                "the file was removed or replaced",
            ))
        }
    }
}

#[cfg(unix)]
fn file_at(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_at(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|_| (0, 0))
}

/// Opens the file, which is made where it is missing.
///
/// # Errors
///
/// `Refused` where it makes no sense to try again: it is no database, not ours, of a later version,
/// or cannot be written. `Busy` where it is locked or the disk is full.
pub(super) fn open(
    path: &Path,
    synced: bool,
    busy_timeout: Duration,
) -> Result<(Connection, Identity), BackendError> {
    if path.is_dir() {
        return Err(BackendError::rejected("it is a directory"));
    }
    if path.parent().is_some_and(|parent| !parent.is_dir()) {
        return Err(BackendError::rejected(
            "the directory of the file does not exist",
        ));
    }
    let busy_timeout = BusyTimeout::new(busy_timeout);
    let connection = set_up(path, synced, &busy_timeout).map_err(|error| match error {
        Unusable::Sqlite(error) => open_error(&error),
        Unusable::Other(error) => error,
    })?;
    Ok((connection, Identity::of(path)))
}

enum Unusable {
    Sqlite(Error),
    Other(BackendError),
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

fn refused<T>(why: impl Display) -> Result<T, Unusable> {
    Err(Unusable::Other(BackendError::rejected(why)))
}

fn open_error(error: &Error) -> BackendError {
    use ErrorCode::{CannotOpen, DiskFull, NotADatabase, OutOfMemory, PermissionDenied, ReadOnly};
    match error.sqlite_error_code() {
        _ if is_busy(error) => BackendError::unavailable(error),
        Some(DiskFull | OutOfMemory) => BackendError::unavailable(error),
        Some(NotADatabase) => BackendError::rejected("the file is no SQLite database"),
        Some(ReadOnly | PermissionDenied | CannotOpen) => BackendError::rejected(format_args!(
            "the file or its directory cannot be written: {error}"
        )),
        _ => BackendError::rejected(error),
    }
}

fn set_up(path: &Path, synced: bool, busy_timeout: &BusyTimeout) -> Result<Connection, Unusable> {
    // One thread at a time uses it, by the session's own lock.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Waiting is this library's own: it has to end in time for the caller.
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    if connection.is_readonly("main")? {
        return refused("the file is read-only");
    }
    let is_new = busy_timeout.wait(|| state_at_once(&connection))?.is_new()?;
    // Before anything is created: within a transaction it cannot be changed.
    let mode: String = busy_timeout
        .wait(|| connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)))?;
    if mode != "wal" {
        return refused(
            "the file system cannot hold a file that several processes share (no write-ahead log)",
        );
    }
    connection.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
    connection.query_row(
        &format!("PRAGMA journal_size_limit = {LONGEST_LOG}"),
        [],
        |_| Ok(()),
    )?;
    if is_new {
        busy_timeout.wait(|| connection.execute_batch("BEGIN IMMEDIATE"))?;
        // Somebody else may have been faster.
        if state_of(&connection)?.is_new()? {
            connection.execute_batch(SCHEMA)?;
            connection.pragma_update(None, "application_id", APPLICATION)?;
            connection.pragma_update(None, "user_version", VERSION)?;
        }
        connection.execute_batch("COMMIT")?;
    }
    busy_timeout.wait(|| tables::check(&connection))?;
    Ok(connection)
}

/// What the header of a file says.
struct FileHeader {
    application: i32,
    version: i32,
    is_empty: bool,
}

/// What it says at one moment: somebody else may be creating the tables.
fn state_at_once(connection: &Connection) -> Result<FileHeader, Error> {
    let moment = connection.unchecked_transaction()?;
    let state = state_of(connection)?;
    moment.finish()?;
    Ok(state)
}

fn state_of(connection: &Connection) -> Result<FileHeader, Error> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    Ok(FileHeader {
        application: number("application_id")?,
        version: number("user_version")?,
        is_empty: connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| {
            row.get::<_, i64>(0)
        })? == 0,
    })
}

impl FileHeader {
    /// Whether there is nothing in the file yet.
    fn is_new(&self) -> Result<bool, Unusable> {
        match (self.application, self.version) {
            (0, 0) if self.is_empty => Ok(true),
            (APPLICATION, VERSION) => Ok(false),
            (APPLICATION, later) => refused(format_args!(
                "the file has the schema version {later}; this version of the library knows {VERSION}"
            )),
            _ => refused("the file is the database of another application"),
        }
    }
}
