//! `Memory`: the connection, its scopes, and access by key.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::open::open;
use crate::backend::sidecar::check_prefix;
use crate::backend::{Backend, DiskSync};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::WritePolicy;
use crate::base::waiting::block_on;
use crate::client::core::Core;
use crate::client::shared::Shared;
use crate::client::slot::Slot;
use crate::client::state::{Link, Request};
use crate::handle::config::{Builder, Config};
use crate::handle::dead_letter::DeadLetter;
use crate::handle::key::{Key, check_name, check_scope};
use crate::pending::journal::{self, Durability};
use crate::pending::outbox::{LetterRecord, Written};

/// One connection to one backend, with its cache and the writes that wait. Cheap to clone; clones
/// and scopes share everything.
///
/// ```
/// use synced_memory::{Key, Memory};
///
/// let memory = Memory::open("memory:")?;
/// let session = memory.scope("session_abc");
/// session.set(&Key::new("theme"), "dark".to_string())?;
/// assert_eq!(session.names()?, ["theme"]);
/// # Ok::<(), synced_memory::Error>(())
/// ```
///
/// The drop of the last `Memory`, handle or [`Synced`](crate::Synced) delivers what is queued for
/// at most `shutdown_timeout`. What lives in a `static` is never dropped and must call
/// [`close`](Memory::close).
#[cfg_attr(feature = "sqlite", doc = "", doc = include_str!("../../sqlite.md"))]
#[derive(Clone)]
pub struct Memory {
    scope: Arc<Scope>,
}

/// A namespace, with the slots that were used in it.
struct Scope {
    core: Arc<Core>,
    prefix: String,
    /// Empty, or the scope with a `:` behind it.
    path: String,
    /// Why nothing can be done in here: a name made no sense.
    invalid: Option<Error>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// How a memory stands with its backend; see [`Memory::status`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Whether the backend is there.
    pub connected: bool,
    /// How many keys have writes that the backend has not answered for.
    pub pending: usize,
    /// How long the oldest of those writes has waited.
    pub oldest_pending: Option<Duration>,
    /// What last went wrong between this process and the backend; it may be long over.
    pub last_error: Option<Error>,
    /// How many queued writes were not made, or may have been, and how many taken elements could
    /// not go back; [`Memory::dead_letters`] shows them.
    pub dead_letters: usize,
    /// How many of them were dropped, since there were too many.
    pub dropped_dead_letters: u64,
    /// How many writes were replaced by somebody's newer one.
    pub superseded: u64,
    /// How many queued writes were dropped, since their `ttl` was over before they could be sent.
    pub expired: u64,
    /// How many keys are read near or watched whose slots are not known to be current: the backend
    /// is away or may not tell of changes, or they are being read again.
    /// [`Synced::staleness`](crate::Synced::staleness) says since when.
    pub stale: usize,
    /// How the server chooses what it throws away when memory is short, where it says so. Anything
    /// but `noeviction` loses state; `volatile-*` loses the sidecars first, and with them the
    /// memory of deletes.
    pub eviction_policy: Option<String>,
}

impl Memory {
    /// Opens a URL: `redis://user:password@host:6379/0`, `valkey://`, `dragonfly://`,
    /// `redis+unix:///path`, `sqlite:path` (a file that the processes of one machine share; the
    /// feature `sqlite`), `memory:` (this process alone, fresh at each open) or `memory:name`
    /// (shared within the process while anybody has it open).
    ///
    /// Waits at most `timeout` for the first answer. A backend that is not there is no error: reads
    /// show what this process knows or an explicit `default`, and are `Unavailable` otherwise;
    /// writes are queued.
    ///
    /// # Errors
    ///
    /// `Config` for a URL that makes no sense, `Rejected` for a wrong password, or for a file that
    /// is no database of this library or cannot be written.
    pub fn open(url: &str) -> Result<Self> {
        Self::builder().url(url).build()
    }

    /// Opens what the environment names: `SYNCED_MEMORY_URL`, else `REDIS_HOST` and `REDIS_PORT`;
    /// `REDIS_PREFIX` is the prefix.
    ///
    /// # Errors
    ///
    /// As [`open`](Memory::open).
    pub fn from_env() -> Result<Self> {
        Self::builder().build()
    }

    /// Options for opening.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn connect(config: Config) -> Result<Self> {
        let Config {
            place,
            prefix,
            scope,
            settings,
            journal,
            durability,
        } = config;
        let disk_sync = match durability {
            Durability::Process => DiskSync::Lazy,
            Durability::Fsync => DiskSync::Full,
        };
        let backend = open(place, &settings, disk_sync)?;
        let journal = journal.map(|directory| journal::JournalConfig {
            directory,
            target: format!("{} {prefix}", backend.target()),
            durability,
        });
        let core = Core::open(backend, settings, journal)?;
        let path = scope.map(|scope| format!("{scope}:")).unwrap_or_default();
        Ok(Self::with(Arc::new(core), prefix, path, None))
    }

    fn with(core: Arc<Core>, prefix: String, path: String, invalid: Option<Error>) -> Self {
        let slots = Mutex::default();
        Self {
            scope: Arc::new(Scope {
                core,
                prefix,
                path,
                invalid,
                slots,
            }),
        }
    }

    /// The namespace `scope` below this one: its keys are `<prefix><scope>:<name>`. It shares the
    /// connection, and is cheap: a process may have very many. A `:` in it nests.
    ///
    /// A scope that is empty or has braces is an error of kind `Config` at each use.
    #[must_use]
    pub fn scope(&self, scope: &str) -> Self {
        let scope_error = check_scope(scope).err();
        let path = format!("{}{scope}:", self.scope.path);
        self.derived(self.scope.prefix.clone(), path, scope_error)
    }

    /// The same scope under another prefix.
    pub(crate) fn under_prefix(&self, prefix: &str) -> Self {
        self.derived(
            prefix.to_owned(),
            self.scope.path.clone(),
            check_prefix(prefix).err(),
        )
    }

    fn derived(&self, prefix: String, path: String, invalid: Option<Error>) -> Self {
        let invalid = self.scope.invalid.clone().or(invalid);
        Self::with(Arc::clone(&self.scope.core), prefix, path, invalid)
    }

    /// What is stored under `key`; where nothing is, its default.
    ///
    /// # Errors
    ///
    /// `Decode` where something else than a `T` is stored, `Rejected` where the server refuses this
    /// key.
    pub fn get<T: crate::handle::value::Value>(&self, key: &Key<T>) -> Result<Option<T>> {
        self.synced(key).find_or_default()
    }

    /// Stores a value under `key`, whatever is there.
    ///
    /// # Errors
    ///
    /// `Serialize` for a value that JSON cannot hold, `OutboxFull`, `Rejected` where the server
    /// refuses. After an error nothing is changed.
    pub fn set<T: crate::handle::value::Value>(&self, key: &Key<T>, value: T) -> Result<Written> {
        self.synced(key).set(value)
    }

    /// Removes what is stored under `key` and its older names; whether there was anything.
    ///
    /// # Errors
    ///
    /// `OutboxFull`, `Rejected` where the server refuses. After an error nothing is changed.
    pub fn delete<T: crate::handle::value::Value>(&self, key: &Key<T>) -> Result<bool> {
        self.synced(key).delete()
    }

    /// Whether anything is stored under `key` or one of its older names.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the backend is away and this process never knew; `Rejected` where the
    /// server refuses.
    pub fn contains<T: crate::handle::value::Value>(&self, key: &Key<T>) -> Result<bool> {
        self.synced(key).is_set()
    }

    /// The names that are set in this scope, in alphabetical order, without those of other scopes.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the backend is away.
    pub fn names(&self) -> Result<Vec<String>> {
        let own = self.stem().len();
        let names = self
            .keys_below()?
            .into_iter()
            .map(|mut key| key.split_off(own));
        Ok(names.filter(|name| !name.contains(':')).collect())
    }

    /// Deletes everything in this scope and in the scopes below it, so that it stays deleted; how
    /// many keys there were.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the backend is away, `Config` where the prefix is empty (not everything
    /// in the database need be this library's).
    pub fn purge(&self) -> Result<u64> {
        if self.stem().is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "a purge needs a prefix or a scope",
            ));
        }
        let mut purged = 0;
        let keys: Vec<Arc<str>> = self.keys_below()?.into_iter().map(Into::into).collect();
        for some in keys.chunks(1_000) {
            let deletes = some
                .iter()
                .map(|key| (Arc::clone(key), Request::Delete))
                .collect();
            for answer in block_on(self.scope.core.write_all(deletes, WritePolicy::Through))? {
                purged += u64::from(answer?.existed);
            }
        }
        Ok(purged)
    }

    /// Every full key below this scope: the backend's, with the unanswered writes on top.
    fn keys_below(&self) -> Result<BTreeSet<String>> {
        self.check()?;
        let shared = self.shared();
        shared.check_open()?;
        let stem = self.stem();
        let mut keys = BTreeSet::new();
        let mut cursor = None;
        loop {
            let page = block_on(
                self.scope
                    .core
                    .ask(|live| live.session.names(&stem, cursor.take())),
            );
            let (names, next) = match page {
                Some(Ok(page)) => page,
                Some(Err(error)) if error.is_rejected() => {
                    return Err(Error::new(
                        ErrorKind::Rejected,
                        format!("the names below `{stem}`: {error}"),
                    ));
                }
                _ => return Err(shared.unavailable()),
            };
            keys.extend(names);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let mono = shared.clock.mono();
        let state = shared.state();
        let pending: BTreeSet<_> = state
            .outbox
            .entries()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with(&stem))
            .collect();
        for key in pending {
            if state.view(key, mono).stored.is_some() {
                keys.insert(key.to_string());
            } else {
                keys.remove(&**key);
            }
        }
        Ok(keys)
    }

    /// How this memory stands with its backend.
    pub fn status(&self) -> Status {
        let shared = self.shared();
        let mono = shared.clock.mono();
        let state = shared.state();
        let oldest = state.outbox.entries().map(|(_, entry)| entry.since).min();
        Status {
            connected: state.link != Link::Down,
            pending: state.outbox.len(),
            oldest_pending: oldest.map(|oldest| mono.saturating_sub(oldest)),
            last_error: state.last_error.clone(),
            dead_letters: state.letters.len(),
            dropped_dead_letters: state.dropped_letters,
            superseded: state.superseded,
            expired: state.expired,
            stale: state.cache.stale(),
            eviction_policy: shared.eviction_policy.load().as_deref().cloned(),
        }
    }

    /// The queued writes of this scope and those below that were not made, or may have been, and
    /// the taken elements that could not go back, oldest first; without a scope those of the whole
    /// connection. They are kept until each is retried or forgotten.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let letters = self.shared().state().letters.clone();
        let stem = self.stem();
        // Without a scope it sees those of the whole connection, whatever their prefix.
        let is_own =
            |letter: &LetterRecord| self.scope.path.is_empty() || letter.key.starts_with(&stem);
        let own = letters.into_iter().filter(is_own);
        own.map(|letter| DeadLetter::new(self.core(), letter))
            .collect()
    }

    /// Waits until the backend has answered for everything that is queued now.
    ///
    /// # Errors
    ///
    /// `Timeout` after `timeout`, naming what was not delivered; it stays queued.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        block_on(self.flush_async(timeout))
    }

    /// As [`flush`](Memory::flush), in async code: it runs on any executor.
    ///
    /// # Errors
    ///
    /// As [`flush`](Memory::flush).
    pub async fn flush_async(&self, timeout: Duration) -> Result<()> {
        self.scope.core.flush(timeout).await
    }

    /// Delivers what is queued and closes the connection for every clone and scope; later calls are
    /// errors of kind `Closed`.
    ///
    /// # Errors
    ///
    /// `Timeout` after `timeout`, naming what was not delivered. With a
    /// [journal](crate::Builder::journal) the next memory that opens it delivers that; without one
    /// it is lost.
    pub fn close(&self, timeout: Duration) -> Result<()> {
        block_on(self.close_async(timeout))
    }

    /// As [`close`](Memory::close), in async code. Where the future is dropped, the last drop of a
    /// handle goes on with it.
    ///
    /// # Errors
    ///
    /// As [`close`](Memory::close).
    pub async fn close_async(&self, timeout: Duration) -> Result<()> {
        self.scope.core.close(timeout).await
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.scope.core
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.scope.core.shared()
    }

    /// What all full keys of this scope begin with.
    fn stem(&self) -> String {
        format!("{}{}", self.scope.prefix, self.scope.path)
    }

    fn check(&self) -> Result<()> {
        self.scope.invalid.clone().map_or(Ok(()), Err)
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.scope
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What the keys of all its scopes begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.scope.prefix
    }

    /// The slot of `name`. The scope holds it from its first use on, so that it is still known when
    /// the backend is away.
    pub(crate) fn slot(&self, name: &str) -> Result<Arc<Slot>> {
        self.check()?;
        let mut slots = self.slots();
        if let Some(slot) = slots.get(name) {
            return Ok(Arc::clone(slot));
        }
        let slot = self.lone_slot(name)?;
        slots.insert(name.to_owned(), Arc::clone(&slot));
        Ok(slot)
    }

    /// A slot of `name` that the scope does not hold.
    pub(crate) fn lone_slot(&self, name: &str) -> Result<Arc<Slot>> {
        self.check()?;
        check_name(name)?;
        Ok(Arc::new(Slot::hold(
            self.shared(),
            format!("{}{name}", self.stem()),
        )))
    }
}

impl Builder {
    /// Opens the memory.
    ///
    /// # Errors
    ///
    /// As [`Memory::open`].
    pub fn build(self) -> Result<Memory> {
        Memory::connect(self.resolve()?)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("target", &self.shared().target)
            .field("prefix", &self.scope.prefix)
            .field("scope", &self.scope.path.trim_end_matches(':'))
            .finish_non_exhaustive()
    }
}
