//! The file: opening it, checking that it is ours, and whether it is still there.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::busy_timeout::BusyTimeout;
use super::error::is_busy;
use super::inherited::OpenMark;
use super::statements;
use crate::backend::error::BackendError;
use crate::base::events::{EventEmitter, event};
use crate::base::files::{self, FileId};
use crate::base::policy::Durability;

/// The application id in the header of our files: `SyMe` in ASCII.
const APPLICATION: i32 = 0x5379_4d65;

/// The versions of the tables: those in `schema.sql`, and with what `chunks.sql` adds.
const FIRST_VERSION: i32 = 1;
const VERSION: i32 = 2;
const SCHEMA: &str = include_str!("schema.sql");
pub(super) const CHUNKS: &str = include_str!("chunks.sql");

/// How large values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Like all others, as earlier versions expect it: one of them may have the file open.
    Whole,
    /// In chunks.
    Chunked,
}

/// A write-ahead log that grew beyond this is truncated to it after a checkpoint.
const LONGEST_LOG: i64 = 16 << 20;

/// One that is longer has a cause: somebody reads in a transaction that does not end.
const LONG_LOG: u64 = 4 * LONGEST_LOG.cast_unsigned();

/// How many prepared statements are cached: more than there are.
const STATEMENTS: usize = 64;

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
            file: FileId::at(path),
        }
    }

    /// # Errors
    ///
    /// `ConnectionLost` if the file is gone, or another one is at its path: nobody who opens the
    /// path now sees what is written to the open one.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        if FileId::at(&self.path) == self.file {
            Ok(())
        } else {
            Err(BackendError::connection_lost(
                "the file was removed or replaced",
            ))
        }
    }
}

/// Watches how long the write-ahead log is. As long as anybody reads what was there at an earlier
/// time, SQLite cannot begin it anew.
#[derive(Debug)]
pub(super) struct LogWatch {
    path: PathBuf,
    /// How long it is when that is worth the next warning.
    next: AtomicU64,
    events: EventEmitter,
}

impl LogWatch {
    pub(super) fn beside(path: &Path) -> Self {
        let mut path = path.as_os_str().to_owned();
        path.push("-wal");
        Self {
            path: path.into(),
            next: AtomicU64::new(LONG_LOG),
            events: EventEmitter::default(),
        }
    }

    /// Warns when it is long, and again each time that its length has doubled.
    pub(super) fn check(&self) {
        let length = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length < LONG_LOG {
            self.next.store(LONG_LOG, Ordering::Relaxed);
        } else if length >= self.next.load(Ordering::Relaxed) {
            self.next.store(length.saturating_mul(2), Ordering::Relaxed);
            let path = self.path.display().to_string();
            // Requests are made under a lock.
            self.events.emit_elsewhere(event!(
                WARN,
                path,
                bytes = length,
                "the write-ahead log grows: somebody reads in a transaction that does not end"
            ));
        }
    }
}

/// A file that was opened.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) layout: Layout,
    pub(super) identity: Identity,
    pub(super) mark: Option<OpenMark>,
}

/// Opens the file, and creates it if it is missing. One of an earlier version is taken over if
/// nobody else has it open.
///
/// # Errors
///
/// `Rejected` if it makes no sense to try again: it is no database, not ours, of a later version,
/// or cannot be written. `Unavailable` if it is locked or the disk is full.
pub(super) fn open(
    path: &Path,
    durability: Durability,
    busy_timeout: Duration,
) -> Result<Opened, BackendError> {
    if path.is_dir() {
        return Err(BackendError::rejected("it is a directory"));
    }
    if path.parent().is_some_and(|parent| !parent.is_dir()) {
        return Err(BackendError::rejected(
            "the directory of the file does not exist",
        ));
    }
    let resolved = create_if_missing(path)?;
    // Before SQLite has it open.
    let mark = FileId::at(&resolved).map(OpenMark::new).transpose()?;

    let busy_timeout = BusyTimeout::new(busy_timeout);
    let set_up = set_up(&resolved, durability, &busy_timeout);
    let (connection, layout) = set_up.map_err(|error| match error {
        Unusable::Sqlite(error) => open_error(&error),
        Unusable::Other(error) => error,
    })?;
    Ok(Opened {
        connection,
        layout,
        identity: Identity::of(path),
        mark,
    })
}

/// Creates the file if it is missing, since SQLite would let everybody read it. What SQLite creates
/// beside it has the same mode. Returns its path without links in the names of its directories.
fn create_if_missing(path: &Path) -> Result<PathBuf, BackendError> {
    let resolved = resolve(path).map_err(|error| file_error(&error))?;
    match std::fs::symlink_metadata(&resolved) {
        Ok(metadata) if metadata.is_symlink() => Err(BackendError::rejected(
            "it is a symbolic link, which is not followed",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match files::create(&resolved) {
            // Another process may have been faster.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(file_error(&error)),
            _ => Ok(resolved),
        },
        // What cannot be looked at, SQLite says.
        _ => Ok(resolved),
    }
}

/// The path with the names of its directories resolved, and the name of the file as it is.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path.to_owned());
    };
    Ok(parent.canonicalize()?.join(name))
}

fn file_error(error: &io::Error) -> BackendError {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => {
            BackendError::unavailable(format_args!("the disk is full: {error}"))
        }
        _ => cannot_be_written(error),
    }
}

fn cannot_be_written(why: impl Display) -> BackendError {
    BackendError::rejected(format_args!(
        "the file or its directory cannot be written: {why}"
    ))
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
        Some(ReadOnly | PermissionDenied | CannotOpen) => cannot_be_written(error),
        _ => BackendError::rejected(error),
    }
}

fn connect(path: &Path) -> Result<Connection, Error> {
    // The session's own lock lets one thread at a time use it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    // `BusyTimeout` waits instead: it has to end in time for the caller.
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn set_up(
    path: &Path,
    durability: Durability,
    busy_timeout: &BusyTimeout,
) -> Result<(Connection, Layout), Unusable> {
    let mut connection = connect(path)?;
    if connection.is_readonly("main")? {
        return unusable("the file is read-only");
    }
    let found = busy_timeout
        .wait(|| header_at_once(&connection))?
        .layout()?;
    if found == Some(Layout::Whole) {
        // It would count as somebody who has the file open.
        drop(connection);
        // If that fails, for whatever reason, the file is used as it is.
        let _ = take_over(path);
        connection = connect(path)?;
    }

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

    if found.is_none() {
        busy_timeout.wait(|| connection.execute_batch("BEGIN IMMEDIATE"))?;
        // Another process may have been faster.
        if header_of(&connection)?.layout()?.is_none() {
            connection.execute_batch(SCHEMA)?;
            connection.execute_batch(CHUNKS)?;
            connection.pragma_update(None, "application_id", APPLICATION)?;
            connection.pragma_update(None, "user_version", VERSION)?;
        }
        connection.execute_batch("COMMIT")?;
    }
    // From this read on nobody can take the file over.
    let header = busy_timeout.wait(|| header_at_once(&connection))?;
    let Some(layout) = header.layout()? else {
        return unusable("the file was emptied while it was opened");
    };
    busy_timeout.wait(|| add_what_is_missing(&connection))?;
    busy_timeout.wait(|| statements::check_tables(&connection, layout))?;
    Ok((connection, layout))
}

/// Gives a file of the first version the tables of this one, unless anybody has it open.
///
/// Every connection to a file with a write-ahead log holds a shared lock on it, from its first read
/// until it is closed. A connection in this locking mode needs an exclusive one from its own first
/// read on (<https://sqlite.org/wal.html>, 8): so an earlier version that has looked at the version
/// of the file cannot have it replaced beneath it, and one that has not yet is refused.
fn take_over(path: &Path) -> Result<(), Error> {
    let connection = connect(path)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let transaction = Transaction::new_unchecked(&connection, TransactionBehavior::Exclusive)?;
    let mode: String = transaction.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    let header = header_of(&transaction)?;
    // Without the log nobody would hold that lock.
    if mode == "wal" && header.application == APPLICATION && header.version == FIRST_VERSION {
        if !has_record_expires(&transaction)? {
            transaction.execute_batch(statements::ADD_RECORD_EXPIRES)?;
        }
        transaction.execute_batch(CHUNKS)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

/// Adds the column that earlier versions do not know, and go on without.
fn add_what_is_missing(connection: &Connection) -> Result<(), Error> {
    if has_record_expires(connection)? {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    if !has_record_expires(&transaction)? {
        transaction.execute_batch(statements::ADD_RECORD_EXPIRES)?;
    }
    transaction.commit()
}

fn has_record_expires(connection: &Connection) -> Result<bool, Error> {
    let mut statement = connection.prepare(statements::HAS_RECORD_EXPIRES)?;
    statement.exists([])
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
    /// The layout of the file; `None` if there is nothing in it yet.
    fn layout(&self) -> Result<Option<Layout>, Unusable> {
        match (self.application, self.version) {
            (0, 0) if self.is_empty => Ok(None),
            (APPLICATION, FIRST_VERSION) => Ok(Some(Layout::Whole)),
            (APPLICATION, VERSION) => Ok(Some(Layout::Chunked)),
            (APPLICATION, later) => unusable(format_args!(
                "the file has the schema version {later}; this version of the library knows \
                 {VERSION}"
            )),
            _ => unusable("the file is the database of another application"),
        }
    }
}
