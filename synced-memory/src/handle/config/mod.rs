//! Where the state is and how to reach it: the builder over the URL over the environment.

mod url;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use self::url::{parse, url_of_host};
use crate::backend::open::Target;
use crate::backend::sidecar::check_prefix;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::{ReadPolicy, WritePolicy};
use crate::base::settings::Settings;
use crate::handle::key::check_scope;
use crate::pending::journal::Durability;

/// What the keys begin with unless it is set: as in the Python package.
const DEFAULT_PREFIX: &str = "memory:";

/// Options for opening a [`Memory`](crate::Memory); made by
/// [`Memory::builder`](crate::Memory::builder).
///
/// What is set here wins over the URL's query (`?prefix=app:&timeout=200ms`), and that over the
/// environment (`REDIS_PREFIX`) and the defaults.
///
/// ```
/// use std::time::Duration;
/// use synced_memory::Memory;
///
/// let memory = Memory::builder()
///     .url("memory:")
///     .prefix("shop:")
///     .timeout(Duration::from_millis(200))
///     .build()?;
/// # Ok::<(), synced_memory::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "nothing is opened before `build`"]
pub struct Builder {
    url: Option<String>,
    options: Options,
}

/// What can be set in more than one place; the first that sets it wins.
#[derive(Debug, Clone, Default)]
struct Options {
    prefix: Option<String>,
    scope: Option<String>,
    timeout: Option<Duration>,
    backoff: Option<(Duration, Duration)>,
    outbox_limit: Option<usize>,
    shutdown_timeout: Option<Duration>,
    tombstone_ttl: Option<Duration>,
    journal: Option<PathBuf>,
    durability: Option<Durability>,
    read_policy: Option<ReadPolicy>,
    write_policy: Option<WritePolicy>,
}

impl std::fmt::Debug for Builder {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Where the state is. Without it, the environment says so: `SYNCED_MEMORY_URL`, else
    /// `REDIS_HOST` (default `redis`) and `REDIS_PORT` (default `6379`).
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// What all keys begin with. Default: `REDIS_PREFIX`, else `memory:`.
    ///
    /// One hash tag such as `app{shop}:` puts all keys of the prefix into one slot of a cluster.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.options.prefix = Some(prefix.into());
        self
    }

    /// A namespace under the prefix: keys are `<prefix><scope>:<name>`. Default: none.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.options.scope = Some(scope.into());
        self
    }

    /// How long one call waits at most for a backend that does not answer. Default: 0.5 s.
    ///
    /// To be longer than the largest value takes to arrive: a read that takes longer is taken for
    /// the silence of the backend, and the connection is made anew. A large write may take longer;
    /// it is queued then, and delivered.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// The first and the longest wait between tries to reconnect: they double, with full jitter.
    /// Default: 50 ms and 5 s.
    pub fn backoff(mut self, least: Duration, most: Duration) -> Self {
        self.options.backoff = Some((least, most));
        self
    }

    /// How many bytes of writes wait for the backend at most, keys and bookkeeping included;
    /// beyond, a write is refused as [`ErrorKind::OutboxFull`]. Default: 64 MiB.
    pub fn outbox_limit(mut self, bytes: usize) -> Self {
        self.options.outbox_limit = Some(bytes);
        self
    }

    /// How long the drop of the last handle waits at most for what is still queued. Default: 2 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.options.shutdown_timeout = Some(timeout);
        self
    }

    /// How long a delete is remembered, so that an older queued write does not undo it; a write
    /// that waits for longer becomes a dead letter. Default: 10 days.
    pub fn tombstone_ttl(mut self, ttl: Duration) -> Self {
        self.options.tombstone_ttl = Some(ttl);
        self
    }

    /// Keeps what is queued on disk, in this directory, which is made where it is missing: `Queued`
    /// then means that the write survives a crash of this process. The next memory that is opened
    /// with the same directory, backend and prefix delivers it. Several processes may share a
    /// directory. Default: none.
    pub fn journal(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.journal = Some(directory.into());
        self
    }

    /// What the journal, and what is stored in the file of `sqlite:path`, survives. Default:
    /// [`Durability::Process`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = Some(durability);
        self
    }

    /// What reads ask, unless a key or a field says `near`. Default: [`ReadPolicy::Through`].
    pub fn read_policy(mut self, policy: ReadPolicy) -> Self {
        self.options.read_policy = Some(policy);
        self
    }

    /// What writes wait for, unless a key or a field says `behind` or `confirmed`. Default:
    /// [`WritePolicy::Through`].
    pub fn write_policy(mut self, policy: WritePolicy) -> Self {
        self.options.write_policy = Some(policy);
        self
    }

    pub(crate) fn resolve(self) -> Result<Config> {
        self.resolve_with(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn resolve_with(self, env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
        let url = self.url.or_else(|| env("SYNCED_MEMORY_URL"));
        let url = url.map_or_else(|| url_of_host(env), Ok)?;
        let (place, of_url) = parse(&url)?;
        let over = self.options;
        let defaults = Settings::default();
        let config = Config {
            place,
            prefix: over
                .prefix
                .or(of_url.prefix)
                .or_else(|| env("REDIS_PREFIX"))
                .unwrap_or_else(|| DEFAULT_PREFIX.to_owned()),
            scope: over.scope.or(of_url.scope),
            settings: Settings {
                timeout: over.timeout.or(of_url.timeout).unwrap_or(defaults.timeout),
                backoff: over.backoff.or(of_url.backoff).unwrap_or(defaults.backoff),
                outbox_limit: over
                    .outbox_limit
                    .or(of_url.outbox_limit)
                    .unwrap_or(defaults.outbox_limit),
                shutdown_timeout: over
                    .shutdown_timeout
                    .or(of_url.shutdown_timeout)
                    .unwrap_or(defaults.shutdown_timeout),
                tombstone_ttl: over
                    .tombstone_ttl
                    .or(of_url.tombstone_ttl)
                    .unwrap_or(defaults.tombstone_ttl),
                read_policy: over.read_policy.or(of_url.read_policy).unwrap_or_default(),
                write_policy: over
                    .write_policy
                    .or(of_url.write_policy)
                    .unwrap_or_default(),
            },
            journal: over.journal.or(of_url.journal),
            durability: over.durability.or(of_url.durability).unwrap_or_default(),
        };
        check_prefix(&config.prefix)?;
        config.scope.as_deref().map_or(Ok(()), check_scope)?;
        config.check_settings()?;
        Ok(config)
    }
}

/// Everything that there is to know before opening.
pub(crate) struct Config {
    pub(crate) place: Target,
    pub(crate) prefix: String,
    pub(crate) scope: Option<String>,
    pub(crate) settings: Settings,
    pub(crate) journal: Option<PathBuf>,
    pub(crate) durability: Durability,
}

impl Config {
    fn check_settings(&self) -> Result<()> {
        let settings = &self.settings;
        let refuse = |what: &str| Err(Error::new(ErrorKind::Config, what));
        if settings.timeout.is_zero() {
            return refuse("`timeout` is zero: no answer could ever be in time");
        }
        if settings.backoff.0.is_zero() || settings.backoff.0 > settings.backoff.1 {
            return refuse("`backoff` goes from more than zero to no less than that");
        }
        if settings.tombstone_ttl.is_zero() {
            return refuse("`tombstone_ttl` is zero: deletes would be forgotten at once");
        }
        Ok(())
    }
}
