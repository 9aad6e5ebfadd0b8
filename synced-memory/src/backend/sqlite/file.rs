//! The file: opening it, checking that it is ours, and whether it is still there.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::busy_timeout::BusyTimeout;
use super::error::is_busy;
use super::inherited::{self, FileId, OpenMark};
use super::statements;
use crate::backend::error::BackendError;
use crate::base::policy::Durability;

/// The application id in the header of our files: `SyMe` in ASCII.
const APPLICATION: i32 = 0x5379_4d65;

/// The version of the tables in `schema.sql`.
const VERSION: i32 = 1;
const SCHEMA: &str = include_str!("schema.sql");

/// A write-ahead log that grew beyond this is truncated to it after a checkpoint.
const LONGEST_LOG: i64 = 16 << 20;

/// How many prepared statements are cached: more than there are.
const STATEMENTS: usize = 32;

/// Which file was opened, so that another one at the same path is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    path: PathBuf,
    file: Option<FileId>,
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
    /// `ConnectionLost` if the file is gone, or another one is at its path: nobody who opens the
    /// path now sees what is written to the open one.
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
fn file_at(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_at(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|_| (0, 0))
}

/// Opens the file, and creates it if it is missing.
///
/// # Errors
///
/// `Rejected` if it makes no sense to try again: it is no database, not ours, of a later version,
/// or cannot be written. `Unavailable` if it is locked or the disk is full.
pub(super) fn open(
    path: &Path,
    durability: Durability,
    busy_timeout: Duration,
) -> Result<(Connection, Identity, Option<OpenMark>), BackendError> {
    if path.is_dir() {
        return Err(BackendError::rejected("it is a directory"));
    }
    if path.parent().is_some_and(|parent| !parent.is_dir()) {
        return Err(BackendError::rejected(
            "the directory of the file does not exist",
        ));
    }
    let existing = file_at(path);
    if let Some(file) = existing {
        inherited::check(file)?;
    }
    // Before SQLite has it open, if the file is there.
    let mark = existing.map(OpenMark::new);

    let busy_timeout = BusyTimeout::new(busy_timeout);
    let connection = set_up(path, durability, &busy_timeout).map_err(|error| match error {
        Unusable::Sqlite(error) => open_error(&error),
        Unusable::Other(error) => error,
    })?;
    let identity = Identity::of(path);
    let mark = mark.or_else(|| identity.file.map(OpenMark::new));
    Ok((connection, identity, mark))
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

fn unusable<T>(why: impl Display) -> Result<T, Unusable> {
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

fn set_up(
    path: &Path,
    durability: Durability,
    busy_timeout: &BusyTimeout,
) -> Result<Connection, Unusable> {
    // The session's own lock lets one thread at a time use it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // `BusyTimeout` waits instead: it has to end in time for the caller.
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    if connection.is_readonly("main")? {
        return unusable("the file is read-only");
    }

    let is_new = busy_timeout
        .wait(|| header_at_once(&connection))?
        .is_new()?;
    // First, since the mode cannot be changed inside a transaction.
    let mode: String = busy_timeout
        .wait(|| connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)))?;
    if mode != "wal" {
        return unusable(
            "the file system cannot hold a file that several processes share (no write-ahead log)",
        );
    }
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Fsync => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.query_row(
        &format!("PRAGMA journal_size_limit = {LONGEST_LOG}"),
        [],
        |_| Ok(()),
    )?;

    if is_new {
        busy_timeout.wait(|| connection.execute_batch("BEGIN IMMEDIATE"))?;
        // Another process may have been faster.
        if header_of(&connection)?.is_new()? {
            connection.execute_batch(SCHEMA)?;
            connection.pragma_update(None, "application_id", APPLICATION)?;
            connection.pragma_update(None, "user_version", VERSION)?;
        }
        connection.execute_batch("COMMIT")?;
    }
    busy_timeout.wait(|| statements::check_tables(&connection))?;
    Ok(connection)
}

/// What the header of a file says.
struct FileHeader {
    application: i32,
    version: i32,
    is_empty: bool,
}

/// The header at one moment, since another process may be creating the tables.
fn header_at_once(connection: &Connection) -> Result<FileHeader, Error> {
    let transaction = connection.unchecked_transaction()?;
    let header = header_of(connection)?;
    transaction.finish()?;
    Ok(header)
}

fn header_of(connection: &Connection) -> Result<FileHeader, Error> {
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
            (APPLICATION, later) => unusable(format_args!(
                "the file has the schema version {later}; this version of the library knows \
                 {VERSION}"
            )),
            _ => unusable("the file is the database of another application"),
        }
    }
}
