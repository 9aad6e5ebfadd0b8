//! A URL: where the state is, and options in its query.

use percent_encoding::percent_decode_str;
use url::Url;

use super::{Options, Target};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::policy::{ReadPolicy, WritePolicy};
use crate::pending::journal::Durability;

/// What a URL may look like, for messages.
const SCHEMES: &str = "write redis://host:port, valkey://, dragonfly://, redis+unix:///path, sqlite:path, \
                       memory: or memory:name";

/// The options of every URL, for messages.
const OPTIONS: &str = "known are prefix, scope, timeout, shutdown_timeout, tombstone_ttl, outbox_limit, journal and durability; \
                       the database of a server is a path, as in redis://host/2";

/// The URL that `REDIS_HOST` and `REDIS_PORT` stand for, as in the Python package.
pub(super) fn url_of_host(env: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let host = env("REDIS_HOST").unwrap_or_else(|| "redis".to_owned());
    let port = env("REDIS_PORT").unwrap_or_else(|| "6379".to_owned());
    let port: u16 = port
        .parse()
        .map_err(|_| config_error(format!("REDIS_PORT is `{port}`, which is no port")))?;
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host
    };
    Ok(format!("redis://{host}:{port}"))
}

/// A URL's place and options. No message repeats the URL, which may hold a password.
pub(super) fn parse(url: &str) -> Result<(Target, Options)> {
    let url = Url::parse(url).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            config_error(format!("the URL has no scheme: {SCHEMES}"))
        }
        error => config_error(format!("the URL cannot be read: {error}")),
    })?;
    match url.scheme() {
        "memory" => {
            let options = options(&url, &mut |_, _| Ok(false))?;
            if url.has_authority() {
                return Err(config_error(
                    "a place in this process is given as memory: or memory:name, without `//`",
                ));
            }
            Ok((Target::Process(decoded(url.path())?), options))
        }
        #[cfg(feature = "redis")]
        "redis" | "valkey" | "dragonfly" | "redis+unix" => server(&url),
        #[cfg(not(feature = "redis"))]
        "redis" | "valkey" | "dragonfly" | "redis+unix" => {
            Err(config_error("a server needs the feature `redis`"))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => file(&url),
        #[cfg(not(feature = "sqlite"))]
        "sqlite" => Err(config_error("an embedded file needs the feature `sqlite`")),
        "rediss" | "redis-cluster" | "redis-sentinel" => Err(config_error(format!(
            "`{}:` is not supported by this version",
            url.scheme()
        ))),
        other => Err(config_error(format!(
            "the scheme `{other}:` is unknown: {SCHEMES}"
        ))),
    }
}

/// The options in a URL's query. `more` takes those that only this scheme has.
fn options(url: &Url, more: &mut dyn FnMut(&str, &str) -> Result<bool>) -> Result<Options> {
    let mut options = Options::default();
    for (name, value) in url.query_pairs() {
        let duration = || {
            humantime::parse_duration(&value).map_err(|_| {
                config_error(format!(
                    "the option `{name}` is no duration such as 500ms or 2s"
                ))
            })
        };
        match &*name {
            "prefix" => options.prefix = Some(value.into_owned()),
            "scope" => options.scope = Some(value.into_owned()),
            "timeout" => options.timeout = Some(duration()?),
            "shutdown_timeout" => options.shutdown_timeout = Some(duration()?),
            "tombstone_ttl" => options.tombstone_ttl = Some(duration()?),
            "outbox_limit" => {
                let bytes = value.parse();
                options.outbox_limit = Some(bytes.map_err(|_| {
                    config_error("the option `outbox_limit` is no number of bytes")
                })?);
            }
            "journal" => options.journal = Some(value.into_owned().into()),
            "durability" => {
                options.durability = Some(match &*value {
                    "process" => Durability::Process,
                    "fsync" => Durability::Fsync,
                    _ => {
                        return Err(config_error(
                            "the option `durability` is `process` or `fsync`",
                        ));
                    }
                });
            }
            "read_policy" => {
                options.read_policy = Some(match &*value {
                    "through" => ReadPolicy::Through,
                    "near" => ReadPolicy::Near,
                    _ => {
                        return Err(config_error(
                            "the option `read_policy` is `through` or `near`",
                        ));
                    }
                });
            }
            "write_policy" => {
                options.write_policy = Some(match &*value {
                    "through" => WritePolicy::Through,
                    "behind" => WritePolicy::Behind,
                    "confirmed" => WritePolicy::Confirmed,
                    _ => {
                        let what =
                            "the option `write_policy` is `through`, `behind` or `confirmed`";
                        return Err(config_error(what));
                    }
                });
            }
            _ if more(&name, &value)? => {}
            _ => {
                let scheme = url.scheme();
                return Err(config_error(format!(
                    "the option `{name}` is unknown in a `{scheme}:` URL: {OPTIONS}"
                )));
            }
        }
    }
    if url.fragment().is_some() {
        return Err(config_error(
            "a `#` in the URL makes no sense; in a password or a path it is written `%23`",
        ));
    }
    Ok(options)
}

#[cfg(feature = "redis")]
fn server(url: &Url) -> Result<(Target, Options)> {
    use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

    let mut login = (
        decoded(url.username())?,
        url.password().map(decoded).transpose()?,
    );
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
            return Err(config_error(
                "a socket is given as redis+unix:///path/of/the/socket",
            ));
        }
        let target = format!("redis+unix://{path}");
        (ConnectionAddr::Unix(path.into()), target)
    } else {
        let host = url.host_str().filter(|host| !host.is_empty());
        let host =
            host.ok_or_else(|| config_error(format!("the {}:// URL has no host", url.scheme())))?;
        let port = url.port().unwrap_or(6379);
        let path = url.path().trim_start_matches('/');
        if !path.is_empty() {
            database = parse_database(path)?;
        }
        let target = format!("{}://{host}:{port}/{database}", url.scheme());
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        (ConnectionAddr::Tcp(bare, port), target)
    };
    let mut settings = RedisConnectionInfo::default().set_db(database);
    if !login.0.is_empty() {
        settings = settings.set_username(login.0);
    }
    if let Some(password) = login.1 {
        settings = settings.set_password(password);
    }
    let server = address
        .into_connection_info()
        .map_err(|error| config_error(error.to_string()))?;
    Ok((
        Target::Redis {
            server: server.set_redis_settings(settings),
            target,
        },
        options,
    ))
}

#[cfg(feature = "redis")]
fn parse_database(text: &str) -> Result<i64> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| config_error("the database in the URL is no number"))
}

/// `sqlite:path`, relative or absolute. The path is made absolute here: the process may change its
/// directory, and SQLite gives a meaning of their own to names such as `:memory:`.
#[cfg(feature = "sqlite")]
fn file(url: &Url) -> Result<(Target, Options)> {
    let options = options(url, &mut |_, _| Ok(false))?;
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(config_error(
            "a file is given as sqlite:path or sqlite:/absolute/path, without `//`",
        ));
    }
    let path = decoded(url.path())?;
    if path.is_empty() || path.ends_with('/') {
        return Err(config_error(
            "a file is given as sqlite:path; the URL has none",
        ));
    }
    if path == ":memory:" {
        return Err(config_error(
            "what lives in this process alone is given as memory: or memory:name",
        ));
    }
    let path = std::path::absolute(&path)
        .map_err(|error| config_error(format!("the path `{path}`: {error}")))?;
    Ok((Target::Sqlite(path), options))
}

fn decoded(text: &str) -> Result<String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into)
        .map_err(|_| config_error("the URL is not UTF-8 once its `%` are resolved"))
}

fn config_error(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, what)
}
