//! Where the state is and how to reach it: the builder over the URL over the environment.

use crate::backend::process::ProcessBackend;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Durability;
use crate::key::{check_prefix, check_scope};
use crate::policy::{ReadPolicy, WritePolicy};
use crate::shared::Settings;
use percent_encoding::percent_decode_str;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// What a URL may look like, for messages.
const SCHEMES: &str = "write redis://host:port, valkey://, dragonfly://, redis+unix:///path, sqlite:path, \
                       memory: or memory:name";

/// The options of every URL, for messages.
const OPTIONS: &str = "known are prefix, scope, timeout, shutdown_timeout, tombstone_ttl, outbox_limit, journal and durability; \
                       the database of a server is a path, as in redis://host/2";

/// What the keys begin with unless it is set: as in the Python package.
const DEFAULT_PREFIX: &str = "memory:";

/// Options for opening a [`Memory`](crate::Memory); made by [`Memory::builder`](crate::Memory::builder).
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
        f.debug_struct("Builder").field("options", &self.options).finish_non_exhaustive()
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

    /// How long a delete is remembered, so that an older queued write does not undo it; a write that
    /// waits for longer is set aside. Default: 10 days.
    pub fn tombstone_ttl(mut self, ttl: Duration) -> Self {
        self.options.tombstone_ttl = Some(ttl);
        self
    }

    /// Keeps what is queued on disk, in this directory, which is made where it is missing: `Queued` then means that
    /// the write survives a crash of this process. The next memory that is opened with the same directory, backend and
    /// prefix delivers it. Several processes may share a directory. Default: none.
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

    /// What writes wait for, unless a key or a field says `behind`. Default: [`WritePolicy::Through`].
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
                outbox_limit: over.outbox_limit.or(of_url.outbox_limit).unwrap_or(defaults.outbox_limit),
                shutdown_timeout: over
                    .shutdown_timeout
                    .or(of_url.shutdown_timeout)
                    .unwrap_or(defaults.shutdown_timeout),
                tombstone_ttl: over.tombstone_ttl.or(of_url.tombstone_ttl).unwrap_or(defaults.tombstone_ttl),
                read_policy: over.read_policy.or(of_url.read_policy).unwrap_or_default(),
                write_policy: over.write_policy.or(of_url.write_policy).unwrap_or_default(),
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
    pub(crate) place: Place,
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

/// Where the state is.
pub(crate) enum Place {
    Process(String),
    #[cfg(feature = "redis")]
    Redis {
        server: redis::ConnectionInfo,
        target: String,
    },
    /// The file at an absolute path.
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
}

impl Place {
    pub(crate) fn process(name: &str, settings: &Settings) -> ProcessBackend {
        ProcessBackend::open(name, settings.tombstone_ttl)
    }
}

fn config_error(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, what)
}

/// The URL that `REDIS_HOST` and `REDIS_PORT` stand for, as in the Python package.
fn url_of_host(env: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let host = env("REDIS_HOST").unwrap_or_else(|| "redis".to_owned());
    let port = env("REDIS_PORT").unwrap_or_else(|| "6379".to_owned());
    let port: u16 = port.parse().map_err(|_| config_error(format!("REDIS_PORT is `{port}`, which is no port")))?;
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    Ok(format!("redis://{host}:{port}"))
}

/// A URL's place and options. No message repeats the URL, which may hold a password.
fn parse(url: &str) -> Result<(Place, Options)> {
    let url = Url::parse(url).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => config_error(format!("the URL has no scheme: {SCHEMES}")),
        error => config_error(format!("the URL cannot be read: {error}")),
    })?;
    match url.scheme() {
        "memory" => {
            let options = options(&url, &mut |_, _| Ok(false))?;
            if url.has_authority() {
                return Err(config_error("a place in this process is given as memory: or memory:name, without `//`"));
            }
            Ok((Place::Process(decoded(url.path())?), options))
        }
        #[cfg(feature = "redis")]
        "redis" | "valkey" | "dragonfly" | "redis+unix" => server(&url),
        #[cfg(not(feature = "redis"))]
        "redis" | "valkey" | "dragonfly" | "redis+unix" => Err(config_error("a server needs the feature `redis`")),
        #[cfg(feature = "sqlite")]
        "sqlite" => file(&url),
        #[cfg(not(feature = "sqlite"))]
        "sqlite" => Err(config_error("an embedded file needs the feature `sqlite`")),
        "rediss" | "redis-cluster" | "redis-sentinel" => {
            Err(config_error(format!("`{}:` is not supported by this version", url.scheme())))
        }
        other => Err(config_error(format!("the scheme `{other}:` is unknown: {SCHEMES}"))),
    }
}

/// The options in a URL's query. `more` takes those that only this scheme has.
fn options(url: &Url, more: &mut dyn FnMut(&str, &str) -> Result<bool>) -> Result<Options> {
    let mut options = Options::default();
    for (name, value) in url.query_pairs() {
        let duration = || {
            humantime::parse_duration(&value)
                .map_err(|_| config_error(format!("the option `{name}` is no duration such as 500ms or 2s")))
        };
        match &*name {
            "prefix" => options.prefix = Some(value.into_owned()),
            "scope" => options.scope = Some(value.into_owned()),
            "timeout" => options.timeout = Some(duration()?),
            "shutdown_timeout" => options.shutdown_timeout = Some(duration()?),
            "tombstone_ttl" => options.tombstone_ttl = Some(duration()?),
            "outbox_limit" => {
                let bytes = value.parse();
                options.outbox_limit =
                    Some(bytes.map_err(|_| config_error("the option `outbox_limit` is no number of bytes"))?);
            }
            "journal" => options.journal = Some(value.into_owned().into()),
            "durability" => {
                options.durability = Some(match &*value {
                    "process" => Durability::Process,
                    "fsync" => Durability::Fsync,
                    _ => return Err(config_error("the option `durability` is `process` or `fsync`")),
                });
            }
            "read_policy" => {
                options.read_policy = Some(match &*value {
                    "through" => ReadPolicy::Through,
                    "near" => ReadPolicy::Near,
                    _ => return Err(config_error("the option `read_policy` is `through` or `near`")),
                });
            }
            "write_policy" => {
                options.write_policy = Some(match &*value {
                    "through" => WritePolicy::Through,
                    "behind" => WritePolicy::Behind,
                    _ => return Err(config_error("the option `write_policy` is `through` or `behind`")),
                });
            }
            _ if more(&name, &value)? => {}
            _ => {
                let scheme = url.scheme();
                return Err(config_error(format!("the option `{name}` is unknown in a `{scheme}:` URL: {OPTIONS}")));
            }
        }
    }
    if url.fragment().is_some() {
        return Err(config_error("a `#` in the URL makes no sense; in a password or a path it is written `%23`"));
    }
    Ok(options)
}

#[cfg(feature = "redis")]
fn server(url: &Url) -> Result<(Place, Options)> {
    use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

    let mut login = (decoded(url.username())?, url.password().map(decoded).transpose()?);
    let mut database = 0;
    let is_unix = url.scheme() == "redis+unix";
    let options = options(url, &mut |name, value| {
        match name {
            "db" if is_unix => database = parse_database(value)?,
            "user" if is_unix => value.clone_into(&mut login.0),
            "password" if is_unix => login.1 = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (address, target) = if is_unix {
        let path = decoded(url.path())?;
        if url.host_str().is_some_and(|host| !host.is_empty()) || path.len() < 2 {
            return Err(config_error("a socket is given as redis+unix:///path/of/the/socket"));
        }
        let target = format!("redis+unix://{path}");
        (ConnectionAddr::Unix(path.into()), target)
    } else {
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| config_error(format!("the {}:// URL has no host", url.scheme())))?;
        let port = url.port().unwrap_or(6379);
        let path = url.path().trim_start_matches('/');
        if !path.is_empty() {
            database = parse_database(path)?;
        }
        let target = format!("{}://{host}:{port}/{database}", url.scheme());
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        (ConnectionAddr::Tcp(bare, port), target)
    };
    let mut settings = RedisConnectionInfo::default().set_db(database);
    if !login.0.is_empty() {
        settings = settings.set_username(login.0);
    }
    if let Some(password) = login.1 {
        settings = settings.set_password(password);
    }
    let server = address.into_connection_info().map_err(|error| config_error(error.to_string()))?;
    Ok((Place::Redis { server: server.set_redis_settings(settings), target }, options))
}

#[cfg(feature = "redis")]
fn parse_database(text: &str) -> Result<i64> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| config_error("the database in the URL is no number"))
}

/// `sqlite:path`, relative or absolute. The path is made absolute here: the process may change its directory, and SQLite
/// gives a meaning of their own to names such as `:memory:`.
#[cfg(feature = "sqlite")]
fn file(url: &Url) -> Result<(Place, Options)> {
    let options = options(url, &mut |_, _| Ok(false))?;
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(config_error("a file is given as sqlite:path or sqlite:/absolute/path, without `//`"));
    }
    let path = decoded(url.path())?;
    if path.is_empty() || path.ends_with('/') {
        return Err(config_error("a file is given as sqlite:path; the URL has none"));
    }
    if path == ":memory:" {
        return Err(config_error("what lives in this process alone is given as memory: or memory:name"));
    }
    let path = std::path::absolute(&path).map_err(|error| config_error(format!("the path `{path}`: {error}")))?;
    Ok((Place::Sqlite(path), options))
}

fn decoded(text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| config_error("the URL is not UTF-8 once its `%` are resolved"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(builder: Builder, env: &[(&str, &str)]) -> Result<Config> {
        let env: std::collections::HashMap<_, _> = env.iter().copied().collect();
        builder.resolve_with(&|name| env.get(name).map(ToString::to_string))
    }

    fn target(config: &Config) -> String {
        match &config.place {
            Place::Process(name) => format!("memory:{name}"),
            #[cfg(feature = "redis")]
            Place::Redis { target, .. } => target.clone(),
            #[cfg(feature = "sqlite")]
            Place::Sqlite(path) => format!("sqlite:{}", path.display()),
        }
    }

    #[test]
    fn the_builder_wins_over_the_url_and_that_over_the_environment() {
        let env = [("SYNCED_MEMORY_URL", "memory:x?prefix=url:&timeout=2s"), ("REDIS_PREFIX", "env:")];
        let config = resolve(Builder::default(), &env).unwrap();
        assert_eq!((config.prefix.as_str(), config.settings.timeout), ("url:", Duration::from_secs(2)));
        let config = resolve(Builder::default().prefix("builder:"), &env).unwrap();
        assert_eq!(config.prefix, "builder:");
        let config = resolve(Builder::default().url("memory:"), &env).unwrap();
        assert_eq!(config.prefix, "env:");
        assert_eq!(resolve(Builder::default().url("memory:"), &[]).unwrap().prefix, "memory:");
    }

    #[cfg(feature = "redis")]
    #[test]
    fn the_environment_names_the_server_as_in_the_python_package() {
        let config = resolve(Builder::default(), &[]).unwrap();
        assert_eq!(target(&config), "redis://redis:6379/0");
        let env = [("REDIS_HOST", "db"), ("REDIS_PORT", "7000")];
        assert_eq!(target(&resolve(Builder::default(), &env).unwrap()), "redis://db:7000/0");
        let env = [("REDIS_HOST", "db"), ("SYNCED_MEMORY_URL", "valkey://other/2")];
        assert_eq!(target(&resolve(Builder::default(), &env).unwrap()), "valkey://other:6379/2");
        assert!(resolve(Builder::default(), &[("REDIS_PORT", "x")]).is_err());
    }

    #[test]
    fn unknown_schemes_and_options_are_errors() {
        for url in [
            "http://x",
            "memory:?color=red",
            "memory:?timeout=soon",
            "memory:?timeout=0s",
            "nonsense",
            "memory:#x",
            "memory://x",
        ] {
            let error = resolve(Builder::default().url(url), &[]).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_file_has_a_path_of_any_form_and_options() {
        let here = std::env::current_dir().unwrap();
        for (url, path) in [
            ("sqlite:state.db", here.join("state.db")),
            ("sqlite:./a/state.db?prefix=app:", here.join("a/state.db")),
            ("sqlite:../state.db", here.join("../state.db")),
            ("sqlite:/var/lib/state.db", "/var/lib/state.db".into()),
            ("sqlite:///var/lib/state.db", "/var/lib/state.db".into()),
            ("sqlite:/a%20b/%C3%A9%23%3F%25.db", "/a b/é#?%.db".into()),
            ("sqlite:/a b/é.db", "/a b/é.db".into()),
            ("sqlite:file:x", here.join("file:x")),
        ] {
            let config = resolve(Builder::default().url(url), &[]).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(target(&config), format!("sqlite:{}", path.display()), "{url}");
        }
        let url = "sqlite:x?prefix=app:&durability=fsync";
        let config = resolve(Builder::default().url(url), &[]).unwrap();
        assert_eq!((config.prefix.as_str(), config.durability), ("app:", Durability::Fsync));
        for url in
            ["sqlite:", "sqlite:?prefix=x", "sqlite::memory:", "sqlite://state.db", "sqlite:dir/", "sqlite:x?mode=ro"]
        {
            let error = resolve(Builder::default().url(url), &[]).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        }
    }

    #[cfg(not(feature = "sqlite"))]
    #[test]
    fn a_scheme_whose_feature_is_off_is_refused_by_its_name() {
        let error = resolve(Builder::default().url("sqlite:state.db"), &[]).err().unwrap();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("the feature `sqlite`"), "{error}");
    }

    #[cfg(feature = "redis")]
    #[test]
    fn no_message_holds_the_password() {
        for url in [
            "redis://user:s3cret@host:port",
            "redis://:s3cret@host/x",
            "redis://:s3cret@host/0?color=1",
            "redis://:s3cret@/0",
            "redis://:s3cret@host/0#frag",
        ] {
            let error = resolve(Builder::default().url(url), &[]).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
        let builder = Builder::default().url("redis://user:s3cret@host");
        assert!(!format!("{builder:?}").contains("s3cret"));
        let config = resolve(builder, &[]).unwrap();
        assert!(!target(&config).contains("s3cret"));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_password_may_hold_any_character() {
        let config = resolve(Builder::default().url("redis://ada:a%2Fb%40c@host:7/3"), &[]).unwrap();
        let Place::Redis { server, .. } = config.place else { panic!("no server") };
        assert_eq!(server.redis_settings().username(), Some("ada"));
        assert_eq!(server.redis_settings().password(), Some("a/b@c"));
        assert_eq!(server.redis_settings().db(), 3);
    }
}
