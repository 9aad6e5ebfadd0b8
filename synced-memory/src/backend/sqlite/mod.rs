//! `sqlite:path`: a file that the processes of one machine share.
//!
//! - `file.rs`: opening it, and checking that it is ours
//! - `inherited.rs`: refusing what a parent had open at a fork
//! - `tables.rs`, `statements.rs`: the tables
//! - `commit.rs`, `records.rs`: making attempts, and the records of their writers
//! - `chunked.rs`, `chunks.rs`, `changes.rs`: large values, which are in chunks, and the log of
//!   what has changed in them
//! - `busy_timeout.rs`: waiting for a lock that another process holds
//! - `error.rs`: what an error means for a request

mod busy_timeout;
mod changes;
mod chunked;
mod chunks;
mod commit;
mod error;
mod file;
mod inherited;
mod records;
mod statements;
mod tables;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, Error};

use super::{Backend, Expiry, Invalidation, KeyRead, Page, Reply, Session, WithExpiry};
use crate::backend::commit::{Attempt, Outcome, Writer};
use crate::backend::error::BackendError;
use crate::backend::layout::Node;
use crate::base::clock::{self, Monotonic};
use crate::base::lock::lock;
use crate::base::policy::Durability;
use busy_timeout::BusyTimeout;
use file::{Identity, Layout, LogWatch, Opened};
use inherited::OpenMark;
use statements::execute;

/// How many names a page has at most.
const PAGE: u32 = 1_000;

/// The pause between two checks whether another process has changed the file. A check takes some
/// microseconds.
const CHANGE_CHECK: Duration = Duration::from_millis(5);

/// How long after a cleaning the next one is due: if everything expired was removed, and if not.
const CLEANED_EVERY: Duration = Duration::from_secs(10);
const CLEANED_SOON: Duration = Duration::from_millis(100);

/// The backend of `sqlite:path`.
#[derive(Debug)]
pub(crate) struct SqliteBackend {
    target: String,
    path: PathBuf,
    durability: Durability,
    /// How long a request waits at most for a lock. It is half of the timeout, so that its caller
    /// has the other half for the rest.
    busy_timeout: Duration,
    sidecar_ttl: Duration,
}

impl SqliteBackend {
    /// The file at an absolute path.
    pub(crate) fn new(
        path: PathBuf,
        durability: Durability,
        timeout: Duration,
        sidecar_ttl: Duration,
    ) -> Self {
        let target = format!("sqlite:{}", path.display());
        Self {
            target,
            path,
            durability,
            busy_timeout: timeout / 2,
            sidecar_ttl,
        }
    }
}

impl Backend for SqliteBackend {
    fn connect(&self, _node: &Node) -> Reply<Box<dyn Session>> {
        let (path, durability, busy_timeout, sidecar_ttl) = (
            self.path.clone(),
            self.durability,
            self.busy_timeout,
            self.sidecar_ttl,
        );
        Box::pin(async move {
            let Opened {
                connection,
                layout,
                identity,
                mark,
            } = file::open(&path, durability, busy_timeout)?;
            let held = OpenConnection {
                connection,
                next_clean: Duration::ZERO,
                checked: (0, Duration::ZERO),
            };
            let (reads, writes) = (
                BusyTimeout::new(busy_timeout),
                BusyTimeout::new(busy_timeout),
            );
            let opened = OpenFile {
                held: Mutex::new(held),
                layout,
                reads,
                writes,
                identity,
                log: LogWatch::beside(&path),
                sidecar_ttl,
                _mark: mark,
            };
            let session: Box<dyn Session> = Box::new(SqliteSession(Arc::new(opened)));
            Ok(session)
        })
    }

    fn target(&self) -> &str {
        &self.target
    }
}

/// An open file. A request is done at its first poll, on the thread that polls it: what takes some
/// microseconds is not worth a change of threads.
#[derive(Debug)]
struct SqliteSession(Arc<OpenFile>);

#[derive(Debug)]
struct OpenFile {
    held: Mutex<OpenConnection>,
    layout: Layout,
    /// Any other write delays a write; hardly anything delays a read.
    reads: BusyTimeout,
    writes: BusyTimeout,
    identity: Identity,
    log: LogWatch,
    sidecar_ttl: Duration,
    /// Dropped after the connection is closed.
    _mark: Option<OpenMark>,
}

#[derive(Debug)]
struct OpenConnection {
    connection: Connection,
    /// When to remove again what has expired.
    next_clean: Monotonic,
    /// The data version at the last check for changes, and the time of that check.
    checked: (i64, Monotonic),
}

impl OpenFile {
    /// Makes a request for which it does not matter whether it was done if it fails.
    fn ask<T>(
        &self,
        busy_timeout: &BusyTimeout,
        ask: impl Fn(&Connection, Monotonic) -> Result<T, Error>,
    ) -> Result<T, BackendError> {
        let held = lock(&self.held);
        let answer = busy_timeout.wait(|| ask(&held.connection, now()));
        answer.map_err(|error| error::of_read(&error))
    }

    /// Whether another connection has changed the file since the last check, or a key has expired.
    fn check_for_changes(&self, now: Monotonic) -> Result<bool, BackendError> {
        let mut held = lock(&self.held);
        let OpenConnection {
            connection,
            checked,
            ..
        } = &mut *held;
        let version = data_version(connection).map_err(|error| error::of_read(&error))?;
        let has_expired = tables::has_expired(connection, checked.1, now);
        let has_expired = has_expired.map_err(|error| error::of_read(&error))?;

        // Last, since an error before it must not lose a change.
        let (before, _) = std::mem::replace(checked, (version, now));
        Ok(version != before || has_expired)
    }

    fn commit(
        &self,
        batch: &[Attempt],
    ) -> Result<Vec<Result<Outcome, BackendError>>, BackendError> {
        let mut held = lock(&self.held);
        let OpenConnection {
            connection,
            next_clean,
            ..
        } = &mut *held;
        let nothing_done = |error: BackendError| Ok(vec![Err(error); batch.len()]);

        if let Err(error) = self
            .writes
            .wait(|| execute(connection, "BEGIN IMMEDIATE", []))
        {
            return nothing_done(error::of_write(&error));
        }
        let error = match self.commit_inside(connection, batch, next_clean) {
            Ok(answers) => match execute(connection, "COMMIT", []) {
                Ok(()) => return Ok(answers),
                Err(error) => error::of_end(&error),
            },
            Err(error) => error::of_write(&error),
        };

        // Some errors have rolled back the transaction already.
        if !connection.is_autocommit()
            && let Err(error) = execute(connection, "ROLLBACK", [])
        {
            return Err(BackendError::connection_lost(error));
        }
        if error.is_connection_lost() {
            Err(error)
        } else {
            nothing_done(error)
        }
    }

    /// Makes the attempts, inside a transaction.
    fn commit_inside(
        &self,
        connection: &Connection,
        batch: &[Attempt],
        next_clean: &mut Monotonic,
    ) -> Result<Vec<Result<Outcome, BackendError>>, Error> {
        let now = now();
        if now >= *next_clean {
            let is_more = tables::clean(connection, now, self.sidecar_ttl)?;
            *next_clean = now + if is_more { CLEANED_SOON } else { CLEANED_EVERY };
        }
        batch
            .iter()
            .map(|attempt| commit::commit(connection, self.layout, attempt, now, self.sidecar_ttl))
            .collect()
    }
}

impl Session for SqliteSession {
    /// Every key is tracked, however it is read: what is notified is that the file has changed.
    fn read(&self, reads: &[KeyRead]) -> Reply<Vec<Result<WithExpiry, BackendError>>> {
        let reads = reads.to_vec();
        self.reply(move |opened| {
            opened.ask(&opened.reads, |connection, now| {
                // In one transaction, several statements take the locks once.
                let transaction = (reads.len() > 1)
                    .then(|| connection.unchecked_transaction())
                    .transpose()?;
                let stored = |read: &KeyRead| tables::read(connection, opened.layout, read, now);
                let read = reads
                    .iter()
                    .map(|read| Ok(Ok((stored(read)?, Expiry::Tracked))))
                    .collect();
                transaction.map_or(Ok(()), rusqlite::Transaction::finish)?;
                read
            })
        })
    }

    fn commit(&self, batch: &[Attempt], _now: u64) -> Reply<Vec<Result<Outcome, BackendError>>> {
        let batch = batch.to_vec();
        self.reply(move |opened| opened.commit(&batch))
    }

    fn names(&self, prefix: &str, cursor: Option<String>) -> Reply<Page> {
        let prefix = prefix.to_owned();
        self.reply(move |opened| {
            opened.ask(&opened.reads, |connection, now| {
                tables::names(connection, &prefix, cursor.as_deref(), PAGE, now)
            })
        })
    }

    fn forget(&self, writer: Writer, keys: &[Arc<str>]) -> Reply<()> {
        let keys = keys.to_vec();
        self.reply(move |opened| {
            opened.ask(&opened.writes, |connection, _| {
                let transaction = rusqlite::Transaction::new_unchecked(
                    connection,
                    rusqlite::TransactionBehavior::Immediate,
                )?;
                keys.iter()
                    .try_for_each(|key| tables::forget(connection, writer, key))?;
                transaction.commit()
            })
        })
    }

    /// The wall clock of the machine that the file is on.
    fn now(&self) -> Reply<u64> {
        self.reply(|opened| {
            opened.identity.check()?;
            opened.log.check();
            Ok(clock::wall())
        })
    }

    fn eviction_policy(&self) -> Reply<Option<String>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn track(&self) -> Reply<()> {
        self.reply(|opened| opened.check_for_changes(now()).map(drop))
    }

    fn invalidations(&self) -> Reply<Invalidation> {
        let opened = Arc::clone(&self.0);
        Box::pin(async move {
            loop {
                tokio::time::sleep(CHANGE_CHECK).await;
                match opened.check_for_changes(now()) {
                    Ok(true) => return Ok(Invalidation::All),
                    Err(error) if error.is_connection_lost() => return Err(error),
                    // If the file is locked, the next check will find out.
                    Ok(false) | Err(_) => {}
                }
            }
        })
    }

    /// Nobody can close it; `now` finds out that the file is gone.
    fn ended(&self) -> Reply<()> {
        Box::pin(std::future::pending())
    }
}

impl SqliteSession {
    fn reply<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&OpenFile) -> Result<T, BackendError> + Send + 'static,
    ) -> Reply<T> {
        let opened = Arc::clone(&self.0);
        Box::pin(async move { answer(&opened) })
    }
}

/// A number that rises when another connection changes the file.
fn data_version(connection: &Connection) -> Result<i64, Error> {
    connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}

/// The time that decides what has expired: all processes have to agree on it.
fn now() -> Monotonic {
    Duration::from_nanos(clock::wall())
}
