//! `Memory`: the connection, its scopes, and access by key.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::backend::open::{Target, open};
use crate::backend::sidecar::{check_key, check_prefix};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::events::event;
use crate::base::policy::WritePolicy;
use crate::base::settings::Settings;
use crate::base::waiting::block_on;
use crate::client::core::{Core, FoundNames};
use crate::client::reentrancy::check_not_updating;
use crate::client::retained::ScopeId;
use crate::client::shared::Shared;
use crate::client::slot::Slot;
use crate::client::state::Request;
use crate::handle::config::Builder;
use crate::handle::dead_letter::DeadLetter;
use crate::handle::key::{Key, check_name, check_scope};
use crate::handle::status::Status;
use crate::pending::journal::JournalConfig;
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
///
#[doc = include_str!("../../capacity.md")]
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
    /// The error of every call in here, if a name in the path is invalid.
    invalid: Option<Error>,
    /// What names the slots that it retains.
    id: ScopeId,
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.core.retained().drop_scope(self.id);
    }
}

impl Memory {
    /// Opens a URL: `redis://user:password@host:6379/0`, `valkey://`, `dragonfly://`, `rediss://`
    /// and `valkeys://` (TLS; the feature `tls`), `redis-cluster://host1,host2` (a cluster:
    /// [`Builder`]), `redis-sentinel://host1,host2/service` (the primary that sentinels name:
    /// [`Builder`]), `redis+unix:///path`, `sqlite:path` (a file that the processes of one machine
    /// share; the feature `sqlite`), `memory:` (this process alone, fresh at each open) or
    /// `memory:name` (shared within the process while anybody has it open).
    ///
    /// Waits at most `timeout` for the first answer. If the backend is not there, that is no error,
    /// unless it is [required](crate::ConnectPolicy::Required): reads return what this process
    /// knows or an explicit `default`, and are `Unavailable` otherwise; writes are queued.
    ///
    /// # Errors
    ///
    /// `Config` for an invalid URL, and for a certificate or key of TLS that cannot be used;
    /// `Rejected` for a wrong password, for a certificate that is refused, and for a file that is
    /// not a database of this library or cannot be written; `Journal` if the journal cannot be
    /// used; `Unavailable` if the process has no descriptor or thread left for the connection, or
    /// the backend is required and does not answer.
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

    fn connect(target: Target, settings: Settings) -> Result<Self> {
        let (prefix, durability) = (settings.prefix.clone(), settings.durability);
        let path = settings
            .scope
            .as_ref()
            .map(|scope| format!("{scope}:"))
            .unwrap_or_default();
        let backend = open(target, &settings)?;
        let journal = settings.journal.clone().map(|directory| JournalConfig {
            directory,
            target: format!("{} {prefix}", backend.identity()),
            durability,
        });
        let is_verified = !settings.tls_insecure;
        let core = Core::open(backend, settings, journal)?;
        if !is_verified {
            core.shared().emit(|target| {
                event!(
                    WARN,
                    target = &*target,
                    "`tls_insecure`: anybody between this process and the server can read and \
                     change everything, since the server's certificate is not verified"
                )
            });
        }
        Ok(Self::from_parts(Arc::new(core), prefix, path, None))
    }

    fn from_parts(core: Arc<Core>, prefix: String, path: String, invalid: Option<Error>) -> Self {
        let id = core.retained().new_scope();
        Self {
            scope: Arc::new(Scope {
                core,
                prefix,
                path,
                invalid,
                id,
            }),
        }
    }

    /// The namespace `scope` below this one, for names that you wrote yourself: **a `:` in it
    /// nests**, so that [`purge`](Memory::purge) of `a` also deletes `a:b`. For a name that comes
    /// from outside, such as a user's id, use [`scope_for`](Memory::scope_for).
    ///
    /// Its keys are `<prefix><scope>:<name>`. It shares the connection, and is cheap: a process may
    /// have very many.
    ///
    /// A scope that is empty or has braces is an error of kind `Config` at each use.
    #[must_use]
    pub fn scope(&self, scope: &str) -> Self {
        let scope_error = check_scope(scope).err();
        let path = format!("{}{scope}:", self.scope.path);
        self.derived(self.scope.prefix.clone(), path, scope_error)
    }

    /// The namespace for `name` below this one: one level, whatever the name contains. A `:`, `{`,
    /// `}` and `%` in it are written as `%3A`, `%7B`, `%7D` and `%25`; all else stays as it is.
    ///
    /// ```
    /// use synced_memory::{Key, Memory};
    ///
    /// let memory = Memory::open("memory:")?;
    /// let theme = Key::<String>::new("theme");
    /// memory.scope_for("ada:admin").set(&theme, "dark".to_owned())?;
    /// memory.scope_for("ada").purge()?;
    /// assert_eq!(memory.scope_for("ada:admin").get(&theme)?, Some("dark".to_owned()));
    /// # Ok::<(), synced_memory::Error>(())
    /// ```
    ///
    /// An empty name is an error of kind `Config` at each use.
    #[must_use]
    pub fn scope_for(&self, name: &str) -> Self {
        let mut scope = String::with_capacity(name.len());
        for character in name.chars() {
            match character {
                ':' => scope.push_str("%3A"),
                '{' => scope.push_str("%7B"),
                '}' => scope.push_str("%7D"),
                '%' => scope.push_str("%25"),
                other => scope.push(other),
            }
        }
        self.scope(&scope)
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
        Self::from_parts(Arc::clone(&self.scope.core), prefix, path, invalid)
    }

    /// What is stored under `key`, or its default if nothing is.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the backend is away and nothing is known of the key (an explicit `default`
    /// is returned instead); `Decode` if something other than a `T` is stored; `Rejected` if the
    /// server refuses this key.
    pub fn get<T: crate::handle::value::Value>(&self, key: &Key<T>) -> Result<Option<T>> {
        self.synced(key).find_or_default()
    }

    /// Stores a value under `key`, whatever is there.
    ///
    /// # Errors
    ///
    /// `Serialize` for a value that JSON cannot hold, `OutboxFull`, `Rejected` if the server
    /// refuses it. After an error nothing is changed.
    pub fn set<T: crate::handle::value::Value>(&self, key: &Key<T>, value: T) -> Result<Written> {
        self.synced(key).set(value)
    }

    /// Removes what is stored under `key` and its older names; returns whether there was anything.
    ///
    /// # Errors
    ///
    /// `OutboxFull`, `Rejected` if the server refuses it. After an error nothing is changed.
    pub fn delete<T: crate::handle::value::Value>(&self, key: &Key<T>) -> Result<bool> {
        self.synced(key).delete()
    }

    /// Whether anything is stored under `key` or one of its older names.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the backend is away and nothing is known of the key; `Rejected` if the
    /// server refuses it.
    pub fn contains<T: crate::handle::value::Value>(&self, key: &Key<T>) -> Result<bool> {
        self.synced(key).is_set()
    }

    /// The names that are set in this scope, in alphabetical order, without those of other scopes.
    /// A key of another program whose name is not UTF-8 is left out, which one warning counts.
    ///
    /// **All keys of the server's database are scanned for it**, however few are in the scope: with
    /// a million keys that takes seconds, in about a thousand calls of a millisecond each. If you
    /// need the names often, keep them in a field, as a set or the keys of a map.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the backend is away.
    pub fn names(&self) -> Result<Vec<String>> {
        let own = self.stem().len();
        let names = self
            .keys_below()?
            .into_iter()
            .map(|mut key| key.split_off(own));
        Ok(names.filter(|name| !name.contains(':')).collect())
    }

    /// Deletes everything in this scope **and in the scopes below it** (`a:b` is below `a`), so
    /// that it stays deleted; returns how many keys there were. What [`names`](Self::names) leaves
    /// out stays.
    ///
    /// **All keys of the server's database are scanned for it**, as by `names`; after that each key
    /// is a write. It is not for each request or session: let what is temporary end by itself, by
    /// `ttl`, and [delete](Self::delete) the keys of a scope one by one if you know them.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the backend is away; `Config` if there is neither a prefix nor a scope,
    /// since the database may hold more than this library's keys.
    pub fn purge(&self) -> Result<u64> {
        if self.stem().is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "a purge needs a prefix or a scope",
            ));
        }
        let mut purged = 0;
        let keys: Vec<Arc<str>> = self.keys_below()?.into_iter().map(Into::into).collect();
        // Inside a closure of one of them nothing is deleted at all.
        for key in &keys {
            check_not_updating(self.scope.core.shared(), key)?;
        }
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

    /// Every full key below this scope: the backend's, with the queued writes on top.
    fn keys_below(&self) -> Result<BTreeSet<String>> {
        self.check_valid()?;
        let shared = self.shared();
        shared.check_open()?;
        let stem = self.stem();
        let FoundNames {
            mut keys,
            unreadable,
        } = block_on(self.scope.core.names(&stem))?;
        if !unreadable.is_empty() {
            let (prefix, keys) = (stem.clone(), unreadable.len());
            shared.events.emit(event!(
                WARN,
                prefix,
                keys,
                "keys whose names are not UTF-8 are left out"
            ));
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

    /// The state of this memory and of its connections.
    pub fn status(&self) -> Status {
        Status::of(self.shared())
    }

    /// The queued writes of this scope and those below that were not made, or may have been, and
    /// the taken elements that could not go back, oldest first. A memory without a scope has those
    /// of the whole connection. Each is kept until it is retried or forgotten.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.shared().is_inherited();
        let letters = self.shared().state().letters.clone();
        let stem = self.stem();
        // Without a scope: those of the whole connection, whatever their prefix.
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
    /// `Timeout` after `timeout`, naming what was not delivered; it stays queued. A waker that runs
    /// on the thread of a memory gets that at once.
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
    /// it is lost. A waker that runs on the thread of a memory gets that at once, and the memory
    /// stays open.
    pub fn close(&self, timeout: Duration) -> Result<()> {
        block_on(self.close_async(timeout))
    }

    /// As [`close`](Memory::close), in async code. If the future is dropped, the drop of the last
    /// handle goes on with delivering and closing.
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

    fn check_valid(&self) -> Result<()> {
        self.scope.invalid.clone().map_or(Ok(()), Err)
    }

    /// What the keys of all its scopes begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.scope.prefix
    }

    /// The slot of `name`. The scope retains it from its first use on, so that its value is still
    /// known when the backend is away, unless it is dropped for `cache_limit`.
    pub(crate) fn slot(&self, name: &str) -> Result<Arc<Slot>> {
        self.check_valid()?;
        let retained = self.core().retained();
        retained.slot(self.scope.id, name, || self.lone_slot(name))
    }

    /// A slot of `name` that the scope does not retain.
    pub(crate) fn lone_slot(&self, name: &str) -> Result<Arc<Slot>> {
        self.check_valid()?;
        check_name(name)?;
        let key = format!("{}{name}", self.stem());
        check_key(&key)?;
        Ok(Arc::new(Slot::hold(self.shared(), key)))
    }
}

impl Builder {
    /// Opens the memory.
    ///
    /// # Errors
    ///
    /// As [`Memory::open`].
    pub fn build(self) -> Result<Memory> {
        let (target, settings) = self.resolve()?;
        Memory::connect(target, settings)
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_value_of_another_type_is_an_error_with_the_position_as_its_source() {
        let memory = Memory::open("memory:").unwrap();
        memory.set(&Key::new("n"), "s3cret".to_owned()).unwrap();
        let error = memory.get(&Key::<u8>::new("n")).unwrap_err();
        let source = error.source().expect("a source").to_string();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(
            error
                .to_string()
                .contains("found string where u8 was expected")
        );
        assert!(source.contains("data error at line 1 column "), "{source}");
        assert!(!error.to_string().contains("column") && !format!("{error:?}").contains("s3cret"));
    }
}
